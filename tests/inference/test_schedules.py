"""Schedules by hand."""

import copy
import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_marl.described import IncompatibleError
from inference_marl.inference.schedules import (
    ByReplicate,
    Constant,
    ExponentialDecay,
    InverseTime,
    Linear,
    PiecewiseConstant,
    Schedule,
    as_schedule,
    clamped,
    current,
    filled,
    over_events,
    positive,
)
from inference_marl.learners.tabular import Boltzmann, IndependentQ


def test_constant() -> None:
    assert [Constant(0.3)(step) for step in (0, 1, 10**9)] == [0.3] * 3


def test_a_number_is_the_same_at_every_step_and_a_schedule_is_asked() -> None:
    schedule = Linear(1.0, 0.0, 4)
    assert [current(0.3, step) for step in (0, 7)] == [0.3, 0.3]
    assert [current(schedule, step) for step in (0, 1, 4)] == [1.0, 0.75, 0.0]
    assert positive(1, temperature=schedule, kl_weight=2.0) == (0.75, 2.0)
    with pytest.raises(ValueError, match=r"^temperature: got 0\.0 at "):
        positive(4, temperature=schedule, kl_weight=2.0)


def test_exponential_decay_is_the_annealing_of_the_authors_code() -> None:
    """alpha_t = 500 exp(-0.1 t) + 0.1."""
    schedule = ExponentialDecay(start=500.0, rate=0.1, floor=0.1)
    assert schedule(0) == 500.1
    assert schedule(10) == pytest.approx(500 * math.exp(-1) + 0.1)
    assert schedule(300) == pytest.approx(0.1, abs=1e-9)


def test_exponential_decay_waits_for_its_delay() -> None:
    schedule = ExponentialDecay(start=2.0, rate=math.log(2), delay=3)
    assert [schedule(step) for step in range(6)] == pytest.approx([2, 2, 2, 2, 1, 0.5])


def test_inverse_time_is_the_learning_rate_of_the_authors_code() -> None:
    schedule = InverseTime(start=1.0, scale=1e4)
    assert schedule(0) == 1.0
    assert schedule(10_000) == 0.5
    assert schedule(300) == pytest.approx(1e4 / 10_300)


def test_linear_stops_at_its_end() -> None:
    schedule = Linear(start=1.0, end=-1.0, steps=4)
    assert [schedule(step) for step in (0, 1, 2, 4, 5, 100)] == pytest.approx([1, 0.5, 0, -1, -1, -1])


def test_piecewise_constant_changes_at_its_steps() -> None:
    schedule = PiecewiseConstant({4: 2.0, 0: 3.0, 2: 1.0})
    assert [schedule(step) for step in (0, 1, 2, 3, 4, 100)] == [3, 3, 1, 1, 2, 2]
    assert [PiecewiseConstant({5: 0.5})(step) for step in (0, 9)] == [0.5, 0.5]
    assert positive(3, temperature=schedule) == (1.0,)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(step=st.integers(0, 10**6), later=st.integers(1, 10**6))
def test_decays_never_rise(step: int, later: int) -> None:
    for schedule in (ExponentialDecay(3.0, 0.01, 0.1, delay=5), InverseTime(2.0, 10.0), Linear(5.0, 1.0, 1000)):
        assert schedule(step + later) <= schedule(step)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExponentialDecay(1.0, -0.1), "^rate: got -0.1, expected a number that is not negative"),
        (lambda: ExponentialDecay(1.0, 0.1, delay=-1), "^delay: got -1, expected an integer that is not negative"),
        (lambda: InverseTime(1.0, 0.0), "^scale: got 0.0, expected a positive number"),
        (lambda: Linear(1.0, 0.0, 0), "^steps: got 0, expected a positive integer"),
        (lambda: PiecewiseConstant({}), "^values: got none, expected numbers by the step from which on they hold"),
    ],
)
def test_what_makes_no_schedule_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_is_a_constant_schedule() -> None:
    schedule = Linear(1.0, 0.0, 10)
    assert as_schedule(schedule) is schedule
    made = as_schedule(0.25)
    assert isinstance(made, Schedule)
    assert made(7) == 0.25


