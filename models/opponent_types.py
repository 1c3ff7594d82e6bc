"""An opponent prior for opponents of an unknown type, inferred from their actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModuleList
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import BelowOne, Positive, brief, within
from inference_marl.inference.conditional import Reads
from inference_marl.inference.factored import as_factored
from inference_marl.inference.opponents import bind_over_opponents
from inference_marl.inference.plates import ONE_STEP
from inference_marl.models.priors import OpponentPrior
from inference_marl.spaces import Discrete, joint_action, separate_actions


class OpponentTypes(OpponentPrior):
    """A mixture of priors: the opponents have one type for the whole run, inferred from their actions::

        z ~ Categorical(weights)         # site `opponent_type`, once per replicate
        b ~ P_z(b | s)                   # site `opponent_action`, observed at every step

        q(z) = p(z | all observed b)     # exact, by Bayes' rule
        P(b | s) = sum_z q(z) P_z(b | s)

    The control model uses `P`, with the type marginalised. At KL weight 1 this equals enumerating `z` in the model
    alone; a guide with a separate factor for `z` in addition to `rho(b | s)` would have an ELBO lower by the expected
    KL divergence of that factor from `p(z | b)`.

    Types may learn. Each is scored by the probability it gave to the opponents' actions before learning from them, so
    the evidence is prequential (Dawid 1984), and for one observation at a time and a Bayesian type it is the exact
    marginal likelihood. Observations that arrive together, from several environments, are all predicted before any is
    learned from.

    A type that gave probability 0 to an observed action is excluded permanently, as long as another remains. In a
    replicate where none remains, the evidence contradicts every type and cannot discriminate between them: it is
    discarded, and q restarts from the weights. Discrete actions.

    Args:
        types: the priors; each observes the opponents' actions, and may read the model, as if it were the only one.
        weights: prior weights of the types, normalised; `None` for equal ones.
        forget: fraction of the log-evidence lost at each observation, in [0, 1), for opponents whose type may change; 0
            is Bayes' rule.

    Raises:
        ValueError: if there are no types, if a weight is missing or not positive, or if `forget` is out of range.
    """

    targets = (Discrete,)
    priors: Any  # a PyroModuleList, which is not generic
    log_weights: Tensor
    log_evidence: Tensor

    def __init__(
        self, types: Sequence[OpponentPrior], weights: Sequence[Positive] | None = None, forget: BelowOne = 0.0
    ) -> None:
        super().__init__()
        if not types:
            raise ValueError("types: got none, expected at least one opponent prior")
        if weights is not None and len(weights) != len(types):
            raise ValueError(f"weights: got {list(weights)}, expected one positive number per type: {len(types)}")
        self.priors = PyroModuleList(types)
        self.weights = tuple(weights or [1.0] * len(types))
        self.forget = forget

    def setup(self) -> None:
        """Bind every type; `log_evidence`, `replicates x types`, starts at 0.

        Raises:
            IncompatibleError: if a type does not fit the seat; names its key.
        """
        bound = []
        for i, prior in enumerate(self.priors):
            with within(f"types[{i}]"):
                bound.append(bind_over_opponents(prior, self.seat, self.parents))
        self.priors = PyroModuleList(bound)
        weights = torch.tensor(self.weights, dtype=self.seat.dtype, device=self.seat.device)
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("log_evidence", weights.new_zeros(self.seat.replicates, len(bound)))

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the types: the classes of the priors."""
        return tuple(map(brief, self.priors))

    @property
    def full_support(self) -> bool:
        """Whether any type has full support: such a type is never excluded."""
        return any(prior.full_support for prior in self.priors)

    @property
    def log_posterior(self) -> Tensor:
        """`log q(z)`, `replicates x types`."""
        return (self.log_weights + self.log_evidence).log_softmax(-1)

    def types(self, obs: Tensor) -> Tensor:
        """`q(z)`, the same in every state: `replicates x batch x types`."""
        return self.log_posterior.exp().unsqueeze(1).expand(-1, obs.shape[1], -1)

    def _given_type(self, obs: Tensor, model: Reads | None) -> Tensor:
        """`log P_z(b | s)`, `[extra x] replicates x batch x types x opponent_actions`."""
        spaces = self.seat.opponent_actions
        given = (prior(obs) if model is None else prior.given(model, obs) for prior in self.priors)
        logits = [as_factored(each, spaces).table() for each in given]
        batch = obs.shape[: obs.dim() - len(self.parents[0].event_shape)]
        shape = torch.broadcast_shapes(batch, *(each.shape[:-1] for each in logits))
        return torch.stack([each.expand(*shape, -1) for each in logits], dim=-2)

    def likelihood(self, obs: Tensor, opponent_action: Tensor, model: Reads | None = None) -> None:
        """The Pyro model of the class docstring for new observations, `replicates x batch`, given earlier ones.

        The enumerated posterior of `opponent_type` is the `q(z)` to which `observe` updates.
        """
        given = self._given_type(obs, model)
        columns = torch.arange(obs.shape[1], device=obs.device)
        plates = ONE_STEP.open(ONE_STEP.sizes(obs, self.parents[0].event_shape))
        with plates.within("replicate"):
            belief = dist.Categorical(logits=self.log_posterior.unsqueeze(1))
            opponent_type = pyro.sample("opponent_type", belief, infer={"enumerate": "parallel"})
            with plates.within("batch"):
                logits = Vindex(given)[self.seat.rows, columns, opponent_type, :]
                pyro.sample("opponent_action", dist.Categorical(logits=logits), obs=opponent_action)

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        """Update the evidence for every type, then let every type observe."""
        self._judge(obs, opponent_action, None)
        opponent_actions = separate_actions(self.seat.opponent_actions, opponent_action)
        for prior in self.priors:
            prior.observe(obs, *prior.as_observed(opponent_actions))

    def observe_given(self, model: Reads, obs: Tensor, *opponent_actions: Tensor) -> None:
        """As `observe`, for types that read the model."""
        self._judge(obs, joint_action(self.seat.opponent_actions, opponent_actions), model)
        for prior in self.priors:
            prior.observe_given(model, obs, *opponent_actions)

    def fit(self) -> None:
        """Fit every type to the observations."""
        for prior in self.priors:
            prior.fit()

    def _judge(self, obs: Tensor, opponent_action: Tensor, model: Reads | None) -> None:
        with torch.no_grad():
            forecasts = dist.Categorical(logits=self._given_type(obs, model))
            newest = forecasts.log_prob(opponent_action.unsqueeze(-1)).sum(1)
            evidence = (1 - self.forget) * self.log_evidence + newest
            contradicted = evidence.isneginf().all(-1, keepdim=True)
            self.log_evidence = torch.where(contradicted, torch.zeros_like(evidence), evidence)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The mixture at `obs`."""
        return self._mixture(self._given_type(obs, None))

    def given(self, model: Reads, obs: Tensor) -> dist.TorchDistribution:
        """The mixture at `obs`, with types that read the model."""
        return self._mixture(self._given_type(obs, model))

    def _mixture(self, given_type: Tensor) -> dist.TorchDistribution:
        joint = self.log_posterior[:, None, :, None] + given_type
        return dist.Categorical(logits=joint.logsumexp(-2))
