"""Exact returns against sums over time written by hand, known equilibria, and brute force over policies."""

import itertools

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame, RiskyBridge, StochasticGame
from inference_marl.inference.returns import best_response_return, expected_return, nash_conv, state_values
from inference_marl.types import Dynamics


def random_game(sizes: tuple[int, ...], states: int = 3, ends: float = 0.0) -> Dynamics:
    transition = torch.rand(states, *sizes, states, dtype=torch.float64)
    transition = (1 - ends) * transition / transition.sum(-1, keepdim=True)
    reward = torch.randn(len(sizes), states, *sizes, dtype=torch.float64)
    return StochasticGame(torch.full((states,), 1 / states, dtype=torch.float64), transition, reward).dynamics()


def random_policies(sizes: tuple[int, ...], replicates: int, states: int = 3) -> list[Tensor]:
    return [torch.softmax(2 * torch.randn(replicates, states, size, dtype=torch.float64), -1) for size in sizes]


def followed(dynamics: Dynamics, policies: list[Tensor], replicate: int, gamma: float, steps: int) -> Tensor:
    """Discounted expected rewards of one replicate, added up step by step, `agents`."""
    sizes = dynamics.reward.shape[2:]
    at, total = dynamics.initial, torch.zeros(len(sizes), dtype=torch.float64)
    for step in range(steps):
        after = torch.zeros_like(at)
        for s in range(len(at)):
            for joint in itertools.product(*map(range, sizes)):
                chance = at[s]
                for agent, action in enumerate(joint):
                    chance = chance * policies[agent][replicate, s, action]
                total += gamma**step * chance * dynamics.reward[(slice(None), s, *joint)]
                after += chance * dynamics.transition[(s, *joint)]
        at = after
    return total


@pytest.mark.parametrize("sizes", [(2, 3), (2, 3, 2)])
def test_return_is_the_discounted_sum_over_time(sizes: tuple[int, ...]) -> None:
    dynamics, policies = random_game(sizes, ends=0.1), random_policies(sizes, 2)
    found = expected_return(dynamics, policies, 0.8)
    by_hand = torch.stack([0.2 * followed(dynamics, policies, r, 0.8, 60) for r in range(2)])
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-7)
    total = torch.stack([followed(dynamics, policies, r, 1.0, 200) for r in range(2)])
    torch.testing.assert_close(expected_return(dynamics, policies, None), total, rtol=0, atol=1e-7)
    values = state_values(dynamics, policies, 0.8)
    assert values.shape == (2, len(sizes), 3)
    torch.testing.assert_close(0.2 * values.mean(-1), found)


