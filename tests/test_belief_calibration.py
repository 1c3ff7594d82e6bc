"""Calibration of beliefs about a scripted opponent: intervals cover the truth as often as they say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import DirichletMultinomial, TabularCritic
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat, Transition
from tests.steps import teach

LEVELS = (0.5, 0.8, 0.95)
FAILURE = 1e-6
"""Probability that a count of a calibrated belief falls outside its binomial bounds, for each level and action."""


def coverage(believed: float, opponent: Stationary, steps: int, replicates: int) -> tuple[Tensor, Tensor]:
    """How many replicates' intervals hold the truth after some steps of play, `levels x actions`, and the truth.

    Args:
        believed: concentration of the learner's prior.
        opponent: the other player.
        steps: of the climbing game, of one joint action each.
        replicates: independent pairs of players.
    """
    learner = Rommeo(
        opponent_prior=DirichletMultinomial(believed), guide=OpponentFirst(Optimal(), Optimal()), critic=TabularCritic()
    )
    arms = {"a": [learner, opponent]}
    experiment = Experiment(MatrixGame("climbing"), arms, replicates, steps, device="cpu", dtype="float64")
    players, game = experiment.bind("a"), experiment.game
    state = game.reset(replicates, 1, torch.device("cpu"), torch.float64)
    for _ in range(steps):
        obs = game.observe(state).obs
        actions = tuple(player.act(seen, {}).action for player, seen in zip(players, obs, strict=True))
        state, rewards, terminated, _ = game.step(state, actions)
        for player in players:
            teach(player, Transition(obs, actions, rewards, game.observe(state).obs, terminated, terminated), [])
        state = game.reset(replicates, 1, torch.device("cpu"), torch.float64)
    obs = game.observe(state).obs[0]
    truth = players[1].beliefs(obs, {}, 1)["policy"][:, 0]
    prior: Any = players[0].opponent_prior
    ends = torch.stack([prior.interval(obs, level)[:, 0] for level in LEVELS])
    return ((ends[..., 0] <= truth) & (truth <= ends[..., 1])).sum(1), truth


def is_calibrated(covered: Tensor, replicates: int, slack: float = 0.0) -> bool:
    """Whether all counts are within the binomial bounds of their level, or of one at most `slack` from it."""
    for level, row in zip(LEVELS, covered.tolist(), strict=True):
        low = stats.binom.ppf(FAILURE / 2, replicates, level - slack)
        high = stats.binom.isf(FAILURE / 2, replicates, min(level + slack, 1))
        if not all(low <= count <= high for count in row):
            return False
    return True


@pytest.mark.parametrize("concentration", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("steps", [3, 25])
def test_with_the_right_prior_intervals_hold_the_truth_at_their_level(concentration: float, steps: int) -> None:
    """Exact for every number of steps, as the truth is a draw from the prior. Fails wrongly with 9e-6 per case."""
    covered, truth = coverage(concentration, Stationary(concentration=concentration), steps, 4000)
    assert is_calibrated(covered, 4000)
    assert len(set(truth[:, 0].tolist())) == 4000


def test_with_a_wrong_prior_they_do_not() -> None:
    """A prior worth 150 observations of a uniform opponent is not unlearned in 25 steps; nor is the check blind."""
    covered, _ = coverage(50.0, Stationary(concentration=1.0), 25, 1000)
    assert not is_calibrated(covered, 1000)
    assert (covered[-1] < 500).all()


def test_a_fixed_opponent_under_jeffreys_prior() -> None:
    """Frequentist coverage: near its level, and exactly what summing over the binomial counts gives."""
    strategy, steps, replicates = [0.5, 0.3, 0.2], 100, 2000
    covered, _ = coverage(0.5, Stationary(probabilities=strategy), steps, replicates)
    assert is_calibrated(covered, replicates, slack=0.04)
    counts = np.arange(steps + 1)
    for level, row in zip(LEVELS, covered.tolist(), strict=True):
        low, high = stats.beta.interval(level, counts + 0.5, steps - counts + 1.0)
        for p, count in zip(strategy, row, strict=True):
            exact = stats.binom.pmf(counts, steps, p)[(low <= p) & (p <= high)].sum()
            assert abs(exact - level) < 0.04
            bounds = (stats.binom.ppf(FAILURE / 2, replicates, exact), stats.binom.isf(FAILURE / 2, replicates, exact))
            assert bounds[0] <= count <= bounds[1]


def test_intervals_by_hand() -> None:
    """Marginals of two actions at concentration 1: uniform, then Beta(1, 4), where `P(below x) = 1 - (1 - x)^4`."""
    seat = Seat(0, (Discrete(2),) * 2, (Discrete(2), Discrete(2)), 1)
    prior = DirichletMultinomial().bind(seat, seat.opponent_action, [seat.observation])
    obs = torch.tensor([[0, 1]])
    prior.observe(torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64))
    interval = prior.interval(obs, 0.8)
    assert interval.shape == (1, 2, 2, 2)
    assert interval.dtype == torch.float32
    assert interval[0, 0].flatten().tolist() == pytest.approx([0.1, 0.9, 0.1, 0.9])
    low, high = 1 - 0.9**0.25, 1 - 0.1**0.25
    assert interval[0, 1].flatten().tolist() == pytest.approx([low, high, 1 - high, 1 - low])


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0])
def test_a_level_is_a_probability(level: float) -> None:
    seat = Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), 1)
    prior = DirichletMultinomial().bind(seat, seat.opponent_action, [seat.observation])
    with pytest.raises(ValueError, match=rf"^level: got {level}, expected a number in \(0, 1\)$"):
        prior.interval(torch.zeros(1, 1, dtype=torch.int64), level)


def test_drawn_strategies_are_dirichlet_and_what_is_played() -> None:
    """Dirichlet(2, 2, 2): mean 1/3, variance 2/63. Six standard errors of 4000 draws."""
    seat = Seat(0, (Discrete(2),) * 2, (Discrete(3), Discrete(2)), 4000, 60, dtype=torch.float64)
    player = Stationary(concentration=2.0).bind(seat)
    obs = torch.zeros(4000, 60, dtype=torch.int64)
    strategy = player.beliefs(obs[:, :2], {}, 1)["policy"]
    assert strategy.shape == (4000, 2, 3)
    assert torch.equal(strategy[:, 0], strategy[:, 1])
    third, variance = torch.full((3,), 1 / 3, dtype=torch.float64), torch.full((3,), 2 / 63, dtype=torch.float64)
    torch.testing.assert_close(strategy[:, 0].mean(0), third, atol=0.017, rtol=0)
    torch.testing.assert_close(strategy[:, 0].var(0), variance, atol=0.004, rtol=0)
    frequency = torch.nn.functional.one_hot(player.act(obs, {}).action, 3).double().mean(1)
    # The squared error of 60 draws, summed over actions, is (1 - sum p^2) / 60; its mean over 4000 replicates.
    error, expected = (frequency - strategy[:, 0]).square().sum(-1), (1 - strategy[:, 0].square().sum(-1)) / 60
    assert error.mean().item() == pytest.approx(expected.mean().item(), abs=6 * error.std().item() / 4000**0.5)
    torch.manual_seed(0)
    drawn = player.act(obs, {}).action
    torch.manual_seed(0)
    assert torch.equal(player.act(obs, {}, explore=False).action, drawn), (
        "a script does not explore: it plays what it plays"
    )


def test_a_drawn_strategy_is_kept_in_the_state() -> None:
    seat = Seat(0, (Discrete(1),) * 2, (Discrete(3), Discrete(2)), 5)
    one, other = (Stationary(concentration=1.0).bind(seat) for _ in range(2))
    obs = torch.zeros(5, 1, dtype=torch.int64)
    assert not torch.equal(one.beliefs(obs, {}, 1)["policy"], other.beliefs(obs, {}, 1)["policy"])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.beliefs(obs, {}, 1)["policy"], other.beliefs(obs, {}, 1)["policy"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Stationary(probabilities=[1, 1], concentration=1.0),
            r"^concentration: got 1\.0 beside probabilities, expected only one of the two",
        ),
        (
            lambda: Stationary(probabilities=[1, 1], action=[1.0]),
            r"^action: got \[1\.0\] beside probabilities, expected only one of the two",
        ),
        (lambda: Stationary(concentration=0.0), r"^concentration: got 0\.0, expected a positive number"),
    ],
)
def test_strategies_that_make_no_sense_are_refused(make: Callable[[], Stationary], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_drawn_strategy_is_over_discrete_actions() -> None:
    game = MaxOfTwoQuadratics()
    with pytest.raises(IncompatibleError, match=r"got Box.* expected Discrete"):
        Stationary(concentration=1.0).bind(Seat(0, game.observations, game.action_spaces, 1))


def test_a_point_is_played_always() -> None:
    box = Box((0.0, -1.0), (2.0, 1.0), shape=2)
    seat = Seat(0, (Box(shape=1),) * 2, (box, box), 3)
    player = Stationary(action=[1.5, -1.0]).bind(seat)
    for explore in (False, True):
        action = player.act(torch.zeros(3, 4, 1), {}, explore).action
        assert torch.equal(action, torch.tensor([1.5, -1.0]).expand(3, 4, 2))
    assert torch.equal(player.beliefs(torch.zeros(3, 4, 1), {}, 5)["policy"][2, 1, 3], torch.tensor([1.5, -1.0]))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([1.5], "action: got 1 numbers, expected 2"),
        ([1.5, -1.5], r"action: got numbers from -1\.5 to 1\.5, expected \(0\.0, -1\.0\) to \(2\.0, 1\.0\)"),
    ],
)
def test_a_point_lies_in_the_box(action: list[float], message: str) -> None:
    box = Box((0.0, -1.0), (2.0, 1.0), shape=2)
    with pytest.raises(IncompatibleError, match=f"^{message}"):
        Stationary(action=action).bind(Seat(0, (Box(shape=1),) * 2, (box, box), 3))
    with pytest.raises(IncompatibleError, match=r"got Discrete.* expected Box"):
        Stationary(action=[0.0]).bind(Seat(0, (Box(shape=1),) * 2, (Discrete(2), Discrete(2)), 3))
