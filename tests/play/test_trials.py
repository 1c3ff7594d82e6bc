"""Evaluation over trials, of populations by name, which training never meets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from inference_marl.analysis.recorded import read
from inference_marl.config.files import build, dump, load
from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import BayesianMatrixGame, DirichletTypes, Guard, MatrixGame, ShellTypes, UniformTypes
from inference_marl.learners import Stationary
from inference_marl.learners.scripts import BayesOracle, PlaysItsType, Raiders
from inference_marl.play import Collector, Evaluation, GameSimulator, Tasks, TrialEvaluation
from inference_marl.types import Trajectory, Transition
from tests.runs.small_runs import assert_same, climbing, complete, cut_after, dataset, run

CPU = torch.device("cpu")
RPS = "rock_paper_scissors"


def repeated(horizon: int = 2) -> BayesianMatrixGame:
    populations = {"training": DirichletTypes(1.0, 6), "held_out": DirichletTypes(1.0, 40)}
    return BayesianMatrixGame(RPS, populations, horizon=horizon)


def trials(**changes: Any) -> TrialEvaluation:
    settings: dict[str, Any] = {
        "every": 4,
        "environments": 40,
        "tasks": Tasks(population="held_out", episodes=3, order="in_turn"),
        "after": (0, 1, 2),
    }
    return TrialEvaluation(**settings | changes)


def experiment(**changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "game": repeated(),
        "arms": {"a": [BayesOracle(), PlaysItsType()]},
        "replicates": 3,
        "environments": 4,
        "steps": 8,
        "tasks": Tasks(population="training", episodes=3),
        "evaluation": trials(),
    }
    return Experiment(**settings | changes)


def by_episode(rewards: list[list[float]], ends: list[list[int]]) -> Trajectory:
    """Of two environments: rewards of seat 0 at each step, and the steps with which episodes end."""
    blank = torch.zeros(1, 2)
    steps = []
    for number, paid in enumerate(zip(*rewards, strict=True)):
        ended = torch.tensor([[number in its for its in ends]])
        both = torch.tensor([[[one, -one] for one in paid]])
        steps.append(Transition((blank,) * 2, (blank,) * 2, both, (blank,) * 2, torch.zeros_like(ended), ended))
    return Trajectory(steps)


def test_returns_by_the_number_of_episodes_before() -> None:
    """Means over environments, also where episodes are not equally long; what is not over everywhere is left out."""
    played = by_episode([[1.0, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60]], [[1, 3, 5], [0, 2]])
    found = trials().measure(played)
    assert found["return_after_0"].tolist() == [(1 + 2 + 10) / 2]
    assert found["return_after_1"].tolist() == [(3 + 4 + 20 + 30) / 2]
    assert "return_after_2" not in found
    assert trials(seat=1).measure(played)["return_after_1"].tolist() == [-(3 + 4 + 20 + 30) / 2]
    assert set(trials(after=(1,)).measure(played)) == {"evaluation_reward", "evaluation_return", "return_after_1"}


def test_every_environment_plays_a_trial_with_an_opponent_of_its_own() -> None:
    made = experiment()
    evaluation = made.evaluations[""]
    played = evaluation.play(made.game, evaluation.seated(made.bind("a"))).stacked
    assert played.rewards.shape[:3] == (6, 3, 40)
    assert (played.task == played.task[0]).all()
    assert played.task[0].sort().values.tolist() == [list(range(6, 46))] * 3


def test_a_run_records_them(tmp_path: Path) -> None:
    several = {"known": trials(tasks=Tasks(population="training", episodes=3), after=(0, 2)), "new": trials()}
    made = experiment(evaluation=several)
    found = read(run(made, tmp_path))
    for name in ("return_after_0_known", "return_after_2_known", "return_after_1_new"):
        values = found.metrics[name]
        assert values.dims == ("learner", "replicate", "step")
        assert values.notnull().all(["learner", "replicate"]).values.tolist() == [*[False] * 3, True] * 2
    assert "return_after_1_known" not in found.metrics
    labels = [made.metrics[f"return_after_{number}_new"].label for number in (0, 1, 2)]
    assert labels == [f"return after {many}: new" for many in ("0 episodes", "an episode", "2 episodes")]


def test_what_is_learned_within_a_trial_shows() -> None:
    """The oracle's first round is worth nothing, its second 1/4; after six, more."""
    game = BayesianMatrixGame(RPS, {"all": DirichletTypes(1.0, 3000)}, horizon=2)
    tasks = Tasks(population="all", episodes=4, order="in_turn")
    evaluation = trials(environments=3000, tasks=tasks, after=(0, 3))
    made = experiment(game=game, tasks=tasks, evaluation=evaluation)
    found = evaluation.measure(evaluation.play(game, evaluation.seated(made.bind("a"))))
    assert float(found["return_after_0"].mean()) == pytest.approx(0.25, abs=0.06)
    assert float(found["return_after_3"].mean()) == pytest.approx(0.73, abs=0.06)