@pytest.mark.parametrize("schedule", [Constant(0.3), ExponentialDecay(2.0, 0.1, 0.5, delay=2), InverseTime(1.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_steps_at_once_are_a_loop(schedule: Schedule, dtype: torch.dtype) -> None:
    steps = torch.tensor([[7, 0, 3, 0], [3, 7, 10**6, 1]])
    expected = [[schedule(int(step)) for step in row] for row in steps]
    torch.testing.assert_close(schedule.at(steps, dtype), torch.tensor(expected, dtype=dtype), rtol=0, atol=0)


def test_schedules_describe_themselves() -> None:
    assert ExponentialDecay(2.0, 0.1, delay=3).describe() == {
        "class_path": "inference_marl.inference.schedules.ExponentialDecay",
        "init_args": {"start": 2.0, "rate": 0.1, "floor": 0.0, "delay": 3},
    }


def split(values: list[Any], replicates: int, dtype: torch.dtype = torch.float32) -> ByReplicate:
    made = ByReplicate(values)
    made.split(replicates, dtype, torch.device("cpu"))
    return made


def test_replicates_are_split_in_order() -> None:
    found = split([0.1, 1.0], 6)(7)
    torch.testing.assert_close(found, torch.tensor([[0.1]] * 3 + [[1.0]] * 3), rtol=0, atol=0)
    assert split([0.1, 1.0], 2, torch.float64)(0).tolist() == [[0.1], [1.0]]


def test_before_it_is_bound_there_is_one_replicate_per_value() -> None:
    assert ByReplicate([0.5, 2, Linear(1.0, 0.0, 4)])(1).tolist() == [[0.5], [2.0], [0.75]]


def test_numbers_and_schedules_mix() -> None:
    schedule, made = InverseTime(1.0, 2.0), split([0.25, InverseTime(1.0, 2.0)], 4, torch.float64)
    for step in (0, 3, 3, 1, 10**6, 0):
        assert made(step).flatten().tolist() == [0.25, 0.25, schedule(step), schedule(step)]
        assert current(made, step) is made(step)
        assert made.each(step) == (0.25, schedule(step))


def test_constant_numbers_are_made_once() -> None:
    made = split([0.25, 1.0], 4)
    assert made(0) is made(1) is made(10**6)
    assert copy.deepcopy(made)(5).tolist() == made(5).tolist()


def test_visits_are_looked_up_by_replicate() -> None:
    values = [0.3, InverseTime(1.0, 1.0), Linear(1.0, 0.0, 5)]
    steps = torch.tensor([[7, 0, 3], [3, 7, 1], [0, 0, 2], [4, 5, 6], [9, 1, 1], [2, 2, 2]])
    expected = [[current(values[row // 2], int(step)) for step in steps[row]] for row in range(6)]
    found = split(values, 6).at(steps, torch.float64)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0)


def test_replicates_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(IncompatibleError, match=r"^got 3 values for 4 replicates, expected a number of them that div"):
        split([1.0, 2.0, 3.0], 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "^values: got none, expected one per group of replicates"),
        (
            [1.0, ByReplicate([1.0, 2.0])],
            "^values: got ByReplicate, expected the same for all replicates of ByRep",
        ),
        ([1.0, math.nan], "^values\\[1\\]: got nan, expected a finite number, or a schedule"),
        ([1.0, "2"], "^values\\[1\\]: got '2', expected a finite number, or a schedule"),
        ([True], "^values\\[0\\]: got True, expected a finite number, or a schedule"),
    ],
)
def test_values_that_are_no_numbers_are_refused(values: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ByReplicate(values)


def test_every_value_is_held_to_the_range() -> None:
    with pytest.raises(ValueError, match=r"^rate: got 2.0, expected a number in \(0, 1\] at every update"):
        IndependentQ(exploration=Boltzmann(), rate=ByReplicate([0.5, Linear(2.0, 1.0, 3)]))
    with pytest.raises(ValueError, match=r"^discount: got 1.0, expected a number in"):
        IndependentQ(exploration=Boltzmann(), discount=ByReplicate([0.5, 1.0]))
    with pytest.raises(ValueError, match=r"^discount: got .*Linear.*, expected a number in"):
        IndependentQ(exploration=Boltzmann(), discount=ByReplicate([0.5, Linear(0.5, 0.4, 3)]))
    weights = split([0.5, Linear(1.0, 0.0, 4)], 4)
    assert positive(3, alpha=weights, beta=2.0) == (weights(3), 2.0)
    with pytest.raises(ValueError, match=r"^alpha: got 0.0 at update 4, expected a number that stays positive"):
        positive(4, beta=2.0, alpha=weights)


def test_numbers_stay_numbers() -> None:
    assert over_events(0.3, 2) == 0.3
    assert clamped(0.3, 0.5) == 0.5
    assert clamped(0.3, 0.0, 0.1) == 0.1
    column = split([0.25, 1.0], 4)(0)
    assert filled(column, torch.zeros(4, 2)).tolist() == [[0.25] * 2, [0.25] * 2, [1.0] * 2, [1.0] * 2]
    assert filled(0.25, torch.zeros(2, 1, dtype=torch.float64)).tolist() == [[0.25], [0.25]]
    assert over_events(column, 2).shape == (4, 1, 1, 1)  # type: ignore[union-attr]
    assert clamped(column, 0.5).flatten().tolist() == [0.5, 0.5, 1.0, 1.0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Linear(1.0, -1.0, 3), "got -1.0, expected a positive number at every update"),
        (Linear(1.0, 0.0, 3), "got 0.0, expected a positive number at every update"),
        (ExponentialDecay(1.0, 0.1, -0.1), "got -0.1, expected a number that is not negative in the limit"),
        (ExponentialDecay(-1.0, 0.1, 0.5), "got -0.5, expected a positive number at every update"),
        (InverseTime(-1.0), "got -1.0, expected a positive number at every update"),
        (ByReplicate([1.0, Linear(1.0, -1.0, 3)]), "got -1.0, expected a positive number at every update"),
    ],
)
def test_what_a_schedule_comes_to_is_known_before_it_does(schedule: Schedule, message: str) -> None:
    with pytest.raises(ValueError, match=f"^temperature: {re.escape(message)}$"):
        Boltzmann(schedule)


@pytest.mark.parametrize(
    "schedule", [Linear(1.0, 0.5, 3), ExponentialDecay(1.0, 0.1), InverseTime(1.0), ByReplicate([1.0, InverseTime()])]
)
def test_what_a_schedule_only_approaches_is_no_value(schedule: Schedule) -> None:
    Boltzmann(schedule)
    IndependentQ(exploration=Boltzmann(), rate=schedule)
