"""PR2-Q against a loop written by hand, for each way to model how the opponents answer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.inference.schedules import ExponentialDecay, InverseTime
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.learners.tabular.pr2_q import PR2Q
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "PR2Q": ("discrete", lambda: PR2Q(exploration=Boltzmann(), initial=(0.0, 1.0))),
    "PR2Q, soft": (
        "discrete",
        lambda: PR2Q(
            exploration=Boltzmann(),
            opponent_model="soft",
            opponent_temperature=ExponentialDecay(5.0, 0.1, 0.1),
            rate=InverseTime(),
        ),
    ),
    "PR2Q, public code": (
        "discrete",
        lambda: PR2Q(exploration=Boltzmann(), opponent_model="counts_over_pairs", initial=(0.0, 1.0)),
    ),
}
"""Cases that tests/test_contract.py drives through the contract."""


def weights(kind: str, counts: Tensor, q: Tensor) -> Tensor:
    """What one state's joint values are weighed with, `actions x opponent_actions`, one number at a time."""
    found = torch.zeros_like(q)
    for a in range(2):
        for b in range(2):
            if kind == "soft":
                found[a, b] = (q[a, b] / 1.5).exp() / (q[a] / 1.5).exp().sum()
            elif kind == "counts":
                found[a, b] = counts[a, b] / counts[a].sum() if counts[a].sum() > 0 else 0.5
            else:
                found[a, b] = counts[a, b] / (counts[a].sum() + 0.1)
    return found / (found.sum() + 0.1) if kind == "counts_over_pairs" else found


@pytest.mark.parametrize("kind", ["counts", "soft", "counts_over_pairs"])
def test_equals_a_loop_by_hand(kind: str) -> None:
    replicates, states, steps = 3, 5, 60
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)
    seat = Seat(1, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)
    learner = PR2Q(
        exploration=Boltzmann(0.7),
        opponent_model=kind,  # type: ignore[arg-type]
        opponent_temperature=1.5 if kind == "soft" else None,
        rate=InverseTime(0.5, 10),
        discount=0.9,
        initial=(-1.0, 1.0),
    ).bind(seat)
    q = learner.values.clone().view(replicates, states, 2, 2)
    counts = torch.zeros_like(q)

    def expected(r: int, s: int) -> Tensor:
        return (q[r, s] * weights(kind, counts[r, s], q[r, s])).sum(-1)

    torch.manual_seed(1)
    for step in range(steps):
        obs, after = torch.randint(states, (2, replicates, 1))
        own, other = torch.randint(2, (2, replicates, 1))
        reward, terminated = torch.randn(replicates, 1, dtype=torch.float64), torch.rand(replicates, 1) < 0.3
        rewards = torch.stack([-reward, reward], dim=-1)
        teach(learner, Transition((obs, obs), (other, own), rewards, (after, after), terminated, terminated), [])
        for r in range(replicates):
            s, a, b, s2 = int(obs[r]), int(own[r]), int(other[r]), int(after[r])
            counts[r, s, a, b] += 1
            y = reward[r, 0] + 0.9 * (0.0 if terminated[r] else expected(r, s2).max())
            q[r, s, a, b] += 0.5 * 10 / (10 + step) * (y - q[r, s, a, b])
    torch.testing.assert_close(learner.values, q.view(replicates, states, 4), rtol=1e-12, atol=1e-12)
    every = torch.arange(states).expand(replicates, -1)
    values = torch.stack([torch.stack([expected(r, s) for s in range(states)]) for r in range(replicates)])
    policy = torch.softmax(values / 0.7, -1)
    torch.testing.assert_close(learner(every), policy)
    answered = "counts" if kind == "counts_over_pairs" else kind
    belief = torch.stack(
        [
            torch.stack([policy[r, s] @ weights(answered, counts[r, s], q[r, s]) for s in range(states)])
            for r in range(replicates)
        ]
    )
    torch.testing.assert_close(learner.belief(every), belief)


def test_a_cold_soft_model_hopes_for_the_best_answer() -> None:
    game = MatrixGame("climbing")
    seat = Seat(0, game.observations, game.action_spaces, 1, dtype=torch.float64, game=game)
    learner = PR2Q(exploration=Boltzmann(0.01), opponent_model="soft", opponent_temperature=0.01).bind(seat)
    learner.values.copy_(game.expected_payoff[0].flatten().expand_as(learner.values))
    zero = torch.zeros(1, 1, dtype=torch.int64)
    torch.testing.assert_close(learner.preferences(zero)[0, 0], torch.tensor([11.0, 7.0, 5.0], dtype=torch.float64))
    certain = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(learner.belief(zero)[0, 0], certain)


def test_the_soft_model_cools_over_updates() -> None:
    game = MatrixGame("stag_hunt")
    seat = Seat(0, game.observations, game.action_spaces, 1, dtype=torch.float64, game=game)
    learner = PR2Q(
        exploration=Boltzmann(), opponent_model="soft", opponent_temperature=InverseTime(2.0, 1), initial=(0.0, 1.0)
    ).bind(seat)
    zero, done = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    for temperature in (2.0, 1.0, 2 / 3):
        expected = torch.softmax(learner.joint_values(zero) / temperature, -1)
        torch.testing.assert_close(learner.answers(zero), expected)
        rewards = torch.ones(1, 1, 2, dtype=torch.float64)
        teach(learner, Transition((zero, zero), (zero, zero), rewards, (zero, zero), done, done), [])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PR2Q(exploration=Boltzmann(), opponent_model="counted"),
            "opponent_model: got 'counted', expected counts or soft",
        ),  # type: ignore[arg-type]
        (
            lambda: PR2Q(exploration=Boltzmann(), opponent_model="counts", opponent_temperature=2.0),
            "opponent_temperature: got one with opponent_model = counts",
        ),
        (
            lambda: PR2Q(exploration=Boltzmann(), opponent_model="soft", opponent_temperature=0.0),
            "temperature: got 0.0, expected a positive number",
        ),
        (lambda: PR2Q(exploration=Boltzmann(), rate=2.0), "rate: got 2.0"),
    ],
)
def test_refuses_what_cannot_be(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
