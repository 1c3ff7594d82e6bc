"""Kuhn's poker: tables against brute force and published numbers, and the game against the tables."""

from __future__ import annotations

import itertools

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import KuhnPoker, ListedTypes, UniformTypes
from inference_marl.games.kuhn import VALUE, best_response, equilibrium, regret, two_parameters, value
from inference_marl.learners.scripts import KuhnPlayer
from inference_marl.play import Collector, GameSimulator, Tasks
from inference_marl.types import Actor, Memory, Seat, Transition

CPU = torch.device("cpu")
PURE = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)), dtype=torch.float64)
ALPHAS = torch.linspace(0, 1 / 3, 7, dtype=torch.float64)


def half(*shape: int) -> Tensor:
    return torch.full(shape, 0.5, dtype=torch.float64)


def by_the_tree(first: list[float], second: list[float]) -> float:
    """What the first player gets, one deal after the other."""
    total = 0.0
    for one, two in itertools.permutations(range(3), 2):
        win = 1 if one > two else -1
        bet, call, answer, stay = first[one], first[3 + one], second[two], second[3 + two]
        after_check = answer * (call * 2 * win - (1 - call)) + (1 - answer) * win
        total += bet * (stay * 2 * win + 1 - stay) + (1 - bet) * after_check
    return total / 6


# Tables


def test_values_are_those_of_the_tree() -> None:
    strategies = torch.rand(20, 2, 6, dtype=torch.float64)
    found = value(strategies[:, 0], strategies[:, 1])
    expected = [by_the_tree(*pair) for pair in strategies.tolist()]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert value(strategies[:, None, 0], strategies[:, 1]).shape == (20, 20)


def test_equilibria_have_the_value_of_the_game() -> None:
    first, second = equilibrium(ALPHAS)
    assert (value(first, second) - VALUE).abs().max() < 1e-12
    assert (best_response(first, "second")[1] + VALUE).abs().max() < 1e-12
    assert (best_response(second, "first")[1] - VALUE).abs().max() < 1e-12
    assert regret(first, second).abs().max() < 1e-12
    for alpha in (-0.1, 0.5):
        with pytest.raises(ValueError, match=f"alpha: got {alpha}, expected numbers from 0 to 1/3"):
            equilibrium(alpha)


def test_best_responses_by_brute_force() -> None:
    """Over all 64 pure strategies, also against opponents at the corners, where many are as good."""
    others = torch.cat([torch.rand(200, 6, dtype=torch.float64), PURE, equilibrium(ALPHAS)[0]])
    strategy, worth = best_response(others, "first")
    torch.testing.assert_close(worth, value(PURE, others.unsqueeze(1)).amax(1), rtol=0, atol=1e-12)
    assert torch.equal(worth, value(strategy, others))
    strategy, worth = best_response(others, "second")
    torch.testing.assert_close(worth, (-value(others.unsqueeze(1), PURE)).amax(1), rtol=0, atol=1e-12)
    assert torch.equal(worth, -value(others, strategy))


def test_what_there_is_to_be_gained_by_knowing_the_opponent() -> None:
    """Nothing for who knows the mean opponent alone; .0835 a hand, and .0776 more where all probabilities are drawn."""
    grid = torch.linspace(0, 1, 401, dtype=torch.float64)
    xi, eta = torch.meshgrid(grid, grid, indexing="ij")
    assert best_response(two_parameters(half(), half()), "first")[1].item() == pytest.approx(0, abs=1e-12)
    assert best_response(two_parameters(xi, eta), "first")[1].mean().item() == pytest.approx(0.0835, abs=5e-4)
    assert best_response(half(6), "first")[1].item() == pytest.approx(0.5, abs=1e-12)
    drawn = torch.rand(200_000, 6, dtype=torch.float64)
    assert best_response(drawn, "first")[1].mean().item() == pytest.approx(0.5776, abs=2e-3)


def bayes_regrets(opponents: int, hands: int) -> list[float]:
    """Mean regret before each hand of who responds to the exact posterior of (xi, eta), on a grid.

    Cards are seen if nobody has folded; else the other's card is one of two.
    """
    middle = (torch.arange(25, dtype=torch.float64) + 0.5) / 25
    xi, eta = (each.flatten() for each in torch.meshgrid(middle, middle, indexing="ij"))
    believed, log = two_parameters(xi, eta), torch.zeros(opponents, 625, dtype=torch.float64)
    truth = two_parameters(*torch.rand(2, opponents, dtype=torch.float64))
    rows, found = torch.arange(opponents), []
    for _ in range(hands):
        weights = log.softmax(-1)
        strategy, _ = best_response(two_parameters(weights @ xi, weights @ eta), "first")
        found.append(regret(strategy, truth).mean().item())
        own = torch.randint(3, (opponents,))
        other = (own + torch.randint(1, 3, (opponents,))) % 3
        bet, call = strategy[rows, own] > 0, strategy[rows, 3 + own] > 0
        decision, instead = other + 3 * bet, 3 - own - other + 3 * bet
        coin = torch.rand(opponents, dtype=torch.float64) < truth[rows, decision]
        seen, unseen = (torch.where(coin, believed[:, each], 1 - believed[:, each]).T for each in (decision, instead))
        folded = torch.where(bet, ~coin, coin & ~call)
        likelihood = torch.where(folded.unsqueeze(-1), (seen + unseen) / 2, seen)
        log = log + likelihood.clamp_min(1e-300).log()
    return found


@pytest.mark.slow
def test_exact_bayes_needs_many_hands() -> None:
    found = bayes_regrets(2000, 201)
    for hands, expected in ((0, 0.0835), (20, 0.0435), (50, 0.030), (200, 0.0195)):
        assert found[hands] == pytest.approx(expected, abs=0.004)


