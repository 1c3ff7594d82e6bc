"""Exact solutions of tabular stochastic games: soft Q-iteration, and the evidence and posterior by backward recursion.

All tables are from one agent's perspective and may begin with any batch dimensions (`replicates`), written `...`:

* `reward`: `... x states x actions x opponent_actions`;
* `transition`: `... x states x actions x opponent_actions x states`; the probability missing from a row is that of
  termination, after which rewards are 0;
* `log_prior`: log P(b | s), `... x states x opponent_actions`.

Functions raise `ValueError` if a table's shape does not fit or a number is out of range (`temperature`, alpha > 0;
`kl_weight`, beta > 0). Both weights are numbers, or one per replicate, `replicates x 1`, if tables begin with
`replicates`. `Dynamics.seen_by` gives the first two tables for any agent of a game. There are two ways to plan:

* *kept* dynamics: the guide uses the game's dynamics, `Q = r + gamma E[V(s')]` (Tian et al. 2019, Eq. 12). The value is
  the largest ELBO of all such guides, which the agent can actually expect.
* *inferred* dynamics: the guide may also change the dynamics, `Q = r + log E[exp V(s')]`. The value is the log-evidence
  of being optimal throughout. It is at least the first (Jensen), equal for deterministic dynamics, and over-optimistic
  for stochastic ones: the posterior is optimistic about chance events (Levine 2018, Section 2.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from inference_marl.described import expect
from inference_marl.inference.objectives import Parts, optimal_value
from inference_marl.inference.schedules import Number, over_events
from inference_marl.types import Dynamics

MAX_ITERATIONS = 100_000
"""Maximum number of soft Q-iterations: enough for discounts up to about .9997."""

DynamicsOf = Literal["kept", "inferred"]
"""Whether a trajectory guide keeps the model's dynamics or infers them too."""


@dataclass(frozen=True)
class Factors:
    """The factors of a guide. With a horizon, every field has the dimension `horizon` before `states`.

    Attributes:
        policy: pi(a | s, b), `... x states x actions x opponent_actions`, summing to 1 over actions (Eq. 10).
        opponent_model: rho(b | s), `... x states x opponent_actions` (Eq. 11).
        transition: the guide's dynamics, `... x states x actions x opponent_actions x states`: the game's if they are
            kept; `T(s' | s, a, b) exp V(s')`, normalised, if they are inferred; the game's at the last step of a
            horizon.
    """

    policy: Tensor
    opponent_model: Tensor
    transition: Tensor


@dataclass(frozen=True)
class Solution(Factors):
    """The optimal factors and their values.

    Attributes:
        q: Q(s, a, b), `... x states x actions x opponent_actions`.
        v: V(s), `... x states`.
    """

    q: Tensor
    v: Tensor


def soft_q_iteration(
    reward: Tensor,
    transition: Tensor,
    log_prior: Tensor,
    *,
    temperature: Number = 1.0,
    kl_weight: Number = 1.0,
    discount: float = 1.0,
    horizon: int | None = None,
    tolerance: float = 1e-10,
) -> Solution:
    """Soft Q-iteration with kept dynamics (Tian et al. 2019, Eq. 9, 12 and 13), for any temperature and KL weight.

    `Q(s, a, b) = r(s, a, b) + gamma sum_s' T(s' | s, a, b) V(s')` with
    `V(s) = beta log sum_b P(b | s) (sum_a exp(Q / alpha))^(alpha / beta)`. Tables and weights are as in the module.

    `discount` is gamma in [0, 1], below 1 without a horizon unless every path ends. Without `horizon` the iteration
    runs to the fixed point, in about `log(tolerance) / log(gamma)` steps: until V changes by at most `tolerance`,
    relative to its size.

    Raises:
        ValueError: if a number is out of range, or the iteration does not converge.
    """
    _check(reward, transition, log_prior, temperature, kl_weight)
    expect("a number in [0, 1]", discount=discount)
    if horizon is not None:
        return _backward(reward, transition, log_prior, temperature, kl_weight, discount, horizon, "kept")
    v = torch.zeros_like(reward[..., 0, 0])
    for _ in range(MAX_ITERATIONS):
        q = reward + discount * _following(transition, v, "kept")
        before, v = v, optimal_value(q, log_prior, temperature, kl_weight)
        if bool(((v - before).abs() <= tolerance * v.abs().clamp_min(1.0)).all()):
            return _solution(q, transition, log_prior, temperature, kl_weight)
        if not bool(v.isfinite().all()):
            break
    raise ValueError(
        f"discount: got {discount}, with which values do not settle within {MAX_ITERATIONS} iterations, expected a "
        "smaller one, or a horizon, or a larger tolerance"
    )


