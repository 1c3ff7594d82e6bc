"""Kuhn poker: exact values, best responses and equilibria of strategies, and the game itself.

The game is due to Kuhn (1950, 'A simplified two-person poker'). There are three cards, J < Q < K; both players put in a
coin and get a card. The first player checks, or bets another coin. After a check the second player checks, and the
higher card wins 1, or bets. After a bet the other player calls, and the higher card wins 2, or folds and loses 1. So
the first player may have to respond to a bet after it has checked.

A strategy is six probabilities of putting in a coin, `... x 6`, by card J, Q, K:

* of the first player, to bet, and to call after a check and a bet;
* of the second player, to bet after a check, and to call a bet.

Leading shapes of two strategies, such as replicates, broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.games.actions import check_actions
from inference_marl.games.bayesian import TYPE, BayesianGame
from inference_marl.games.hidden_types import Types
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Observed, State, Step

CARDS = 3
VALUE = -1 / 18
"""The first player's equilibrium value per hand."""

Player = Literal["first", "second"]

CHECKED, BET, ANSWER, FOLDED, SHOWN = range(1, 6)
"""Situations after the initial one, 0: after the first player's action, before its response to a bet, and two ends."""
AFTER = ((CHECKED, BET), (SHOWN, ANSWER), (FOLDED, SHOWN), (FOLDED, SHOWN), (FOLDED, FOLDED), (SHOWN, SHOWN))
"""The next situation, by situation and by whether the player to move puts in a coin."""
COMPARED = ((0, 0), (1, 0), (0, 2), (0, 2), (0, 0), (0, 0))
"""The amount that the higher card wins then."""
FOLDS = ((0, 0), (0, 0), (1, 0), (-1, 0), (0, 0), (0, 0))
"""The amount that the first player wins then with any cards."""


def value(first: Tensor, second: Tensor) -> Tensor:
    """The first player's expected gain per hand, `...`; the second player's is the negative.

    Args:
        first: the first player's strategy, `... x 6`.
        second: the second player's strategy, `... x 6`.

    Raises:
        ValueError: if a strategy does not have six numbers.
    """
    bets, calls, answers, stays = *_by_card("first", first), *_by_card("second", second)
    wins, deals = _deals(first)
    after_bet = _pairs(2 * stays, wins) + _pairs(1 - stays, deals)
    called = 2 * calls * _pairs(answers, wins) - (1 - calls) * _pairs(answers, deals)
    after_check = called + _pairs(1 - answers, wins)
    return (bets * after_bet + (1 - bets) * after_check).sum(-1)


def best_response(strategy: Tensor, player: Player) -> tuple[Tensor, Tensor]:
    """A pure best response of a player to the other's strategy, by backward induction.

    Args:
        strategy: the other player's strategy, `... x 6`.
        player: the player that responds.

    Returns:
        The strategy, `... x 6`, passive where both actions are equally good, and the player's value per hand, `...`.
    """
    wins, deals = _deals(strategy)
    if player == "second":
        bets, calls = _by_card("strategy", strategy)
        checks = 1 - bets
        passive = _pairs(checks, wins)
        betting = 2 * _pairs(checks * calls, wins) + _pairs(checks * (1 - calls), deals)
        calling = 2 * _pairs(bets, wins) + _pairs(bets, deals)
        best = torch.cat([betting > passive, calling > 0], -1).to(strategy)
        return best, -value(strategy, best)
    answers, stays = _by_card("strategy", strategy)
    calls = 2 * _pairs(answers, wins) > -_pairs(answers, deals)
    after_check = torch.where(calls, 2 * _pairs(answers, wins), -_pairs(answers, deals)) + _pairs(1 - answers, wins)
    bets = 2 * _pairs(stays, wins) + _pairs(1 - stays, deals) > after_check
    best = torch.cat([bets, calls], -1).to(strategy)
    return best, value(best, strategy)


def regret(first: Tensor, second: Tensor) -> Tensor:
    """The first player's loss per hand relative to a best response, `...`; arguments as for `value`."""
    return best_response(second, "first")[1] - value(first, second)


