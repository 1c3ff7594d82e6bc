"""The minimax strategy: known matrix games, and the fixed point of a stochastic game from both seats."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame, StochasticGame
from inference_marl.learners.tabular.minimax import Minimax, maximin
from inference_marl.types import Game, Learner, Seat

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {"Minimax": ("discrete", lambda: Minimax(discount=0.9))}
"""Cases that tests/test_contract.py drives through the contract."""


def bound(described: Minimax, game: Game, agent: int = 0, dtype: torch.dtype = torch.float64) -> Minimax:
    return described.bind(Seat(agent, game.observations, game.action_spaces, 2, dtype=dtype, game=game))


def zero_sum(payoff: list[list[float]]) -> MatrixGame:
    return MatrixGame([payoff, [[-entry for entry in row] for row in payoff]], common=False)


@pytest.mark.parametrize(
    ("payoff", "strategies", "value"),
    [
        ([[1, -1], [-1, 1]], ([1 / 2, 1 / 2], [1 / 2, 1 / 2]), 0.0),  # matching pennies
        ([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], ([1 / 3] * 3, [1 / 3] * 3), 0.0),  # rock, paper, scissors
        # With a win by rock worth 2: paper, which beats rock, is played most.
        ([[0, -1, 2], [1, 0, -1], [-2, 1, 0]], ([1 / 4, 1 / 2, 1 / 4], [1 / 4, 1 / 2, 1 / 4]), 0.0),
        ([[5, 1], [-1, 3]], ([1 / 2, 1 / 2], [1 / 4, 3 / 4]), 2.0),
        ([[3, 1, 4], [2, 0, 9]], ([1, 0], [0, 1, 0]), 1.0),  # a saddle point
    ],
)
def test_known_matrix_games(
    payoff: list[list[float]], strategies: tuple[list[float], list[float]], value: float
) -> None:
    game = zero_sum(payoff)
    for agent, (strategy, sign) in enumerate(zip(strategies, (1, -1), strict=True)):
        learner = bound(Minimax(), game, agent)
        obs = torch.zeros(2, 3, dtype=torch.int64)
        expected = torch.tensor(strategy, dtype=torch.float64).expand(2, 3, -1)
        torch.testing.assert_close(learner(obs), expected)
        torch.testing.assert_close(learner.value, torch.tensor([sign * value], dtype=torch.float64))


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_the_size_of_payoffs_does_not_matter(size: float) -> None:
    payoff = torch.randn(20, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(maximin(size * payoff), maximin(payoff), rtol=1e-9, atol=1e-9)


def test_security_strategies_where_interests_do_not_oppose() -> None:
    # Chicken [[3, 2], [4, 1]]: swerving is worth 2 at least. Battle of the sexes [[2, 0], [0, 1]]: 1/3, 2/3 are worth
    # 2/3 whatever the other does.
    for name, strategy, value in [("chicken", [1.0, 0.0], 2.0), ("battle_of_the_sexes", [1 / 3, 2 / 3], 2 / 3)]:
        learner = bound(Minimax(), MatrixGame(name))
        torch.testing.assert_close(learner.strategy, torch.tensor([strategy], dtype=torch.float64))
        assert float(learner.value) == pytest.approx(value)


def test_several_opponents_count_as_one_against_the_agent() -> None:
    game = MatrixGame([[[4.0, 0.0], [0.0, 4.0]], [[2.0, 2.0], [2.0, 1.0]]], common=True)
    learner = bound(Minimax(), game)
    torch.testing.assert_close(learner.strategy, torch.tensor([[1 / 5, 4 / 5]], dtype=torch.float64))
    assert float(learner.value) == pytest.approx(1.6)  # 2 4/5 where they differ; 4 1/5 + 4/5 where both play 1


def a_stochastic_game(states: int = 6, ending: bool = False) -> StochasticGame:
    torch.manual_seed(3)
    transition = torch.rand(states, 2, 3, states, dtype=torch.float64) ** 4
    transition /= transition.sum(-1, keepdim=True)
    reward = torch.randn(states, 2, 3, dtype=torch.float64)
    initial = torch.full((states,), 1 / states, dtype=torch.float64)
    return StochasticGame(initial, transition * (0.8 if ending else 1), torch.stack([reward, -reward]))


@pytest.mark.parametrize(("discount", "ending"), [(0.95, False), (0.3, False), (None, True), (0.9, True)])
def test_values_of_a_stochastic_game_from_both_seats(discount: float | None, ending: bool) -> None:
    game = a_stochastic_game(ending=ending)
    rules = game.dynamics()
    mine, theirs = (bound(Minimax(discount=discount), game, agent) for agent in (0, 1))
    torch.testing.assert_close(mine.value, -theirs.value, rtol=1e-8, atol=1e-8)  # duality
    # In every state the two strategies are a saddle point of r + gamma T V (Shapley 1953).
    q = rules.reward[0] + (discount or 1.0) * rules.transition @ mine.value
    torch.testing.assert_close(torch.einsum("sa,sab->sb", mine.strategy, q).min(-1).values, mine.value)
    torch.testing.assert_close(torch.einsum("sab,sb->sa", q, theirs.strategy).max(-1).values, mine.value)


def test_values_are_those_of_shapleys_iteration() -> None:
    game = a_stochastic_game(states=3)
    rules = game.dynamics()
    value = torch.zeros(3, dtype=torch.float64)
    for _ in range(60):
        q = rules.reward[0] + 0.5 * rules.transition @ value
        value = torch.einsum("sa,sab->sb", maximin(q), q).min(-1).values
    torch.testing.assert_close(bound(Minimax(discount=0.5), game).value, value, rtol=1e-10, atol=1e-10)


def test_takes_the_discount_of_the_game() -> None:
    pennies = MatrixGame("matching_pennies", horizon=None, memory=1, discount=0.9)
    torch.testing.assert_close(bound(Minimax(), pennies).strategy, torch.full((5, 2), 0.5, dtype=torch.float64))
    dilemma = MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.9)
    # Defection, -2 a step; 0 is a discount of one's own as well.
    for learner, value in [(Minimax(), -20.0), (Minimax(discount=0.5), -4.0), (Minimax(discount=0.0), -2.0)]:
        torch.testing.assert_close(bound(learner, dilemma).value, torch.full((5,), value, dtype=torch.float64))


def test_plays_the_mixture_when_it_does_not_explore() -> None:
    learner = bound(Minimax(), MatrixGame("matching_pennies"), dtype=torch.float32)
    torch.manual_seed(0)
    action = learner.act(torch.zeros(2, 500, dtype=torch.int64), {}, explore=False).action
    assert 0.4 < float(action.float().mean()) < 0.6


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (None, "Minimax got no game, which does not give its rules as tables"),
        (MatrixGame("stag_hunt", horizon=None), "discount: got None for a game that may go on for ever"),
    ],
)
def test_needs_rules_and_a_discount(game: Any, message: str) -> None:
    shape = MatrixGame("stag_hunt")
    with pytest.raises(IncompatibleError, match=message):
        Minimax().bind(Seat(0, shape.observations, shape.action_spaces, 1, game=game))


def test_refuses_a_discount_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"discount: got 1.0, expected a number in \[0, 1\)"):
        Minimax(discount=1.0)