def test_exact_bayes_gains_from_the_first_hands() -> None:
    found = bayes_regrets(300, 21)
    assert found[0] == pytest.approx(0.0835, abs=0.01)
    assert found[20] == pytest.approx(0.0435, abs=0.012)


def test_strategies_have_six_numbers() -> None:
    for call in (
        lambda: value(half(5), half(6)),
        lambda: value(half(6), half(1)),
        lambda: best_response(half(3), "first"),
        lambda: best_response(half(3), "second"),
    ):
        with pytest.raises(ValueError, match=r"(first|second|strategy): got shape \(\d,\), expected ... x 6"):
            call()


# The game


class First(Actor):
    """Plays a strategy in seat 0."""

    heeds_masks = True

    def __init__(self, strategy: list[float]) -> None:
        super().__init__()
        self.strategy = strategy

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        card, situation = obs // 8, obs % 8
        coin = torch.tensor(self.strategy)[card + 3 * (situation == 3).long()] * torch.isin(
            situation, torch.tensor([0, 3])
        )
        return dist.Categorical(probs=torch.stack([1 - coin, coin], -1)), memory


def played(first: list[float], game: KuhnPoker, environments: int, steps: int) -> Transition:
    experiment = Experiment(
        game,
        {"a": [First(first), KuhnPlayer()]},
        environments=environments,
        tasks=Tasks(range(game.tasks or 0), order="in_turn"),
    )
    return (
        Collector(GameSimulator(game, 1, environments), experiment.bind("a"), tasks=experiment.tasks)
        .collect(steps)
        .stacked
    )


def test_play_is_worth_what_the_tables_say() -> None:
    for number in range(3):
        torch.manual_seed(number)
        one, two = torch.rand(2, 6)
        game = KuhnPoker({"all": ListedTypes([two.tolist()])})
        steps = played(one.tolist(), game, 3000, 24)
        hands = int(steps.ended.sum())
        assert torch.equal(steps.ended, steps.terminated)
        assert (steps.rewards.sum(-1) == 0).all()
        expected = value(one.double(), two.double()).item()
        assert float(steps.rewards[..., 0].sum()) / hands == pytest.approx(expected, abs=5 * 1.4 / hands**0.5)


def hand(cards: tuple[int, int], *coins: int) -> tuple[list[int], list[int], float]:
    """A hand by hand: what seat 0 sees, whose turn it is, and what it wins."""
    game = KuhnPoker({"all": ListedTypes([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])})
    state = game.reset(1, 1, CPU, torch.float64) | {"cards": torch.tensor([[cards]])}
    seen, turns, won = [], [], 0.0
    for number, coin in enumerate(coins):
        found = game.observe(state)
        assert found.masks is not None
        assert [mask is not None and bool(mask[0, 0, 0]) for mask in found.masks] == [True, True]
        free = [seat for seat, mask in enumerate(found.masks) if mask is not None and mask[0, 0, 1]]
        assert len(free) == 1
        turns += free
        decision = found.obs[1][0, 0, :6]
        assert decision.sum() == free[0]
        if free[0]:
            assert decision[cards[1] + 3 * (coins[0] == 1)] == 1
        assert found.obs[1][0, 0, 6:].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        seen.append(int(found.obs[0]))
        actions = [torch.tensor([[coin if seat in free else 1 - coin]]) for seat in (0, 1)]  # the other's is ignored
        step = game.step(state, actions)
        assert step.terminated.item() == (number == len(coins) - 1)
        state, won = step.state, won + step.rewards[0, 0, 0].item()
    return [*seen, int(game.observe(state).obs[0])], turns, won


@pytest.mark.parametrize(
    ("cards", "coins", "seen", "won"),
    [
        ((0, 1), (0, 0), [0, 1, 6], -1),
        ((2, 1), (0, 0), [16, 17, 22], 1),
        ((1, 2), (1, 0), [8, 10, 12], 1),
        ((1, 2), (1, 1), [8, 10, 15], -2),
        ((1, 0), (0, 1, 1), [8, 9, 11, 13], 2),
        ((1, 0), (0, 1, 0), [8, 9, 11, 12], -1),
    ],
)
def test_hands(cards: tuple[int, int], coins: tuple[int, ...], seen: list[int], won: float) -> None:
    assert hand(cards, *coins) == (seen, [0, 1, 0][: len(coins)], won)


def test_deals_are_uniform() -> None:
    cards = KuhnPoker({"all": UniformTypes(0, 1, 2)}).reset(2, 30_000, CPU, torch.float32)["cards"]
    counts = (3 * cards[..., 0] + cards[..., 1]).flatten().bincount(minlength=9)
    assert counts[[0, 4, 8]].tolist() == [0, 0, 0]
    assert (counts[[1, 2, 3, 5, 6, 7]] / 10_000 - 1).abs().max() < 0.05


def test_the_player_sits_in_its_seat_only() -> None:
    game = KuhnPoker({"all": UniformTypes([0, 0, 1, 0, 0, 1], [1, 0, 1, 0, 1, 1], 4)})
    kinds = game.hidden_type(torch.arange(4).unsqueeze(0))[0]
    assert torch.equal(kinds, two_parameters(kinds[:, 0], kinds[:, 4]))
    with pytest.raises(IncompatibleError, match="KuhnPlayer got seat 0 of KuhnPoker, expected seat 1"):
        KuhnPlayer().bind(Seat(0, game.observations, game.action_spaces, 1, game=game))
    with pytest.raises(ValueError, match=r"populations.all: got types of numbers from"):
        KuhnPoker({"all": UniformTypes(-1, 0, 40)})
