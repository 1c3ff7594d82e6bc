"""Exact values of joint policies in tabular games: returns, best responses and distance from equilibrium.

The agents' policies pi^i(a | s) turn a game's dynamics into a Markov reward process::

    P(s' | s) = sum_a prod_i pi^i(a^i | s) T(s' | s, a)        r^i(s) = sum_a prod_i pi^i(a^i | s) r^i(s, a)

whose values solve linear equations, `V^i = (I - gamma P)^-1 r^i`. Throughout, `policies` is one tensor per agent,
`replicates x states x actions_i`, and `discount` is gamma in [0, 1) or `None`. Everything is computed in float64, on
the device of the policies, and is differentiable. `ValueError` is raised if the discount is out of range, or is `None`
and the game may go on forever (`IncompatibleError`), or the policies do not fit the game.

There are two definitions of the return:

* with a discount it is normalised, `(1 - gamma) sum_s p_0(s) V^i(s)`: a mean reward per step for any discount;
* with `discount = None` it is the expected sum of rewards, `sum_s p_0(s) V^i(s)` at gamma = 1: the expected reward of a
  one-shot game. It exists only for games that always terminate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, expect
from inference_marl.types import Dynamics

TIE = 1e-12
"""The search for a best response stops when no value increases by more than this, relative to the largest value."""


def discount_factor(transition: Tensor, discount: float | None) -> float:
    """The discount factor as a number: `discount`, or 1 for `None` in a game that always terminates.

    Args:
        transition: transition probabilities as in `Dynamics`, or from one agent's perspective, `states x ... x states`.
        discount: gamma in [0, 1), or `None`.

    Raises:
        ValueError: if the discount is out of range.
        IncompatibleError: if the discount is `None` and the game may go on forever.
    """
    if discount is not None:
        expect("a number in [0, 1)", discount=discount)
        return discount
    # If from every state, for all actions, the game ends with positive probability within as many steps as there are
    # states, then it ends with probability 1 (Bertsekas and Tsitsiklis 1991).
    going_on = transition.new_ones(len(transition))
    for _ in going_on:
        going_on = (transition @ going_on).flatten(1).amax(1)
    if bool((going_on > 1 - 1e-9).any()):
        raise IncompatibleError(
            "got None for a game that may go on for ever, expected a number in [0, 1); give the game a discount",
            key="discount",
        )
    return 1.0


def state_values(dynamics: Dynamics, policies: Sequence[Tensor], discount: float | None) -> Tensor:
    """V^i(s), the value of every state to every agent, not normalised, `replicates x agents x states`."""
    gamma = discount_factor(dynamics.transition, discount)
    _check_shapes(dynamics, policies)
    dynamics, joint = dynamics.to(policies[0].device), _joint(policies)
    onward = dynamics.transition.flatten(1, -2).transpose(1, 2)
    rewards = dynamics.reward.flatten(2).transpose(0, 1)
    return _solve((onward @ joint).permute(2, 0, 1), (rewards @ joint).permute(2, 1, 0), gamma)


def expected_return(dynamics: Dynamics, policies: Sequence[Tensor], discount: float | None) -> Tensor:
    """Expected return of the joint policy from the initial distribution, `replicates x agents`."""
    return _from_start(dynamics, state_values(dynamics, policies, discount), discount)


def best_response_return(dynamics: Dynamics, policies: Sequence[Tensor], discount: float | None) -> Tensor:
    """Return of each agent if it alone switched to a best response, `replicates x agents`.

    Given the others' policies the agent faces a Markov decision process, which policy iteration (Howard 1960) solves
    exactly.
    """
    gamma = discount_factor(dynamics.transition, discount)
    agents = range(len(dynamics.reward))
    values = torch.stack([_best_response(dynamics, policies, agent, gamma)[1] for agent in agents], dim=1)
    return _from_start(dynamics, values, discount)


def best_response(dynamics: Dynamics, policies: Sequence[Tensor], agent: int, discount: float | None) -> Tensor:
    """An agent's best action in every state against the others' policies, int64, `replicates x states`.

    Of several best actions, it is the first that policy iteration finds; `policies[agent]` is not used.
    """
    return _best_response(dynamics, policies, agent, discount_factor(dynamics.transition, discount))[0]


def nash_conv(dynamics: Dynamics, policies: Sequence[Tensor], discount: float | None) -> Tensor:
    """NashConv, the sum of all agents' gains from a best response, `replicates`.

    A distance from Nash equilibrium in units of return: 0 at an equilibrium and positive elsewhere (Lanctot et al.
    2017, 'A unified game-theoretic approach to multiagent reinforcement learning', section 4.1). In two-player zero-sum
    games it is twice the exploitability.
    """
    played = expected_return(dynamics, policies, discount)
    return (best_response_return(dynamics, policies, discount) - played).clamp_min(0).sum(1)


def _best_response(dynamics: Dynamics, policies: Sequence[Tensor], agent: int, gamma: float) -> tuple[Tensor, Tensor]:
    """The best response to the others' policies and its values, both `replicates x states`."""
    others = [policy for other, policy in enumerate(policies) if other != agent]
    transition, reward = dynamics.to(policies[0].device).seen_by(agent)
    _check_shapes(dynamics, policies)
    weight = _joint(others)
    moves = torch.einsum("sbr,sabt->rsat", weight, transition)
    pays = torch.einsum("sbr,sab->rsa", weight, reward)
    choice = pays.argmax(-1, keepdim=True)  # replicates x states x 1
    best = torch.full_like(pays[..., 0], -torch.inf)
    while True:  # every iteration raises some replicate's values, and there are finitely many policies
        chain = moves.gather(2, choice.unsqueeze(-1).expand(-1, -1, -1, moves.shape[-1])).squeeze(2)
        value = _solve(chain, pays.gather(2, choice).transpose(1, 2), gamma).squeeze(1)
        if not bool((value > best + TIE * value.abs().amax(1, keepdim=True)).any()):
            return choice.squeeze(-1), value
        best = value
        choice = (pays + gamma * torch.einsum("rsat,rt->rsa", moves, value)).argmax(-1, keepdim=True)


