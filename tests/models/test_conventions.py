"""Equal optima in self-play: what the exponent of the empirical prior does to a convention, exactly."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.learners import Rommeo
from inference_marl.models import EmpiricalFrequency, KnownReward
from inference_marl.types import Seat, Transition
from tests.steps import teach

DOUBLE = torch.float64


def players(replicates: int, exponent: float, smoothing: float) -> list[Any]:
    """Two agents who know that it pays 1 to choose the same of two actions, and play it almost without noise."""
    game = MatrixGame("pure_coordination")
    learner = Rommeo(
        opponent_prior=EmpiricalFrequency(smoothing=smoothing, initial="uniform", exponent=exponent),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=KnownReward(),
        temperature=0.02,
        kl_weight=1 / exponent,
    )
    seats = [Seat(i, game.observations, game.action_spaces, replicates, dtype=DOUBLE, game=game) for i in (0, 1)]
    return [learner.bind(seat) for seat in seats]


def policy(player: Any) -> Tensor:
    """The probabilities of both actions, `replicates x actions`."""
    obs = torch.zeros(player.seat.replicates, 1, dtype=torch.int64)
    probabilities: Tensor = player.beliefs(obs, {}, draws=1)["policy"][:, 0]
    return probabilities


def hardened(share: float, exponent: float) -> float:
    return share**exponent / (share**exponent + (1 - share) ** exponent)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0])
def test_the_expected_change_of_a_convention(exponent: float) -> None:
    """E[f1' - f1] = (F(f2) - f1) / (n + 1), from every pair of counts, by the policies and the prior's own counting.

    At exponent 1 the convention f1 + f2 is a martingale; above, it moves away from the middle.
    """
    n = 6
    pairs = torch.cartesian_prod(torch.arange(n + 1), torch.arange(n + 1))  # a replicate each
    first, second = players(len(pairs), exponent, smoothing=0.0)
    history = [(torch.arange(n) >= pairs[:, i : i + 1]).long() for i in (0, 1)]
    zeros = torch.zeros_like(history[0])
    first.opponent_prior.observe(zeros, history[1])
    second.opponent_prior.observe(zeros, history[0])

    change = torch.zeros(len(pairs), 2, dtype=DOUBLE)
    for i, (actor, observer) in enumerate([(first, second), (second, first)]):
        before = observer.opponent_prior.counts[:, 0, 0] / n
        torch.testing.assert_close(before, pairs[:, i] / n, check_dtype=False)
        for action in (0, 1):
            prior = copy.deepcopy(observer.opponent_prior)
            one = torch.full((len(pairs), 1), action)
            prior.observe(torch.zeros_like(one), one)
            change[:, i] += policy(actor)[:, action] * (prior.counts[:, 0, 0] / (n + 1) - before)

    for (k1, k2), (change1, change2) in zip(pairs.tolist(), change.tolist(), strict=True):
        f1, f2 = k1 / n, k2 / n
        assert change1 == pytest.approx((hardened(f2, exponent) - f1) / (n + 1), abs=1e-12)
        assert change2 == pytest.approx((hardened(f1, exponent) - f2) / (n + 1), abs=1e-12)
        convention, drift = f1 + f2 - 1, change1 + change2
        if exponent == 1:
            assert drift == pytest.approx(0, abs=1e-12)
        elif k1 == k2 and k1 not in (0, n / 2, n):
            assert drift * convention > 0


def urn(exponent: float, smoothing: float, steps: int) -> list[float]:
    """P(both choose the same) before each step, over all histories: recursion over how often each chose action 0."""
    weights = {(0, 0): 1.0}
    result = []
    for n in range(steps):
        same, following = 0.0, dict[tuple[int, int], float]()
        for (k1, k2), weight in weights.items():
            x1 = hardened((k2 + smoothing) / (n + 2 * smoothing), exponent)
            x2 = hardened((k1 + smoothing) / (n + 2 * smoothing), exponent)
            same += weight * (x1 * x2 + (1 - x1) * (1 - x2))
            for a1, p1 in ((1, x1), (0, 1 - x1)):
                for a2, p2 in ((1, x2), (0, 1 - x2)):
                    cell = (k1 + a1, k2 + a2)
                    following[cell] = following.get(cell, 0.0) + weight * p1 * p2
        result.append(same)
        weights = following
    return result


def test_self_play_is_an_urn_that_settles_only_if_it_hardens() -> None:
    """The recursion says what happens in exact numbers; play by the learners agrees with it."""
    steps, replicates = 40, 1000
    neutral, hardening = urn(1.0, 1.0, steps), urn(4.0, 1.0, steps)
    assert neutral[0] == hardening[0] == 0.5
    assert neutral[-1] < 0.6
    assert neutral[-1] < urn(2.0, 1.0, steps)[-1] < hardening[-1]
    assert hardening[-1] > 0.997

    for exponent, expected in [(1.0, neutral), (4.0, hardening)]:
        torch.manual_seed(3)
        pair = players(replicates, exponent, smoothing=1.0)
        game, zeros = MatrixGame("pure_coordination"), torch.zeros(replicates, 1, dtype=torch.int64)
        state = game.reset(replicates, 1, torch.device("cpu"), DOUBLE)
        for step in range(steps):
            if step in (4, 20, steps - 1):
                same = (policy(pair[0]) * policy(pair[1])).sum(-1)
                error = same.std() / replicates**0.5
                assert abs(same.mean() - expected[step]) < 5 * error + 1e-9
            actions = tuple(player.act(zeros, {}).action for player in pair)
            _, rewards, terminated, _ = game.step(state, actions)
            for player in pair:
                teach(player, Transition((zeros,) * 2, actions, rewards, (zeros,) * 2, terminated, terminated), [])
