"""Opponents of an unknown type, which play reveals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModuleList
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import within
from inference_marl.models.priors import OpponentPrior
from inference_marl.spaces import Discrete
from inference_marl.types import OneStepModel


class OpponentTypes(OpponentPrior):
    """A mixture of priors: the opponents have one type for the whole run, and each of their actions is evidence of it::

        z ~ Categorical(weights)         # site `opponent_type`, once per replicate
        b ~ P_z(b | s)                   # site `opponent_action`, observed at every step

        q(z) = p(z | all observed b)     # exact, by Bayes' rule
        P(b | s) = sum_z q(z) P_z(b | s)

    The control model gets `P`, with the type summed out. At KL weight 1 that is what enumerating `z` in the model
    alone would give; a guide with a factor for `z` of its own, beside `rho(b | s)`, would have an ELBO lower by the
    expected KL divergence of that factor from `p(z | b)`.

    Types may learn. A type is judged by its probability of what the opponents did before it learns from it, so that
    evidence is that of forecasts (prequential; Dawid 1984), and for one observation at a time and a Bayesian type its
    exact marginal likelihood. Observations that arrive together, from several environments, are all forecast first.

    A type that gave probability 0 to what happened is out for good, as long as another is left. In a replicate where
    none is left, the evidence contradicts every type and says nothing about which: all of it is dropped, and q
    starts again from the weights. Discrete actions.

    Args:
        types: the priors; each sees what the opponents do, and the model, as if it were alone.
        weights: of the types before any evidence, normalised; `None` for equal ones.
        forget: share of the log-evidence lost at each observation, in [0, 1), for opponents whose type may change; 0
            is Bayes' rule.

    Raises:
        ValueError: if there are no types, if a weight is missing or not positive, or if `forget` is out of its range.
    """

    targets = (Discrete,)
    priors: Any  # a PyroModuleList, which does not say of what
    log_weights: Tensor
    log_evidence: Tensor

    def __init__(
        self, types: Sequence[OpponentPrior], weights: Sequence[float] | None = None, forget: float = 0.0
    ) -> None:
        super().__init__()
        if not types:
            raise ValueError("types: got none, expected at least one opponent prior")
        if weights is not None and (
            len(weights) != len(types) or not all(weight > 0 and math.isfinite(weight) for weight in weights)
        ):
            raise ValueError(f"weights: got {list(weights)}, expected one positive number per type: {len(types)}")
        if not 0 <= forget < 1:
            raise ValueError(f"forget: got {forget}, expected a number in [0, 1)")
        self.priors = PyroModuleList(types)
        self.weights = tuple(weights or [1.0] * len(types))
        self.forget = forget

    def setup(self) -> None:
        """Bind every type; `log_evidence`, `replicates x types`, starts at 0.

        Raises:
            IncompatibleError: if a type does not fit, with its key.
        """
        bound = []
        for i, prior in enumerate(self.priors):
            with within(f"types[{i}]"):
                bound.append(prior.bind(self.seat, self.target, self.parents))
        self.priors = PyroModuleList(bound)
        weights = torch.tensor(self.weights, dtype=self.seat.dtype, device=self.seat.device)
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("log_evidence", weights.new_zeros(self.seat.replicates, len(bound)))

    def attach(self, model: OneStepModel) -> None:
        """Let every type see the model."""
        for i, prior in enumerate(self.priors):
            with within(f"types[{i}]"):
                prior.attach(model)

    @property
    def full_support(self) -> bool:
        """Whether a type has it: that one never leaves the mixture."""
        return any(prior.full_support for prior in self.priors)

    @property
    def log_posterior(self) -> Tensor:
        """`log q(z)`, `replicates x types`."""
        return (self.log_weights + self.log_evidence).log_softmax(-1)

    def types(self, obs: Tensor) -> Tensor:
        """`q(z)`, the same in every state: `replicates x batch x types`."""
        return self.log_posterior.exp().unsqueeze(1).expand(-1, obs.shape[1], -1)

    def _given_type(self, obs: Tensor) -> Tensor:
        """`log P_z(b | s)`, `[extra x] replicates x batch x types x opponent_actions`."""
        logits = [prior(obs).logits for prior in self.priors]
        batch = obs.shape[: obs.dim() - len(self.parents[0].event_shape)]
        shape = torch.broadcast_shapes(batch, *(each.shape[:-1] for each in logits))
        return torch.stack([each.expand(*shape, -1) for each in logits], dim=-2)

    def likelihood(self, obs: Tensor, opponent_action: Tensor) -> None:
        """The Pyro model of the class docstring for more observations, `replicates x batch`, given those before.

        It is q that `observe` updates: its enumerated posterior of `opponent_type` is the next `q(z)`.
        """
        given = self._given_type(obs)
        columns = torch.arange(obs.shape[1], device=obs.device)
        with pyro.plate("replicate", obs.shape[0], dim=-2):
            belief = dist.Categorical(logits=self.log_posterior.unsqueeze(1))
            opponent_type = pyro.sample("opponent_type", belief, infer={"enumerate": "parallel"})
            with pyro.plate("batch", obs.shape[1], dim=-1):
                logits = Vindex(given)[self.seat.rows, columns, opponent_type, :]
                pyro.sample("opponent_action", dist.Categorical(logits=logits), obs=opponent_action)

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        """Judge every type by the newest observations, then let it learn from them."""
        with torch.no_grad():
            forecasts = dist.Categorical(logits=self._given_type(obs))
            newest = forecasts.log_prob(opponent_action.unsqueeze(-1)).sum(1)
            evidence = (1 - self.forget) * self.log_evidence + newest
            contradicted = evidence.isneginf().all(-1, keepdim=True)
            self.log_evidence = torch.where(contradicted, torch.zeros_like(evidence), evidence)
        for prior in self.priors:
            prior.observe(obs, opponent_action)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The mixture at `obs`."""
        joint = self.log_posterior[:, None, :, None] + self._given_type(obs)
        return dist.Categorical(logits=joint.logsumexp(-2))
