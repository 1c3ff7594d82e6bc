"""Likelihoods of optimality given a value, the observed site `optimality`."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference_marl.inference.conditional import PyroPart


class Optimality(PyroPart):
    """Base: `forward(q)` adds the site `optimality`, observed to be 1, given values `[extra x] replicates x batch`.

    Attributes:
        offset: constant to add to the ELBO to express it in the units of `q`.
    """

    offset: float = 0.0

    def forward(self, q: Tensor, site: str = "optimality") -> None:
        """Add the observed site under the name `site`; every subclass defines this."""
        raise NotImplementedError(f"{type(self).__name__}.forward is not defined")

    def log_prob(self, q: Tensor) -> Tensor:
        """The log-density that the site adds, elementwise."""
        trace = poutine.trace(self).get_trace(q)
        trace.compute_log_prob()
        found: Tensor = trace.nodes["optimality"]["log_prob"]
        return found


class ExponentialOptimality(Optimality):
    """`p(o = 1 | s, a, b)` proportional to `exp(Q)` (Tian et al. 2019, Eq. 4): a factor, for rewards without bounds."""

    def forward(self, q: Tensor, site: str = "optimality") -> None:
        """Add `q` to the log-density."""
        pyro.factor(site, q)

    def log_prob(self, q: Tensor) -> Tensor:
        """The value itself."""
        return q


class BernoulliOptimality(Optimality):
    """An explicit binary variable `o ~ Bernoulli(exp(Q - upper))`, observed to be 1.

    For values bounded by `upper` this is a proper probability with the same posterior over actions as
    `ExponentialOptimality`; the ELBO bounds a true log-probability, lower by the constant `upper`. In games of several
    steps `Q` is a soft value, which includes entropy bonuses, so `upper` must bound those too.

    Args:
        upper: upper bound of `Q`, in units of reward.
    """

    def __init__(self, upper: float) -> None:
        super().__init__()
        self.upper = upper
        self.offset = upper

    def forward(self, q: Tensor, site: str = "optimality") -> None:
        """Observe the variable to be 1.

        Raises:
            ValueError: if a value exceeds `upper`, since its probability would exceed 1.
        """
        highest = float(q.detach().max())
        if highest > self.upper + 1e-4 * max(1.0, abs(self.upper)):  # tolerate rounding
            raise ValueError(
                f"optimality.upper: got {self.upper}, but Q reaches {highest:.6g}; expected an upper bound of Q: "
                "raise it, or use ExponentialOptimality, which needs none"
            )
        # logit(exp(x)) = x - log(1 - exp(x)), kept finite where x = 0.
        log_probability = (q - self.upper).clamp_max(-torch.finfo(q.dtype).eps)
        logits = log_probability - torch.log(-torch.expm1(log_probability))
        pyro.sample(site, dist.Bernoulli(logits=logits), obs=torch.ones_like(logits))
