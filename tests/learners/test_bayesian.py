"""Who plays its type, and the exact Bayes oracle, against what is known of them in closed form."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import PAYOFFS, BayesianMatrixGame, CoinGame, DirichletTypes, ListedTypes, MatrixGame
from inference_marl.learners import Stationary
from inference_marl.learners.scripts import BayesOracle, PlaysItsType
from inference_marl.play import Collector, GameSimulator, Tasks
from inference_marl.types import Game, Seat, Start, Trajectory

CPU = torch.device("cpu")
RPS = "rock_paper_scissors"


def played(game: Game, oracle: BayesOracle, steps: int, episodes: int, shape: tuple[int, int]) -> Trajectory:
    """All opponents of a game's only population in turn."""
    arm = [oracle, PlaysItsType()]
    tasks = Tasks(population="all", episodes=episodes, order="in_turn")
    experiment = Experiment(game, {"a": arm}, replicates=shape[0], environments=shape[1], tasks=tasks, dtype="float64")
    simulator = GameSimulator(game, *shape, dtype=torch.float64)
    return Collector(simulator, experiment.bind("a"), tasks=experiment.tasks).collect(steps)


def means(game: BayesianMatrixGame, trajectory: Trajectory) -> Tensor:
    """Mean rewards of each action played, given the opponent's type, `steps x replicates x environments`."""
    every = trajectory.stacked
    return (every.obs[1] @ game.expected_payoff[0].T).gather(-1, every.actions[0].unsqueeze(-1)).squeeze(-1)


def exact(rounds: int) -> float:
    """What the oracle gets in rock, paper, scissors after so many rounds: under Dirichlet(1) all counts are alike."""
    worths = []
    for one, two in itertools.product(range(rounds + 1), repeat=2):
        if (three := rounds - one - two) >= 0:
            worths.append(Fraction(max(three - two, one - three, two - one), rounds + 3))
    return float(sum(worths) / len(worths))


def test_the_exact_numbers() -> None:
    assert [round(exact(rounds), 3) for rounds in (0, 1, 2, 5, 15, 30, 75)] == [
        0,
        0.25,
        0.3,
        0.357,
        0.404,
        0.423,
        0.436,
    ]


@pytest.mark.parametrize(
    ("opponents", "horizon"), [(4000, 76), pytest.param(200_000, 76, marks=pytest.mark.slow), (2000, 4)]
)
def test_the_oracle_gets_what_is_possible(opponents: int, horizon: int) -> None:
    """Within 4.5 standard errors, in one episode as in a trial of many."""
    game = BayesianMatrixGame(RPS, {"all": DirichletTypes(1.0, opponents)}, horizon=horizon)
    trajectory = played(game, BayesOracle(), 76, 76 // horizon, (1, opponents))
    assert len(trajectory.stacked.task.unique()) == opponents  # type: ignore[union-attr]
    found = means(game, trajectory)
    for rounds in (0, 1, 2, 5, 15, 75):
        error = 4.5 * float(found[rounds].std()) / opponents**0.5
        assert float(found[rounds].mean()) == pytest.approx(exact(rounds), abs=error)


def test_nothing_is_forgotten_before_the_trial_is_over() -> None:
    game = BayesianMatrixGame(RPS, {"all": DirichletTypes(1.0, 50)}, horizon=5)
    experiment = Experiment(game, {"a": [BayesOracle(), PlaysItsType()]}, replicates=2, environments=3)
    collector = Collector(GameSimulator(game, 2, 3), experiment.bind("a"), tasks=Tasks(range(50), episodes=3))
    for trial in range(4):
        for step in range(15):
            collector.observe()
            assert (collector.memories[0]["counts"].sum(-1) == step).all(), (trial, step)
            collector.collect()


def test_it_is_sure_of_an_opponent_that_it_has_met() -> None:
    """Best responses to pure strategies, in games of every size."""
    for payoff in (name for name in PAYOFFS if "stochastic" not in name):
        actions = MatrixGame(payoff, horizon=2).action_spaces[1].features
        game = BayesianMatrixGame(payoff, {"all": ListedTypes(torch.eye(actions).tolist())})
        found = means(game, played(game, BayesOracle(concentration=0.01), 60, 1, (1, actions)))[-1, 0]
        assert torch.equal(found, game.expected_payoff[0].amax(0)), payoff


def test_it_responds_from_either_seat_and_splits_ties() -> None:
    game = MatrixGame("battle_of_the_sexes", horizon=3)
    for index, believed, expected in (
        (0, [2.0, 1.0], [1, 0]),
        (1, [2.0, 1.0], [0.5, 0.5]),
        (1, [1.0, 2.0], [0, 1]),
    ):
        seat = Seat(index, game.observations, game.action_spaces, 2, dtype=torch.float64, game=game)
        oracle = BayesOracle(concentration=believed).bind(seat)
        memory = oracle.begin(Start.everywhere(2, 3, CPU), None)
        policy, _ = oracle.policy(torch.zeros(2, 3, dtype=torch.int64), memory)
        assert (policy.probs == torch.tensor(expected).double()).all()


@pytest.mark.slow
def test_who_plays_its_type() -> None:
    points = [[0.2, 0.3, 0.5], [1, 0, 0]]
    game = BayesianMatrixGame(RPS, {"all": ListedTypes(points)}, horizon=5000)
    actions = played(game, BayesOracle(), 5000, 1, (1, 2)).stacked.actions[1][:, 0]
    for number, point in enumerate(points):
        shares = actions[:, number].bincount(minlength=3) / 5000
        assert (shares - torch.tensor(point)).abs().max() < 0.03


def test_refuses() -> None:
    game = BayesianMatrixGame(RPS, {"all": DirichletTypes(1.0, 2)})
    seat = Seat(0, game.observations, game.action_spaces, 1, game=game)
    with pytest.raises(IncompatibleError, match="PlaysItsType got seat 0 of BayesianMatrixGame, expected seat 1"):
        PlaysItsType().bind(seat)
    with pytest.raises(IncompatibleError, match="concentration: got 2 numbers, expected 3"):
        BayesOracle(concentration=[1.0, 1.0]).bind(seat)
    other = CoinGame()
    with pytest.raises(IncompatibleError, match="BayesOracle got CoinGame, expected BayesianMatrixGame or MatrixGame"):
        BayesOracle().bind(Seat(0, other.observations, other.action_spaces, 1, game=other))
    with pytest.raises(ValueError, match="concentration: got 0, expected a positive number"):
        BayesOracle(concentration=0)


def test_an_actor_that_reads_tasks_may_know_the_type() -> None:
    """Which is how an oracle learner finds it."""
    game = BayesianMatrixGame(RPS, {"all": DirichletTypes(1.0, 9)}, horizon=2)

    class Told(Stationary):
        reads_task = True

        def begin(self, start: Start, memory: object) -> dict[str, Tensor]:
            assert start.task is not None
            assert self.seat.game is not None
            found = self.seat.game.hidden_type(start.task)
            assert found is not None
            return {"type": found}

    experiment = Experiment(game, {"a": [Told(), PlaysItsType()]}, replicates=2, environments=4, tasks=Tasks(range(9)))
    collector = Collector(GameSimulator(game, 2, 4), experiment.bind("a"), tasks=experiment.tasks)
    for _ in range(5):
        _, seen = collector.observe().obs
        assert torch.equal(collector.memories[0]["type"].float(), seen)
        collector.collect(2)