def _solve(chain: Tensor, reward: Tensor, gamma: float) -> Tensor:
    """`(I - gamma P)^-1 r`, with rewards and values `replicates x agents x states`."""
    identity = torch.eye(chain.shape[-1], dtype=chain.dtype, device=chain.device)
    values: Tensor = torch.linalg.solve(identity - gamma * chain, reward.transpose(1, 2)).transpose(1, 2)
    return values


def _from_start(dynamics: Dynamics, values: Tensor, discount: float | None) -> Tensor:
    """Returns from the initial distribution, given values `replicates x agents x states`."""
    scale = 1.0 if discount is None else 1.0 - discount
    return scale * (values @ dynamics.initial.to(values.device))


def _joint(policies: Sequence[Tensor]) -> Tensor:
    """Probabilities of joint actions, float64, `states x joint x replicates`; the last agent's action varies fastest.

    Replicates are the last dimension, so that subsequent matrix products are few and large.
    """
    first, *others = (policy.double().movedim(0, -1).contiguous() for policy in policies)
    for policy in others:
        first = (first.unsqueeze(2) * policy.unsqueeze(1)).flatten(1, 2)
    return first


def _check_shapes(dynamics: Dynamics, policies: Sequence[Tensor]) -> None:
    """Raise `ValueError` if the policies do not fit the game, naming the agent."""
    states, *sizes = dynamics.reward.shape[1:]
    if len(policies) != len(sizes):
        raise ValueError(f"policies: got {len(policies)}, expected one per agent: {len(sizes)}")
    for agent, (policy, actions) in enumerate(zip(policies, sizes, strict=True)):
        expected = (len(policies[0]), states, actions)
        if policy.shape != expected:
            raise ValueError(
                f"policies[{agent}]: got shape {tuple(policy.shape)}, expected {expected}: replicates x states x "
                "actions"
            )
