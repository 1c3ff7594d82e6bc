"""Kuhn's poker as tables: what strategies are worth, and what is best against one, exactly.

Of Kuhn (1950, 'A simplified two-person poker'). There are three cards, J < Q < K; both players ante 1 and get one. The
first one checks or bets 1. After a check the second one checks, and the higher card wins 1, or bets; after a bet one
calls, and the higher card wins 2, or folds and loses 1. So the first player, if it has checked, may have to answer a bet.

A strategy is six probabilities of putting in a coin, `... x 6`, by card J, Q, K:

* of the first player, to bet, and to call after a check and a bet;
* of the second player, to bet after a check, and to call a bet.

Leading shapes of two strategies broadcast, and so do replicates.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

CARDS = 3
VALUE = -1 / 18
"""What the first player gets in equilibrium, per hand."""

Player = Literal["first", "second"]


def value(first: Tensor, second: Tensor) -> Tensor:
    """What the first player gets per hand, `...`; the second one gets the negative.

    Args:
        first: its strategy, `... x 6`.
        second: the other's, `... x 6`.

    Raises:
        ValueError: if a strategy is not made of six numbers.
    """
    bets, calls, answers, stays = *_by_card("first", first), *_by_card("second", second)
    wins, deals = _deals(first)
    after_bet = _pairs(2 * stays, wins) + _pairs(1 - stays, deals)
    called = 2 * calls * _pairs(answers, wins) - (1 - calls) * _pairs(answers, deals)
    after_check = called + _pairs(1 - answers, wins)
    return (bets * after_bet + (1 - bets) * after_check).sum(-1)


def best_response(strategy: Tensor, player: Player) -> tuple[Tensor, Tensor]:
    """The best pure strategy of a player against the other's, by backward induction.

    Args:
        strategy: the other's, `... x 6`; for the first player, the second one's.
        player: who responds.

    Returns:
        The strategy, `... x 6`, passive where both are as good, and what this player gets per hand, `...`.
    """
    wins, deals = _deals(strategy)
    if player == "second":
        bets, calls = _by_card("strategy", strategy)
        checks = 1 - bets
        # For each card of the second player, the gain of betting after a check, and of calling.
        passive = _pairs(checks, wins)  # what each of its cards wins by showing
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
    """What the first player loses per hand by not playing a best response, `...`; arguments as of `value`."""
    return best_response(second, "first")[1] - value(first, second)


def equilibrium(alpha: float | Tensor, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """An equilibrium, of which there is one for each probability in [0, 1/3] of betting the jack.

    Args:
        alpha: that probability, `...`.
        like: a tensor of the wanted type and place; float64 on the CPU by default.

    Returns:
        The strategies of both, `... x 6` and `6`.

    Raises:
        ValueError: if the probability is out of range.
    """
    kind = torch.zeros((), dtype=torch.float64) if like is None else like
    jack = torch.as_tensor(alpha).to(kind)
    if not bool(((jack >= 0) & (jack <= 1 / 3)).all()):
        raise ValueError(f"alpha: got {alpha}, expected numbers from 0 to 1/3")
    none, sure = torch.zeros_like(jack), torch.ones_like(jack)
    first = torch.stack([jack, none, 3 * jack, none, jack + 1 / 3, sure], -1)
    return first, two_parameters(kind.new_tensor(1 / 3), kind.new_tensor(1 / 3))


def two_parameters(xi: Tensor, eta: Tensor) -> Tensor:
    """The second player's strategies without dominated choices, `... x 6`.

    Of Hoehn et al. (2005, 'Effective short-term opponent exploitation in simplified poker'); Fu et al. (2022, GSCU)
    draw opponents from them.

    Args:
        xi: probability of betting the jack after a check, `...`.
        eta: probability of calling a bet with the queen, `...`.
    """
    none, sure = torch.zeros_like(xi), torch.ones_like(xi)
    return torch.stack([xi, none, sure, none, eta, sure], -1)


def _by_card(name: str, strategy: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves of a strategy, `... x cards`."""
    if strategy.shape[-1:] != (2 * CARDS,):
        raise ValueError(f"{name}: got shape {tuple(strategy.shape)}, expected ... x 6, two numbers for each card")
    return strategy[..., :CARDS], strategy[..., CARDS:]


def _deals(like: Tensor) -> tuple[Tensor, Tensor]:
    """Of two cards, own and other's, the probability of the deal, with the sign of who wins and without."""
    card = torch.arange(CARDS, device=like.device)
    sign = (card.unsqueeze(1) - card).sign().to(like) / (CARDS * (CARDS - 1))
    return sign, sign.abs()


def _pairs(others: Tensor, table: Tensor) -> Tensor:
    """For each own card the sum over the other's, `... x cards`."""
    return others @ table.T
