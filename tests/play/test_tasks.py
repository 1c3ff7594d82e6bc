"""Tasks, populations and games with variants: who draws what varies, when, and who may know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
import yaml
from scipy import stats
from torch import Tensor

from inference_marl.analysis.recorded import read
from inference_marl.config.check import check
from inference_marl.config.files import build, dump
from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, Rendezvous, Spread, Variants
from inference_marl.learners import Stationary
from inference_marl.play import Collector, Evaluation, GameSimulator, Population, Tasks
from inference_marl.types import Actor, Memory, Metric, Observed, Start, State
from tests.play.test_collector import Countdown
from tests.runs.small_runs import Alternating, assert_same, climbing, complete, cut_after, dataset, rommeo_q, run

CPU = torch.device("cpu")


def pure(action: int, actions: int = 3) -> Stationary:
    return Stationary(probabilities=[float(each == action) for each in range(actions)])


def cast(by: str = "episode", actions: int = 3) -> Population:
    """Members who each play an action of their own."""
    return Population(members=[pure(action, actions) for action in range(actions)], by=by)  # type: ignore[arg-type]


def played(game: Any, actors: Sequence[Actor], steps: int, shape: tuple[int, int] = (2, 3), **options: Any) -> Any:
    experiment = Experiment(game, {"a": list(actors)}, replicates=shape[0], environments=shape[1])
    torch.manual_seed(0)
    collector = Collector(GameSimulator(game, *shape), experiment.bind("a"), **options)
    return collector.collect(steps).stacked


# Tasks


def test_they_are_drawn_as_weighed() -> None:
    tasks = Tasks([3, 5, 9], weights=[1, 2, 5])
    drawn = tasks.draw(100, 80, CPU, [0])
    found = [int((drawn == task).sum()) for task in tasks.ids]
    assert sum(found) == drawn.numel()
    assert stats.chisquare(found, [1000, 2000, 5000]).pvalue > 0.01
    assert not torch.equal(drawn, tasks.draw(100, 80, CPU, [1]))
    before = torch.get_rng_state()
    assert torch.equal(drawn, tasks.draw(100, 80, CPU, [0]))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": []}, r"ids: got \[\], expected at least one"),
        ({"ids": [1, 1]}, r"ids: got \[1, 1\], expected at least one task, and none twice"),
        ({"ids": [0, -1]}, r"ids\[1\]: got -1, expected an integer"),
        ({"ids": [0, 1.5]}, r"ids\[1\]: got 1.5"),
        ({"ids": [True]}, r"ids\[0\]: got True"),
        ({"ids": [0, 1], "weights": [1.0]}, "weights: got"),
        ({"ids": [0], "weights": [float("nan")]}, r"weights\[0\]: got"),
        ({"ids": [0], "weights": [0.0]}, r"weights\[0\]: got"),
        ({"ids": [0], "episodes": 0}, "episodes: got 0"),
    ],
)
def test_what_is_no_distribution_over_tasks_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tasks(**arguments)


@pytest.mark.parametrize("episodes", [1, 2, 3])
def test_a_task_stays_for_its_episodes_in_every_environment(episodes: int) -> None:
    """In episodes of random length, which differ between environments."""
    tasks = Tasks(range(1000), episodes=episodes)
    steps = played(Countdown(), [Stationary(), Stationary()], 60, tasks=tasks)
    for replicate, environment in np.ndindex(2, 3):
        task, ended = steps.task[:, replicate, environment], steps.ended[:, replicate, environment]
        number = torch.cat([torch.zeros(1), ended[:-1].long().cumsum(0)]).long() // episodes  # which task it should be
        assert torch.equal(task[1:] != task[:-1], number[1:] != number[:-1])
    assert steps.task.unique().numel() > 10


def test_every_arm_meets_the_same_tasks_and_others_than_with_another_seed() -> None:
    game = MatrixGame("climbing", horizon=2, memory=1)
    tasks = Tasks([0, 1, 2])
    one = played(game, [Stationary(), cast("task")], 40, tasks=tasks, seed=7)
    other = played(game, [Alternating(), cast("task")], 40, tasks=tasks, seed=7)
    assert torch.equal(one.task, other.task)
    assert not torch.equal(one.task, played(game, [Stationary(), cast("task")], 40, tasks=tasks, seed=8).task)


def test_tasks_in_turn_follow_one_another_in_any_order_of_their_numbers() -> None:
    """Whichever went before, in every environment on its own."""
    ids = [7, 2, 9, 4]
    tasks, place = Tasks(ids, order="in_turn"), torch.device("cpu")
    assert tasks.draw(2, 6, place, [0]).tolist() == [[7, 2, 9, 4, 7, 2]] * 2
    assert tasks.draw(1, 4, place, [0], torch.tensor([ids])).tolist() == [[2, 9, 4, 7]]


def test_without_tasks_nothing_is_drawn_and_no_transition_has_one() -> None:
    assert played(MatrixGame(), [Stationary(), Stationary()], 4).task is None


class Curious(Actor):
    """Writes down what it is told of tasks."""

    def setup(self) -> None:
        self.__dict__["told"] = []

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        self.told.append((start.new_task.clone(), start.task))  # type: ignore[operator,union-attr]
        return {}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        return dist.Categorical(torch.ones(*obs.shape[:2], 2)), memory


class Oracle(Curious):
    """Is told the task."""

    reads_task: ClassVar[bool] = True


def test_only_who_reads_tasks_is_told_them() -> None:
    game = MatrixGame("stag_hunt", horizon=2, memory=1)
    actors = Experiment(game, {"a": [Curious(), Oracle()]}, replicates=2, environments=3).bind("a")
    collector = Collector(GameSimulator(game, 2, 3), actors, tasks=Tasks(range(50), episodes=2))
    steps = collector.collect(8).stacked
    (blind, oracle) = (actor.__dict__["told"] for actor in actors)
    assert [task for _, task in blind] == [None] * 4
    for episode, (new_task, task) in enumerate(oracle):
        assert torch.equal(task, steps.task[2 * episode])
        assert bool(new_task.all()) == (episode % 2 == 0) == bool(new_task.any())
        assert torch.equal(new_task, blind[episode][0])


# Populations


@pytest.mark.parametrize("by", ["episode", "task"])
def test_one_member_plays_an_episode(by: str) -> None:
    game = MatrixGame("climbing", horizon=3, memory=1)
    tasks = Tasks([0, 1, 2], episodes=2) if by == "task" else None
    actions = played(game, [Stationary(), cast(by)], 600, tasks=tasks).actions[1]
    episodes = actions.unflatten(0, (-1, 3))
    assert (episodes == episodes[:, :1]).all()
    if tasks is not None:
        assert torch.equal(episodes[::2], episodes[1::2])
    starts = episodes[:: 2 if tasks else 1, 0].flatten()
    assert stats.chisquare(starts.bincount(minlength=3).numpy()).pvalue > 0.01


def test_the_task_is_the_members_number() -> None:
    game = MatrixGame("climbing", horizon=2, memory=1)
    steps = played(game, [Stationary(), cast("task")], 30, tasks=Tasks([0, 2]))
    assert torch.equal(steps.actions[1], steps.task)
    assert set(steps.task.unique().tolist()) == {0, 2}


def test_policies_and_beliefs_are_those_of_who_plays() -> None:
    game = MatrixGame("climbing", horizon=2, memory=1)
    _, population = Experiment(game, {"a": [Stationary(), cast()]}, replicates=2, environments=5).bind("a")
    memory = population.begin(Start.everywhere(2, 5, CPU), None)
    obs = torch.zeros(2, 5, dtype=torch.int64)
    decision = population.act(obs, memory)
    distribution, _ = population.policy(obs, memory)
    expected = torch.nn.functional.one_hot(memory["member"], 3).float()
    assert distribution is not None
    torch.testing.assert_close(distribution.probs, expected)
    torch.testing.assert_close(population.beliefs(obs, memory, 4)["policy"], expected)
    assert torch.equal(decision.action, memory["member"])


def test_populations_of_continuous_actions() -> None:
    game = Rendezvous(horizon=3)
    members = Population(members=[Stationary(), Stationary()])
    steps = played(game, [members, members], 6)
    assert steps.actions[0].shape == (6, 2, 3, 1)
    actors = Experiment(game, {"a": [members, members]}, replicates=2, environments=3).bind("a")
    memory = actors[0].begin(Start.everywhere(2, 3, CPU), None)
    assert actors[0].policy(torch.zeros(2, 3, 2), memory)[0] is None
    assert actors[0].beliefs(torch.zeros(2, 3, 2), memory, 7)["policy"].shape == (2, 3, 7, 1)


def test_members_with_a_memory_keep_their_own() -> None:
    """Each remembers what happened, whether it plays or not."""
    game = MatrixGame("chicken", horizon=4)
    members = Population(members=[Alternating(), Alternating(), Stationary()])
    steps = played(game, [members, members], 40)
    _, bound = Experiment(game, {"a": [Stationary(), members]}, replicates=2, environments=3).bind("a")
    memory = bound.begin(Start.everywhere(2, 3, CPU), None)
    assert {name.partition(".")[0] for name in memory} == {"member", "0", "1"}
    assert steps.actions[0].shape == (40, 2, 3)


def test_who_cannot_sit_in_a_population_is_refused() -> None:
    game = MatrixGame("climbing", horizon=2)
    for population, message in {
        Population(members=[pure(0), rommeo_q()]): r"^arms.a\[1\].members\[1\]: got Rommeo, which learns",
        Population(members=[pure(0, 2)]): r"^arms.a\[1\].members\[0\]",
        cast("task"): r"^arms.a.*Population got no task, expected the key tasks",
    }.items():
        with pytest.raises(ValueError, match=message):
            check(Experiment(game, {"a": [Stationary(), population]}))
    with pytest.raises(ValueError, match=r"^members: got none"):
        Population(members=[])
    with pytest.raises(ValueError, match=r"^by: got 'seat', expected episode or task"):
        Population(members=[pure(0)], by="seat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Population got task 3, expected at most 2"):
        check(Experiment(game, {"a": [Stationary(), cast("task")]}, tasks=Tasks([3])))


@pytest.mark.slow
def test_a_run_with_tasks_is_resumed_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = climbing(
        game=MatrixGame("climbing", horizon=2, memory=1),
        arms={"a": [rommeo_q(), cast("task")], "b": [rommeo_q(), cast()]},
        steps=14,
        environments=2,
        checkpoint_every=1,
        tasks=Tasks([0, 1, 2], weights=[1, 2, 3], episodes=3),
        evaluation={
            "held_out": Evaluation(every=7, environments=2, tasks=Tasks([2], episodes=2)),
            "script": Evaluation(every=14, environments=2, seats={1: pure(0)}),
        },
    )
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    whole = run(experiment, tmp_path / "whole")
    for steps in (3, 8):
        cut_after(steps, monkeypatch, experiment, tmp_path / "test" / str(steps))
        complete(experiment, tmp_path / "test" / str(steps))
        assert_same(tmp_path / "test" / str(steps), whole)


# Games with variants


def test_a_variant_is_the_game_itself() -> None:
    """Of every kind of game: with every task alike, play is that of the game."""
    for games in (
        [MatrixGame("climbing", horizon=3, memory=1), MatrixGame("penalty", horizon=3, memory=1)],
        [Countdown(most=4, cut=3), Countdown(most=2)],
        [Spread(2, horizon=4, collision=0.0), Spread(2, horizon=4)],
    ):
        both = Variants(games)
        for number, game in enumerate(games):
            torch.manual_seed(0)
            state = both.reset(2, 3, CPU, torch.float64, torch.full((2, 3), number))
            its = {name: value for name, value in state.items() if name.startswith(f"{number}.")}
            own: State = {name.partition(".")[2]: value for name, value in its.items()}
            for _ in range(3):
                actions = [space.uniform(torch.float64, CPU).expand((2, 3)).sample() for space in game.action_spaces]
                seen, expected = both.observe(state), game.observe(own)
                for one, other in zip(seen.obs, expected.obs, strict=True):
                    assert torch.equal(one, other)
                step, after = both.step(state, actions), game.step(own, actions)
                assert torch.equal(step.rewards, after.rewards)
                assert torch.equal(step.terminated, after.terminated)
                if after.truncated is not None:
                    assert step.truncated is not None
                    assert torch.equal(step.truncated, after.truncated)
                state, own = step.state, after.state


def test_each_environment_plays_its_own_variant() -> None:
    payoffs = [MatrixGame([[float(number)] * 2] * 2, common=True, horizon=2) for number in range(3)]
    steps = played(Variants(payoffs), [Stationary(), Stationary()], 20, tasks=Tasks([0, 2]))
    assert torch.equal(steps.rewards[..., 0], steps.task.to(steps.rewards))
    assert steps.task.unique().tolist() == [0, 2]
    drawn = played(Variants(payoffs), [Stationary(), Stationary()], 200).rewards[::2, ..., 0]
    assert stats.chisquare(drawn.long().flatten().bincount(minlength=3).numpy()).pvalue > 0.01


class Leaving(Countdown):
    """In which agent 0 may be out, and agent 1 may play action 0 only."""

    def observe(self, state: State) -> Observed:
        alive = torch.stack([state["left"] > 1, state["left"] > 0], -1)
        legal = torch.tensor([True, False]).expand(*state["left"].shape, 2)
        return super().observe(state)._replace(alive=alive, masks=(None, legal))


def test_who_is_out_and_what_is_legal_is_as_in_the_variant() -> None:
    both = Variants([Countdown(), Leaving()])
    state = both.reset(1, 2, CPU, torch.float32, torch.tensor([[0, 1]]))
    state["0.left"], state["1.left"] = torch.ones(1, 2).long(), torch.ones(1, 2).long()
    seen = both.observe(state)
    assert seen.alive is not None
    assert seen.alive.tolist() == [[[True, True], [False, True]]]
    assert seen.masks is not None
    assert seen.masks[0] is None
    assert seen.masks[1] is not None
    assert seen.masks[1].tolist() == [[[True, True], [True, False]]]


def test_games_that_are_no_variants_are_refused() -> None:
    climb = MatrixGame("climbing")
    for games, message in {
        (climb,): "games: got 1, expected an integer of at least 2",
        (climb, MatrixGame("stag_hunt")): r"games\[1\]: got action_spaces",
        (climb, MatrixGame("climbing", horizon=3)): r"games\[1\]: got horizon 3, expected 1",
    }.items():
        with pytest.raises(ValueError, match=message):
            Variants(games)
    with pytest.raises(ValueError, match=r"tasks.ids: got 2, expected at most 1: Variants has 2 variants"):
        Experiment(Variants([climb, MatrixGame("penalty")]), {"a": Stationary()}, tasks=Tasks([0, 2]))


def test_variants_are_named_in_what_is_recorded(tmp_path: Path) -> None:
    game = Variants([MatrixGame("climbing"), MatrixGame("penalty")])
    folder = run(climbing(game=game, tasks=Tasks([0, 1])), tmp_path)
    assert read(folder).game == "Variants(MatrixGame(climbing), MatrixGame(penalty))"


# Evaluations elsewhere, against others, and of tasks


def evaluated(evaluation: Any, tmp_path: Path, **settings: Any) -> xr.Dataset:
    """The last record of the metrics of arm `a`, in which agent 0 plays 1, and agent 1 plays 2."""
    defaults: dict[str, Any] = {"arms": {"a": [pure(1), pure(2)]}, "steps": 4}
    folder = run(climbing(**defaults | settings, evaluation=evaluation), tmp_path)
    return dataset(folder, "metrics.nc").isel(step=-1).sel(learner="a")


def test_guests_sit_in_their_seats(tmp_path: Path) -> None:
    several = {"first": Evaluation(every=4, seats={0: pure(0)}), "second": Evaluation(every=4, seats={1: pure(0)})}
    found = evaluated(several, tmp_path)
    payoff = MatrixGame("climbing").dynamics().reward[0, 0]  # type: ignore[union-attr]
    assert (found["evaluation_reward_first"] == float(payoff[0, 2])).all()
    assert (found["evaluation_reward_second"] == float(payoff[1, 0])).all()
    assert (found["reward"] == float(payoff[1, 2])).all()
    assert Metric.from_attributes(found["evaluation_reward_first"].attrs).label == "reward per step, evaluated: first"


def test_another_game_and_held_out_tasks(tmp_path: Path) -> None:
    payoffs = [MatrixGame([[float(number)] * 3] * 3, common=True, horizon=2) for number in range(3)]
    several = {
        "elsewhere": Evaluation(every=4, game=MatrixGame("penalty")),
        "known": Evaluation(every=4, game=Variants(payoffs), tasks=Tasks([0])),
        "held_out": Evaluation(every=4, game=Variants(payoffs), tasks=Tasks([2])),
    }
    found = evaluated(several, tmp_path)
    penalty = MatrixGame("penalty").dynamics().reward[0, 0, 1, 2]  # type: ignore[union-attr]
    assert (found["evaluation_reward_elsewhere"] == float(penalty)).all()
    assert (found["evaluation_reward_known"] == 0).all()
    assert (found["evaluation_reward_held_out"] == 2).all()


def test_guests_and_tasks_leave_training_as_it_is(tmp_path: Path) -> None:
    """Bit for bit, also with guests that draw when they are bound."""
    plain = climbing(game=MatrixGame("climbing", horizon=2, memory=1), steps=8, environments=2)
    watched = plain.replace(
        evaluation={
            "drawn": Evaluation(every=4, seats={0: Stationary(concentration=1.0)}),
            "tasks": Evaluation(every=2, seats={1: cast("task")}, tasks=Tasks([0, 1])),
        }
    )
    one, other = run(plain, tmp_path, "plain"), run(watched, tmp_path, "watched")
    assert (one / "posterior.nc").read_bytes() == (other / "posterior.nc").read_bytes()
    mine, theirs = (dataset(each, "metrics.nc").drop_attrs() for each in (one, other))
    xr.testing.assert_identical(mine, theirs[list(mine)])


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (Evaluation(every=4, game=MatrixGame("stag_hunt")), "evaluation.game: got MatrixGame with other spaces"),
        (Evaluation(every=4, seats={2: pure(0)}), "evaluation.seats: got 2, expected a seat from 0 to 1"),
        (Evaluation(every=4, seats={1: rommeo_q()}), "evaluation.seats.1: got Rommeo, which learns"),
        ({"a": Evaluation(every=3)}, "evaluation.a.every: got 3, expected a divisor of steps = 4"),
        ({"a b": Evaluation(every=4)}, "evaluation: got one called 'a b', expected letters, digits and _ only"),
        (
            Evaluation(every=4, game=Variants([MatrixGame("climbing")] * 2), tasks=Tasks([2])),
            "evaluation.tasks.ids: got 2, expected at most 1",
        ),
    ],
)
def test_evaluations_that_cannot_be_are_refused_at_once(evaluation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        climbing(steps=4, evaluation=evaluation)


def test_guests_that_do_not_fit_are_refused_before_anything_is_played() -> None:
    with pytest.raises(IncompatibleError, match=r"^arms.a.evaluation.seats.1.probabilities: got 2"):
        check(climbing(steps=4, evaluation=Evaluation(every=4, seats={1: pure(0, 2)})))
    with pytest.raises(IncompatibleError, match=r"^arms.a.evaluation: Population got no task"):
        check(climbing(steps=4, evaluation=Evaluation(every=4, seats={1: cast("task")})))
