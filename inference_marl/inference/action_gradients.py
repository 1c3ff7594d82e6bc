"""Gradients of an expected value with respect to the probabilities of a discrete action."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gumbel_softmax

from inference_marl.described import Count, Described, Positive

Values = Callable[[Tensor], Tensor]
"""Maps actions as points of the simplex, `... x actions`, to their values, `...`."""


@torch.no_grad()
def one_hot_draw(logits: Tensor) -> Tensor:
    """One-hot draws from categoricals, `... x actions`; NaN where logits are."""
    return gumbel_softmax(logits, hard=True)


class ActionGradient(Described, ABC):
    """Base: an estimator of `grad E_{a ~ pi} Q(a)` for the logits of a categorical policy."""

    @abstractmethod
    def __call__(self, logits: Tensor, values: Values) -> tuple[Tensor, Tensor]:
        """A surrogate loss, `...`, whose mean gradient is the estimate, and the detached values of the draws, `...`.

        Args:
            logits: `... x actions`.
            values: the critic, differentiable in its argument. Its own parameters must be frozen.
        """


class GumbelSoftmax(ActionGradient):
    """The gradient of the critic at relaxed (Gumbel-softmax) draws (Jang et al. 2017, Maddison et al. 2017): biased.

    Args:
        temperature: temperature of the relaxation.
        hard: whether the critic is given one-hot draws, with the gradient of the relaxed ones (straight-through);
            otherwise it is given the relaxed draws, as in the authors' code of MADDPG, although the replay buffer holds
            one-hot actions.
    """

    def __init__(self, temperature: Positive = 1.0, hard: bool = True) -> None:
        self.temperature, self.hard = temperature, hard

    def __call__(self, logits: Tensor, values: Values) -> tuple[Tensor, Tensor]:
        """See `ActionGradient`."""
        found = values(gumbel_softmax(logits, self.temperature, self.hard))
        return found, found.detach()


class ScoreFunction(ActionGradient):
    """The stochastic policy gradient `grad log pi(a) (Q(a) - baseline)` (Lowe et al. 2017, Eq. 4): unbiased.

    The baseline of a draw is the mean value of the other draws. The critic need not be differentiable in the action,
    and is evaluated at one-hot actions only.

    Args:
        draws: draws per datum; with 1 there is no baseline.
    """

    def __init__(self, draws: Count = 2) -> None:
        self.draws = draws

    def __call__(self, logits: Tensor, values: Values) -> tuple[Tensor, Tensor]:
        """See `ActionGradient`."""
        log_policy = logits.log_softmax(-1)
        with torch.no_grad():
            drawn = one_hot_draw(log_policy.expand(self.draws, *log_policy.shape))
            worth = torch.stack([values(each) for each in drawn])
            others = (worth.sum(0) - worth) / (self.draws - 1) if self.draws > 1 else torch.zeros_like(worth)
        scores = (log_policy * drawn).sum(-1)
        return (scores * (worth - others)).mean(0), worth.mean(0)
