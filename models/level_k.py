"""Level-k opponents, which reason recursively about the learner."""

from __future__ import annotations

from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, Positive, Whole
from inference_marl.inference.conditional import Reads
from inference_marl.models.priors import OpponentPrior
from inference_marl.spaces import Discrete


class LevelK(OpponentPrior):
    """Opponents that reason at level k: soft best responses to a learner of level k - 1::

        sigma_0(b | s) = 1 / |B|                    pi_0(a | s) = 1 / |A|
        sigma_k(b | s) ∝ exp(± E_{a ~ pi_{k-1}}[Q(s, a, b)] / temperature)
        pi_k(a | s)    ∝ exp(E_{b ~ sigma_{k-1}}[Q(s, a, b)] / temperature)
        P(b | s) = sigma_level(b | s)

    The level-k model of Stahl & Wilson (1995) and Nagel (1995), where a player of level k responds to level k - 1 (to a
    mixture of all lower levels in the cognitive hierarchy of Camerer, Ho & Chong 2004), with logit responses.

    This is a strong assumption. The only information about the opponents' values is the learner's own critic: they are
    assumed to share its values, or to have exactly opposite ones. Several opponents respond as one player, to the
    learner alone. And since `P` moves with `Q`, the contraction of the soft Bellman operator, which holds for a fixed
    prior, does not apply. Discrete actions.

    Args:
        level: number of responses; 0 is the uniform distribution.
        temperature: temperature of the responses, in units of reward, positive.
        interests: `common` if opponents share the learner's values (+ above), `opposed` for the opposite (-).
    """

    targets = (Discrete,)

    def __init__(
        self, level: Whole = 1, temperature: Positive = 1.0, interests: Literal["common", "opposed"] = "common"
    ) -> None:
        super().__init__()
        self.level, self.temperature, self.interests = level, temperature, interests

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """Always raises `IncompatibleError`: without a model there are no values to respond to."""
        raise IncompatibleError(
            "LevelK got no model to read values from, expected to be the opponent prior of a learner with a model, "
            "such as Rommeo"
        )

    def given(self, model: Reads, obs: Tensor) -> dist.TorchDistribution:
        """The policy of opponents of this level at `obs`, batch shape `[extra x] replicates x batch`."""
        values = model.q_table(obs) / self.temperature
        sign = 1 if self.interests == "common" else -1
        own, opponents = torch.zeros_like(values[..., 0]), torch.zeros_like(values[..., 0, :])
        for _ in range(self.level):
            own, opponents = (
                torch.einsum("...ab,...b->...a", values, opponents.softmax(-1)),
                torch.einsum("...ab,...a->...b", sign * values, own.softmax(-1)),
            )
        return dist.Categorical(logits=opponents)