def smooth(
    reward: Tensor,
    transition: Tensor,
    log_prior: Tensor,
    horizon: int,
    *,
    dynamics: DynamicsOf = "inferred",
    temperature: Number = 1.0,
    kl_weight: Number = 1.0,
) -> Solution:
    """The optimal trajectory guide and its ELBO, with Pyro's normalised uniform policy in the model.

    With inferred dynamics and weights 1 this is exact smoothing: `v` at the first step is `log P(o_{1:T} = 1 | s_1)`
    and the factors are the posterior of `TrajectoryModel` (Tian et al. 2019, Eq. 26). With other weights `v` is the
    largest ELBO of any guide. With kept dynamics it is the largest ELBO of guides with the game's dynamics (Eq. 32).

    Tables and weights are as in the module; `reward` is the log-probability of being optimal, up to a constant.

    Returns:
        Fields with the dimension `horizon` before `states`.
    """
    _check(reward, transition, log_prior, temperature, kl_weight)
    normalised = reward - over_events(temperature, 2) * math.log(reward.shape[-2])
    return _backward(normalised, transition, log_prior, temperature, kl_weight, 1.0, horizon, dynamics)


def log_evidence(reward: Tensor, transition: Tensor, log_prior: Tensor, horizon: int) -> Tensor:
    """`log P(o_{1:T} = 1 | s_1)` by backward recursion, `... x states`; see `smooth`."""
    first: Tensor = smooth(reward, transition, log_prior, horizon).v.select(-2, 0)
    return first


def evaluate(
    reward: Tensor,
    transition: Tensor,
    log_prior: Tensor,
    guide: Factors,
    *,
    temperature: Number = 1.0,
    kl_weight: Number = 1.0,
) -> Parts:
    """The ELBO of any trajectory guide, from every initial state, by backward recursion (Eq. 32, by term).

    Tables and weights are those of the model, as in the module. The guide's factors have a horizon.

    Returns:
        The terms at the first step, `... x states`. The KL divergence of inferred dynamics is part of `kl`.
    """
    _check(reward, transition, log_prior, temperature, kl_weight)
    horizon = guide.opponent_model.shape[-3]
    uniform = -math.log(reward.shape[-2])
    after: list[Tensor] = [torch.zeros_like(reward[..., 0, 0])] * 3
    for step in reversed(range(horizon)):
        rho = guide.opponent_model.select(-3, step)
        joint = guide.policy.select(-4, step) * rho.unsqueeze(-2)
        moves = guide.transition.select(-5, step)
        bent = _divergence(moves, transition) if step + 1 < horizon else torch.zeros_like(reward)
        policy_ratio = _log_ratio(guide.policy.select(-4, step), torch.full_like(reward, uniform))
        now = (joint * reward, -over_events(temperature, 2) * policy_ratio * rho.unsqueeze(-2), joint * bent)
        if step + 1 < horizon:
            flows = [joint * (moves @ value[..., None, None, :, None]).squeeze(-1) for value in after]
        else:
            flows = [torch.zeros_like(joint)] * 3
        after = [(part + flow).sum((-2, -1)) for part, flow in zip(now, flows, strict=True)]
        after[2] = after[2] + kl_weight * _log_ratio(rho, log_prior).sum(-1)
    return Parts(*after)


def seen_by(dynamics: Dynamics, agent: int) -> tuple[Tensor, Tensor]:
    """One agent's reward and transition, in the argument order of this module."""
    transition, reward = dynamics.seen_by(agent)
    return reward, transition


