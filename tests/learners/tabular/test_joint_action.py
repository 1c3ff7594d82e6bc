"""Joint action learners against a loop written by hand, and what dividing by the sum does."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.inference.schedules import InverseTime
from inference_marl.learners.tabular.exploration import Boltzmann, EpsilonGreedy
from inference_marl.learners.tabular.joint_action import JointActionLearner
from inference_marl.models import DirichletMultinomial, EmpiricalFrequency, HierarchicalDirichlet
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "JointActionLearner": ("discrete", lambda: JointActionLearner(exploration=Boltzmann(), initial=(0.0, 1.0))),
    "JointActionLearner, public code": (
        "discrete",
        lambda: JointActionLearner(
            exploration=EpsilonGreedy(InverseTime(0.1)),
            opponent_prior=EmpiricalFrequency(window=3),
            divide_by_sum=True,
            rate=InverseTime(),
        ),
    ),
    "JointActionLearner, smoothed": (
        "discrete",
        lambda: JointActionLearner(exploration=Boltzmann(), opponent_prior=DirichletMultinomial()),
    ),
    "JointActionLearner, hierarchy": (
        "discrete",
        lambda: JointActionLearner(exploration=Boltzmann(), opponent_prior=HierarchicalDirichlet(window=3, steps=1)),
    ),
}
"""Cases that tests/test_contract.py drives through the contract."""


def one_shot(payoff: list[list[float]], replicates: int = 1) -> tuple[Seat, Tensor]:
    game = MatrixGame(payoff)
    seat = Seat(0, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)
    return seat, torch.zeros(replicates, 1, dtype=torch.int64)


def see(learner: Learner, own: int, other: int, reward: float) -> None:
    """One step of a one-shot game, in the first seat of one replicate."""
    zero, done = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    rewards = torch.tensor([[[reward, reward]]], dtype=torch.float64)
    actions = (torch.full_like(zero, own), torch.full_like(zero, other))
    teach(learner, Transition((zero, zero), actions, rewards, (zero, zero), done, done), [])


def test_equals_a_loop_by_hand() -> None:
    replicates, states, steps = 3, 5, 60
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)
    seat = Seat(1, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)
    described = JointActionLearner(
        exploration=Boltzmann(0.7), rate=InverseTime(0.5, 10), discount=0.9, initial=(-1.0, 1.0)
    )
    learner = described.bind(seat)
    q = learner.values.clone().view(replicates, states, 2, 2)
    counts = torch.zeros(replicates, states, 2, dtype=torch.float64)
    every = torch.arange(states).expand(replicates, -1)
    start = learner.belief(every)
    torch.testing.assert_close(start.sum(-1), torch.ones(replicates, states, dtype=torch.float64))
    assert start.std() > 0.1

    def belief(r: int, s: int) -> Tensor:
        return counts[r, s] / counts[r, s].sum() if counts[r, s].sum() > 0 else start[r, s]

    torch.manual_seed(1)
    for step in range(steps):
        obs, after = torch.randint(states, (2, replicates, 1))
        own, other = torch.randint(2, (2, replicates, 1))
        reward, terminated = torch.randn(replicates, 1, dtype=torch.float64), torch.rand(replicates, 1) < 0.3
        rewards = torch.stack([-reward, reward], dim=-1)
        teach(learner, Transition((obs, obs), (other, own), rewards, (after, after), terminated, terminated), [])
        for r in range(replicates):
            s, a, b, s2 = int(obs[r]), int(own[r]), int(other[r]), int(after[r])
            counts[r, s, b] += 1
            best = max(float(q[r, s2, i] @ belief(r, s2)) for i in range(2))
            y = reward[r, 0] + 0.9 * (0.0 if terminated[r] else best)
            q[r, s, a, b] += 0.5 * 10 / (10 + step) * (y - q[r, s, a, b])
    torch.testing.assert_close(learner.values, q.view(replicates, states, 4), rtol=1e-12, atol=1e-12)
    believed = torch.stack([torch.stack([belief(r, s) for s in range(states)]) for r in range(replicates)])
    torch.testing.assert_close(learner.belief(every), believed)
    expected = (q * believed.unsqueeze(-2)).sum(-1)
    torch.testing.assert_close(learner(every), torch.softmax(expected / 0.7, -1))


def test_dividing_by_a_negative_sum_takes_the_worst_for_the_best() -> None:
    seat, zero = one_shot([[0, 0], [0, 0]])
    policies = {}
    for divide in (False, True):
        learner = JointActionLearner(exploration=EpsilonGreedy(0.0), divide_by_sum=divide, rate=1.0).bind(seat)
        torch.testing.assert_close(learner(zero), torch.full((1, 1, 2), 0.5, dtype=torch.float64))  # 0 / 0 is no value
        see(learner, 0, 0, -3.0)
        see(learner, 1, 0, 1.0)
        policies[divide] = learner(zero)[0, 0].tolist()
        assert learner.next_value(zero).item() == 1.0
    assert policies == {False: [0.0, 1.0], True: [1.0, 0.0]}


def test_forgets_what_leaves_the_window() -> None:
    seat, zero = one_shot([[0, 0, 0], [0, 0, 0]])
    learner = JointActionLearner(exploration=Boltzmann(), opponent_prior=EmpiricalFrequency(window=2)).bind(seat)
    for other in (0, 1, 2):
        see(learner, 0, other, 1.0)
    assert learner.belief(zero)[0, 0].tolist() == [0.0, 0.5, 0.5]


def test_joint_frequencies_of_several_opponents() -> None:
    game = MatrixGame([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [1.0, 0.0]]], common=True)
    seat = Seat(0, game.observations, game.action_spaces, 1, dtype=torch.float64, game=game)
    learner = JointActionLearner(exploration=Boltzmann()).bind(seat)
    zero, done = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    for other in (0, 1):  # both always do the same
        actions = (zero, zero + other, zero + other)
        rewards = torch.zeros(1, 1, 3, dtype=torch.float64)
        teach(learner, Transition((zero,) * 3, actions, rewards, (zero,) * 3, done, done), [])
    assert learner.belief(zero)[0, 0].tolist() == [0.5, 0.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JointActionLearner(exploration=Boltzmann(), rate=0.0), "rate: got 0.0"),
        (lambda: JointActionLearner(exploration=Boltzmann(), discount=1.0), "discount: got 1.0"),
        (
            lambda: JointActionLearner(exploration=Boltzmann(), opponent_prior=EmpiricalFrequency(window=0)),
            "window: got 0",
        ),
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
