"""Kuhn's poker: what strategies are worth and what is best against one, exactly; and as a game to be played.

Of Kuhn (1950, 'A simplified two-person poker'). There are three cards, J < Q < K; both players put in a coin and get a
card. The first one checks, or bets another coin. After a check the second one checks, and the higher card wins 1, or
bets; after a bet one calls, and the higher card wins 2, or folds and loses 1. So the first player may have to answer a
bet after it has checked.

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
"""What the first player gets in equilibrium, per hand."""

Player = Literal["first", "second"]

CHECKED, BET, ANSWER, FOLDED, SHOWN = range(1, 6)
"""Situations after the first, 0: what the first player has done, its turn to answer a bet, and two ways to end."""
AFTER = ((CHECKED, BET), (SHOWN, ANSWER), (FOLDED, SHOWN), (FOLDED, SHOWN), (FOLDED, FOLDED), (SHOWN, SHOWN))
"""The next situation, by situation and whether who has the turn puts in a coin."""
COMPARED = ((0, 0), (1, 0), (0, 2), (0, 2), (0, 0), (0, 0))
"""What the higher card wins then."""
FOLDS = ((0, 0), (0, 0), (1, 0), (-1, 0), (0, 0), (0, 0))
"""What the first player wins then in any case."""


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
    if not bool(((jack >= 0) & (jack <= 1 / 3 + 1e-6)).all()):
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


class KuhnPoker(BayesianGame):
    """A hand of Kuhn's poker against an opponent whose type is its strategy; an episode is a hand.

    Seat 0 is the first player, and seat 1 the second, whose type are its six probabilities, see the module;
    `learners.scripts.KuhnPlayer` plays by them. Action 1 puts in a coin, and action 0 checks or folds. Players take
    turns, so of whoever is not to move action 0 alone is legal.

    Seat 0 observes `8 card + situation`: 0 in the beginning, 1 and 2 once it has checked or bet, 3 if it is to answer a
    bet; after the hand 4 if somebody has folded, else 5, 6 or 7 if the other had J, Q or K. Seat 1 observes 12 numbers:
    which of its six decisions it is to make, if any, one-hot, and its type.

    Opponents of `two_parameters`, both of these drawn uniformly, are `UniformTypes` with `low: [0, 0, 1, 0, 0, 1]` and
    `high: [1, 0, 1, 0, 1, 1]`.

    Args:
        populations: opponents by the names of their populations; see `BayesianGame`.
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
        """Deal; see `Game.reset`.

        The state has the `cards` of both, int64, `replicates x environments x 2`, the `situation`, and the `type`.
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
        """What each seat observes, and may do, as the class says."""
        (first, second), situation, kind = state["cards"].unbind(-1), state["situation"], state[TYPE]
        seen = 8 * first + situation + torch.where(situation == SHOWN, second, 0)
        turn = self._turn(situation)
        decision = one_hot(CARDS * (situation == BET).long() + second, 2 * CARDS).to(kind)
        decision = decision * (turn == 1).unsqueeze(-1)
        anything = torch.ones_like(turn, dtype=torch.bool)
        masks = tuple(torch.stack([anything, turn == seat], -1) for seat in (0, 1))
        return Observed((seen, torch.cat([decision, kind], -1)), masks=masks)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Let who has the turn act, see `Game.step`; what the other does is ignored."""
        (first, second), situation = state["cards"].unbind(-1), state["situation"]
        check_actions(self.action_spaces, actions, situation.shape)
        chosen = (situation, torch.where(self._turn(situation) == 1, actions[1], actions[0]))
        after, compared, folds = (torch.tensor(table, device=situation.device) for table in (AFTER, COMPARED, FOLDS))
        reward = (compared[chosen] * (first - second).sign() + folds[chosen]).to(state[TYPE])
        now = after[chosen]
        return Step(state | {"situation": now}, torch.stack([reward, -reward], -1), now >= FOLDED)

    @staticmethod
    def _turn(situation: Tensor) -> Tensor:
        """Whose turn it is, 0 or 1; 2 once the hand is over."""
        return (situation == CHECKED) + (situation == BET) + 2 * (situation >= FOLDED).long()
