"""Schedules by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_marl.inference.schedules import (
    Constant,
    ExponentialDecay,
    InverseTime,
    Linear,
    Schedule,
    as_schedule,
    current,
    positive,
)


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


@settings(max_examples=50, deadline=None, derandomize=True)
@given(step=st.integers(0, 10**6), later=st.integers(1, 10**6))
def test_decays_never_rise(step: int, later: int) -> None:
    for schedule in (ExponentialDecay(3.0, 0.01, 0.1, delay=5), InverseTime(2.0, 10.0), Linear(5.0, 1.0, 1000)):
        assert schedule(step + later) <= schedule(step)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExponentialDecay(1.0, -0.1), "^rate: got -0.1, expected a number that is not negative"),
        (lambda: ExponentialDecay(1.0, 0.1, delay=-1), "^delay: got -1, expected a number that is not negative"),
        (lambda: InverseTime(1.0, 0.0), "^scale: got 0.0, expected a positive number"),
        (lambda: Linear(1.0, 0.0, 0), "^steps: got 0, expected a positive integer"),
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
