"""Replay of trials, against a list of all that was played."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.learners.latent.trials import Trials
from inference_marl.play import Collector, GameSimulator, Tasks
from inference_marl.types import Trajectory
from tests.learners.latent.matching import EPISODES, HORIZON, E, Matching, R, collecting, pearl, seated

Trial = tuple[int, list[float]]
"""Its task, and what tells its steps: the opponent's action in them."""


class Played:
    """Some steps, in replay and in lists."""

    def __init__(self, steps: int, capacity: int, tasks: Tasks | None = None) -> None:
        self.actors = seated(pearl("none"))
        self.seat = self.actors[0].seat
        self.trials = Trials(self.seat, capacity, from_their_beginning=True)
        self.tasks = tasks or Tasks([0, 1], episodes=EPISODES)
        self.collector = Collector(GameSimulator(Matching(), R, E, dtype=torch.float64), self.actors, True, self.tasks)
        self.steps: list[Any] = []
        self.go_on(steps)

    def go_on(self, steps: int) -> None:
        while steps:
            newest = self.collector.collect(min(steps, 4))
            steps -= len(newest.steps)
            self.trials.add(newest, self.seat)
            self.steps += newest.steps

    def expected(self, replicate: int) -> list[Trial]:
        """The trials that are kept, as far as they have come, if they are there from their beginning."""
        length = EPISODES * HORIZON
        found = []
        for environment in range(E):
            for begin in range(0, len(self.steps), length):
                part = self.steps[begin : begin + length]
                if len(self.steps) >= self.trials.length and begin <= len(self.steps) - self.trials.length:
                    continue
                task = int(part[0].task[replicate, environment])
                found.append((task, [float(step.actions[1][replicate, environment, 0]) for step in part]))
        return found

    def marks(self, rows: Tensor) -> Tensor:
        return rows[..., 2] * 2  # the opponent's action, in the box from -2 to 2


def test_all_trials_are_found_whole_and_in_order() -> None:
    """Also one that has just begun."""
    played = Played(3 * EPISODES * HORIZON + 2, 1000)
    table = played.trials.table
    for replicate in range(R):
        found = []
        for group in range(int(table.groups[replicate])):
            for number in range(int(table.trials[replicate, group])):
                trial = table.first[replicate, group] + number
                whole = played.trials.whole(trial.expand(R, 1))
                assert whole.there is not None
                marks = played.marks(whole.rows)[replicate, 0][whole.there[replicate, 0]]
                found.append((int(table.task[replicate, group]), marks.tolist()))
        expected = played.expected(replicate)
        assert len(found) == len(expected)
        for task, marks in expected:
            assert any(task == its and marks == pytest.approx(other) for its, other in found)


def test_what_is_dropped_takes_its_trial_with_it() -> None:
    played = Played(5 * EPISODES * HORIZON + 1, 15 * E)
    assert played.trials.length == 15
    table = played.trials.table
    for replicate in range(R):
        expected = played.expected(replicate)
        assert int((table.length[replicate] > 0).sum()) == len(expected) == 3 * E
        assert int(table.steps[replicate].sum()) == sum(len(marks) for _, marks in expected) == 13 * E


def test_steps_of_trials_that_have_lost_their_beginning_are_steps_for_who_needs_no_more() -> None:
    played = Played(5 * EPISODES * HORIZON + 1, 15 * E)
    played.trials.from_their_beginning = False
    assert (played.trials.table.steps.sum(1) == 15 * E).all()


def test_the_newest_are_kept_in_the_order_of_their_beginnings() -> None:
    """So the last of a task are its most recent ones."""
    played = Played(4 * EPISODES * HORIZON, 1000)
    table = played.trials.table
    for replicate in range(R):
        for group in range(int(table.groups[replicate])):
            first, count = int(table.first[replicate, group]), int(table.trials[replicate, group])
            begins = table.begin[replicate, first : first + count].tolist()
            assert begins == sorted(begins)
    groups = played.trials.draw_tasks(2)
    drawn = torch.stack([played.trials.draw_trials(groups, recent=1) for _ in range(5)])
    last = table.first.gather(1, groups) + table.trials.gather(1, groups) - 1
    assert torch.equal(drawn, last.expand_as(drawn))


