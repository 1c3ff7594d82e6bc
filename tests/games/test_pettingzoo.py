"""The PettingZoo adapter: PettingZoo's own tests, and what they do not look at."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from pettingzoo.test import parallel_api_test, parallel_seed_test
from torch import Tensor

from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, PettingZooGame, Rotational, Spread, Wolf
from inference_marl.spaces import Box
from inference_marl.types import Game, Observed, State, Step

GAMES: dict[str, Game] = {
    "one-shot": MatrixGame("fully_stochastic_climbing"),
    "repeated": MatrixGame("partially_stochastic_climbing", horizon=7),
    "memory": MatrixGame("prisoners_dilemma", horizon=12, memory=1),
    "three agents": MatrixGame(torch.zeros(3, 2, 3, 4).tolist(), common=False, horizon=3, memory=1),
    "endless": MatrixGame("fully_stochastic_climbing", horizon=None, memory=1),
    "two quadratics": MaxOfTwoQuadratics(agents=3),
    "rotational": Rotational(horizon=None),
    "wolf": Wolf(),
    "spread": Spread(),
    "spread, two agents with forces": Spread(2, actions="continuous"),
}


class RandomWalk(Game):
    """A game whose reset and steps are random, and whose observations are boxes of two numbers."""

    observations = (Box(-5, 5, 2), Box(-5, 5, 2))
    action_spaces = (Box(-1, 1, 2), Box(-1, 1, 2))
    horizon = 20

    def reset(
        self,
        replicates: int,
        environments: int,
        device: torch.device,
        dtype: torch.dtype,
        task: Tensor | None = None,
    ) -> State:
        return {"place": torch.randn(replicates, environments, 2, dtype=dtype, device=device).clamp(-5, 5)}

    def observe(self, state: State) -> Observed:
        return Observed((state["place"], -state["place"]))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        place = (state["place"] + actions[0] + actions[1] + torch.randn_like(actions[0])).clamp(-5, 5)
        return Step({"place": place}, place, place[..., 0] > 4)


GAMES["random walk"] = RandomWalk()


def wrap(name: str) -> PettingZooGame:
    game = copy.deepcopy(GAMES[name])
    return PettingZooGame(game, max_steps=9 if game.horizon is None else None)


def sample(env: PettingZooGame) -> dict[str, object]:
    return {agent: env.action_space(agent).sample() for agent in env.agents}


@pytest.mark.parametrize("name", GAMES)
def test_pettingzoo_api(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parallel_api_test(wrap(name), num_cycles=50)
    assert "Passed Parallel API test" in capsys.readouterr().out


@pytest.mark.parametrize("name", GAMES)
def test_pettingzoo_seeds(name: str) -> None:
    parallel_seed_test(lambda: wrap(name), num_cycles=50)


def episode(env: PettingZooGame, seed: int | None) -> list[object]:
    """Everything random in one episode in which all agents always take their first action or zero."""
    obs, _ = env.reset(seed=seed)
    history: list[object] = [obs]
    while env.agents:
        actions = {agent: np.zeros_like(env.action_space(agent).sample()) for agent in env.agents}
        obs, rewards, *_ = env.step(actions)
        history += [obs, rewards]
    return [{agent: np.asarray(value).tolist() for agent, value in entry.items()} for entry in history]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["endless", "random walk"])
def test_randomness_is_its_own(name: str) -> None:
    """PettingZoo's seed test stops after one step, so whole episodes are compared here."""
    env, twin = wrap(name), wrap(name)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = episode(env, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert episode(twin, seed=5) == first
    second = episode(env, seed=None)
    assert second != first  # without a seed the stream goes on
    torch.rand(3)
    assert episode(twin, seed=None) == second
    assert episode(env, seed=5) == first
    assert episode(env, seed=6) != first


def test_environments_without_a_seed_differ() -> None:
    torch.manual_seed(0)
    env = wrap("random walk")
    torch.manual_seed(0)
    assert episode(env, None) != episode(wrap("random walk"), None)


def test_one_shot_terminates() -> None:
    env = PettingZooGame(MatrixGame("stag_hunt"))
    obs, infos = env.reset(seed=0)
    assert obs == {"agent_0": 0, "agent_1": 0}
    assert infos == {"agent_0": {}, "agent_1": {}}
    obs, rewards, terminations, truncations, infos = env.step({"agent_0": 1, "agent_1": np.int64(0)})
    assert rewards == {"agent_0": 3.0, "agent_1": 1.0}
    assert terminations == {"agent_0": True, "agent_1": True}
    assert truncations == {"agent_0": False, "agent_1": False}
    assert env.agents == []
    assert env.possible_agents == ["agent_0", "agent_1"]


def test_the_horizon_truncates_and_memory_is_observed() -> None:
    env = PettingZooGame(MatrixGame("prisoners_dilemma", horizon=3, memory=1))
    assert env.observation_space("agent_0") == spaces.Discrete(5)
    env.reset()
    for step, (a, b) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
        obs, rewards, terminations, truncations, _ = env.step({"agent_1": b, "agent_0": a})
        assert obs == {"agent_0": 1 + 2 * a + b, "agent_1": 1 + 2 * a + b}
        assert rewards["agent_0"] == [[-1, -3], [0, -2]][a][b]
        assert not any(terminations.values())
        assert list(truncations.values()) == [step == 3] * 2
    assert env.agents == []
    assert env.reset()[0] == {"agent_0": 0, "agent_1": 0}


class Stopped(RandomWalk):
    """Is cut off by a rule of its own, after steps that lead to the left; every dimension has edges of its own."""

    observations = (Box([-5, 0], [5, 9], 2), Box(-5, 5, 2))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        return super().step(state, actions)._replace(truncated=actions[0][..., 0] < 0)


def test_what_the_game_cuts_off_is_truncated() -> None:
    env = PettingZooGame(Stopped())
    space = env.observation_space("agent_0")
    assert space == spaces.Box(np.array([-5, 0], np.float32), np.array([5, 9], np.float32), (2,), np.float32)
    env.reset(seed=0)
    still = np.zeros(2, np.float32)
    *_, truncations, _ = env.step({"agent_0": still, "agent_1": still})
    assert not any(truncations.values())
    *_, terminations, truncations, _ = env.step({"agent_0": still - 0.5, "agent_1": still})
    assert list(truncations.values()) == [True, True]
    assert not any(terminations.values())
    assert env.agents == []


def test_box_actions_are_paid_in_full_precision() -> None:
    env = PettingZooGame(MaxOfTwoQuadratics())
    env.reset()
    space = env.action_space("agent_0")
    assert isinstance(space, spaces.Box)
    assert space == spaces.Box(-10, 10, (1,), np.float32)
    _, rewards, *_ = env.step({"agent_0": np.array([4.9]), "agent_1": [5.0]})
    assert rewards == {"agent_0": pytest.approx(9.99, abs=1e-12), "agent_1": pytest.approx(9.99, abs=1e-12)}


def test_max_steps() -> None:
    assert PettingZooGame(MatrixGame(horizon=5), max_steps=3).max_steps == 3
    assert PettingZooGame(MatrixGame(horizon=5), max_steps=9).max_steps == 5
    with pytest.raises(ValueError, match=r"max_steps: got None, expected .*because the game's horizon is None"):
        PettingZooGame(MatrixGame(horizon=None))
    with pytest.raises(ValueError, match="max_steps: got 0, expected a positive integer"):
        PettingZooGame(MatrixGame(), max_steps=0)


def test_step_outside_an_episode() -> None:
    env = PettingZooGame(MatrixGame())
    with pytest.raises(ResetNeeded, match="expected reset first"):
        env.step({})
    env.reset()
    env.step(sample(env))
    with pytest.raises(ResetNeeded):
        env.step({"agent_0": 0, "agent_1": 0})


@pytest.mark.parametrize("bad", [3, -1, 1.0, "0", [0], True])
def test_wrong_discrete_actions(bad: object) -> None:
    env = PettingZooGame(MatrixGame())
    env.reset()
    with pytest.raises(ValueError, match=r"actions\['agent_1'\]: got .*expected an element of Discrete\(3\)"):
        env.step({"agent_0": 0, "agent_1": bad})


@pytest.mark.parametrize("bad", [[11.0], [float("nan")], 0.0, [0.0, 0.0], ["0"]])
def test_wrong_box_actions(bad: object) -> None:
    env = PettingZooGame(MaxOfTwoQuadratics())
    env.reset()
    with pytest.raises(ValueError, match=r"actions\['agent_0'\]: got .*expected an element of Box"):
        env.step({"agent_0": bad, "agent_1": [0.0]})


def test_missing_action() -> None:
    env = PettingZooGame(MatrixGame())
    env.reset()
    with pytest.raises(ValueError, match=r"actions: got \['agent_0'\], expected one of every agent; add 'agent_1'"):
        env.step({"agent_0": 0})


def test_rendering_is_nothing() -> None:
    env = PettingZooGame(MatrixGame())
    assert env.render_mode is None
    env.render()
    assert str(env) == "MatrixGame"


@pytest.mark.slow
def test_importing_games_does_not_import_pettingzoo() -> None:
    program = (
        "import sys, inference_marl.games as games\n"
        "assert not {'pettingzoo', 'gymnasium'} & set(sys.modules)\n"
        "assert games.PettingZooGame.__name__ == 'PettingZooGame' and 'pettingzoo' in sys.modules\n"
        "assert not hasattr(games, 'Nonsense')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
