"""Search without gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.learners import Stationary
from inference_marl.learners.perturbation import Perturbation
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.spaces import Box
from inference_marl.types import Actor, Game, Learner, Seat, Trajectory

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "Perturbation": ("any", lambda: Perturbation(hidden=[4], noise=0.5)),
}


def played(game: Game, learner: Learner, other: Actor, rounds: int, replicates: int = 8) -> Perturbation:
    """The learner after some rounds of 4 steps in 16 environments."""
    torch.manual_seed(0)
    actors = Experiment(game, {"a": [learner, other]}, replicates=replicates, environments=16).bind("a")
    collector = Collector(GameSimulator(game, replicates, 16), actors)
    for _ in range(rounds):
        update(actors, collector.collect(4))
    assert isinstance(actors[0], Perturbation)
    return actors[0]


@pytest.mark.parametrize(
    ("game", "other", "best"),
    [
        (MatrixGame("climbing"), Stationary(probabilities=[0, 1, 0]), 7.0),
        (MaxOfTwoQuadratics(), Stationary(action=[-5.0]), 0.0),
    ],
)
def test_it_finds_what_pays(game: Game, other: Actor, best: float) -> None:
    learner = played(game, Perturbation(hidden=[4], noise=0.5), other, 60)
    assert (learner.score > best - 0.3).all(), learner.score


def test_weights_are_kept_only_where_they_earn_more() -> None:
    """Each replicate on its own, and what was tried last is played on."""
    game = MatrixGame("climbing")
    learner = played(game, Perturbation(hidden=[4]), Stationary(), 3, replicates=2)
    before = [value.clone() for value in learner.best.parameters()]
    tried = [value.clone() for value in learner.tried.parameters()]
    other = Stationary().bind(Seat(1, game.observations, game.action_spaces, 2))
    collector = Collector(GameSimulator(game, 2, 16), [learner, other])
    newest = collector.collect(1)
    paid = newest.steps[0].rewards
    paid[0], paid[1] = 1e3, -1e3
    learner.learn(Trajectory(newest.steps), [])
    for old, attempt, now, following in zip(
        before, tried, learner.best.parameters(), learner.tried.parameters(), strict=True
    ):
        assert torch.equal(now[0], attempt[0])
        assert torch.equal(now[1], old[1])
        assert not torch.equal(following, now)


def test_unbounded_actions_are_refused() -> None:
    seat = Seat(0, (Box(-1, 1),), (Box(),), 2)
    with pytest.raises(
        IncompatibleError, match=r"Perturbation got actions .*, expected Discrete, or a Box with finite"
    ):
        Perturbation().bind(seat)
