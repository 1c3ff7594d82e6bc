"""Evaluation: play that training does not notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
import yaml
from torch import Tensor

from inference_marl.analysis.recorded import read
from inference_marl.config.files import build, dump
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, Rendezvous
from inference_marl.learners import Maddpg, Stationary
from inference_marl.play import Evaluation
from inference_marl.types import Actor, Memory, Metric, Trajectory, Transition
from tests.runs.small_runs import (
    Alternating,
    assert_same,
    climbing,
    complete,
    cut_after,
    dataset,
    rommeo_ac,
    rommeo_q,
    run,
)


@pytest.mark.parametrize(
    ("game", "arm"),
    [
        pytest.param(MatrixGame("stag_hunt", horizon=5, memory=1), rommeo_q(), marks=pytest.mark.slow),
        (MatrixGame("chicken", horizon=5), [Alternating(), rommeo_q()]),
        pytest.param(Rendezvous(horizon=4), rommeo_ac(), marks=pytest.mark.slow),
        (Rendezvous(horizon=4), Maddpg(hidden=(4,), replay=20, batch_size=4, warmup=3)),
    ],
)
def test_training_is_the_same_bit_for_bit(game: MatrixGame, arm: Actor, tmp_path: Path) -> None:
    plain = Experiment(game, {"a": arm}, replicates=2, environments=3, steps=12, record_every=2, draws=2)
    watched = plain.replace(evaluation=Evaluation(every=4, steps=6, environments=5))
    one, other = run(plain, tmp_path, "plain"), run(watched, tmp_path, "watched")
    for name in ("posterior.nc", "actions.nc"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    mine, theirs = (dataset(each, "metrics.nc").drop_attrs() for each in (one, other))
    evaluated = theirs["evaluation_reward"]
    xr.testing.assert_identical(mine, theirs[list(mine)])
    assert evaluated.notnull().all(["learner", "replicate", "agent"]).values.tolist() == [False, True] * 3


class Unsure(Actor):
    """Plays the second action most of the time."""

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        return dist.Categorical(torch.tensor([0.2, 0.7, 0.1])).expand(obs.shape[:2]), memory


def test_it_is_greedy_and_starts_afresh(tmp_path: Path) -> None:
    """Who is unsure plays the most probable action, in episodes of its own."""
    experiment = climbing(
        arms={"a": [Unsure(), Unsure()]}, steps=4, evaluation=Evaluation(every=2, steps=3, environments=7)
    )
    found = read(run(experiment, tmp_path))
    assert found.metrics["evaluation_reward"].isel(step=[1, 3]).values.ravel().tolist() == [7.0] * 12  # of b and b
    exploring = experiment.replace(evaluation=Evaluation(every=2, steps=300, environments=7, explore=True))
    rewards = read(run(exploring, tmp_path)).metrics["evaluation_reward"].isel(step=[1, 3]).values
    assert (np.unique(rewards.reshape(-1, 2, 2)[..., 0].ravel()) < 7).all()
    assert (rewards[:, :, 0] == rewards[:, :, 1]).all(), "the same random numbers every time"


@pytest.mark.parametrize(("steps", "expected"), [(3, 3.0), (5, 3.0), (2, None), (1, None)])
def test_returns_are_of_the_first_episode_if_it_is_over(steps: int, expected: float | None) -> None:
    """Each step pays 1: sums over three steps, also if a second episode has begun; nothing of half an episode."""
    game = MatrixGame(torch.ones(2, 2, 2).mul(torch.tensor([1.0, 2.0]).view(2, 1, 1)).tolist(), common=False, horizon=3)
    actors = Experiment(game, {"a": Stationary()}, replicates=2).bind("a")
    watching = Evaluation(every=4, steps=steps, environments=5)
    found = watching.measure(watching.play(game, actors))
    if expected is None:
        assert set(found) == {"evaluation_reward"}
    else:
        assert found["evaluation_return"].tolist() == [[expected, 2 * expected]] * 2


def test_returns_are_means_over_episodes_of_any_length() -> None:
    """Environments end after one, two and three steps, and begin again."""
    rewards = torch.arange(1.0, 10.0).view(3, 1, 3, 1)  # steps x replicates x environments x agents
    ended = torch.tensor([[True, False, False], [True, True, False], [False, False, True]]).unsqueeze(1)
    nothing = (torch.zeros(1, 3, 1),)
    steps = [Transition(nothing, nothing, paid, nothing, over, over) for paid, over in zip(rewards, ended, strict=True)]
    found = Evaluation(every=1).measure(Trajectory(steps, ({},)))["evaluation_return"]
    torch.testing.assert_close(found, torch.tensor([[(1 + (2 + 5) + (3 + 6 + 9)) / 3]]))
    assert set(Evaluation(every=1).measure(Trajectory(steps[:2], ({},)))) == {"evaluation_reward"}


@pytest.mark.slow
def test_it_is_resumed_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = climbing(steps=8, checkpoint_every=2, evaluation=Evaluation(every=4, steps=2, environments=2))
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    whole = run(experiment, tmp_path / "whole")
    cut_after(6, monkeypatch, experiment, tmp_path / "test")
    complete(experiment, tmp_path / "test")
    assert_same(tmp_path / "test", whole)
    table = (whole / "results.md").read_text() if (whole / "results.md").exists() else ""
    assert "nan" not in table


@pytest.mark.parametrize(("every", "record_every"), [(3, 1), (4, 3), (6, 4)])
def test_it_falls_on_records_and_on_the_end(every: int, record_every: int) -> None:
    with pytest.raises(ValueError, match=rf"^evaluation.every: got {every}, expected a divisor of steps = 8"):
        climbing(steps=8, record_every=record_every, evaluation=Evaluation(every=every))


def test_it_lasts_for_an_episode_if_nothing_else_is_said() -> None:
    game, every = Rendezvous(horizon=7), Evaluation(every=4)
    actors = Experiment(game, {"a": Stationary()}).bind("a")
    assert len(every.play(game, actors).steps) == 7
    assert len(Evaluation(every=4, steps=3).play(game, actors).steps) == 3
    assert len(Evaluation(every=4, game=Rendezvous(horizon=2)).play(game, actors).steps) == 2
    with pytest.raises(ValueError, match=r"^evaluation.steps: got null for a game without horizon"):
        Experiment(Rendezvous(horizon=None), {"a": Stationary()}, steps=8, evaluation=every)


class Undeclared(Evaluation):
    """Measures what it does not declare."""

    def measure(self, played: Trajectory) -> dict[str, Tensor]:
        return {"length": torch.full((played.stacked.rewards.shape[1],), float(len(played.steps)))}


class Length(Undeclared):
    """How long it is."""

    metrics = (Metric("length", dims=(), over="last"),)


def test_what_an_evaluation_measures_is_declared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^arms.a.evaluation.long.metrics: got length, which is not declared"):
        run(climbing(evaluation={"long": Undeclared(every=6)}), tmp_path)
    assert not list(tmp_path.iterdir())
    both = climbing(evaluation={"short": Length(every=6, steps=2), "long": Length(every=6, steps=5)})
    found = read(run(both, tmp_path)).metrics.isel(step=-1)
    assert (found["length_short"] == 2).all()
    assert (found["length_long"] == 5).all()
    assert "evaluation_reward" not in found


def test_an_evaluation_is_a_success_from_a_reward_on(tmp_path: Path) -> None:
    """Averaged over agents: of prisoners, one who confesses and one who does not have -1.5 each on average."""
    game = MatrixGame("prisoners_dilemma")
    arm = [Stationary(probabilities=[0.0, 1.0]), Stationary(probabilities=[1.0, 0.0])]
    rates = []
    for least in (-1.6, -1.4):
        evaluation = Evaluation(every=4, steps=3, success_reward=least)
        experiment = Experiment(game, {"a": arm}, replicates=2, steps=4, evaluation=evaluation)
        metrics = read(run(experiment, tmp_path)).metrics.isel(step=-1)
        assert metrics["evaluation_reward"].mean("agent").to_numpy() == pytest.approx(-1.5)
        rates.append(metrics["evaluation_success"].squeeze("learner").to_numpy().tolist())
    assert rates == [[1.0, 1.0], [0.0, 0.0]]
