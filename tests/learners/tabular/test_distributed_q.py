"""Distributed Q-learning against a loop written by hand, and what its social convention is for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.learners.tabular.distributed_q import DistributedQ
from inference_marl.learners.tabular.exploration import Boltzmann, EpsilonGreedy
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "DistributedQ": ("discrete", lambda: DistributedQ(exploration=EpsilonGreedy(0.3), initial=-2.0)),
    "DistributedQ, Boltzmann": ("discrete", lambda: DistributedQ(exploration=Boltzmann(), initial=(-1.0, 0.0))),
}
"""Cases that tests/test_contract.py drives through the contract."""


def test_equals_a_loop_by_hand() -> None:
    """With rewards of few values, so that ties are frequent, and with two environments that share a state."""
    replicates, environments, states = 3, 2, 5
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)
    seat = Seat(1, game.observations, game.action_spaces, replicates, environments, dtype=torch.float64)
    learner = DistributedQ(exploration=EpsilonGreedy(0.2), discount=0.5, initial=-3.0).bind(seat)
    q, choice = learner.values.clone(), learner.choice.clone()
    torch.manual_seed(1)
    changed = 0
    for _ in range(60):
        shape = (replicates, environments)
        obs, after = torch.randint(states, (2, *shape))
        own, other = torch.randint(2, (2, *shape))
        rewards = torch.randint(-2, 3, (*shape, 1)).double().expand(-1, -1, 2)
        terminated = torch.rand(shape) < 0.5
        teach(learner, Transition((obs, obs), (other, own), rewards, (after, after), terminated, terminated), [])
        for r in range(replicates):
            for e in range(environments):
                s, a, s2 = int(obs[r, e]), int(own[r, e]), int(after[r, e])
                y = rewards[r, e, 0] + (0.0 if terminated[r, e] else 0.5 * q[r, s2].max())
                best = q[r, s].max().item()
                q[r, s, a] = max(q[r, s, a].item(), y.item())
                if q[r, s].max() > best:
                    changed += int(choice[r, s]) != a
                    choice[r, s] = a
    assert changed > 5
    assert torch.equal(learner.values, q)
    assert torch.equal(learner.choice, choice)
    every = torch.arange(states).expand(replicates, -1)
    expected = 0.8 * torch.nn.functional.one_hot(choice, 2) + 0.1
    torch.testing.assert_close(learner(every), expected.double())
    assert torch.equal(learner.act(every, {}, explore=False).action, choice)
    assert torch.equal(learner.preferences(every).argmax(-1), choice)
    assert torch.equal(learner.next_value(every), q.max(-1).values)  # the choice's lead is no part of a value


def play(learners: list[DistributedQ], game: MatrixGame, steps: int) -> list[Tensor]:
    """Let two learners play; returns what they choose at the end."""
    seat = learners[0].seat
    zeros = torch.zeros(seat.replicates, 1, dtype=torch.int64)
    state = game.reset(seat.replicates, 1, seat.device, seat.dtype)
    for _ in range(steps):
        actions = tuple(learner.act(zeros, {}).action for learner in learners)
        _, rewards, terminated, _ = game.step(state, actions)
        for learner in learners:
            teach(learner, Transition((zeros, zeros), actions, rewards, (zeros, zeros), terminated, terminated), [])
    return [learner.act(zeros, {}, explore=False).action for learner in learners]


@pytest.mark.parametrize("exploration", [EpsilonGreedy(0.8), Boltzmann(50.0)])
def test_agrees_on_one_of_two_equal_optima(exploration: EpsilonGreedy | Boltzmann) -> None:
    game, replicates = MatrixGame("penalty", k=-100.0), 300
    learners = [
        DistributedQ(exploration=exploration).bind(Seat(i, game.observations, game.action_spaces, replicates))
        for i in (0, 1)
    ]
    torch.manual_seed(0)
    one, other = play(learners, game, 300)
    assert torch.equal(one, other)
    assert 0.3 < (one == 0).double().mean() < 0.7  # which of the two is chance
    assert (one != 1).all()
    values = learners[0].values[:, 0]
    assert torch.equal(values[:, 0], values[:, 2])  # nothing but the convention tells the two apart


def test_finds_the_guarded_optimum_of_the_climbing_game() -> None:
    game = MatrixGame("climbing")
    seats = [Seat(i, game.observations, game.action_spaces, 200) for i in (0, 1)]
    torch.manual_seed(0)
    one, other = play([DistributedQ(exploration=EpsilonGreedy(1.0)).bind(seat) for seat in seats], game, 150)
    assert (one == 0).all()
    assert (other == 0).all()


def test_is_misled_by_lucky_rewards() -> None:
    """It believes that the middle cell, which pays 14 or 0, pays 14."""
    game = MatrixGame("partially_stochastic_climbing")
    seats = [Seat(i, game.observations, game.action_spaces, 200) for i in (0, 1)]
    torch.manual_seed(0)
    one, other = play([DistributedQ(exploration=EpsilonGreedy(1.0)).bind(seat) for seat in seats], game, 300)
    assert (one == 1).all()
    assert (other == 1).all()


def test_first_choices_are_random_among_the_best() -> None:
    game = MatrixGame("climbing")
    seat = Seat(0, game.observations, game.action_spaces, 3000, dtype=torch.float64)
    torch.manual_seed(0)
    shares = (
        torch.bincount(DistributedQ(exploration=EpsilonGreedy(0.0)).bind(seat).choice.flatten(), minlength=3) / 3000
    )
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.05)
    drawn = DistributedQ(exploration=EpsilonGreedy(0.0), initial=(-1.0, 0.0)).bind(seat)
    assert torch.equal(drawn.choice, drawn.values.argmax(-1))


def test_refuses_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"discount: got 1\.0"):
        DistributedQ(exploration=EpsilonGreedy(), discount=1.0)
