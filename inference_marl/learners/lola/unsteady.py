"""An opponent without a consistent learning rule, for testing their inference."""

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

    With a small delta and large noise it drifts. With `after` it appears static and then learns; with `until` it
    appears to learn and then stops.

    Args:
        noise: standard deviation of the noise added to the gradient.
        after: number of updates before it begins to learn.
        until: number of updates after which it stops.
        step_size, init_scale, update_every, forget, opponent_model, gradients: see `NaiveGradient`.

    Raises:
        ValueError: if `until` is not larger than `after`.
    """

    noise: NotNegative = 0.0
    after: Whole = 0
    until: Count = 10**9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.until <= self.after:
            raise ValueError(f"until: got {self.until}, expected more than after = {self.after}")

    def direction(self, at: Derivatives) -> Tensor:
        """The noisy gradient of the agent's own value, or 0."""
        gradient = super().direction(at)
        if not self.after < self.updates <= self.until:
            return torch.zeros_like(gradient)
        if not self.noise:
            return gradient
        with own_stream(gradient.device):
            return gradient + self.noise * torch.randn_like(gradient)
