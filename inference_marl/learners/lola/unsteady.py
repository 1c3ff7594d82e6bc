"""An opponent to test inference of learning rules on: one that follows no rule throughout."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_marl.described import Count, NotNegative, Whole, hyperparameters
from inference_marl.learners.lola.derivatives import Derivatives
from inference_marl.learners.lola.gradient import NaiveGradient


@hyperparameters
class UnsteadyGradient(NaiveGradient):
    """Naive gradient ascent that begins late, ends early, or is noisy::

        theta <- theta + delta (grad V + noise xi)        xi ~ N(0, I), in updates begin < t <= end

    With a large `noise` it drifts; with a `begin` it looks as if it did not learn, and then does; with an `end` it looks
    as if it did, and then does not.

    Args:
        noise: standard deviation of what is added to the gradient.
        begin: updates before it learns.
        end: updates after which it learns no more.
        step_size, init_scale, update_every, forget, gradients: see `NaiveGradient`.
    """

    noise: NotNegative = 0.0
    begin: Whole = 0
    end: Count = 10**9

    def direction(self, at: Derivatives) -> Tensor:
        """The gradient of the agent's own value with noise, or nothing."""
        gradient = super().direction(at)
        if not self.begin < self.updates <= self.end:
            return torch.zeros_like(gradient)
        return gradient + self.noise * torch.randn_like(gradient)
