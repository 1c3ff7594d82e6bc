"""Pure functions, one per equation: one step of play as an expectation, the soft value, the TD target.

The single-step ELBO is read off Pyro traces here and nowhere else: the critic's bootstrap, the recorded beliefs
and the split of the ELBO into its parts all come from `one_step`, with the sites, scales and plates that Pyro's
own ELBO sees when the guide is fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

MAX_PLATE_NESTING = 2
"""The plates `replicate` and `batch`; enumerated sites get dimensions to the left of them."""


@dataclass(frozen=True)
class OneStep:
    """Expectations of one step of play under a guide, per datum.

    Enumerated (discrete) sites are summed out exactly; others are the one draw that the trace holds.

    Attributes:
        reward: `E[log p(o=1 | s, a, b)]`, the critic's value, `replicates x batch`.
        entropy: minus the weighted KL of the policy from the model's uniform policy, at most 0 in expectation.
        kl: the weighted KL of the opponent model from the opponent prior.
        action, opponent_action: for a discrete site its marginal probabilities, `replicates x batch x actions`;
            for a continuous one the draw, `replicates x batch x dim`.
    """

    reward: Tensor
    entropy: Tensor
    kl: Tensor
    action: Tensor
    opponent_action: Tensor

    @property
    def elbo(self) -> Tensor:
        """ROMMEO's objective (Tian et al. 2019, Eq. 7) with Pyro's normalised uniform policy."""
        return self.reward + self.entropy - self.kl


def one_step(model: Callable[..., Any], guide: Callable[..., Any], obs: Tensor) -> OneStep:
    """Trace `guide` and `model` once at `obs` and take the expectation over enumerated sites.

    Args:
        model: has sites `opponent_action`, `action`, `optimality` in plates `replicate` and `batch`.
        guide: has sites `opponent_action` and `action`, discrete ones marked for parallel enumeration.
        obs: `replicates x batch x event`.

    Source: Tian et al. 2019, Eq. 7 and 15, per datum.
    """
    enumerated = poutine.enum(guide, first_available_dim=-1 - MAX_PLATE_NESTING)
    guide_trace = poutine.trace(enumerated).get_trace(obs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(obs)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()

    shape = obs.shape[:MAX_PLATE_NESTING]
    dims: dict[str, int | None] = {
        name: (guide_trace.nodes[name]["infer"] or {}).get("_enumerate_dim") for name in ("action", "opponent_action")
    }
    summed = [dim for dim in dims.values() if dim is not None]
    log_weight = sum(guide_trace.nodes[n]["unscaled_log_prob"] for n, dim in dims.items() if dim is not None)
    weight = torch.exp(log_weight) if isinstance(log_weight, Tensor) else None

    def expectation(value: Tensor) -> Tensor:
        if weight is None:
            return value.expand(shape)
        # 0 log 0 = 0: a value of probability 0 contributes nothing, whatever its (infinite) log-ratio.
        product = torch.where(weight > 0, weight * value, torch.zeros_like(weight))
        return product.sum(summed).expand(shape)

    def belief(name: str) -> Tensor:
        dim = dims[name]
        if weight is None or dim is None:
            drawn: Tensor = guide_trace.nodes[name]["value"]  # type: ignore[assignment]
            return drawn
        others = [other for other in summed if other != dim]
        marginal = (weight.sum(others, keepdim=True) if others else weight).movedim(dim, -1)
        return marginal.reshape(*marginal.shape[-3:]).expand(*shape, -1)

    def log_ratio(name: str) -> Tensor:
        difference: Tensor = guide_trace.nodes[name]["log_prob"] - model_trace.nodes[name]["log_prob"]
        return difference

    return OneStep(
        reward=expectation(model_trace.nodes["optimality"]["log_prob"]),
        entropy=-expectation(log_ratio("action")),
        kl=expectation(log_ratio("opponent_action")),
        action=belief("action"),
        opponent_action=belief("opponent_action"),
    )


def soft_value(
    model: Callable[..., Any], guide: Callable[..., Any], obs: Tensor, temperature: float, log_size: float
) -> Tensor:
    """The soft value `V(s)`: the ELBO without the constant `-alpha log|A|` of the normalised uniform policy.

    At the optimal guide this is `log sum_b P(b|s) (sum_a exp(Q/alpha))^alpha` (Tian et al. 2019, Eq. 9); at any
    guide its single-draw form is Eq. 15.

    Args:
        model: as for `one_step`.
        guide: as for `one_step`.
        obs: `replicates x batch x event`.
        temperature: alpha.
        log_size: `log |A|` of the own action space.

    Returns:
        `replicates x batch`.
    """
    return one_step(model, guide, obs).elbo + temperature * log_size


def td_target(reward: Tensor, discount: float, terminated: Tensor, next_value: Tensor) -> Tensor:
    """`r + gamma V(s')`, with `V = 0` where the game has terminated (Tian et al. 2019, Eq. 12 and 14)."""
    return reward + discount * torch.where(terminated, torch.zeros_like(next_value), next_value)


def optimal_value(
    q: Tensor, log_prior: Tensor, temperature: float, kl_weight: float = 1.0, policy_first: bool = False
) -> Tensor:
    """Closed-form soft value of a table (Tian et al. 2019, Eq. 9, here for any KL weight and both orders).

    With `S(b) = alpha log sum_a exp(Q(a, b) / alpha)`: `V = beta log sum_b P(b) exp(S(b) / beta)`; for
    `beta = 1` this is Eq. 9. Guides that sample the policy first have
    `V = alpha log sum_a exp(beta / alpha log sum_b P(b) exp(Q(a, b) / beta))`, the same if `alpha = beta`.

    Args:
        q: `... x actions x opponent_actions`.
        log_prior: `... x opponent_actions`.
        temperature: alpha, positive.
        kl_weight: beta, positive.
        policy_first: the order of the guide's factors.

    Returns:
        `...`.
    """
    if policy_first:
        opponent_value = kl_weight * torch.logsumexp(log_prior.unsqueeze(-2) + q / kl_weight, dim=-1)
        return temperature * torch.logsumexp(opponent_value / temperature, dim=-1)
    policy_value = temperature * torch.logsumexp(q / temperature, dim=-2)
    return kl_weight * torch.logsumexp(log_prior + policy_value / kl_weight, dim=-1)
