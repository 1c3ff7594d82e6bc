"""Descriptions: what is checked when one is made, and that a working part is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.inference.schedules import Linear
from inference_marl.learners import Rommeo, Stationary
from inference_marl.learners.tabular import Boltzmann, IndependentQ
from inference_marl.models import TabularCritic, Uniform
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
        ({"temperature": "1"}, r"^temperature: got '1', expected float or Schedule$"),
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
