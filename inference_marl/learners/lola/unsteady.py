"""An opponent to test inference of learning rules on: one that follows no rule throughout."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_marl.described import Count, NotNegative, Whole, hyperparameters
from inference_marl.learners.lola.derivatives import Derivatives
from inference_marl.learners.lola.gradient import NaiveGradient
from inference_marl.types import own_stream


@hyperparameters
class UnsteadyGradient(NaiveGradient):
    """Naive gradient ascent that begins late, ends early, or is noisy::

        theta <- theta + delta (grad V + noise xi)        xi ~ N(0, I), in updates after < t <= until

    With a small delta and a large noise it drifts. With `after` it looks as if it did not learn, and then does; with
    `until` it looks as if it did, and then does not.

    Args:
        noise: standard deviation of what is added to the gradient.
        after: updates before it learns.
        until: updates after which it learns no more.
        step_size, init_scale, update_every, forget, opponent_model, gradients: see `NaiveGradient`.

    Raises:
        ValueError: if it would end before it begins.
    """

    noise: NotNegative = 0.0
    after: Whole = 0
    until: Count = 10**9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.until <= self.after:
            raise ValueError(f"until: got {self.until}, expected more than after = {self.after}")

    def direction(self, at: Derivatives) -> Tensor:
        """The gradient of the agent's own value with noise, or nothing."""
        gradient = super().direction(at)
        if not self.after < self.updates <= self.until:
            return torch.zeros_like(gradient)
        if not self.noise:
            return gradient
        with own_stream(gradient.device):
            return gradient + self.noise * torch.randn_like(gradient)
