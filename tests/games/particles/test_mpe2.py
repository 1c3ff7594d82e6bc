"""The worlds against `mpe2`: the same states and actions give the same observations and rewards, contacts included."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inference_marl.games import Adversary, Crypto, ParticleWorld, Push, Reference, SpeakerListener, Spread, Tag
from inference_marl.spaces import Discrete
from inference_marl.types import State

pytest.importorskip("mpe2", reason="mpe2 is not installed")

EPISODES, STEPS = 8, 25
WORLDS: dict[str, tuple[str, Callable[..., ParticleWorld], dict[str, Any]]] = {
    "spread": ("simple_spread_v3", Spread, {}),
    "spread of five": ("simple_spread_v3", lambda **kw: Spread(5, local_ratio=0.2, **kw), {"N": 5, "local_ratio": 0.2}),
    "speaker and listener": ("simple_speaker_listener_v4", SpeakerListener, {}),
    "adversary": ("simple_adversary_v3", Adversary, {}),
    "adversary, four": ("simple_adversary_v3", lambda **kw: Adversary(4, **kw), {"N": 4}),
    "tag": ("simple_tag_v3", Tag, {}),
    "tag, three prey": (
        "simple_tag_v3",
        lambda **kw: Tag(3, 2, 4, **kw),
        {"num_good": 3, "num_adversaries": 2, "num_obstacles": 4},
    ),
    "push": ("simple_push_v3", Push, {}),
    "crypto": ("simple_crypto_v3", Crypto, {}),
    "reference": ("simple_reference_v3", lambda **kw: Reference(local_ratio=0.3, **kw), {"local_ratio": 0.3}),
}


def one_hot(index: int, values: int) -> list[float]:
    return [float(value == index) for value in range(values)]


def state_of(game: ParticleWorld, world: Any) -> State:
    """The state that mpe2 is in; 1 x 1 environments, double precision."""
    landmarks, agents = world.landmarks, world.agents

    def number(landmark: Any) -> int:
        return next(k for k, other in enumerate(landmarks) if other is landmark)

    found: dict[str, Any] = {}
    if not isinstance(game, Crypto):
        found["position"] = [agent.state.p_pos for agent in agents if agent.movable]
        found["velocity"] = [agent.state.p_vel for agent in agents if agent.movable]
        found["landmarks"] = [landmark.state.p_pos for landmark in landmarks]
    if any(not agent.silent for agent in agents):
        found["message"] = [agent.state.c for agent in agents if not agent.silent]
    if isinstance(game, SpeakerListener):
        found["goal"] = one_hot(number(agents[0].goal_b), len(landmarks))
    elif isinstance(game, Adversary | Push):
        found["goal"] = one_hot(number(agents[0].goal_a), len(landmarks))
    elif isinstance(game, Reference):
        found["goal"] = [one_hot(number(agent.goal_b), len(landmarks)) for agent in reversed(agents)]
    elif isinstance(game, Crypto):
        found["secret"], found["key"] = agents[0].goal_a.color[:2], agents[2].key[:2]
    found |= dict.fromkeys(game.counts, 0.0)
    return {name: torch.tensor(np.array(value), dtype=torch.float64)[None, None] for name, value in found.items()}


def theirs(game: ParticleWorld, agent: int, action: Tensor) -> Any:
    """An action as mpe2 takes it: a force is five numbers, of which the first does nothing."""
    if isinstance(game.action_spaces[agent], Discrete):
        return int(action)
    numbers = action.flatten().tolist()
    if agent not in game.movers:
        return np.array(numbers)
    x, y, *message = numbers
    return np.array([0.7, max(-x, 0), max(x, 0), max(-y, 0), max(y, 0), *message])


def differences(name: str, kind: Any, squeezed: bool) -> tuple[float, int]:
    """The largest difference in observations and rewards in some episodes, and how often agents touch."""
    module, make, arguments = WORLDS[name]
    game = make(actions=kind)
    env = importlib.import_module(f"mpe2.{module}").raw_env(continuous_actions=kind == "continuous", **arguments)
    largest, touching = 0.0, 0
    for episode in range(EPISODES // 2):
        env.reset(seed=episode)
        world = env.world
        if squeezed:
            for entity in world.entities:
                entity.state.p_pos = 0.3 * entity.state.p_pos
        state = state_of(game, world)
        for _ in range(STEPS):
            actions = [space.uniform(torch.float64, torch.device("cpu")).sample((1, 1)) for space in game.action_spaces]
            env.current_actions = [theirs(game, agent, action) for agent, action in enumerate(actions)]
            env._execute_world_step()
            state, rewards, *_ = game.step(state, actions)
            their_rewards = np.array([env.rewards[agent.name] for agent in world.agents])
            largest = max(largest, float(np.abs(rewards[0, 0].numpy() - their_rewards).max()))
            for agent, obs in zip(world.agents, game.observe(state).obs, strict=True):
                seen = env.scenario.observation(agent, world)
                assert seen.shape == obs[0, 0].shape
                largest = max(largest, float(np.abs(obs[0, 0].numpy() - seen).max()))
            movers = [agent for agent in world.agents if agent.movable]
            touching += sum(
                one is not other and np.linalg.norm(one.state.p_pos - other.state.p_pos) < one.size + other.size
                for one in movers
                for other in movers
            )
    return largest, touching


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("name", list(WORLDS))
def test_rewards_and_observations_are_those_of_mpe2(name: str, kind: Any) -> None:
    assert differences(name, kind, squeezed=False)[0] <= 1e-12
    largest, touching = differences(name, kind, squeezed=True)
    assert largest <= 1e-12
    if name.startswith(("spread", "tag", "push")):
        assert touching > 0
