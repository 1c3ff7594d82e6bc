"""Factors of a guide that are computed from the model instead of fitted."""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.spaces import Discrete
from inference_marl.types import Conditional, OneStepModel


class ClosedForm(Conditional):
    """A factor of a guide that reads the model and, if it comes first, the guide's other factor."""

    def attach(
        self, model: OneStepModel, site: str, order: tuple[str, str], factors: Mapping[str, Conditional]
    ) -> None:
        """Say which model and which place this factor has.

        Args:
            model: gives the prior, the values and the weights.
            site: the site this factor is for.
            order: both sites, in sampling order.
            factors: the guide's factors by site.
        """
        other = order[1] if site == order[0] else order[0]
        # In a tuple, so that neither becomes a submodule of this factor.
        self._attached = (model, factors[other])
        self.site, self.is_first = site, site == order[0]


class Empirical(ClosedForm):
    """`rho := P`: the opponents do what the prior says, optimality tells nothing about them.

    With `EmpiricalFrequency` as the prior this is the ablation ROMMEO-Q-EMP (Tian et al. 2019, Section 5.1). It can
    stand in either order, where after the policy it ignores the own action.
    """

    def attach(
        self, model: OneStepModel, site: str, order: tuple[str, str], factors: Mapping[str, Conditional]
    ) -> None:
        """As `ClosedForm.attach`.

        Raises:
            IncompatibleError: if used as the policy.
        """
        if site != "opponent_action":
            raise IncompatibleError("Empirical got the policy's place, expected the opponent model's: it is rho := P")
        super().attach(model, site, order, factors)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The model's prior at `obs`."""
        distribution: dist.TorchDistribution = self._attached[0].opponent_prior(obs)
        return distribution


class Optimal(ClosedForm):
    """The factor that maximises the ELBO given the rest of the guide, for discrete spaces.

    Write `w` for the weight of a site (alpha on the own action, beta on the opponents'), `p` for its reference
    (1 on the own action, the prior on the opponents'). The factor sampled second is `p exp(Q / w)`, normalised:
    Eq. 10 of Tian et al. (2019) for the policy. The factor sampled first is `p exp(S / w)` with
    `S = E_second[Q - w' log(second / p')]`: Eq. 39, and Eq. 11 once the second is optimal too. Both hold for any
    weights; the paper has beta = 1.

    Values whose prior probability is 0 get probability 0.
    """

    targets = (Discrete,)
    conditions = (Discrete,)

    def _reference(self, site: str, obs: Tensor) -> tuple[Tensor, float]:
        """Log-reference, broadcasting against `replicates x batch x values`, and weight of a site."""
        model = self._attached[0]
        if site == "action":
            return torch.zeros((), dtype=self.seat.dtype, device=obs.device), model.temperature
        prior = model.opponent_prior(obs)
        if not isinstance(prior, dist.Categorical):
            raise IncompatibleError(
                f"opponent_prior: got a {type(prior).__name__} for Optimal, expected a Categorical: the closed form "
                "needs every action's probability"
            )
        return prior.logits, model.kl_weight

    def _values(self, obs: Tensor) -> Tensor:
        """`Q`, `replicates x batch x (this site) x (the other site)`."""
        table = self._attached[0].q_table(obs)
        return table if self.site == "action" else table.transpose(-1, -2)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """A categorical with batch shape `[extra x] replicates x batch`."""
        reference, weight = self._reference(self.site, obs)
        q = self._values(obs)
        if self.is_first:
            return dist.Categorical(logits=reference + self._remaining_value(obs, q) / weight)
        logits = reference.unsqueeze(-1) + q / weight if reference.dim() else q / weight
        columns = torch.arange(q.shape[1], device=obs.device)
        (other,) = others
        return dist.Categorical(logits=Vindex(logits)[self.seat.rows, columns, :, other])

    def _remaining_value(self, obs: Tensor, q: Tensor) -> Tensor:
        """`S`: what the second factor adds to the ELBO for each value of this one, `replicates x batch x values`."""
        second_site = "opponent_action" if self.site == "action" else "action"
        reference, weight = self._reference(second_site, obs)
        if isinstance(self._attached[1], Optimal):
            scores = q / weight + (reference.unsqueeze(-2) if reference.dim() else reference)
            return weight * torch.logsumexp(scores, dim=-1)
        values = torch.arange(q.shape[2], device=obs.device).view(-1, 1, 1)
        second = self._attached[1](obs, values)
        if not isinstance(second, dist.Categorical):
            raise IncompatibleError(
                f"{type(self._attached[1]).__name__}: got a {type(second).__name__} beside Optimal, expected a "
                "Categorical"
            )
        log_q = second.logits.expand(q.shape[2], *q.shape[:2], q.shape[3]).movedim(0, 2)
        log_ratio = log_q - (reference.unsqueeze(-2) if reference.dim() else reference)
        terms = torch.where(log_q > -torch.inf, log_q.exp() * (q - weight * log_ratio), torch.zeros_like(q))
        return terms.sum(-1)