def test_a_held_out_population_is_never_met_in_training() -> None:
    populations = {
        "training": UniformTypes(-0.7, 0.7, 5),
        "held_out": UniformTypes(-0.7, 0.7, 5),
        "far": ShellTypes(0.8, 1.0, 5),
    }
    game = Guard(populations)
    made = Experiment(
        game,
        {"a": [Stationary(), Raiders()]},
        replicates=2,
        environments=8,
        steps=10,
        tasks=Tasks(population="training", episodes=2),
        evaluation={"held_out": trials(every=10, environments=5)},
    )
    training = Collector(GameSimulator(game, 2, 8), made.bind("a"), tasks=made.tasks).collect(200).stacked
    evaluation = made.evaluations["_held_out"]
    tested = evaluation.play(game, evaluation.seated(made.bind("a"))).stacked

    def met(steps: Transition, replicate: int) -> set[tuple[float, ...]]:
        types: Tensor = steps.obs[1][:, replicate, :, 5:]
        return set(map(tuple, types.flatten(0, 1).tolist()))

    assert training.task is not None
    assert tested.task is not None
    assert training.task.unique().tolist() == [0, 1, 2, 3, 4]
    assert tested.task.unique().tolist() == [5, 6, 7, 8, 9]
    for replicate in range(2):
        assert len(met(training, replicate)) == len(met(tested, replicate)) == 5
        assert not met(training, replicate) & (met(tested, replicate) | met(tested, 1 - replicate))
    assert not met(training, 0) & met(training, 1)


def test_training_notices_nothing_and_a_run_is_resumed_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment(steps=16, checkpoint_every=1)
    assert build(yaml.safe_load(dump(made))).describe() == made.describe()
    assert dump(made).count("population: ") == 2
    whole = run(made, tmp_path, "whole")
    cut_after(7, monkeypatch, made, tmp_path / "test" / "cut")
    complete(made, tmp_path / "test" / "cut")
    assert_same(tmp_path / "test" / "cut", whole)
    plain = run(made.replace(evaluation=None), tmp_path, "plain")
    assert (plain / "actions.nc").read_bytes() == (whole / "actions.nc").read_bytes()


