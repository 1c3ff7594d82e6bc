"""Measures of a joint policy during play: its value, the actors' own metrics, and their beliefs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from inference_marl.inference.returns import expected_return, nash_conv
from inference_marl.spaces import Box, Discrete
from inference_marl.statistics.metrics import NASH_CONV, OPTIMUM_PROBABILITY, RETURN
from inference_marl.types import (
    OF_ALL_OPPONENTS,
    OF_LATENT,
    Actor,
    Dynamics,
    Game,
    Memory,
    Seat,
    is_belief,
    kept_streams,
)

MAX_STATES = 128
"""Maximum number of shared, discrete observations for which beliefs are recorded in every state. In other games they
are recorded in the current states only, so that the dimension `state` counts environments."""

MOST_RECORDED = 64
"""Maximum number of opponents' joint actions for which beliefs are recorded jointly, beside the marginals."""


class Measures:
    """Measures the actors of one arm.

    If all agents observe one of a few states and actions are discrete, the joint policy is evaluated exactly: by the
    game's own `scores` and, if the game gives its rules and has a discount factor or terminates after one step, by
    every agent's `return` (normalised if discounted) and by `nash_conv`. Beliefs of actors with a memory depend on more
    than the state: with such an actor, beliefs are recorded in the current states only.

    Args:
        game: the game.
        seats: one per agent.
        draws: samples per belief and replicate, for continuous actions.

    Attributes:
        everywhere: whether beliefs are those in every state, rather than in the current states.
    """

    def __init__(self, game: Game, seats: Sequence[Seat], draws: int) -> None:
        self.game, self.seats, self.draws = game, seats, draws
        self.everywhere = game.shared_observation and all(
            isinstance(seat.observation, Discrete) and seat.observation.n <= MAX_STATES for seat in seats
        )
        self.discrete = all(isinstance(seat.action, Discrete) for seat in seats)
        self.rules = self._rules() if self.everywhere and self.discrete else None
        self._optimal = optimum_mask(game, seats[0])
        self._states = [torch.arange(seat.observation.features, device=seat.device) for seat in seats]

    @torch.no_grad()
    def beliefs(
        self, obs: Sequence[Tensor], actors: Sequence[Actor], memories: Sequence[Memory]
    ) -> list[Mapping[str, Tensor]]:
        """The beliefs of every actor, see `Actor.beliefs`.

        Args:
            obs: each agent's current observation, `replicates x environments x event`.
            actors: one per seat.
            memories: the actors' memories, see `Actor.begin`.
        """
        self.everywhere = self.everywhere and not any(memories)
        if self.everywhere:
            obs = [states.expand(seat.replicates, -1) for states, seat in zip(self._states, self.seats, strict=True)]
        with kept_streams(self.seats[0].device):  # so that play is not affected
            return [
                actor.beliefs(seen, memory, self.draws)
                for actor, seen, memory in zip(actors, obs, memories, strict=True)
            ]

    @torch.no_grad()
    def metrics(
        self, beliefs: Sequence[Mapping[str, Tensor]], obs: Sequence[Tensor]
    ) -> Iterator[tuple[str, Tensor, int | None]]:
        """Iterate over the values of the policies and the actors' own metrics: name, value and agent.

        `beliefs` is the result of the method `beliefs` for `obs`; values are in the format of `Recorder.note`.
        """
        if all("policy" in belief for belief in beliefs):
            for name, value in self._worth([belief["policy"] for belief in beliefs], obs).items():
                yield name, value, None
        for agent, (belief, seen) in enumerate(zip(beliefs, obs, strict=True)):
            for name, value in belief.items():
                if not is_belief(name):
                    yield name, self._here(value, seen), agent

    def kept(self, beliefs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The beliefs to record, including the agents' policies, by name and, after a dot, agent.

        Joint beliefs about several opponents are recorded for at most `MOST_RECORDED` joint actions. Latent beliefs are
        left to evaluations over trials, which know the number of earlier episodes.
        """
        found: dict[str, Tensor] = {}
        for seat, belief in zip(self.seats, beliefs, strict=True):
            kept = [name for name in belief if is_belief(name) and name not in OF_LATENT]
            tables = [name for name in OF_ALL_OPPONENTS.values() if name in kept]
            large = [name for name in tables if belief[name].shape[-1] > MOST_RECORDED]
            found |= {f"{name}.{seat.index}": belief[name] for name in kept if name not in large}
            if "policy" not in belief:  # of an actor that can only sample
                states = seat.observation.features if self.everywhere else seat.environments
                drawn = () if isinstance(seat.action, Discrete) else (self.draws,)
                shape = (seat.replicates, states, *drawn, seat.action.features)
                found[f"policy.{seat.index}"] = torch.full(shape, math.nan)
        return found

    def _here(self, value: Tensor, obs: Tensor) -> Tensor:
        """Select values of every state in the current states, `replicates x environments x ...`.

        In games of one state the result has one entry for all environments.
        """
        return value[self.seats[0].rows, obs] if self.everywhere and value.shape[1] > 1 else value

    def _rules(self) -> Dynamics | None:
        """The game's rules, on the device; `None` if returns are not defined."""
        rules, device = self.game.dynamics(), self.seats[0].device
        if rules is None or (self.game.discount is None and bool(rules.transition.any())):
            return None
        return Dynamics(rules.initial.to(device), rules.transition.to(device), rules.reward.to(device))

    def _worth(self, policies: Sequence[Tensor], obs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Values of a joint policy, by metric; policies are `replicates x states x actions`, or samples."""
        here = [self._here(policy, seen) for policy, seen in zip(policies, obs, strict=True)]
        optimum = self._optimum_probability(here)
        found = {} if optimum is None else {OPTIMUM_PROBABILITY.name: optimum}
        if not (self.everywhere and self.discrete):
            return found
        found |= self.game.scores(policies)
        if self.rules is None:
            return found
        if self.game.discount is None and self.rules.reward.shape[1] == 1:
            returns, gains = _one_shot(self.rules.reward, policies)
        else:
            returns = expected_return(self.rules, policies, self.game.discount)
            gains = nash_conv(self.rules, policies, self.game.discount)
        return {**found, RETURN.name: returns, NASH_CONV.name: gains}

    def _optimum_probability(self, policies: Sequence[Tensor]) -> Tensor | None:
        """The joint policy's probability of the game's optimum, `replicates x environments`."""
        if all(isinstance(seat.action, Box) for seat in self.seats):
            optimal = self.game.is_optimal(policies)
            return None if optimal is None else optimal.float().mean(-1)
        return None if self._optimal is None else (_product(policies) * self._optimal.flatten()).sum(-1)


def _one_shot(reward: Tensor, policies: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`expected_return` and `nash_conv` of a game of one state that ends after one step, several times faster.

    Args:
        reward: as in `Dynamics`, `agents x 1 x actions_1 x ... x actions_n`.
        policies: one per agent, `replicates x 1 x actions`.

    Returns:
        `replicates x agents` and `replicates`.
    """
    played = [policy.squeeze(1).double() for policy in policies]
    own = []  # mean reward of each of an agent's actions; the others' actions are summed out, the last agent's first
    for agent in range(len(played)):
        pays, *others = reward[agent, 0].movedim(agent, 0), *reversed(played[:agent] + played[agent + 1 :])
        pays = torch.tensordot(others[0], pays, ([1], [-1])) if others else pays.unsqueeze(0)
        for policy in others[1:]:
            pays = torch.einsum("r...b,rb->r...", pays, policy)
        own.append(pays)
    returns = torch.stack([(pays * policy).sum(-1) for pays, policy in zip(own, played, strict=True)], dim=-1)
    best = torch.stack([pays.amax(-1) for pays in own], dim=-1)
    return returns, (best - returns).clamp_min(0).sum(-1)


def _product(policies: Sequence[Tensor]) -> Tensor:
    """Probabilities of joint actions, `... x (product of actions)`; the last agent's action varies fastest."""
    joint = policies[0]
    for policy in policies[1:]:
        joint = (joint.unsqueeze(-1) * policy.unsqueeze(-2)).flatten(-2)
    return joint


def optimum_mask(game: Game, seat: Seat) -> Tensor | None:
    """Mask of the optimal joint actions, bool `actions_1 x ... x actions_n`; `None` without a table or an optimum."""
    if not seat.has_table:
        return None
    sizes = [space.features for space in seat.action_spaces]
    grid = torch.meshgrid([torch.arange(size, device=seat.device) for size in sizes], indexing="ij")
    return game.is_optimal(grid)