def test_normalised_return_is_a_mean_reward() -> None:
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96)
    first = torch.tensor([[1.0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 0]])
    second = torch.tensor([[1.0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    policies = [torch.stack([p, 1 - p], -1) for p in (first, second)]
    found = expected_return(game.dynamics(), policies, game.discount)
    assert found.dtype == torch.float64
    # All cooperate; all defect; tit-for-tat twice; tit-for-tat against a defector: -3 once, then -2 (0, then -2).
    expected = [[-1, -1], [-2, -2], [-1, -1], [-0.04 * 3 - 0.96 * 2, -0.96 * 2]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_one_shot_game_without_discount_is_the_expected_reward() -> None:
    dynamics = MatrixGame("climbing").dynamics()
    policies = [torch.tensor([[[1.0, 0, 0]], [[0, 0.5, 0.5]]])] * 2
    expected = torch.tensor([[11.0, 11], [18 / 4, 18 / 4]], dtype=torch.float64)
    torch.testing.assert_close(expected_return(dynamics, policies, None), expected)
    # Against B and C in equal shares, rows are worth -15, 6.5, 2.5 and columns -15, 3.5, 5.5.
    best = torch.tensor([[11.0, 11], [6.5, 5.5]], dtype=torch.float64)
    torch.testing.assert_close(best_response_return(dynamics, policies, None), best)
    torch.testing.assert_close(nash_conv(dynamics, policies, None), torch.tensor([0.0, 3.0], dtype=torch.float64))


def test_nash_conv_of_known_equilibria() -> None:
    game = MatrixGame("matching_pennies", horizon=None, memory=1, discount=0.9)
    half = torch.full((1, 5, 2), 0.5)
    torch.testing.assert_close(nash_conv(game.dynamics(), [half, half], 0.9), torch.zeros(1, dtype=torch.float64))
    heads = torch.tensor([1.0, 0.0]).expand(1, 5, 2)
    # Against heads agent 0 gets 0 and could get 1; agent 1 gets 0 against a half and can do no better.
    torch.testing.assert_close(nash_conv(game.dynamics(), [half, heads], 0.9), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [(2, 2), (3, 2), (2, 2, 2)])
@pytest.mark.parametrize("discount", [0.9, 0.3, None])
def test_best_response_is_the_best_of_all_policies(sizes: tuple[int, ...], discount: float | None) -> None:
    dynamics, policies = random_game(sizes, ends=0.0 if discount else 0.3), random_policies(sizes, 4)
    found = best_response_return(dynamics, policies, discount)
    for agent, size in enumerate(sizes):
        every = torch.tensor(list(itertools.product(range(size), repeat=3)))
        pure = torch.nn.functional.one_hot(every, size).double()
        for r in range(4):
            played = [policy[r].expand(len(pure), -1, -1) for policy in policies]
            played[agent] = pure
            best = expected_return(dynamics, played, discount)[:, agent].max()
            torch.testing.assert_close(found[r, agent], best)
    gains = (found - expected_return(dynamics, policies, discount)).sum(1)
    torch.testing.assert_close(nash_conv(dynamics, policies, discount), gains)
    assert (gains > 0).all()


def test_best_response_takes_as_many_rounds_as_it_needs() -> None:
    """One agent in a row of four states: what is best is found from the last state to the first, for small gains."""
    stay, move = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64).roll(1, 1)
    move[3] = stay[3]
    transition = torch.stack([stay, move], 1).unsqueeze(2)
    # Staying pays 1 a step, in the last state 1.005; to move on pays 0.999. The other agent has no choice.
    reward = torch.tensor([[1.0, 0.999], [1.0, 0.999], [1.0, 0.999], [1.005, 1.005]], dtype=torch.float64)
    dynamics = Dynamics(stay[0], transition, reward.view(1, 4, 2, 1).expand(2, -1, -1, -1))
    played = [torch.full((3, 4, 2), 0.5), torch.ones(3, 4, 1)]
    for discount in (0.9, 0.5):
        moving = sum(discount**step * 0.999 for step in range(3)) + discount**3 * 1.005 / (1 - discount)
        best = (1 - discount) * max(moving, 1 / (1 - discount))
        found = best_response_return(dynamics, played, discount)[:, 0]
        torch.testing.assert_close(found, torch.full((3,), best, dtype=torch.float64), rtol=1e-12, atol=0)


def test_best_response_where_the_future_counts_most() -> None:
    """Rounding errors are large with a discount near 1, and the search ends all the same."""
    dynamics, policies = random_game((3, 3)), random_policies((3, 3), 50)
    best = best_response_return(dynamics, policies, 1 - 1e-9)
    patient = best_response_return(dynamics, policies, 0.999)
    torch.testing.assert_close(best, patient, rtol=0, atol=0.02)


def test_gradients() -> None:
    dynamics = random_game((2, 3))
    tables = [torch.randn(2, 3, size, dtype=torch.float64, requires_grad=True) for size in (2, 3)]

    def of(*logits: Tensor) -> Tensor:
        return expected_return(dynamics, [torch.softmax(each, -1) for each in logits], 0.9)

    torch.autograd.gradcheck(of, tables)


def test_refuses_what_has_no_return() -> None:
    half = torch.full((1, 5, 2), 0.5)
    with pytest.raises(ValueError, match="discount: got None for a game that may go on for ever"):
        nash_conv(RiskyBridge().dynamics(), [half, half], None)
    stays = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).double()  # only the second action goes on, and that for ever
    may_go_on = Dynamics(torch.ones(1).double(), stays, torch.ones(2, 1, 2, 1).double())
    with pytest.raises(ValueError, match="discount: got None for a game that may go on for ever"):
        expected_return(may_go_on, [torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, 1)], None)
    with pytest.raises(ValueError, match=r"discount: got 1\.0"):
        expected_return(RiskyBridge().dynamics(), [half, half], 1.0)
    with pytest.raises(ValueError, match="policies: got 1, expected one per agent: 2"):
        expected_return(RiskyBridge().dynamics(), [half], 0.9)
    with pytest.raises(ValueError, match=r"policies\[1\]: got shape \(1, 1, 2\), expected \(1, 5, 2\)"):
        best_response_return(RiskyBridge().dynamics(), [half, half[:, :1]], 0.9)
