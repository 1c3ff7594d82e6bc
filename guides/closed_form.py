"""Guide factors that are computed from the model instead of fitted."""

from __future__ import annotations

from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import IncompatibleError, within
from inference_marl.inference.conditional import Conditional, Over, Reads
from inference_marl.inference.distributions import logsumexp
from inference_marl.inference.factored import Factored, as_factored, log_probabilities, need_discrete
from inference_marl.inference.schedules import Number, over_events
from inference_marl.spaces import Discrete, joint_action, separate_actions


class ClosedForm(Conditional):
    """Base: a guide factor computed from the model and, if sampled first, from the guide's other factor.

    `forward(obs, *earlier, model, other)` receives both as arguments.

    Attributes:
        site: the site of this factor: `action`, or `opponent_action` for those of all opponents.
        is_first: whether this factor is sampled first.
    """

    reads_model = True
    over: ClassVar[Over] = "joint"

    site: str
    is_first: bool

    def take_place(self, site: str, order: tuple[str, str]) -> None:
        """Set the site of this factor in a guide, given both sites in sampling order."""
        self.site, self.is_first = site, site == order[0]


class Empirical(ClosedForm):
    """The opponent model `rho := P`: the opponents follow the prior, whatever optimality implies about their actions.

    With `EmpiricalFrequency` as the prior this is the ablation ROMMEO-Q-EMP (Tian et al. 2019, Section 5.1). It fits
    either order; after the policy, it ignores the agent's own action.
    """

    def take_place(self, site: str, order: tuple[str, str]) -> None:
        """As `ClosedForm.take_place`; raises `IncompatibleError` if used as the policy."""
        if site != "opponent_action":
            raise IncompatibleError("Empirical got the policy's place, expected the opponent model's: it is rho := P")
        super().take_place(site, order)

    over = "each"

    def forward(self, obs: Tensor, *others: Tensor, model: Reads, other: Conditional) -> Factored:
        """The model's prior at `obs`."""
        return model.opponent_prior(obs)


class Optimal(ClosedForm):
    """The factor that maximises the ELBO given the rest of the guide, for discrete spaces.

    Write `w` for the weight of a site (alpha for the agent's own action, beta for the opponents') and `p` for its
    reference (1 for the own action, the prior for the opponents'). The factor sampled second is `p exp(Q / w)`,
    normalised: Eq. 10 of Tian et al. (2019) for the policy. The factor sampled first is `p exp(S / w)` with `S =
    E_second[Q - w' log(second / p')]`: Eq. 39, and Eq. 11 if the second is optimal too. Both hold for any weights; the
    paper has beta = 1. Actions with prior probability 0 get probability 0.
    """

    targets = (Discrete,)
    conditions = (Discrete,)

    def setup(self) -> None:
        """Raise `IncompatibleError` if the opponents' joint actions are too many for a table, or not all discrete."""
        need_discrete([self.seat.opponent_action])

    def forward(self, obs: Tensor, *others: Tensor, model: Reads, other: Conditional) -> dist.TorchDistribution:
        """A categorical with batch shape `[extra x] replicates x batch`; for opponents, over their joint action."""
        if self.is_first:
            reference, weight = self._reference(self.site, obs, model)
            value = self._remaining_value(obs, self._values(obs, model), model, other)
            return dist.Categorical(logits=reference + value / over_events(weight, 1))
        columns = torch.arange(obs.shape[1], device=obs.device)
        earlier = joint_action(self.parents[1:], others)
        return dist.Categorical(logits=Vindex(self._scores(obs, model))[self.seat.rows, columns, :, earlier])

    def both(self, obs: Tensor, model: Reads, second: Optimal) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of this site, sampled first, and of the second, also optimal, given the first.

        `replicates x batch x first` and `replicates x batch x first x second`; and the soft value of the second for
        each value of the first, `replicates x batch x first`.
        """
        reference, weight = self._reference(self.site, obs, model)
        scores = second._scores(obs, model)
        normaliser = logsumexp(scores, -2, keepdim=True)
        value = over_events(second._reference(second.site, obs, model)[1], 1) * normaliser.squeeze(-2)
        return (reference + value / over_events(weight, 1)).log_softmax(-1), (scores - normaliser).mT, value

    def _values(self, obs: Tensor, model: Reads) -> Tensor:
        """`Q`, `replicates x batch x (this site) x (the other site)`."""
        q = model.q_table(obs)
        return q if self.site == "action" else q.mT

    def _scores(self, obs: Tensor, model: Reads) -> Tensor:
        """Unnormalised log-probabilities of the second site, likewise."""
        reference, weight = self._reference(self.site, obs, model)
        scores = self._values(obs, model) / over_events(weight, 2)
        return reference.unsqueeze(-1) + scores if reference.dim() else scores

    def _reference(self, site: str, obs: Tensor, model: Reads) -> tuple[Tensor, Number]:
        """Log-reference of a site, broadcasting with `replicates x batch x values`, and its weight."""
        if site == "action":
            return torch.zeros((), dtype=self.seat.dtype, device=obs.device), model.temperature
        with within("opponent_prior"):
            return model.opponent_prior(obs).table(), model.kl_weight

    def _remaining_value(self, obs: Tensor, q: Tensor, model: Reads, other: Conditional) -> Tensor:
        """`S`: the second factor's ELBO contribution for each value of this one, `replicates x batch x values`."""
        reference, weight = self._reference("opponent_action" if self.site == "action" else "action", obs, model)
        if isinstance(other, Optimal):
            scores = q / over_events(weight, 2) + (reference.unsqueeze(-2) if reference.dim() else reference)
            return over_events(weight, 1) * logsumexp(scores, -1)
        values = torch.arange(q.shape[2], device=obs.device).view(-1, 1, 1)
        closed = {"model": model, "other": self} if other.reads_model else {}
        if self.site == "action":
            second = as_factored(other(obs, values, **closed), self.seat.opponent_actions).table()
        else:
            given = separate_actions(self.seat.opponent_actions, values)
            second = log_probabilities(other(obs, *given, **closed), q.shape[3])
        log_q = second.expand(q.shape[2], *q.shape[:2], q.shape[3]).movedim(0, 2)
        log_ratio = log_q - (reference.unsqueeze(-2) if reference.dim() else reference)
        gain = q - over_events(weight, 2) * log_ratio
        terms = torch.where(log_q > -torch.inf, log_q.exp() * gain, torch.zeros_like(q))
        return terms.sum(-1)
