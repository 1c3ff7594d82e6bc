"""A naive learner that plays a best response to the opponent's current policy."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_marl.described import Positive, hyperparameters
from inference_marl.inference.returns import best_response
from inference_marl.learners.lola.derivatives import Derivatives
from inference_marl.learners.lola.gradient import ExactGradientLearner


@hyperparameters
class BestResponse(ExactGradientLearner):
    """Plays a best response to the opponent's last policy: `theta = argmax_theta V^i(theta, theta')`.

    This is naive learning as Foerster et al. (2018, section 4.1) define it; in practice they follow `NaiveGradient`.
    The maximum over free logits is at infinity: here the best action's logit is `certainty` above the others. With
    `step_size` below 1, logits move that fraction of the way.

    Args:
        certainty: logit of the best action, with 0 for the others.
        step_size, init_scale, update_every, forget, opponent_model, gradients: see `ExactGradientLearner`; `gradients`
            has no effect.
    """

    certainty: Positive = 10.0

    def direction(self, at: Derivatives) -> Tensor:
        """The difference between the best response's logits and the current ones."""
        played = [policy(own) for policy, own in zip(at.policies, at.parameters, strict=True)]
        best = best_response(self.dynamics, played, self.seat.index, self.discount)
        every = self.certainty * torch.nn.functional.one_hot(best, self.actions).to(self.logits.dtype)
        return every[..., :-1] - every[..., -1:] - self.logits
