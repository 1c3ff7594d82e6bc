"""Hysteretic Q-learning against a loop written by hand, and its place between its neighbours."""

from collections.abc import Callable

import pytest
import torch

from inference_marl.games import MatrixGame
from inference_marl.inference.schedules import InverseTime
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.learners.tabular.hysteretic_q import HystereticQ
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "HystereticQ": ("discrete", lambda: HystereticQ(exploration=Boltzmann(), negative_rate=InverseTime(0.05, 10.0))),
}
"""Cases that tests/test_contract.py drives through the contract."""


def steps(states: int, replicates: int, number: int) -> list[Transition]:
    """Random transitions of a game of two agents with two actions each."""
    made = []
    for _ in range(number):
        obs, after = torch.randint(states, (2, replicates, 1))
        own, other = torch.randint(2, (2, replicates, 1))
        rewards = torch.randn(replicates, 1, 1, dtype=torch.float64).expand(-1, -1, 2)
        terminated = torch.rand(replicates, 1) < 0.3
        made.append(Transition((obs, obs), (own, other), rewards, (after, after), terminated, terminated))
    return made


def a_seat(replicates: int) -> Seat:
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)
    return Seat(0, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)


def test_equals_a_loop_by_hand() -> None:
    learner = HystereticQ(
        exploration=Boltzmann(),
        rate=InverseTime(0.5, 10),
        negative_rate=InverseTime(0.05, 20),
        discount=0.9,
        initial=(-1.0, 1.0),
    ).bind(a_seat(3))
    q = learner.values.clone()
    torch.manual_seed(1)
    rose = fell = 0
    for step, batch in enumerate(steps(5, 3, 60)):
        teach(learner, batch, [])
        for r in range(3):
            s, a, s2 = int(batch.obs[0][r]), int(batch.actions[0][r]), int(batch.next_obs[0][r])
            error = batch.rewards[r, 0, 0] + (0.0 if batch.terminated[r] else 0.9 * q[r, s2].max()) - q[r, s, a]
            q[r, s, a] += error * (5 / (10 + step) if error >= 0 else 1 / (20 + step))
            rose, fell = rose + bool(error > 0), fell + bool(error < 0)
    assert min(rose, fell) > 30
    torch.testing.assert_close(learner.values, q, rtol=1e-12, atol=1e-12)


def test_with_equal_rates_is_independent_q_learning() -> None:
    hysteretic = HystereticQ(exploration=Boltzmann(), rate=0.3, negative_rate=0.3).bind(a_seat(4))
    independent = IndependentQ(exploration=Boltzmann(), rate=0.3).bind(a_seat(4))
    for batch in steps(5, 4, 30):
        teach(hysteretic, batch, [])
        teach(independent, batch, [])
    torch.testing.assert_close(hysteretic.values, independent.values, rtol=0, atol=0)


def test_settles_where_gains_and_losses_balance() -> None:
    """At `p alpha (high - Q) = (1 - p) beta (Q - low)`: rewards 1 and -1 equally often, so at 9/11 and not at 0."""
    seat = a_seat(2000)
    learner = HystereticQ(exploration=Boltzmann(), rate=0.01, negative_rate=0.001).bind(seat)
    zeros, done = torch.zeros(2000, 1, dtype=torch.int64), torch.ones(2000, 1, dtype=torch.bool)
    torch.manual_seed(0)
    for _ in range(1500):
        rewards = (torch.randint(2, (2000, 1, 1)) * 2.0 - 1.0).double().expand(-1, -1, 2)
        teach(learner, Transition((zeros, zeros), (zeros, zeros), rewards, (zeros, zeros), done, done), [])
    mean = learner.values[:, 0, 0].mean()
    torch.testing.assert_close(mean, torch.tensor(9 / 11, dtype=torch.float64), rtol=0, atol=0.005)
    assert learner.values[:, 1:].abs().max() == 0


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.5])
def test_refuses_a_rate_out_of_its_range(beta: float) -> None:
    with pytest.raises(ValueError, match=rf"negative_rate: got {beta}, expected a number in .*$"):
        HystereticQ(exploration=Boltzmann(), negative_rate=beta)
