"""Recursive FMQ against a loop written by hand, its choices, and the three climbing games."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.inference.schedules import InverseTime
from inference_marl.learners.tabular.recursive_fmq import RecursiveFMQ
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "RecursiveFMQ": ("discrete", lambda: RecursiveFMQ(epsilon=0.3, rate=0.5, frequency_rate=0.2)),
}
"""Cases that tests/test_contract.py drives through the contract."""


def learn(learner: Learner, obs: Tensor, action: Tensor, reward: Tensor, after: Tensor, terminated: Tensor) -> None:
    rewards = torch.stack([-reward, reward], dim=-1)
    teach(learner, Transition((obs, obs), (action, action), rewards, (after, after), terminated, terminated), [])


def test_equals_a_loop_by_hand() -> None:
    replicates, states, actions = 3, 10, 3
    game = MatrixGame("climbing", horizon=None, memory=1)
    seat = Seat(1, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)
    learner = RecursiveFMQ(
        epsilon=0.3, rate=0.5, frequency_rate=InverseTime(0.3, 20), discount=0.5, initial=(-1.0, 1.0)
    ).bind(seat)
    q = learner.values.clone()
    largest, f, choice = q.clone(), torch.ones_like(q), learner.choice.clone()
    torch.manual_seed(1)
    raised = reached = missed = changed = 0
    for t in range(250):
        obs, after = torch.randint(states, (2, replicates, 1))
        action, terminated = torch.randint(actions, (replicates, 1)), torch.rand(replicates, 1) < 0.5
        reward = torch.randint(-2, 3, (replicates, 1)).double()
        learn(learner, obs, action, reward, after, terminated)
        for r in range(replicates):
            s, a, s2 = int(obs[r]), int(action[r]), int(after[r])
            y, optimistic = (
                float(reward[r, 0]) + 0.5 * (0.0 if terminated[r] else float(table[r, s2].max()))
                for table in (q, largest)
            )
            q[r, s, a] += 0.5 * (y - q[r, s, a])
            alpha_f = 0.3 * 20 / (20 + t)
            if optimistic > largest[r, s, a]:
                largest[r, s, a], f[r, s, a] = optimistic, 1.0
                raised += 1
            elif optimistic == largest[r, s, a]:
                f[r, s, a] = (1 - alpha_f) * f[r, s, a] + alpha_f
                reached += 1
            else:
                f[r, s, a] = (1 - alpha_f) * f[r, s, a]
                missed += 1
            e = (1 - f[r, s]) * q[r, s] + f[r, s] * largest[r, s]
            if e[choice[r, s]] < e.max() - 1e-9:
                choice[r, s] = e.argmax()
                changed += 1
    assert min(raised, reached, missed, changed) > 20  # every branch was taken
    torch.testing.assert_close(learner.values, q)
    torch.testing.assert_close(learner.maximum, largest)
    torch.testing.assert_close(learner.frequency, f)
    best = learner.evaluation.max(-1).values
    every = torch.arange(states).expand(replicates, -1)
    torch.testing.assert_close(learner.evaluation.gather(-1, choice.unsqueeze(-1)).squeeze(-1), best)
    probabilities = torch.full((replicates, states, actions), 0.1, dtype=torch.float64)
    torch.testing.assert_close(learner(every), probabilities.scatter_add(
        -1, learner.choice.unsqueeze(-1), torch.full((replicates, states, 1), 0.7, dtype=torch.float64)
    ))  # fmt: skip


def test_keeps_its_choice_among_equals_and_draws_among_the_better() -> None:
    game, replicates = MatrixGame("climbing"), 3000
    seat = Seat(1, game.observations, game.action_spaces, replicates, dtype=torch.float64)
    learner = RecursiveFMQ().bind(seat)
    first = learner.choice.clone()
    shares = torch.bincount(first.flatten(), minlength=3) / replicates
    assert ((shares - 1 / 3).abs() < 0.05).all()  # six standard errors
    zeros, done = torch.zeros(replicates, 1, dtype=torch.int64), torch.ones(replicates, 1, dtype=torch.bool)
    learn(learner, zeros, zeros, torch.zeros(replicates, 1, dtype=torch.float64), zeros, done)
    assert torch.equal(learner.choice, first)
    learner.maximum[:, 0, 1:] = 2.0
    learn(learner, zeros, zeros, torch.zeros(replicates, 1, dtype=torch.float64), zeros, done)
    assert torch.equal(learner.choice[first > 0], first[first > 0])
    moved = learner.choice[first == 0]
    assert ((torch.bincount(moved, minlength=3) / len(moved) - torch.tensor([0, 0.5, 0.5])).abs() < 0.1).all()


def test_environments_of_one_step_move_the_frequency_once() -> None:
    game = MatrixGame("climbing")
    seat = Seat(1, game.observations, game.action_spaces, 1, environments=4, dtype=torch.float64)
    learner = RecursiveFMQ(frequency_rate=0.5).bind(seat)
    zeros, done = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool)
    action = torch.tensor([[0, 0, 0, 1]])
    for rewards, expected in [
        ([1.0, 2.0, 2.0, -1.0], [1.0, 0.5, 1.0]),
        ([2.0, 0.0, 0.0, -1.0], [0.5 + 0.5 / 3, 0.25, 1.0]),
    ]:
        learn(learner, zeros, action, torch.tensor([rewards], dtype=torch.float64), zeros, done)
        torch.testing.assert_close(learner.frequency[0, 0], torch.tensor(expected, dtype=torch.float64))
    assert learner.maximum[0, 0].tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecursiveFMQ(epsilon=-0.1), "epsilon: got -0.1"),
        (lambda: RecursiveFMQ(frequency_rate=0.0), "frequency_rate: got 0.0, expected a number"),
        (lambda: RecursiveFMQ(rate=1.5), "rate: got 1.5"),
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_plays_its_choice_when_it_does_not_explore() -> None:
    game = MatrixGame("climbing")
    learner = RecursiveFMQ(epsilon=1.0).bind(Seat(0, game.observations, game.action_spaces, 20))
    assert len(learner.choice.unique()) == 3
    assert torch.equal(learner.act(torch.zeros(20, 1, dtype=torch.int64), {}, explore=False).action, learner.choice)
