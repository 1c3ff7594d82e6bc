"""The particle world against loops over plain numbers, by hand, and by its mean rewards."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.games import PettingZooGame, Spread
from inference_marl.spaces import Box, Discrete
from inference_marl.types import State

CPU = torch.device("cpu")
STEPS = 25
NAMES = ("position", "velocity", "landmarks")
Point = list[float]


def sampled(game: Spread, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [space.uniform(dtype, CPU).sample(shape) for space in game.action_spaces]


def plain_force(action: Any) -> Point:
    if isinstance(action, list):
        return action
    return [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]][action]


def plain_step(
    position: list[Point], velocity: list[Point], landmarks: list[Point], actions: list[Any], collision: float
) -> tuple[float, int]:
    """Move the agents of one environment in place; the reward, and how many pairs overlap."""
    for i, action in enumerate(actions):
        for axis in (0, 1):
            velocity[i][axis] = velocity[i][axis] * 0.75 + plain_force(action)[axis] * 5.0 * 0.1
            position[i][axis] += velocity[i][axis] * 0.1
    reward = 0.0
    for landmark in landmarks:
        reward -= min(math.dist(place, landmark) for place in position)
    pairs = [(i, j) for i in range(len(position)) for j in range(i)]
    overlapping = sum(math.dist(position[i], position[j]) < 0.3 for i, j in pairs)
    return reward - collision * overlapping, overlapping


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("agents", [2, 3])
@pytest.mark.parametrize("collision", [0.0, 1.5])
def test_episodes_of_plain_numbers(
    agents: int, kind: Any, collision: float, dtype: torch.dtype, relative: float
) -> None:
    replicates, environments = 3, 10
    game = Spread(agents, actions=kind, collision=collision)
    state = game.reset(replicates, environments, CPU, dtype)
    plain = {name: value.tolist() for name, value in state.items()}
    overlaps = 0
    for _ in range(STEPS):
        actions = sampled(game, replicates, environments, dtype=dtype)
        state, rewards, terminated, truncated = game.step(state, actions)
        for r in range(replicates):
            for e in range(environments):
                one = [action[r, e].tolist() for action in actions]
                position, velocity, landmarks = (plain[name][r][e] for name in NAMES)
                reward, overlapping = plain_step(position, velocity, landmarks, one, collision)
                overlaps += overlapping
                assert rewards[r, e].tolist() == pytest.approx([reward] * agents, rel=relative)
        for name, value in plain.items():
            torch.testing.assert_close(state[name].tolist(), value, rtol=relative, atol=relative)
        assert not terminated.any()
        assert truncated is None
    assert overlaps > 0


def test_spaces() -> None:
    game = Spread()
    assert game.observations == (Box(shape=14),) * 3
    assert game.observations[0].low == -math.inf
    assert game.action_spaces == (Discrete(5),) * 3
    assert game.action_names == ("stay", "right", "left", "up", "down")
    forces = Spread(2, actions="continuous")
    assert forces.observations == (Box(shape=10),) * 2
    assert forces.action_spaces == (Box(-1, 1, 2),) * 2
    assert forces.action_names is None
    assert not game.terminates
    assert not game.shared_observation
    assert (game.horizon, Spread(horizon=7).horizon, Spread(horizon=None).horizon) == (25, 7, None)


def places(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor([[pairs]], dtype=torch.float64)


def moves(*actions: int) -> list[Tensor]:
    return [torch.tensor([[action]]) for action in actions]


THREE: State = {
    "position": places((0.0, 0.5), (1.0, -1.0), (-0.25, 0.75)),
    "velocity": places((0.1, 0.2), (0.3, 0.4), (0.5, 0.6)),
    "landmarks": places((0.5, 0.5), (-1.0, 0.0), (2.0, 3.0)),
}


def test_observations_by_hand() -> None:
    first, second, third = (obs.flatten().tolist() for obs in Spread().observe(THREE).obs)
    #                velocity  position     landmarks, relative                other agents, relative
    assert first == [0.1, 0.2, 0.0, 0.5, 0.5, 0.0, -1.0, -0.5, 2.0, 2.5, 1.0, -1.5, -0.25, 0.25]
    assert second == [0.3, 0.4, 1.0, -1.0, -0.5, 1.5, -2.0, 1.0, 1.0, 4.0, -1.0, 1.5, -1.25, 1.75]
    assert third == [0.5, 0.6, -0.25, 0.75, 0.75, -0.25, -0.75, -0.75, 2.25, 2.25, 0.25, -0.25, 1.25, -1.75]


@pytest.mark.parametrize("agents", [2, 3, 4])
def test_observations_by_formula(agents: int) -> None:
    game = Spread(agents, actions="continuous")
    state, *_ = game.step(game.reset(3, 2, CPU, torch.float64), sampled(game, 3, 2))
    position, velocity, landmarks = state["position"], state["velocity"], state["landmarks"]
    for i, obs in enumerate(game.observe(state).obs):
        here = position[:, :, i]
        relative = [landmarks[:, :, k] - here for k in range(agents)]
        relative += [position[:, :, j] - here for j in range(agents) if j != i]
        assert torch.equal(obs, torch.cat([velocity[:, :, i], here, *relative], dim=-1))


def test_a_move_by_hand() -> None:
    """Velocities 0.5 and then 0.375 along the axis of the move, of 0.1 units of time each."""
    game = Spread(5)
    start = {name: torch.zeros(1, 1, 5, 2, dtype=torch.float64) for name in NAMES}
    first = game.step(start, moves(0, 1, 2, 3, 4)).state
    second = game.step(first, moves(0, 0, 0, 0, 0)).state
    directions = torch.tensor([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], dtype=torch.float64)
    torch.testing.assert_close(first["position"][0, 0], 0.05 * directions)
    torch.testing.assert_close(first["velocity"][0, 0], 0.5 * directions)
    torch.testing.assert_close(second["position"][0, 0], 0.0875 * directions)
    torch.testing.assert_close(second["velocity"][0, 0], 0.375 * directions)


def test_moves_are_forces() -> None:
    game, forces = Spread(), Spread(actions="continuous")
    state = game.reset(2, 3, CPU, torch.float64)
    directions = torch.tensor([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], dtype=torch.float64)
    actions = sampled(game, 2, 3)
    one, other = game.step(state, actions), forces.step(state, [directions[action] for action in actions])
    assert torch.equal(one.rewards, other.rewards)
    assert all(torch.equal(value, other.state[name]) for name, value in one.state.items())


def test_rewards_by_hand() -> None:
    """An agent may be the nearest to several landmarks; what counts is where the agents are after the move."""
    still = {**THREE, "velocity": torch.zeros(1, 1, 3, 2, dtype=torch.float64)}
    # From (0.05, 0.5), (1, -1) and (-0.25, 0.8).
    distances = 0.45 + math.hypot(0.75, 0.8) + math.hypot(2.25, 2.2)
    overlapping = math.hypot(0.3, 0.3)
    for size, paid in [(0.15, 0), (overlapping / 2 - 1e-6, 0), (overlapping / 2 + 1e-6, 1), (5.0, 3)]:
        rewards = Spread(collision=0.7, size=size).step(still, moves(1, 0, 3)).rewards
        assert rewards.flatten().tolist() == pytest.approx([-distances - 0.7 * paid] * 3)


def test_nothing_is_lost_on_the_landmarks() -> None:
    state = {**THREE, "landmarks": THREE["position"].flip(2), "velocity": torch.zeros(1, 1, 3, 2, dtype=torch.float64)}
    assert Spread().step(state, moves(0, 0, 0)).rewards.flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_replicates_and_environments_do_not_mix(kind: Any) -> None:
    game = Spread(actions=kind, collision=1.0, size=0.5)
    state, actions = game.reset(3, 4, CPU, torch.float64), sampled(game, 3, 4)
    others, other_actions = game.reset(3, 4, CPU, torch.float64), sampled(game, 3, 4)
    for r, e in [(0, 0), (1, 2), (2, 3)]:
        for value, kept in zip([*others.values(), *other_actions], [*state.values(), *actions], strict=True):
            value[r, e] = kept[r, e]
        one, other = game.step(state, actions), game.step(others, other_actions)
        alone = game.step(
            {name: value[r, None, e, None] for name, value in state.items()}, [a[r, None, e, None] for a in actions]
        )
        assert torch.equal(one.rewards[r, e], other.rewards[r, e])
        assert torch.equal(one.rewards[r, e], alone.rewards[0, 0])
        for mine, same, lone in zip(*(game.observe(step.state).obs for step in (one, other, alone)), strict=True):
            assert torch.equal(mine[r, e], same[r, e])
            assert torch.equal(mine[r, e], lone[0, 0])
    assert not torch.equal(one.rewards, other.rewards)


def test_exchanging_two_agents_exchanges_what_they_observe() -> None:
    assert Spread(2).symmetric
    assert not Spread(3).symmetric
    game = Spread(2, collision=1.0)
    state, actions = game.reset(5, 4, CPU, torch.float64), sampled(game, 5, 4)
    exchanged = {name: value if name == "landmarks" else value.flip(2) for name, value in state.items()}
    one, other = game.step(state, actions), game.step(exchanged, actions[::-1])
    torch.testing.assert_close(one.rewards, other.rewards)
    for mine, same in zip(game.observe(one.state).obs, game.observe(other.state).obs[::-1], strict=True):
        assert torch.equal(mine, same)


def test_starts_are_uniform() -> None:
    copies = 20_000
    state = Spread(2).reset(copies, 1, CPU, torch.float64)
    assert not state["velocity"].any()
    columns = torch.cat([state["position"], state["landmarks"]], dim=2).view(copies, 8).T
    counts = torch.stack([torch.histc(column, bins=4, min=-1, max=1) for column in columns])
    # each of the 32 is off by 6 standard errors about once in 500 million seeds
    assert bool(((counts / copies - 0.25).abs() < 6 * (0.25 * 0.75 / copies) ** 0.5).all())
    correlations = torch.corrcoef(columns) - torch.eye(8, dtype=torch.float64)
    assert bool((correlations.abs() < 6 / copies**0.5).all())


def stay(game: Spread, state: State) -> list[Tensor]:
    return [torch.zeros(state["position"].shape[:2], dtype=torch.int64)] * game.agents


def uniform(game: Spread, state: State) -> list[Tensor]:
    return sampled(game, *state["position"].shape[:2], dtype=torch.float32)


def to_its_landmark(game: Spread, state: State) -> Sequence[Tensor]:
    force = 10 * (state["landmarks"] - state["position"]) - 1.5 * state["velocity"]
    return force.clamp(-1, 1).unbind(2)


@pytest.mark.parametrize("agents", [2, 3])
@pytest.mark.parametrize(
    ("row", "kind", "policy"),
    [
        ("all stay", "discrete", stay),
        ("uniform over the moves", "discrete", uniform),
        ("uniform forces", "continuous", uniform),
        ("forces clip(10 (l^i - x^i) - 1.5 v^i, -1, 1)", "continuous", to_its_landmark),
    ],
)
def test_mean_rewards_are_as_documented(
    row: str, kind: Any, policy: Callable[[Spread, State], Sequence[Tensor]], agents: int
) -> None:
    found = re.search(rf"{re.escape(row)} +(-\d\.\d\d) +(-\d\.\d\d)", str(Spread.__doc__))
    assert found is not None
    documented = float(found[agents - 1])
    episodes = 20_000
    game = Spread(agents, actions=kind)
    state = game.reset(episodes, 1, CPU, torch.float32)
    mean = torch.zeros(episodes)
    for _ in range(STEPS):
        state, rewards, _, _ = game.step(state, policy(game, state))
        mean += rewards.mean(-1)[:, 0] / STEPS
    # each of the eight is off by 5 standard errors once in 1.7 million seeds
    assert abs(float(mean.mean()) - documented) < 0.005 + 5 * float(mean.std()) / episodes**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_types(dtype: torch.dtype, kind: Any) -> None:
    game = Spread(actions=kind, collision=1.0)
    state = game.reset(2, 3, CPU, dtype)
    after, rewards, _, _ = game.step(state, sampled(game, 2, 3, dtype=dtype))
    every = [*state.values(), *after.values(), *game.observe(after).obs, rewards]
    assert {value.dtype for value in every} == {dtype}


def test_an_episode_of_pettingzoo() -> None:
    """The API is tested in `test_pettingzoo`; here, that the numbers are the game's."""
    env = PettingZooGame(Spread())
    obs, _ = env.reset(seed=1)
    for step in range(1, STEPS + 1):
        before = obs
        obs, rewards, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 1))
        assert all(env.observation_space(agent).contains(seen) for agent, seen in obs.items())
        assert all(obs[agent][2] > before[agent][2] and obs[agent][3] == before[agent][3] for agent in obs)
        assert len(set(rewards.values())) == 1
        assert not any(terminations.values())
        assert set(truncations.values()) == {step == STEPS}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agents": 1}, "agents: got 1, expected an integer of at least 2"),
        ({"actions": "moves"}, "actions: got 'moves', expected discrete or continuous"),
        ({"collision": -1.0}, "collision: got -1.0, expected a number that is not negative"),
        ({"size": 0.0}, "size: got 0.0, expected a positive number"),
        ({"horizon": 0}, "horizon: got 0, expected a positive integer"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Spread(**arguments)


def test_step_refuses_wrong_shapes() -> None:
    game = Spread(2, actions="continuous")
    state = game.reset(2, 3, CPU, torch.float32)
    fine = torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match=r"actions: got shapes \[\(2, 3\), \(2, 3\)\], expected \[\(2, 3, 2\), "):
        game.step(state, [fine[..., 0], fine[..., 0]])
    with pytest.raises(ValueError, match="one tensor per agent"):
        game.step(state, [fine])


def test_step_refuses_what_is_no_move() -> None:
    game = Spread(2)
    state = game.reset(1, 1, CPU, torch.float32)
    for action in (torch.tensor([[5]]), torch.tensor([[1.0]])):
        with pytest.raises(IndexError):
            game.step(state, [action, action])
