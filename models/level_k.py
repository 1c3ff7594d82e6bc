"""Opponents that reason about the learner, and about how it reasons about them, down to some level."""

from __future__ import annotations

from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.models.priors import OpponentPrior
from inference_marl.spaces import Discrete
from inference_marl.types import OneStepModel


class LevelK(OpponentPrior):
    """Opponents who reply softly to the learner as they think it plays, `level` replies deep::

        sigma_0(b | s) = 1 / |B|                    pi_0(a | s) = 1 / |A|
        sigma_k(b | s) ∝ exp(± E_{a ~ pi_{k-1}}[Q(s, a, b)] / temperature)
        pi_k(a | s)    ∝ exp(E_{b ~ sigma_{k-1}}[Q(s, a, b)] / temperature)
        P(b | s) = sigma_level(b | s)

    The level-k model of Stahl & Wilson (1995) and Nagel (1995), where a player of level k replies to level k - 1 (to
    a mixture of all lower levels in the cognitive hierarchy of Camerer, Ho & Chong 2004), with logit replies.

    It is an assumption, and a strong one. All that is known of what the opponents value is the learner's own critic:
    they are taken to value every outcome as the learner does, or exactly the opposite way. Several opponents reply as
    one player, to the learner alone. And `P` moves with `Q`, so that the contraction of the soft Bellman operator,
    which is for a given prior, does not hold for it. Discrete actions.

    Args:
        level: how many replies deep; 0 is the uniform distribution.
        temperature: of the replies, in units of reward.
        interests: `common` for opponents who want what the learner wants (+ above), `opposed` for the opposite (-).

    Raises:
        ValueError: if `level` is negative, `temperature` is not positive, or `interests` is something else.
    """

    targets = (Discrete,)

    def __init__(
        self, level: int = 1, temperature: float = 1.0, interests: Literal["common", "opposed"] = "common"
    ) -> None:
        super().__init__()
        if level < 0:
            raise ValueError(f"level: got {level}, expected an integer that is not negative")
        if not temperature > 0:
            raise ValueError(f"temperature: got {temperature}, expected a positive number")
        if interests not in ("common", "opposed"):
            raise ValueError(f"interests: got {interests!r}, expected common or opposed")
        self.level, self.temperature, self.interests = level, temperature, interests
        self._attached: tuple[OneStepModel, ...] = ()

    def attach(self, model: OneStepModel) -> None:
        """Read values from `model`, and with it from whichever critic it reads."""
        # In a tuple, so that the model, whose part this prior is, does not become a part of the prior.
        self._attached = (model,)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """What opponents of this level play at `obs`, batch shape `[extra x] replicates x batch`.

        Raises:
            IncompatibleError: if no model was attached.
        """
        if not self._attached:
            raise IncompatibleError(
                "LevelK got no model to read values from, expected to be the opponent prior of a learner that attaches "
                "its model, such as Rommeo"
            )
        values = self._attached[0].q_table(obs) / self.temperature
        sign = 1 if self.interests == "common" else -1
        own, opponents = torch.zeros_like(values[..., 0]), torch.zeros_like(values[..., 0, :])
        for _ in range(self.level):
            own, opponents = (
                torch.einsum("...ab,...b->...a", values, opponents.softmax(-1)),
                torch.einsum("...ab,...a->...b", sign * values, own.softmax(-1)),
            )
        return dist.Categorical(logits=opponents)
