"""Parts that are made one after the other share no random numbers; numbers by replicate learn of the seat."""

from typing import Any

import pytest
import torch

from inference_marl.config.build import SpecError
from inference_marl.config.files import build, dump, load
from inference_marl.described import IncompatibleError, differing
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.inference.schedules import ByReplicate, Linear
from inference_marl.learners import Rommeo
from inference_marl.learners.tabular import Boltzmann, IndependentQ, Minimax
from inference_marl.models import LevelK, TabularCritic, Uniform
from inference_marl.types import Actor, own_stream

CPU = torch.device("cpu")


def test_parts_made_in_turn_draw_nothing_in_common() -> None:
    drawn = []
    for _ in range(3):
        with own_stream(CPU):
            drawn.append(set(torch.rand(1000, dtype=torch.float64).tolist()))
    drawn.append(set(torch.rand(1000, dtype=torch.float64).tolist()))
    assert len(set.union(*drawn)) == 4000


@pytest.mark.parametrize("inside", [0, 1, 100])
def test_what_is_drawn_inside_moves_the_stream_outside_by_one_draw(inside: int) -> None:
    torch.manual_seed(3)
    torch.randint(2**62, ())
    expected = torch.rand(4)
    torch.manual_seed(3)
    with own_stream(CPU):
        torch.rand(inside)
    assert torch.equal(torch.rand(4), expected)


def rommeo(**changes: Any) -> Rommeo:
    parts: dict[str, Any] = {
        "opponent_prior": Uniform(),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(rate=ByReplicate([0.5, 1.0])),
    }
    return Rommeo(**parts | changes)


def experiment_of(arm: Actor | list[Actor], replicates: int) -> Experiment:
    return Experiment(MatrixGame("climbing"), {"a": arm}, replicates, steps=2)


def test_numbers_that_may_not_differ_are_refused_where_they_are_given() -> None:
    number = ByReplicate([0.5, 1.0])
    with pytest.raises(ValueError, match=r"^temperature: got ByReplicate, expected the same for all .* of LevelK$"):
        LevelK(temperature=number)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^batch_size: got ByReplicate, .* of Rommeo; what may differ: discount, g"):
        rommeo(batch_size=number)
    with pytest.raises(ValueError, match=r"^discount: got ByReplicate, expected the same for all replicates of Mini"):
        Minimax(discount=number)  # type: ignore[arg-type]


def test_what_differs_is_found_by_its_key() -> None:
    arm = [rommeo(temperature=ByReplicate([1.0, 2.0, 3.0])), IndependentQ(exploration=Boltzmann(ByReplicate([1, 2])))]
    assert [(key, number.groups) for key, number in differing(arm)] == [
        *(("[0].temperature", 3), ("[0].critic.rate", 2), ("[1].exploration.temperature", 2))
    ]


def test_binding_tells_all_numbers_of_a_learner_how_many_replicates_there_are() -> None:
    described = rommeo(temperature=ByReplicate([1.0, 2.0, 3.0]))
    (bound, _) = experiment_of(described, 6).bind("a")
    assert isinstance(bound, Rommeo)
    assert bound.model.temperature.flatten().tolist() == [1, 1, 2, 2, 3, 3]  # type: ignore[union-attr]
    assert isinstance(bound.critic, TabularCritic)
    assert bound.critic.rate(0).flatten().tolist() == [0.5] * 3 + [1.0] * 3  # type: ignore[union-attr]
    assert described.temperature(0).shape == (3, 1)  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    ("arm", "key"),
    [
        (rommeo(), "arms.a.critic.rate"),
        ([Minimax(), IndependentQ(exploration=Boltzmann(ByReplicate([1, 2])))], "arms.a[1].exploration.temperature"),
    ],
)
def test_replicates_that_cannot_be_split_are_refused_by_key(arm: Any, key: str) -> None:
    with pytest.raises(IncompatibleError) as caught:
        experiment_of(arm, 3).bind("a")
    assert str(caught.value).startswith(f"{key}: got 2 values for 3 replicates, expected ")


def test_files_say_what_differs(tmp_path: Any) -> None:
    made = experiment_of(rommeo(kl_weight=ByReplicate([0.5, Linear(2.0, 1.0, 5)]), discount=ByReplicate([0.5, 0])), 4)
    (tmp_path / "made.yaml").write_text(dump(made))
    read = load(tmp_path / "made.yaml")  # and with it a step was played
    assert read.describe() == made.describe()


def test_files_with_numbers_that_may_not_differ_are_refused() -> None:
    config = experiment_of(rommeo(), 4).describe()["init_args"]
    number = ByReplicate([0.5, 1.0]).describe()
    config["arms"]["a"]["init_args"]["opponent_prior"] = {"class_path": "LevelK", "init_args": {"temperature": number}}
    with pytest.raises(SpecError, match=r"^arms.a.opponent_prior.temperature: got .*, expected float"):
        build(config)
