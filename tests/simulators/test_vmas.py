"""VMAS's scenarios as games."""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_marl.config.files import build
from inference_marl.experiment import Experiment
from inference_marl.learners import Maddpg
from inference_marl.play import simulate
from inference_marl.simulators import Vmas
from inference_marl.spaces import Box, Discrete
from tests.runs.small_runs import assert_same, complete, cut_after, rommeo_ac, run
from tests.simulators.test_pettingzoo import actions_of, play
from tests.simulators.test_pettingzoo import assert_same as assert_played_alike

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("vmas")

R, E = 2, 3


def navigation(**more: Any) -> Vmas:
    return Vmas("navigation", {"n_agents": 2}, **{"horizon": 5, **more})


def test_spaces_and_ends() -> None:
    played = navigation()
    assert played.action_spaces == (Box(-1.0, 1.0, 2),) * 2
    assert played.observations == (Box(shape=18),) * 2
    assert navigation(actions="discrete").action_spaces == (Discrete(9),) * 2
    with closing(simulate(played, R, E, dtype=torch.float64)) as simulator:
        simulator.reset()
        found = play(simulator, played, range(11))  # type: ignore[arg-type]
    assert [bool(outcome.ended.all()) for outcome, _ in found] == [False] * 4 + [True] + [False] * 4 + [True, False]
    outcome, seen = found[0]
    assert outcome.rewards.shape == (R, E, 2)
    assert seen.obs[0].shape == (R, E, 18)
    assert {outcome.rewards.dtype, seen.obs[0].dtype} == {torch.float64}
    assert seen.alive is None


def test_copies_do_not_mix() -> None:
    played = navigation(horizon=None)
    found = []
    for other in (0.0, 1.0):
        with closing(simulate(played, R, E)) as simulator:
            simulator.reset()
            actions = [torch.full((R, E, 2), 0.5) for _ in range(2)]
            actions[0][1, 2] = other
            found.append([simulator.step(actions).rewards for _ in range(3)][-1])
    same = found[0] == found[1]
    assert not same[1, 2].all()
    same[1, 2] = True
    assert same.all()


def test_its_random_numbers_are_its_own() -> None:
    def starts(seed: int) -> torch.Tensor:
        torch.manual_seed(3)
        before = torch.get_rng_state()
        with closing(simulate(navigation(), R, E, seed=seed)) as simulator:
            simulator.reset()
            assert torch.equal(torch.get_rng_state(), before)
            return simulator.observe().obs[0]

    assert torch.equal(starts(1), starts(1))
    assert not torch.equal(starts(1), starts(2))
    assert len(starts(1).flatten(0, 1).unique(dim=0)) == R * E


@pytest.mark.parametrize("name", ["navigation", "simple_spread", "balance"])
def test_a_state_in_the_middle_of_an_episode_goes_on_to_the_bit(name: str) -> None:
    played = Vmas(name, horizon=6)
    assert played.resumable
    with closing(simulate(played, R, E, seed=3)) as first, closing(simulate(played, R, E, seed=4)) as second:
        first.reset()
        play(first, played, [1, 2])  # type: ignore[arg-type]
        some = torch.zeros(R, E, dtype=torch.bool)
        some[0, 1] = True
        first.reset(some)
        second.reset()
        assert second.load_state_dict(first.state_dict()) is None
        steps = range(3, 12)
        assert_played_alike(play(first, played, steps), play(second, played, steps))  # type: ignore[arg-type]


def test_what_holds_more_than_numbers_says_so() -> None:
    played = Vmas("simple_reference", horizon=6)
    assert not played.resumable
    with closing(simulate(played, R, E)) as first, closing(simulate(played, R, E)) as second:
        first.reset()
        lost = second.load_state_dict(first.state_dict())
        assert lost is not None
        assert lost.all()


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {"maddpg": Maddpg(batch_size=4, warmup=2)}
    experiment = Experiment(navigation(), arms, replicates=2, environments=2, steps=9, checkpoint_every=3)
    whole = run(experiment, tmp_path / "whole")
    cut_after(7, monkeypatch, experiment, tmp_path / "cut" / "test")
    complete(experiment, tmp_path / "cut" / "test")
    assert_same(whole, tmp_path / "cut" / "test")


def test_an_actor_critic_with_an_opponent_model_learns_in_it(tmp_path: Path) -> None:
    run(Experiment(navigation(), {"rommeo": rommeo_ac()}, replicates=2, steps=5), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "navigatoin"}, "game.scenario: got navigatoin, expected one of "),
        (
            {"scenario": "navigation", "arguments": {"n_agents": "x"}},
            "game.arguments: got {'n_agents': 'x'}, with which",
        ),
        ({"scenario": "navigation", "horizon": 0}, "game.horizon: got 0, expected a positive integer"),
        ({"scenario": "navigation", "actions": "forces"}, "game.actions: got forces, expected one of"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - its beginning is compared
        build({"game": {"class_path": "Vmas", "init_args": arguments}, "arms": {"a": "Stationary"}})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_numbers_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    played = navigation()
    with closing(simulate(played, R, E)) as simulator:
        simulator.reset()
        scenario = simulator.env.scenario  # type: ignore[attr-defined]
        reward = scenario.reward

        def wrong(agent: Any) -> torch.Tensor:
            found = reward(agent).clone()
            found[4] = float("nan")
            return found

        monkeypatch.setattr(scenario, "reward", wrong)
        said = r"^VMAS's navigation, replicate 1, environment 1, step 1 of its episode, agent agent_0: got reward that"
        with pytest.raises(ValueError, match=said):
            simulator.step(actions_of(played, 0))  # type: ignore[arg-type]
