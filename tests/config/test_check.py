"""`check`: what it plays before a run, what it leaves as it was, and whom it blames."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pyro
import pytest
import torch
from torch import Tensor

from inference_marl.config.check import check
from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.inference.failures import NonFiniteError
from inference_marl.learners import Stationary
from inference_marl.play import Evaluation
from inference_marl.types import Actor, Decision, Learner, Memory, Trajectory

ASKED: list[tuple[str, object]] = []
"""What the actors below were asked, in order."""


class _Asked(Stationary, Learner):
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        ASKED.append(("act", tuple(torch.rand(3).tolist())))
        return super().act(obs, memory, explore, mask)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        ASKED.append(("learn", newest.flat.rewards.shape[0]))
        return {}

    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        ASKED.append(("beliefs", draws))
        return super().beliefs(obs, memory, draws)


class _Unsure(Stationary):
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        raise ValueError(f"draws: got {draws}, expected a thousand")


class _Diverging(Stationary, Learner):
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        raise NonFiniteError("critic", [0])


class _Failing(Stationary):
    """Cannot do one thing: be set up, play or be evaluated."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def setup(self) -> None:
        super().setup()
        if self.when == "setup":
            raise AttributeError("no width\nat all")

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        if self.when == ("act" if explore else "evaluation"):
            raise KeyError("width")
        return super().act(obs, memory, explore, mask)


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    ASKED.clear()
    yield
    ASKED.clear()


def experiment(**arms: Actor | list[Actor]) -> Experiment:
    return Experiment(MatrixGame("climbing"), arms, replicates=4, draws=5)


def test_every_arm_plays_and_learns_one_step_of_one_replicate_and_is_asked_for_beliefs_once() -> None:
    checked = experiment(a=_Asked(), b=[_Asked(), Stationary()])
    check(checked)
    once = [(what, value) for what, value in ASKED if what != "act"]
    assert once == [*[("learn", 1)] * 2, *[("beliefs", 5)] * 2, ("learn", 1), ("beliefs", 5)]
    asked = len(ASKED)
    check(checked)
    assert len(ASKED) == asked
    check(experiment(a=_Asked()))
    assert len(ASKED) > asked


def test_random_numbers_are_left_as_they_were_and_every_arm_draws_the_same() -> None:
    torch.manual_seed(5)
    torch.rand(3)  # whatever was drawn before
    before = torch.get_rng_state()
    check(experiment(a=[_Asked(), Stationary()], b=[_Asked(), Stationary()]))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    check(experiment(c=[_Asked(), Stationary()]))
    assert len({value for what, value in ASKED if what == "act"}) == 1


def test_what_was_refused_once_is_refused_again() -> None:
    refused = experiment(a=Stationary(), b=_Unsure())
    for _ in range(2):
        with pytest.raises(IncompatibleError, match=r"^arms\.b\.draws: got 5, expected a thousand"):
            check(refused)


def test_the_learner_whose_loss_is_not_finite_is_named() -> None:
    for place, arm in enumerate(([_Diverging(), Stationary()], [Stationary(), _Diverging()])):
        with pytest.raises(IncompatibleError, match=rf"^arms\.a: agent {place}: critic is not finite .* at the first"):
            check(experiment(a=arm))


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("setup", "arms.a: AttributeError while it is set up: no width"),
        ("act", "arms.a: KeyError at the first step: 'width'"),
        ("evaluation", "arms.a.evaluation.held: KeyError while it is evaluated: 'width'"),
    ],
)
def test_it_is_said_when_a_part_fails(when: str, message: str) -> None:
    failing = Experiment(
        MatrixGame("climbing", horizon=2), {"a": _Failing(when)}, evaluation={"held": Evaluation(every=1)}
    )
    with pytest.raises(IncompatibleError) as caught:
        check(failing)
    assert str(caught.value) == message


@pytest.mark.pyro_store
def test_nothing_is_left_in_pyros_store_or_settings() -> None:
    check(experiment(a=Stationary()))
    assert not pyro.settings.get("module_local_params")
    assert not list(pyro.get_param_store().keys())


class Careless(Stationary):
    """Keeps what it has learned where no checkpoint finds it, as `keeps` says."""

    keeps: ClassVar[str] = "optimiser"

    def setup(self) -> None:
        super().setup()
        self.weight = torch.nn.Parameter(torch.zeros(self.seat.replicates, 2))
        if self.keeps == "optimiser":
            self.adam = torch.optim.Adam([self.weight], 0.1)
        self.count, self.table = 0, torch.zeros(self.seat.replicates, 2)

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        if self.keeps == "number":
            self.count += 1
        if self.keeps == "tensor":
            self.table[:, 0] += 1.0
        return super().act(obs, memory, explore, mask)


@pytest.mark.parametrize(
    ("keeps", "message"),
    [
        ("optimiser", r"^arms.a: Careless got Adam of torch's in its attribute adam, which no checkpoint holds"),
        ("number", r"^arms.a: Careless has changed its attribute count, which no checkpoint holds"),
        ("tensor", r"^arms.a: Careless has changed its attribute table, which no checkpoint holds"),
    ],
)
def test_what_no_checkpoint_would_hold_is_refused(keeps: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Careless, "keeps", keeps)
    with pytest.raises(IncompatibleError, match=message):
        check(Experiment(MatrixGame("stag_hunt"), {"a": Careless()}))


def test_what_need_not_be_held_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for keeps, where in {"number": "count", "tensor": "table"}.items():
        monkeypatch.setattr(Careless, "keeps", keeps)
        monkeypatch.setattr(Careless, "transient", (where,))
        check(Experiment(MatrixGame("stag_hunt"), {"a": Careless()}))
