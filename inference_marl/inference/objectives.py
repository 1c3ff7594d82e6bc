"""Pure functions, one per equation: expectations over one step of play, the soft value, the TD target.

This is the only place that computes the single-step ELBO from Pyro traces: the critic's bootstrapped values and the
beliefs of continuous games come from `one_step`, with the same sites, scales and plates as in Pyro's own ELBO when the
guide is fitted. `table_step` computes the same from tables, several times faster, for quantities that are recorded
often.

Weights and discounts may be one number per replicate, `replicates x 1`; all other arguments then begin with `replicates
x batch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.nn.functional import threshold

from inference_marl.inference.distributions import logsumexp
from inference_marl.inference.factored import opponent_sites
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.schedules import Number, over_events


@dataclass(frozen=True)
class Parts:
    """The terms of a guide's ELBO, `...`, for instance per datum or per initial state.

    Attributes:
        reward: `E[log p(o=1 | s, a, b)]`: the critic's value, or the sum of rewards.
        entropy: minus the weighted KL of the policy from the model's uniform policy, at most 0 in expectation.
        kl: the weighted KL of the opponent model from the opponent prior, plus that of inferred dynamics from the
            model's.
    """

    reward: Tensor
    entropy: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """ROMMEO's objective (Tian et al. 2019, Eq. 7) with Pyro's normalised uniform policy."""
        return self.reward + self.entropy - self.kl


@dataclass(frozen=True)
class OneStep(Parts):
    """Expectations over one step of play under a guide, per datum, `replicates x batch`.

    Enumerated sites are summed out exactly; others are represented by the trace's single draw.

    Attributes:
        action: the agent's own action. For a site that was summed out, its marginal probabilities, `replicates x batch
            x actions`; for a discrete site that was drawn, its probabilities given the earlier draws; otherwise the
            draw, `replicates x batch x dim`, with a leading dimension for each site that was summed out before it.
        opponent_actions: every opponent's, likewise.
    """

    action: Tensor
    opponent_actions: tuple[Tensor, ...]


def one_step(model: Callable[..., Any], guide: Callable[..., Any], obs: Tensor) -> OneStep:
    """Trace `guide` and `model` once at `obs` and take the expectation over enumerated sites.

    Args:
        model: has the sites of `guide`, and `optimality`, in plates `replicate` and `batch`.
        guide: has the sites `action` and `opponent_action`, or one for each opponent; those marked for parallel
            enumeration are summed out.
        obs: `replicates x batch x event`.

    Source: Tian et al. 2019, Eq. 7 and 15, per datum.
    """
    enumerated = poutine.enum(guide, first_available_dim=-1 - len(ONE_STEP))
    guide_trace = poutine.trace(enumerated).get_trace(obs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(obs)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    count = sum(name.startswith("opponent_action") for name in guide_trace.stochastic_nodes)
    opponents = opponent_sites(count)
    sums = _Sums(guide_trace, ["action", *opponents], obs.shape[: len(ONE_STEP)])

    def log_ratio(name: str) -> Tensor:
        difference: Tensor = guide_trace.nodes[name]["log_prob"] - model_trace.nodes[name]["log_prob"]
        return difference

    return OneStep(
        reward=sums.expectation(model_trace.nodes["optimality"]["log_prob"]),
        entropy=-sums.expectation(log_ratio("action")),
        kl=sums.expectation(sum(map(log_ratio, opponents[1:]), log_ratio(opponents[0]))),
        action=sums.belief("action"),
        opponent_actions=tuple(map(sums.belief, opponents)),
    )


def table_step(
    log_policy: Tensor,
    log_opponent_model: Tensor,
    log_prior: Tensor,
    reward: Tensor,
    temperature: Number,
    kl_weight: Number,
    log_size: float,
) -> OneStep:
    """Compute `one_step` for discrete sites, given tables instead of programs.

    Args:
        log_policy: `log pi`, which with the next three broadcasts to `replicates x batch x actions x opponent_actions`.
        log_opponent_model: `log rho`.
        log_prior: `log P`.
        reward: `log p(o=1 | s, a, b)`.
        temperature: alpha.
        kl_weight: beta.
        log_size: `log |A|` of the agent's own action space.

    Returns:
        Expectations, with a single tensor for all opponents: the probabilities of their joint action.
    """
    # Smaller probabilities count as 0, with finite logarithms so that 0 log 0 = 0: processors are many times slower
    # near the smallest representable numbers.
    least = 0.75 * math.log(torch.finfo(reward.dtype).tiny)
    log_policy, log_opponent_model = log_policy.clamp_min(least), log_opponent_model.clamp_min(least)
    log_prior = log_prior.clamp_min(torch.finfo(reward.dtype).min)
    joint = threshold((log_policy + log_opponent_model).clamp_min(least).exp(), 2 * math.exp(least), 0.0)

    def expectation(value: Tensor) -> Tensor:
        return (joint * value).sum((-1, -2))

    return OneStep(
        reward=expectation(reward),
        entropy=-temperature * expectation(log_policy + log_size),
        kl=kl_weight * expectation(log_opponent_model - log_prior),
        action=joint.sum(-1),
        opponent_actions=(joint.sum(-2),),
    )


class _Sums:
    """Sums over the enumerated sites of a guide's trace.

    Attributes:
        dims: each site's enumeration dimension; `None` if it was sampled.
        weight: the guide's probability of every combination of enumerated values; `None` if there are none.
    """

    def __init__(self, trace: poutine.Trace, names: Sequence[str], shape: torch.Size) -> None:
        self.trace, self.shape = trace, shape
        self.dims: dict[str, int | None] = {
            name: (trace.nodes[name]["infer"] or {}).get("_enumerate_dim") for name in names
        }
        self.summed = [dim for dim in self.dims.values() if dim is not None]
        log_weight = sum(trace.nodes[name]["unscaled_log_prob"] for name, dim in self.dims.items() if dim is not None)
        self.weight = torch.exp(log_weight) if isinstance(log_weight, Tensor) else None

    def expectation(self, value: Tensor) -> Tensor:
        """Expectation, `replicates x batch`, of a value that broadcasts with the sites."""
        if self.weight is None:
            return value.expand(self.shape)
        # 0 log 0 = 0: a value of probability 0 contributes nothing, whatever its (infinite) log-ratio.
        product = torch.where(self.weight > 0, self.weight * value, torch.zeros_like(self.weight))
        return product.sum(self.summed).expand(self.shape)

    def belief(self, name: str) -> Tensor:
        """The entry of a site in `OneStep`."""
        dim, node = self.dims[name], self.trace.nodes[name]
        if self.weight is None or dim is None:
            drawn: Tensor = node["fn"].probs if isinstance(node["fn"], dist.Categorical) else node["value"]  # type: ignore[assignment]
            return drawn.expand(*drawn.shape[:-3], *self.shape, -1)
        others = [other for other in self.summed if other != dim]
        marginal = (self.weight.sum(others, keepdim=True) if others else self.weight).movedim(dim, -1)
        return marginal.reshape(*marginal.shape[-3:]).expand(*self.shape, -1)


def soft_value(
    model: Callable[..., Any], guide: Callable[..., Any], obs: Tensor, temperature: Number, log_size: float
) -> Tensor:
    """The soft value `V(s)`: the ELBO without the constant `-alpha log|A|` of the normalised uniform policy.

    `replicates x batch`. At the optimal guide this is `log sum_b P(b|s) (sum_a exp(Q/alpha))^alpha` (Tian et al. 2019,
    Eq. 9); at any guide its single-draw form is Eq. 15.

    Args:
        model: as for `one_step`.
        guide: as for `one_step`.
        obs: `replicates x batch x event`.
        temperature: alpha.
        log_size: `log |A|` of the agent's own action space.
    """
    return one_step(model, guide, obs).elbo + temperature * log_size


def sampled_value(model: Callable[..., Any], guide: Callable[..., Any], obs: Tensor, draws: int) -> Tensor:
    """The soft value as Algorithm 1 of Tian et al. (2019) samples it, `replicates x batch`::

        V(s) = log mean_k P(b_k | s) exp(Q(s, a_k, b_k)) / (pi(a_k | s, b_k) rho(b_k | s)),   b_k ~ rho, a_k ~ pi

    The mean inside the logarithm is an unbiased estimate of `sum_{a, b} P(b | s) exp(Q)`, which is exp of Eq. 9 for a
    temperature of 1 only; its logarithm is biased downwards.

    Args:
        model: as for `one_step`.
        guide: as for `one_step`; all its sites are drawn.
        obs: `replicates x batch x event`.
        draws: number of draws per datum.
    """
    wide = obs.repeat_interleave(draws, dim=1)
    guide_trace = poutine.trace(guide).get_trace(wide)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(wide)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    opponents = {name for name in guide_trace.stochastic_nodes if name.startswith("opponent_action")}
    log_weight: Any = model_trace.nodes["optimality"]["unscaled_log_prob"]
    for name in opponents:
        log_weight = log_weight + model_trace.nodes[name]["unscaled_log_prob"]
    for name in ("action", *opponents):
        log_weight = log_weight - guide_trace.nodes[name]["unscaled_log_prob"]
    value: Tensor = logsumexp(log_weight.unflatten(1, (obs.shape[1], draws)), -1) - math.log(draws)
    return value


def td_target(reward: Tensor, discount: Number, terminated: Tensor, next_value: Tensor) -> Tensor:
    """The TD target `r + gamma V(s')`, with `V = 0` where the game has terminated (Tian et al. 2019, Eq. 12 and 14)."""
    return reward + discount * torch.where(terminated, torch.zeros_like(next_value), next_value)


def discounted(values: Tensor, onward: Tensor) -> Tensor:
    """Discounted sums over the future, `S_t = values_t + onward_t S_(t+1)`.

    For TD errors and weights gamma lambda these are generalised advantage estimates (Schulman et al. 2016, Eq. 16).

    Args:
        values: `time x ...`.
        onward: the weight of the future after each step, in the same shape.

    Returns:
        The sums, in the same shape.
    """
    total, found = torch.zeros_like(values[0]), []
    for value, weight in zip(reversed(values), reversed(onward), strict=True):
        total = torch.addcmul(value, weight, total)
        found.append(total)
    return torch.stack(found[::-1])


def optimal_value(
    q: Tensor,
    log_prior: Tensor,
    temperature: Number,
    kl_weight: Number = 1.0,
    policy_first: bool = False,
    second: Tensor | None = None,
) -> Tensor:
    """The optimal soft value in closed form, `...` (Tian et al. 2019, Eq. 9, here for any KL weight and both orders).

    With `S(b) = alpha log sum_a exp(Q(a, b) / alpha)`: `V = beta log sum_b P(b) exp(S(b) / beta)`; for `beta = 1` this
    is Eq. 9. Guides that sample the policy first have `V = alpha log sum_a exp(beta / alpha log sum_b P(b) exp(Q(a, b)
    / beta))`, the same if `alpha = beta`.

    Args:
        q: `... x actions x opponent_actions`.
        log_prior: `... x opponent_actions`.
        temperature: alpha, positive.
        kl_weight: beta, positive.
        policy_first: whether the guide samples the policy first.
        second: the inner term, if it is known: S(b) or, with the policy first, its counterpart for each a.
    """
    if policy_first:
        if second is None:
            second = over_events(kl_weight, 1) * logsumexp(log_prior.unsqueeze(-2) + q / over_events(kl_weight, 2), -1)
        return temperature * logsumexp(second / over_events(temperature, 1), -1)
    if second is None:
        second = over_events(temperature, 1) * logsumexp(q / over_events(temperature, 2), -2)
    return kl_weight * logsumexp(log_prior + second / over_events(kl_weight, 1), -1)


def drawn_value(q: Tensor, temperature: Number, log_size: float) -> Tensor:
    """The soft value `alpha log integral exp(Q / alpha)` of a box from values at uniform draws, `replicates x batch`::

        V = alpha (log mean_k exp(Q_k / alpha) + log |A|)

    Its expectation is below the integral's (Jensen), considerably so if few draws meet a narrow peak: if Q varies over
    the box by many times alpha, it tends to the expected maximum of the drawn values. The authors' code of MASQL and
    PR2 has `- log K + dim log 2` in place of `alpha (- log K + dim log 2)`, which is the same for alpha = 1 only.

    Args:
        q: values at independent uniform draws, `draws x replicates x batch`.
        temperature: alpha, positive.
        log_size: log-volume of the box.

    Source: Haarnoja et al. 2017, Eq. 10, with uniform proposals.
    """
    value: Tensor = logsumexp(q / temperature, 0)
    return temperature * (value - math.log(len(q)) + log_size)
