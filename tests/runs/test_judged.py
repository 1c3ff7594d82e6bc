"""What a game says of whole episodes, as runs record it of training and of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inference_marl.config.catalogue import measured
from inference_marl.experiment import Experiment
from inference_marl.games import Scaled, Spread, Variants
from inference_marl.learners import Stationary
from inference_marl.play import Collector, Evaluation, GameSimulator
from inference_marl.spaces import Discrete
from inference_marl.types import Game, Metric, Observed, State, Step
from tests.runs.small_runs import assert_same, complete, cut_after, dataset, run


class Counting(Game):
    """Two agents whose episodes of three steps are judged by how many there were before, in every environment."""

    observations = action_spaces = (Discrete(2),) * 2
    horizon: int | None = 3
    terminates = False
    episode_metrics = (
        Metric("number", dims=(), meaning="How many episodes there were before."),
        Metric("place", meaning="Of each agent."),
    )

    def __init__(self, horizon: int | None = 3) -> None:
        self.horizon = horizon
        self.resets = 0

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        self.resets += 1
        return {
            "number": torch.full((replicates, environments), self.resets - 1.0),
            "steps": torch.zeros(replicates, environments),
        }

    def observe(self, state: State) -> Observed:
        return Observed((torch.zeros_like(state["steps"], dtype=torch.int64),) * 2)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        never = torch.zeros_like(state["steps"], dtype=torch.bool)
        return Step(state | {"steps": state["steps"] + 1}, torch.stack([state["steps"]] * 2, -1), never)

    def judge(self, state: State) -> Mapping[str, Tensor]:
        assert (state["steps"] == self.horizon).all(), "asked before the end"
        return {"number": state["number"], "place": torch.stack([state["number"], 10 + state["number"]], -1)}


def test_episodes_are_judged_when_they_end() -> None:
    for horizon in (3, 1):
        game = Counting(horizon)
        shape = (2, 4)
        experiment = Experiment(game, {"a": Stationary()}, replicates=2, environments=4)
        collector = Collector(GameSimulator(game, *shape), experiment.bind("a"))
        game.resets = 0
        steps = collector.collect(2 * horizon).steps
        assert [bool(step.judged) for step in steps] == ([False] * (horizon - 1) + [True]) * 2
        for number, step in enumerate(steps[horizon - 1 :: horizon]):
            assert step.judged is not None
            assert step.judged["number"].tolist() == torch.full(shape, float(number)).tolist()
        assert collector.collect(3).stacked.judged is None, "which is not stacked"


def test_runs_record_episodes_of_training_and_of_evaluations(tmp_path: Path) -> None:
    """The mean of the episodes since the last record, and of those of the newest evaluation, none of them cut short."""
    evaluation = {
        "whole": Evaluation(every=6, steps=6, environments=2),
        "short": Evaluation(every=6, steps=2, environments=2),
    }
    experiment = Experiment(
        Counting(),
        {"a": Stationary()},
        replicates=2,
        environments=4,
        steps=12,
        record_every=2,
        evaluation=evaluation,
        beliefs_every=0,
    )
    metrics = dataset(run(experiment, tmp_path), "metrics.nc").isel(learner=0, replicate=0)
    number = metrics["number"].to_numpy()
    assert np.isnan(number).tolist() == [True, False, False, True, False, False], "no episode ended in every interval"
    assert np.diff(number[~np.isnan(number)]).min() > 0
    assert np.array_equal(metrics["place"].sel(agent=1), 10 + metrics["place"].sel(agent=0), equal_nan=True)
    whole = metrics["evaluation_number_whole"].dropna("step").to_numpy()
    assert len(whole) == 2
    assert whole[0] % 1 == 0.5, "of two episodes, one after the other"
    assert "evaluation_number_short" not in metrics


def test_particle_worlds_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Evaluation(every=8, environments=5)
    experiment = Experiment(
        Spread(2, horizon=4),
        {"a": Stationary()},
        replicates=3,
        environments=6,
        steps=16,
        record_every=4,
        evaluation=evaluation,
        checkpoint_every=4,
    )
    folder = run(experiment, tmp_path)
    metrics = dataset(folder, "metrics.nc").isel(learner=0)
    for name in ("distance", "covered", "collisions"):
        assert metrics[name].dims == ("replicate", "step")
        assert metrics[name].notnull().all()
    actors = experiment.bind("a")
    last = evaluation.play(experiment.game, evaluation.seated(actors)).steps[-1].judged
    assert last is not None
    for name, value in last.items():  # random play, so every evaluation is the same
        found = metrics[f"evaluation_{name}"].isel(step=-1)
        assert found.to_numpy() == pytest.approx(value.mean(1).numpy(), rel=1e-6)
    again = tmp_path / "again" / "test"
    cut_after(7, monkeypatch, experiment, again)  # in the middle of an episode
    complete(experiment, again)
    assert_same(again, folder)


def test_other_games_around_one_judge_as_it_does() -> None:
    game = Spread(2)
    state = game.reset(2, 3, torch.device("cpu"), torch.float64)
    expected = game.judge(state)
    scaled = Scaled(game, 2.0)
    assert scaled.episode_metrics == game.episode_metrics
    assert all(torch.equal(value, expected[name]) for name, value in scaled.judge(state).items())
    both = Variants([game, Spread(2, collision=0.0)])
    other = game.reset(2, 3, torch.device("cpu"), torch.float64)
    task = torch.tensor([[0, 1, 0], [1, 1, 0]])
    joint = (
        {"task": task}
        | {f"0.{name}": value for name, value in state.items()}
        | {f"1.{name}": value for name, value in other.items()}
    )
    for name, value in both.judge(joint).items():
        assert torch.equal(value, torch.where(task == 0, expected[name], game.judge(other)[name]))


def test_they_are_listed() -> None:
    assert {"covered", "collisions", "catches", "bob_correct"} <= measured().keys()