def _backward(
    reward: Tensor,
    transition: Tensor,
    log_prior: Tensor,
    temperature: Number,
    kl_weight: Number,
    discount: float,
    horizon: int,
    dynamics: DynamicsOf,
) -> Solution:
    expect("a positive integer", horizon=horizon)
    if dynamics not in ("kept", "inferred"):
        raise ValueError(f"dynamics: got {dynamics!r}, expected kept or inferred")
    solution = _solution(reward, transition, log_prior, temperature, kl_weight)
    steps = [solution]
    for _ in range(horizon - 1):
        q = reward + discount * _following(transition, solution.v, dynamics)
        moves = transition if dynamics == "kept" else _bent(transition, solution.v)
        solution = _solution(q, moves, log_prior, temperature, kl_weight)
        steps.append(solution)
    steps.reverse()
    stacked = {}
    for field in fields(Solution):
        tables = [getattr(step, field.name) for step in steps]
        wide = np.broadcast_shapes(*(table.shape for table in tables))
        event = {"v": 1, "opponent_model": 2, "q": 3, "policy": 3, "transition": 4}[field.name]
        if all(table is tables[0] for table in tables):  # kept dynamics: the same at every step
            stacked[field.name] = tables[0].unsqueeze(-1 - event).expand(*wide[:-event], horizon, *wide[-event:])
        else:
            stacked[field.name] = torch.stack([table.expand(wide) for table in tables], dim=-1 - event)
    return Solution(**stacked)


def _solution(q: Tensor, moves: Tensor, log_prior: Tensor, temperature: Number, kl_weight: Number) -> Solution:
    """The optimal factors of one step, Eq. 9-11."""
    scores = q / over_events(temperature, 2)
    policy_value = over_events(temperature, 1) * torch.logsumexp(scores, dim=-2)
    return Solution(
        policy=torch.softmax(scores, dim=-2),
        opponent_model=torch.softmax(log_prior + policy_value / over_events(kl_weight, 1), dim=-1),
        transition=moves,
        q=q,
        v=optimal_value(q, log_prior, temperature, kl_weight),
    )


def _following(transition: Tensor, v: Tensor, dynamics: DynamicsOf) -> Tensor:
    """Value of the next state, `... x states x actions x opponent_actions`."""
    if dynamics == "kept":
        return (transition @ v[..., None, None, :, None]).squeeze(-1)
    going_on = torch.logsumexp(transition.log() + v[..., None, None, None, :], dim=-1)
    return torch.logaddexp(going_on, _ends(transition).log())


def _bent(transition: Tensor, v: Tensor) -> Tensor:
    """The posterior of the next state, `T exp V` normalised over all outcomes; termination keeps its share."""
    going_on = transition.log() + v[..., None, None, None, :]
    ends = _ends(transition).log().expand(going_on.shape[:-1]).unsqueeze(-1)
    return torch.cat([going_on, ends], dim=-1).softmax(-1)[..., :-1]


def _ends(transition: Tensor) -> Tensor:
    """Termination probability, `... x states x actions x opponent_actions`; termination has value 0."""
    missing = 1 - transition.sum(-1)
    return torch.where(missing > 1e-6, missing, torch.zeros_like(missing))  # ignore rounding errors


def _divergence(moves: Tensor, transition: Tensor) -> Tensor:
    """KL of inferred from true dynamics, including termination, `... x states x actions x opponent_actions`."""
    ends = _ends(transition)
    at_the_end = torch.where(ends > 0, _log_ratio(1 - moves.sum(-1), ends.log()), torch.zeros_like(ends))
    return _log_ratio(moves, transition.log()).sum(-1) + at_the_end


def _log_ratio(p: Tensor, log_q: Tensor) -> Tensor:
    """`p log(p / q)` with `0 log 0 = 0`."""
    return torch.where(p > 0, p * (p.log() - log_q), torch.zeros_like(p))


def _check(reward: Tensor, transition: Tensor, log_prior: Tensor, temperature: Number, kl_weight: Number) -> None:
    if transition.shape[-4:-1] != reward.shape[-3:] or transition.shape[-1] != reward.shape[-3]:
        raise ValueError(
            f"transition: got shape {tuple(transition.shape)} for rewards of shape {tuple(reward.shape)}, expected "
            "... x states x actions x opponent_actions x states"
        )
    if log_prior.shape[-2:] != (reward.shape[-3], reward.shape[-1]):
        raise ValueError(
            f"log_prior: got shape {tuple(log_prior.shape)} for rewards of shape {tuple(reward.shape)}, expected "
            "... x states x opponent_actions"
        )
    for name, number in {"temperature": temperature, "kl_weight": kl_weight}.items():
        least = float(number.min()) if isinstance(number, Tensor) else number
        expect("a positive number", **{name: least})