def equilibrium(alpha: float | Tensor, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The equilibrium with the given probability of betting the jack, which may be any in [0, 1/3].

    Args:
        alpha: that probability, `...`.
        like: a tensor with the dtype and device of the result; float64 on the CPU by default.

    Returns:
        The strategies of both players, `... x 6` and `6`.

    Raises:
        ValueError: if the probability is out of range.
    """
    kind = torch.zeros((), dtype=torch.float64) if like is None else like
    jack = torch.as_tensor(alpha).to(kind)
    if not bool(((jack >= 0) & (jack <= 1 / 3 + 1e-6)).all()):
        raise ValueError(f"alpha: got {alpha}, expected numbers from 0 to 1/3")
    none, sure = torch.zeros_like(jack), torch.ones_like(jack)
    first = torch.stack([jack, none, 3 * jack, none, jack + 1 / 3, sure], -1)
    return first, two_parameters(kind.new_tensor(1 / 3), kind.new_tensor(1 / 3))


def two_parameters(xi: Tensor, eta: Tensor) -> Tensor:
    """The second player's strategies without dominated choices, `... x 6`.

    From Hoehn et al. (2005, 'Effective short-term opponent exploitation in simplified poker'); Fu et al. (2022, GSCU)
    draw opponents from them.

    Args:
        xi: probability of betting the jack after a check, `...`.
        eta: probability of calling a bet with the queen, `...`.
    """
    none, sure = torch.zeros_like(xi), torch.ones_like(xi)
    return torch.stack([xi, none, sure, none, eta, sure], -1)


def _by_card(name: str, strategy: Tensor) -> tuple[Tensor, Tensor]:
    """Split a strategy into its two halves, `... x cards`."""
    if strategy.shape[-1:] != (2 * CARDS,):
        raise ValueError(f"{name}: got shape {tuple(strategy.shape)}, expected ... x 6, two numbers for each card")
    return strategy[..., :CARDS], strategy[..., CARDS:]


def _deals(like: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of deals by own and other's card, once multiplied by the sign of the winner, and as they are."""
    card = torch.arange(CARDS, device=like.device)
    sign = (card.unsqueeze(1) - card).sign().to(like) / (CARDS * (CARDS - 1))
    return sign, sign.abs()


def _pairs(others: Tensor, table: Tensor) -> Tensor:
    """Sums over the other's card for each own card, `... x cards`."""
    return others @ table.T


class KuhnPoker(BayesianGame):
    """Kuhn poker against an opponent whose hidden type is its strategy; an episode is one hand.

    Seat 0 is the first player and seat 1 the second, whose type is its six probabilities, see the module;
    `learners.scripts.KuhnPlayer` plays them. Action 1 puts in a coin, and action 0 checks or folds. Players take turns:
    for the player not to move only action 0 is legal.

    Seat 0 observes `8 card + situation`: 0 initially, 1 and 2 after it has checked or bet, 3 if it has to respond to a
    bet; after the hand 4 if a player has folded, and otherwise 5, 6 or 7 if the other's card was J, Q or K. Seat 1
    observes 12 numbers: its current decision, if any, one-hot out of six, and its type.

    Opponents of `two_parameters` with uniformly drawn parameters are `UniformTypes` with `low: [0, 0, 1, 0, 0, 1]` and
    `high: [1, 0, 1, 0, 1, 1]`.

    Args:
        populations: types of opponents by population, see `BayesianGame`.
    """

    horizon = CARDS
    action_names = ("check or fold", "bet or call")

    def __init__(self, populations: Mapping[str, Types]) -> None:
        super().__init__(populations, 0.0, 1.0, 2 * CARDS)
        self.observations = (Discrete(8 * CARDS), Box(0.0, 1.0, 4 * CARDS))
        self.action_spaces = (Discrete(2),) * 2

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Deal the cards, see `Game.reset`.

        The state has both players' `cards`, int64, `replicates x environments x 2`, the `situation`, and the `type`.
        """
        shape = (replicates, environments)
        first = torch.randint(CARDS, shape, device=device)
        second = (first + torch.randint(1, CARDS, shape, device=device)) % CARDS
        return {
            "cards": torch.stack([first, second], -1),
            "situation": torch.zeros(shape, dtype=torch.int64, device=device),
            **self.drawn_type(*shape, device, dtype, task),
        }

    def observe(self, state: State) -> Observed:
        """The observations and legal actions of both seats, see the class."""
        (first, second), situation, kind = state["cards"].unbind(-1), state["situation"], state[TYPE]
        seen = 8 * first + situation + torch.where(situation == SHOWN, second, 0)
        turn = self._turn(situation)
        decision = one_hot(CARDS * (situation == BET).long() + second, 2 * CARDS).to(kind)
        decision = decision * (turn == 1).unsqueeze(-1)
        anything = torch.ones_like(turn, dtype=torch.bool)
        masks = tuple(torch.stack([anything, turn == seat], -1) for seat in (0, 1))
        return Observed((seen, torch.cat([decision, kind], -1)), masks=masks)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Play the action of the player to move, see `Game.step`; the other's is ignored."""
        (first, second), situation = state["cards"].unbind(-1), state["situation"]
        check_actions(self.action_spaces, actions, situation.shape)
        chosen = (situation, torch.where(self._turn(situation) == 1, actions[1], actions[0]))
        after, compared, folds = (torch.tensor(table, device=situation.device) for table in (AFTER, COMPARED, FOLDS))
        reward = (compared[chosen] * (first - second).sign() + folds[chosen]).to(state[TYPE])
        now = after[chosen]
        return Step(state | {"situation": now}, torch.stack([reward, -reward], -1), now >= FOLDED)

    @staticmethod
    def _turn(situation: Tensor) -> Tensor:
        """The player to move, 0 or 1; 2 after the hand."""
        return (situation == CHECKED) + (situation == BET) + 2 * (situation >= FOLDED).long()
