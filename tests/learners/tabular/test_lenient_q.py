"""LMRL2 against a loop written by hand, and its probabilities against their formula."""

from collections.abc import Callable
from math import exp

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.learners.tabular.lenient_q import LenientQ
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "LenientQ": ("discrete", LenientQ),
    "LenientQ, cooling fast": ("discrete", lambda: LenientQ(decay=0.5, initial=(-1.0, 1.0), selection_moderation=0.1)),
}
"""Cases that tests/test_contract.py drives through the contract."""


def a_seat(replicates: int, environments: int = 1) -> Seat:
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)
    return Seat(0, game.observations, game.action_spaces, replicates, environments, dtype=torch.float64, game=game)


def transition(obs: Tensor, own: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor) -> Transition:
    rewards = torch.stack([reward, reward], dim=-1)
    return Transition((obs, obs), (own, own), rewards, (next_obs, next_obs), terminated, terminated)


@pytest.mark.parametrize(("theta", "follows"), [(1e-9, True), (1e15, False)])
def test_equals_a_loop_by_hand(theta: float, follows: bool) -> None:
    """Where all errors below 0 are followed, and where all are forgiven."""
    replicates, states = 3, 5
    learner = LenientQ(
        rate=0.3,
        discount=0.8,
        initial=(-1.0, 1.0),
        max_temperature=4.0,
        min_temperature=2.0,
        decay=0.9,
        diffusion=0.25,
        selection_moderation=0.5,
        leniency_moderation=theta,
    ).bind(a_seat(replicates))
    q, temperature = learner.values.clone(), torch.full((replicates, states, 2), 4.0, dtype=torch.float64)
    torch.manual_seed(1)
    for _ in range(60):
        obs, after = torch.randint(states, (2, replicates, 1))
        own = torch.randint(2, (replicates, 1))
        reward, terminated = torch.randn(replicates, 1, dtype=torch.float64), torch.rand(replicates, 1) < 0.3
        teach(learner, transition(obs, own, reward, after, terminated), [])
        for r in range(replicates):
            s, a, s2 = int(obs[r]), int(own[r]), int(after[r])
            error = reward[r, 0] + (0.0 if terminated[r] else 0.8 * q[r, s2].max()) - q[r, s, a]
            if error >= 0 or follows:
                q[r, s, a] += 0.3 * error
            kept = temperature[r, s, a].item()
            mean = kept if terminated[r] else temperature[r, s2].mean().item()
            temperature[r, s, a] = 0.9 * (0.75 * kept + 0.25 * mean)
    torch.testing.assert_close(learner.values, q, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(learner.temperature, temperature, rtol=1e-12, atol=1e-12)

    policy = learner(torch.arange(states).expand(replicates, -1))
    cold = 0
    for r in range(replicates):
        for s in range(states):
            mean = temperature[r, s].mean().item()
            cold += mean < 2.0
            expected = torch.softmax(q[r, s] / (0.5 * mean), -1)
            if mean < 2.0:
                expected = torch.eye(2, dtype=torch.float64)[q[r, s].argmax()]
            torch.testing.assert_close(policy[r, s], expected)
    assert 0 < cold < replicates * states


@pytest.mark.parametrize(("theta", "temperature"), [(1.0, 1.0), (0.5, 10.0), (3.0, 0.2)])
def test_errors_below_zero_are_followed_as_often_as_the_formula_says(theta: float, temperature: float) -> None:
    replicates = 20_000
    learner = LenientQ(rate=1.0, max_temperature=temperature, leniency_moderation=theta).bind(a_seat(replicates))
    zeros, done = torch.zeros(replicates, 1, dtype=torch.int64), torch.ones(replicates, 1, dtype=torch.bool)
    torch.manual_seed(0)
    teach(learner, transition(zeros, zeros, torch.full((replicates, 1), -1.0).double(), zeros, done), [])
    probability = 1 - exp(-1 / (theta * temperature))
    followed = (learner.values[:, 0, 0] == -1).double().mean().item()
    assert abs(followed - probability) < 4 * (probability * (1 - probability) / replicates) ** 0.5


def test_environments_that_share_a_cell_are_followed_or_forgiven_and_cooled_together() -> None:
    replicates = 200
    learner = LenientQ(rate=1.0, max_temperature=1.0, decay=0.5, diffusion=0.5).bind(a_seat(replicates, 3))
    obs, done = torch.zeros(replicates, 3, dtype=torch.int64), torch.tensor([[True, True, False]]).expand(replicates, 3)
    own = torch.tensor([[0, 0, 1]]).expand(replicates, 3)
    reward = torch.tensor([[-1.0, -3.0, 1.0]], dtype=torch.float64).expand(replicates, 3)
    torch.manual_seed(0)
    teach(learner, transition(obs, own, reward, obs + 1, done), [])
    assert set(learner.values[:, 0, 0].tolist()) == {0.0, -2.0}
    assert (learner.values[:, 0, 1] == 1).all()
    assert (learner.temperature[:, 0] == 0.5).all()
    assert (learner.temperature[:, 1:] == 1).all()


def test_stays_finite_when_temperatures_have_vanished() -> None:
    learner = LenientQ(rate=1.0, decay=1e-300, max_temperature=1e-29, min_temperature=1e-30).bind(a_seat(2))
    zeros, done = torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1, dtype=torch.bool)
    for reward in (-1.0, -2.0):
        teach(learner, transition(zeros, zeros, torch.full((2, 1), reward).double(), zeros, done), [])
    assert learner.temperature[0, 0].tolist() == [0.0, 1e-29]
    assert learner.values[:, 0, 0].tolist() == [-2.0, -2.0]  # nothing is forgiven any more
    assert learner(zeros).tolist() == [[[0.0, 1.0]]] * 2


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("max_temperature", 0.0, "a positive number"),
        ("min_temperature", -1.0, "a positive number"),
        ("selection_moderation", 0.0, "a positive number"),
        ("leniency_moderation", 0.0, "a positive number"),
        ("decay", 0.0, r"a number in \(0, 1\]"),
        ("decay", 1.5, r"a number in \(0, 1\]"),
        ("diffusion", -0.1, r"a number in \[0, 1\]"),
        ("rate", 0.0, r"a number in \(0, 1\]"),
    ],
)
def test_refuses_numbers_out_of_range(name: str, number: float, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got {number}.* expected {expected}"):
        LenientQ(**{name: number})
