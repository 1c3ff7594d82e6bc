"""Descriptions: what is checked when one is made, and that a working part is none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from inference_marl.described import Count, Described, IncompatibleError, Rate, expect, hyperparameters, interval
from inference_marl.described.ranges import RANGES
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, RiskyBridge
from inference_marl.guides import OpponentFirst, Optimal, SplineFlow
from inference_marl.inference.schedules import Constant, InverseTime, Linear
from inference_marl.learners import Rommeo, Stationary
from inference_marl.learners.tabular import Boltzmann, IndependentQ
from inference_marl.models import BayesianCritic, EmpiricalFrequency, LevelK, TabularCritic, Uniform
from inference_marl.types import Seat, most_probable


def rommeo(**changes: Any) -> Rommeo:
    parts: dict[str, Any] = {
        "opponent_prior": Uniform(),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
    }
    return Rommeo(**parts | changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"opponent_prior": Uniform}, r"^opponent_prior: got <class .*Uniform'>, expected OpponentPrior$"),
        ({"temperature": "1"}, r"^temperature: got '1', expected float or Schedule or OfRange$"),
        ({"batch_size": 2.5}, r"^batch_size: got 2.5, expected int$"),
        ({"replay": "many"}, r"^replay: got 'many', expected int or null$"),
        ({"critic": None}, r"^critic: got None, expected Critic$"),
        ({"guide_learning_rate": float("inf")}, r"^guide_learning_rate: got inf, expected a positive number$"),
    ],
)
def test_arguments_of_another_class_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        rommeo(**changes)


@pytest.mark.parametrize("number", [1, 2.0, np.float32(0.5), np.float64(0.5), Linear(1.0, 0.5, 3)])
def test_numbers_of_every_kind_are_numbers(number: Any) -> None:
    assert rommeo(temperature=number).describe()["init_args"]["temperature"] is not None


IN_RANGE: dict[str, tuple[list[Any], list[Any]]] = {
    "a finite number, or minus infinity": ([-math.inf, -1e30, 0, 1e30], []),
    "a finite number": ([-1e30, 0, 5e-324, 1e30], []),
    "a positive number": ([1e-30, 1, 1e30], [0, -1, -0.0]),
    "a number that is not negative": ([0, 0.0, 5e-324, 1e30], [-5e-324, -1]),
    "a number in [0, 1]": ([0, 0.5, 1], [-1e-9, 1 + 1e-9]),
    "a number in [0, 1)": ([0, 0.5, 1 - 1e-9], [-1e-9, 1, 2]),
    "a number in (0, 1]": ([1e-9, 0.5, 1], [0, -1, 1 + 1e-9]),
    "a number in (0, 1)": ([1e-9, 0.5, 1 - 1e-9], [0, 1, -1, 2]),
    "an integer": ([-(10**12), 0, 10**12], [1.0, 2.5]),
    "an integer that is not negative and below 2**64": ([0, 2**64 - 1], [-1, 2**64, 1.0]),
    "a positive integer": ([1, 10**12], [0, -1, 1.0, 2.5]),
    "an integer that is not negative": ([0, 1], [-1, 0.0]),
    "an integer of at least 2": ([2, 3], [1, 0, 2.0]),
}
"""Numbers inside every range and outside, ends among them."""


def test_every_range_is_tested() -> None:
    assert set(IN_RANGE) == set(RANGES)


@pytest.mark.parametrize("what", RANGES)
def test_numbers_out_of_range_are_refused(what: str) -> None:
    inside, outside = IN_RANGE[what]
    for number in inside:
        expect(what, it=number)
        expect(what, it=number, other=number)
    infinite = [number for number in (math.inf, -math.inf) if number not in inside]
    for number in [*outside, math.nan, *infinite, None, "1", True, [1], torch.tensor(1.0), 1j]:
        with pytest.raises(ValueError, match=f"^{re.escape(f'it: got {number!r}, expected {what}; choose another')}$"):
            expect(what, "; choose another", fine=inside[0], it=number)


@pytest.mark.parametrize(
    ("what", "number", "size"),
    [
        ("a finite number", -1e31, "of a size from 1e-30 to 1e+30"),
        ("a positive number", 1e-31, "of a size from 1e-30 to 1e+30"),
        ("a number that is not negative", 1e31, "of a size from 1e-30 to 1e+30"),
        ("a positive integer", 10**12 + 1, "of at most 1,000,000,000,000"),
        ("a positive integer", 10**400, r"of at most 1,000,000,000,000"),
    ],
)
def test_sizes_that_nobody_can_work_with_are_refused(what: str, number: Any, size: str) -> None:
    with pytest.raises(ValueError, match=rf"^it: got .*, expected {re.escape(what)}, {re.escape(size)}") as refused:
        expect(what, it=number)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_a_range_takes_numbers_of_every_kind(number: Any) -> None:
    expect("a number in (0, 1)", it=number)
    expect("a positive integer", it=np.int64(3))
    with pytest.raises(ValueError, match="expected a positive integer"):
        expect("a positive integer", it=number)


def test_none_is_in_range_where_the_message_says_so() -> None:
    expect("a positive integer", ", or null for all", window=None)
    with pytest.raises(ValueError, match=r"^window: got 0, expected a positive integer, or null for all$"):
        expect("a positive integer", ", or null for all", window=0)


def test_intervals() -> None:
    assert interval("ends", [0, 1]) == interval("ends", (0, 1), strictly=False) == (0.0, 1.0)
    assert interval("ends", [1, 1], strictly=False) == interval("ends", 1, strictly=False) == (1.0, 1.0)
    for ends in ([1, 1], [1, 0], 1, [0], [0, 1, 2], [0, math.nan], [-math.inf, 0], ["a", "b"], "ab"):
        with pytest.raises(ValueError, match=r"^ends: got .*, expected \[low, high\] with low < high$"):
            interval("ends", ends)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^ends: got \[1, 0\], expected \[low, high\] with low <= high$"):
        interval("ends", [1, 0], strictly=False)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Boltzmann(math.inf), "^temperature: got inf, expected a positive number"),
        (lambda: rommeo(temperature=math.inf), "^temperature: got inf, expected a positive number"),
        (lambda: LevelK(temperature=math.inf), "^temperature: got inf, expected a positive number"),
        (lambda: EmpiricalFrequency(smoothing=math.nan), "^smoothing: got nan, expected a number that is not negative"),
        (lambda: rommeo(guide_learning_rate=math.nan), "^guide_learning_rate: got nan, expected a positive number"),
        (
            lambda: rommeo(max_gradient_norm=math.inf),
            "^max_gradient_norm: got inf, expected a positive number, or",
        ),
        (lambda: BayesianCritic(noise_scale=math.inf), "^noise_scale: got inf, expected a positive number"),
        (lambda: TabularCritic(initial=math.nan), "^initial: got nan, expected"),
        (lambda: IndependentQ(exploration=Boltzmann(), initial=(0.0, math.nan)), r"^initial\[1\]: got nan, expected"),
        (lambda: Constant(math.nan), "^value: got nan, expected a finite number"),
        (lambda: InverseTime(scale=math.nan), "^scale: got nan, expected a positive number"),
        (lambda: SplineFlow(bound=math.nan), "^bound: got nan, expected a positive number"),
        (lambda: RiskyBridge(horizon=2.5), "^horizon: got 2.5, expected a positive integer, or null"),  # type: ignore[arg-type]
    ],
)
def test_neither_nan_nor_infinity_passes_for_a_number(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_one_of_several_words() -> None:
    class Door(Described):
        def __init__(self, side: Literal["left", "right"] = "left", turns: Literal[1, 2] = 1) -> None:
            self.side = side

    assert Door("right").side == "right"
    with pytest.raises(ValueError, match=r"^side: got 'up', expected left or right$"):
        Door("up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^turns: got 3, expected 1 or 2$"):
        Door(turns=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^initial: got 'uniformly', expected dirichlet or uniform$"):
        EmpiricalFrequency(initial="uniformly")  # type: ignore[arg-type]


def test_every_item_of_a_container_is_checked() -> None:
    class Box(Described):
        def __init__(
            self,
            sides: tuple[Count, ...] = (),
            named: tuple[str, Rate] = ("", 1.0),
            by_size: Mapping[Count, Rate] = {},
            weight: float | Any = 1.0,
        ) -> None:
            self.sides = sides

    assert Box((1, 2, 3), ("a", 0.5), {2: 0.5}, "heavy").sides == (1, 2, 3)
    for arguments, complaint in (
        ({"sides": (1, 2, 0)}, r"^sides\[2\]: got 0, expected a positive integer"),
        ({"named": ("a", 2.0)}, r"^named\[1\]: got 2.0, expected a number in \(0, 1\]"),
        ({"by_size": {1: 0.5, 2: 3.0}}, r"^by_size.2: got 3.0, expected a number in \(0, 1\]"),
        ({"by_size": {0: 0.5}}, r"^by_size: got 0, expected a positive integer"),
        ({"by_size": [0.5]}, r"^by_size: got \[0.5\], expected a mapping"),
    ):
        with pytest.raises(ValueError, match=complaint):
            Box(**arguments)  # type: ignore[arg-type]


def test_a_field_may_be_anything() -> None:
    @hyperparameters
    class Free(Described):
        thing: Any = None

    for thing in (None, 1, "word"):
        assert Free(thing=thing).describe()["init_args"] == {"thing": thing}


def test_a_subclass_that_hides_a_field_says_so() -> None:
    class Hidden(IndependentQ):
        rate = 0.5

    class Shown(Hidden):
        pass

    for cls in (Hidden, Shown):
        with pytest.raises(
            TypeError, match=r"^Hidden.rate: got a field of its base, expected @hyperparameters above it"
        ):
            cls(exploration=Boltzmann())

    @hyperparameters
    class Declared(IndependentQ):
        rate: float = 0.5

    assert Declared(exploration=Boltzmann()).rate == 0.5


def test_a_subclass_with_a_constructor_of_its_own_hides_what_it_does_not_take() -> None:
    class Fixed(IndependentQ):
        rate = 0.5

        def __init__(self, discount: float = 0.25) -> None:
            super().__init__(exploration=Boltzmann(1.0), rate=self.rate, discount=discount)

    made = Fixed(discount=0.75)
    assert (made.rate, made.discount) == (0.5, 0.75)
    assert made.describe()["init_args"] == {"discount": 0.75}


def test_a_working_part_is_no_description() -> None:
    game = MatrixGame("climbing")
    bound = rommeo().bind(Seat(0, game.observations, game.action_spaces, 2))
    with pytest.raises(ValueError, match="got a Rommeo that is bound already, expected its description"):
        bound.bind(bound.seat)


@pytest.mark.parametrize(
    ("arms", "complaint"),
    [
        ({"a": Stationary}, r"^arms.a: got a type, expected a learner or other actor, or a list of them$"),
        ({"a": (Stationary(), Stationary())}, r"^arms.a: got a tuple, expected a learner or other actor, or a list"),
        ({"a": [Stationary(), None]}, r"^arms.a: got a NoneType, expected a learner"),
    ],
)
def test_arms_are_actors(arms: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Experiment(MatrixGame(), arms)


def test_numbers_of_steps_are_integers() -> None:
    with pytest.raises(ValueError, match=r"^steps: got '3', expected a positive integer$"):
        Experiment(MatrixGame(), {"a": Stationary()}, steps="3")  # type: ignore[arg-type]


def test_what_is_played_without_exploring() -> None:
    point = dist.Delta(torch.tensor([0.5, -0.5]), event_dim=1)
    assert torch.equal(most_probable(point), torch.tensor([0.5, -0.5]))
    assert torch.equal(most_probable(dist.Normal(torch.ones(3), 1.0).to_event(1)), torch.ones(3))
    assert int(most_probable(dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))) == 1
    with pytest.raises(IncompatibleError, match="got a distribution without a mode"):
        most_probable(dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)))
