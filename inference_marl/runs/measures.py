"""What is measured of a joint policy while it is played: its worth, the actors' own metrics, and their beliefs."""

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
"""Beliefs are recorded in every state of a game with at most this many that all agents observe. In other games they
are recorded where the agents are, so that `state` counts environments."""

MOST_RECORDED = 64
"""Joint actions of several opponents of which a table is recorded, beside what every one of them is believed to do."""


class Measures:
    """Measures the actors of one arm.

    Where all agents observe one of a few states and actions are discrete, the joint policy is judged exactly: by the
    game's own `scores`, and, if the game has rules and a discount or terminates at once, by every agent's `return`
    (normalised if discounted) and by `nash_conv`. What actors with a memory believe depends on more than the state:
    with one of them, beliefs are those where the agents are.

    Args:
        game: the game played.
        seats: one per agent.
        draws: draws per belief and replicate, for continuous actions.

    Attributes:
        everywhere: whether beliefs are those in every state, and not where the agents are.
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
        """What `Actor.beliefs` says of every actor.

        Args:
            obs: each agent's current observation, `replicates x environments x event`.
            actors: one per seat.
            memories: what each remembers, see `Actor.begin`.
        """
        self.everywhere = self.everywhere and not any(memories)
        if self.everywhere:
            obs = [states.expand(seat.replicates, -1) for states, seat in zip(self._states, self.seats, strict=True)]
        with kept_streams(self.seats[0].device):  # draws that only describe: play goes on as without them
            return [
                actor.beliefs(seen, memory, self.draws)
                for actor, seen, memory in zip(actors, obs, memories, strict=True)
            ]

    @torch.no_grad()
    def metrics(
        self, beliefs: Sequence[Mapping[str, Tensor]], obs: Sequence[Tensor]
    ) -> Iterator[tuple[str, Tensor, int | None]]:
        """What the policies are worth and what the actors report of themselves: name, value and agent.

        `beliefs` and `obs` are those of the method `beliefs`; values are as `Recorder.note` takes them.
        """
        if all("policy" in belief for belief in beliefs):
            for name, value in self._worth([belief["policy"] for belief in beliefs], obs).items():
                yield name, value, None
        for agent, (belief, seen) in enumerate(zip(beliefs, obs, strict=True)):
            for name, value in belief.items():
                if not is_belief(name):
                    yield name, self._here(value, seen), agent

    def kept(self, beliefs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What is recorded of beliefs, by name and, after a dot, agent; the policies of all agents among it.

        Tables of opponents' joint actions only where these are at most `MOST_RECORDED`. Beliefs as a latent are left to
        evaluations over trials, which know how much was seen of whom.
        """
        found: dict[str, Tensor] = {}
        for seat, belief in zip(self.seats, beliefs, strict=True):
            kept = [name for name in belief if is_belief(name) and name not in OF_LATENT]
            tables = [name for name in OF_ALL_OPPONENTS.values() if name in kept]
            large = [name for name in tables if belief[name].shape[-1] > MOST_RECORDED]
            found |= {f"{name}.{seat.index}": belief[name] for name in kept if name not in large}
            if "policy" not in belief:  # of one that can only draw
                states = seat.observation.features if self.everywhere else seat.environments
                drawn = () if isinstance(seat.action, Discrete) else (self.draws,)
                shape = (seat.replicates, states, *drawn, seat.action.features)
                found[f"policy.{seat.index}"] = torch.full(shape, math.nan)
        return found

    def _here(self, value: Tensor, obs: Tensor) -> Tensor:
        """What is known in every state, where the agents are, `replicates x environments x ...`.

        In games of one state that is one place for all environments.
        """
        return value[self.seats[0].rows, obs] if self.everywhere and value.shape[1] > 1 else value

    def _rules(self) -> Dynamics | None:
        """The game's rules, on the device, where returns are defined."""
        rules, device = self.game.dynamics(), self.seats[0].device
        if rules is None or (self.game.discount is None and bool(rules.transition.any())):
            return None
        return Dynamics(rules.initial.to(device), rules.transition.to(device), rules.reward.to(device))

    def _worth(self, policies: Sequence[Tensor], obs: Sequence[Tensor]) -> dict[str, Tensor]:
        """What a joint policy is worth; policies are `replicates x states x actions`, or draws."""
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
    """`expected_return` and `nash_conv` of a game of one state that ends at once, several times faster.

    Args:
        reward: as in `Dynamics`, `agents x 1 x actions_1 x ... x actions_n`.
        policies: one per agent, `replicates x 1 x actions`.

    Returns:
        `replicates x agents` and `replicates`.
    """
    played = [policy.squeeze(1).double() for policy in policies]
    own = []  # what each of an agent's actions pays: the others' are summed out, the last one's first
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
    """Probabilities of joint actions, the last agent's action fastest: `... x (product of actions)`."""
    joint = policies[0]
    for policy in policies[1:]:
        joint = (joint.unsqueeze(-1) * policy.unsqueeze(-2)).flatten(-2)
    return joint


def optimum_mask(game: Game, seat: Seat) -> Tensor | None:
    """Which joint actions are optimal, bool `actions_1 x ... x actions_n`; `None` without a table or an optimum."""
    if not seat.has_table:
        return None
    sizes = [space.features for space in seat.action_spaces]
    grid = torch.meshgrid([torch.arange(size, device=seat.device) for size in sizes], indexing="ij")
    return game.is_optimal(grid)