def test_a_file(tmp_path: Path) -> None:
    """As in the documentation."""
    path = tmp_path / "guard.yaml"
    path.write_text(
        """
        game:
          class_path: Guard
          init_args:
            populations:
              training: {class_path: UniformTypes, init_args: {low: -0.7, high: 0.7, count: 32}}
              interpolated: {class_path: UniformTypes, init_args: {low: -0.7, high: 0.7, count: 60}}
              extrapolated: {class_path: ShellTypes, init_args: {inner: 0.8, outer: 1.0, count: 60}}
        tasks: {class_path: Tasks, init_args: {population: training, episodes: 4}}
        evaluation:
          interpolated:
            class_path: TrialEvaluation
            init_args:
              every: 20
              environments: 60
              tasks: {class_path: Tasks, init_args: {population: interpolated, episodes: 6, order: in_turn}}
        arms:
          fixed: [Stationary, Raiders]
        replicates: 2
        steps: 20
        record_every: 10
        """
    )
    made = load(path)
    assert made.game.populations["extrapolated"] == range(92, 152)
    found = dataset(run(made, tmp_path), "metrics.nc").isel(step=-1)
    returns = [found[f"return_after_{number}_interpolated"] for number in (0, 1, 2, 5)]
    assert all(each.notnull().all() for each in returns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"after": (0, 3)}, "after: got 3, expected at most 2: tasks.episodes is 3"),
        ({"steps": 5}, "steps: got 5, expected null"),
        ({"tasks": None}, "tasks: got null, expected the opponents"),
        ({"seat": 2}, "seat: got 2, expected a seat from 0 to 1"),
        ({"game": MatrixGame(RPS)}, "game: got MatrixGame with other spaces"),
        ({"tasks": Tasks(population="old")}, "tasks.population: got old, expected one of training, held_out"),
        ({"tasks": Tasks([46], episodes=3)}, "tasks.ids: got 46, expected at most 45"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^evaluation.{message}"):
        experiment(evaluation=trials(**changes))


def test_refuses_numbers() -> None:
    for after in ((), (1, 1)):
        with pytest.raises(ValueError, match=r"^after: got"):
            trials(after=after)
    with pytest.raises(IncompatibleError, match=r"evaluation.game: got one without horizon"):
        climbing(game=MatrixGame("climbing", horizon=None), evaluation=trials(tasks=Tasks([0], episodes=3)), steps=4)


# Tasks of a population, and in turn


def test_tasks_of_a_population() -> None:
    game = repeated()
    found = Tasks(population="held_out", episodes=2).of(game)
    assert (found.ids, found.episodes) == (list(range(6, 46)), 2)
    assert found.describe() == Tasks(population="held_out", episodes=2).describe()
    weighed = Tasks(population="training", weights=[1, 1, 1, 1, 1, 1e-9]).of(game)
    assert weighed.draw(10, 100, CPU, [0]).unique().tolist() == list(range(5))
    with pytest.raises(ValueError, match=r"^population: got training, expected tasks of a game"):
        Tasks(population="training").draw(1, 1, CPU, [0])


def test_in_turn() -> None:
    tasks = Tasks([3, 5, 9], order="in_turn")
    first = tasks.draw(2, 4, CPU, [0])
    assert first.tolist() == [[3, 5, 9, 3]] * 2
    assert tasks.draw(2, 4, CPU, [1], first).tolist() == [[5, 9, 3, 5]] * 2
    game = repeated()
    made = experiment(tasks=Tasks(population="training", episodes=2, order="in_turn"))
    steps = Collector(GameSimulator(game, 3, 4), made.bind("a"), tasks=made.tasks).collect(24).stacked
    assert steps.task is not None
    assert steps.task[::4, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert steps.task[::4, 2, 3].tolist() == [3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "ids: got None, expected at least one task, and none twice, or the name of a population"),
        ({"ids": [0], "population": "all"}, "population: got all beside ids, expected only one of the two"),
        ({"ids": [0], "weights": [1], "order": "in_turn"}, r"weights: got \[1\] of tasks in turn, expected none"),
        ({"ids": [0], "order": "sorted"}, "order: got 'sorted', expected random or in_turn"),
    ],
)
def test_refuses_tasks(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Tasks(**arguments)


@pytest.mark.parametrize(
    ("tasks", "game", "message"),
    [
        (Tasks(population="far"), repeated(), "tasks.population: got far, expected one of training, held_out"),
        (Tasks(population="far"), MatrixGame(), "tasks.population: got far, expected ids: MatrixGame has no popul"),
        (Tasks(population="training", weights=[1, 2]), repeated(), "tasks.weights: got .*, expected a positive number"),
    ],
)
def test_refuses_tasks_that_a_game_does_not_know(tasks: Tasks, game: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Experiment(game, {"a": Stationary()}, tasks=tasks)
    with pytest.raises(ValueError, match=f"^evaluation.{message}"):
        Experiment(game, {"a": Stationary()}, steps=4, evaluation=Evaluation(every=4, tasks=tasks))