def test_steps_of_a_task_are_drawn_alike_and_of_no_other() -> None:
    """Chi-square by hand: 4000 draws of each replicate and task."""
    played = Played(2 * EPISODES * HORIZON + 4, 1000)
    table = played.trials.table
    groups = played.trials.draw_tasks(2)
    rows = played.marks(played.trials.draw_steps(groups, 4000).rows)
    for replicate in range(R):
        for place in range(2):
            task = int(table.task[replicate, groups[replicate, place]])
            marks = [mark for its, marks in played.expected(replicate) if its == task for mark in marks]
            known, counts = rows[replicate, place].unique(return_counts=True)
            torch.testing.assert_close(known, torch.tensor(marks, dtype=torch.float64).sort().values)
            share = 4000 / len(marks)
            assert ((counts - share) ** 2 / share).sum() < len(marks) + 6 * (2 * len(marks)) ** 0.5


def test_sets_have_every_length_and_no_step_twice() -> None:
    played = Played(2 * EPISODES * HORIZON, 1000)
    trials = played.trials.draw_trials(played.trials.draw_tasks(2))
    seen = set()
    for _ in range(60):
        steps = played.trials.draw_sets(trials, 0, 4)
        assert steps.there is not None
        assert steps.rows.shape[:3] == (R, 2, 4)
        for replicate in range(R):
            for task in range(2):
                marks = played.marks(steps.rows)[replicate, task][steps.there[replicate, task]]
                assert len(marks.unique()) == len(marks)
                seen.add(len(marks))
    assert seen == {0, 1, 2, 3, 4}
    full = played.trials.draw_sets(trials, 100, 100).there
    assert full is not None
    assert full.sum(-1).eq(EPISODES * HORIZON).all()


def test_no_task_is_drawn_twice_before_all_were() -> None:
    played = Played(8 * EPISODES * HORIZON, 1000)
    for _ in range(10):
        groups = played.trials.draw_tasks(5)
        for replicate, count in enumerate(played.trials.table.groups.flatten().tolist()):
            counts = torch.bincount(groups[replicate], minlength=count)
            assert int(counts.max()) - int(counts.min()) <= 1


def test_a_checkpoint_holds_it() -> None:
    played = Played(10, 7 * E)
    other = Trials(played.seat, 7 * E, from_their_beginning=True)
    other.load_state_dict(copy.deepcopy(played.trials.state_dict()))
    for one, same in zip(played.trials.table, other.table, strict=True):
        assert torch.equal(one, same)
    played.go_on(3)
    assert not torch.equal(played.trials.row, other.row)


def test_without_tasks_every_episode_is_a_trial_of_the_same_one() -> None:
    actors = seated(pearl("none"))
    seat = actors[0].seat
    collector = Collector(GameSimulator(Matching(), R, E, dtype=torch.float64), actors)
    trials = Trials(seat, 1000)
    trials.add(collector.collect(2 * HORIZON), seat)
    assert torch.equal(trials.table.trials, torch.full((R, 1), 2 * E))
    assert torch.equal(trials.table.length, torch.full((R, 2 * E), HORIZON))


def test_what_it_refuses() -> None:
    actors = seated(pearl("none"))
    trials = Trials(actors[0].seat, 100)
    with pytest.raises(IndexError, match="got an empty replay, expected at least one step before it"):
        _ = trials.table
    others = seated(pearl("none"), environments=E + 1)
    newest: Trajectory = collecting(others, environments=E + 1).collect()
    with pytest.raises(IncompatibleError, match=f"got steps of {E + 1} environments, expected {E}"):
        trials.add(newest, actors[0].seat)
