"""FMQ against a loop written by hand, what its options change, and the climbing game."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.inference.schedules import ExponentialDecay
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.learners.tabular.fmq import FMQ
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "FMQ": ("discrete", lambda: FMQ(exploration=Boltzmann(ExponentialDecay(50.0, 0.1, 1.0)))),
    "FMQ, as in public code": (
        "discrete",
        lambda: FMQ(exploration=Boltzmann(), initial=(0.0, 1.0), restart_count=False, initial_maximum=0.0),
    ),
}
"""Cases that tests/test_contract.py drives through the contract."""


def learn(learner: Learner, obs: Tensor, action: Tensor, reward: Tensor, after: Tensor, terminated: Tensor) -> None:
    rewards = torch.stack([-reward, reward], dim=-1)
    teach(learner, Transition((obs, obs), (action, action), rewards, (after, after), terminated, terminated), [])


@pytest.mark.parametrize(("restart_count", "initial_maximum"), [(True, -math.inf), (False, 0.0), (False, -math.inf)])
def test_equals_a_loop_by_hand(restart_count: bool, initial_maximum: float) -> None:
    replicates, states, actions = 3, 10, 3
    game = MatrixGame("climbing", horizon=None, memory=1)
    seat = Seat(1, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)
    options = {"restart_count": restart_count, "initial_maximum": initial_maximum}
    learner = FMQ(exploration=Boltzmann(3.0), weight=2.0, rate=0.5, discount=0.9, initial=(-1.0, 1.0), **options).bind(
        seat
    )
    q = learner.values.clone()
    received: dict[tuple[int, int, int], list[float]] = {}
    torch.manual_seed(1)
    for _ in range(150):
        obs, after = torch.randint(states, (2, replicates, 1))
        action, terminated = torch.randint(actions, (replicates, 1)), torch.rand(replicates, 1) < 0.3
        reward = torch.randint(-2, 3, (replicates, 1)).double()
        learn(learner, obs, action, reward, after, terminated)
        for r in range(replicates):
            s, a, s2 = int(obs[r]), int(action[r]), int(after[r])
            received.setdefault((r, s, a), []).append(float(reward[r]))
            y = reward[r, 0] + 0.9 * (0.0 if terminated[r] else q[r, s2].max())
            q[r, s, a] += 0.5 * (y - q[r, s, a])
    expected = q.clone()
    for cell, rewards in received.items():
        maximum, count = initial_maximum, 0
        for one in rewards:
            if one > maximum and restart_count:
                count = 0
            if one >= maximum:
                maximum, count = one, count + 1
        if count:
            expected[cell] += 2.0 * count / len(rewards) * maximum
    assert (expected == q).any()  # without plays, or without a maximum
    every = torch.arange(states).expand(replicates, -1)
    torch.testing.assert_close(learner.values, q)
    torch.testing.assert_close(learner.preferences(every), expected)
    torch.testing.assert_close(learner(every), torch.softmax(expected / 3.0, -1))


def test_frequency_is_that_of_the_definition() -> None:
    """Kapetanakis and Kudenko: the share of plays of an action in which its largest reward came."""
    game = MatrixGame("climbing")
    seat = Seat(0, game.observations, game.action_spaces, 1, dtype=torch.float64)
    zeros, done = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    rewards = [-30.0, 0.0, 0.0, 11.0, -30.0, 11.0, 0.0, -30.0]
    shares = {}
    for restart in (True, False):
        learner = FMQ(exploration=Boltzmann(), rate=1.0, restart_count=restart).bind(seat)
        for reward in rewards:
            learn(learner, zeros, zeros, torch.tensor([[-reward]], dtype=torch.float64), zeros, done)
        preference = learner.preferences(zeros)[0, 0]
        assert preference[1:].tolist() == [0.0, 0.0]
        shares[restart] = float((preference[0] - rewards[-1]) / (10.0 * 11.0))
    assert shares[True] == pytest.approx(rewards.count(11.0) / len(rewards))
    assert shares[False] == pytest.approx(5 / 8)  # goes on from one -30 and two 0


def test_environments_of_one_step_are_counted_together() -> None:
    game = MatrixGame("climbing")
    seat = Seat(0, game.observations, game.action_spaces, 1, environments=4, dtype=torch.float64)
    learner = FMQ(exploration=Boltzmann(), weight=1.0, rate=1.0).bind(seat)
    zeros, done = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool)
    for rewards in ([1.0, 2.0, 2.0, 0.0], [2.0, 1.0, 1.0, 8.0]):
        reward = -torch.tensor([rewards], dtype=torch.float64)
        learn(learner, zeros, torch.tensor([[0, 0, 0, 1]]), reward, zeros, done)
    expected = torch.tensor([4 / 3 + 3 / 6 * 2, 8 + 1 / 2 * 8, 0.0], dtype=torch.float64)
    torch.testing.assert_close(learner.preferences(zeros)[0, 0], expected)


def test_slow_annealing_finds_the_optimum() -> None:
    """The schedule of the paper for 1000 plays: .998 of 4000 replicates succeed, so fewer than 190 of 200 never do."""
    game, replicates = MatrixGame("climbing"), 200
    obs, done = torch.zeros(replicates, 1, dtype=torch.int64), torch.ones(replicates, 1, dtype=torch.bool)
    described = FMQ(exploration=Boltzmann(ExponentialDecay(499.0, 0.006, 1.0)))
    seats = [Seat(agent, game.observations, game.action_spaces, replicates) for agent in range(2)]
    players = [described.bind(seat) for seat in seats]
    state = game.reset(replicates, 1, torch.device("cpu"), torch.float32)
    for _ in range(900):
        actions = tuple(player.act(obs, {}).action for player in players)
        _, rewards, _, _ = game.step(state, actions)
        for player in players:
            teach(player, Transition((obs, obs), actions, rewards, (obs, obs), done, done), [])
    best = game.is_optimal([player.act(obs, {}, explore=False).action for player in players])
    assert best is not None
    assert int(best.sum()) >= 190


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FMQ(exploration=Boltzmann(), weight=-1.0), "weight: got -1.0, expected a number that is not negative"),
        (lambda: FMQ(exploration=Boltzmann(), weight=math.nan), "weight: got nan"),
        (
            lambda: FMQ(exploration=Boltzmann(), initial_maximum=math.inf),
            "initial_maximum: got inf, expected a finite number, or minus",
        ),
        (lambda: FMQ(exploration=Boltzmann(), rate=1.5), "rate: got 1.5"),
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
