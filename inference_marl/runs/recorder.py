"""What a run keeps of its actors, step by step, and how that becomes datasets with named dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from inference_marl.inference.returns import expected_return, nash_conv
from inference_marl.spaces import Box, Discrete, Space, joint_space
from inference_marl.types import Actor, Dynamics, Game, Memory, Seat

MAX_STATES = 128
"""Beliefs are recorded in every state of a game with at most this many that all agents observe. In other games they
are recorded where the agents are, so that `state` counts environments."""

ELBO_PARTS = ("elbo", "elbo_reward", "elbo_entropy", "elbo_kl", "elbo_gap")
"""Metrics that are read off beliefs, see `Actor.beliefs`."""

BELIEFS = {
    "policy": ("action", "action_dim"),
    "opponent_model": ("opponent_action", "opponent_dim"),
    "opponent_prior": ("opponent_action", "opponent_dim"),
    "opponent_policy": ("opponent_action", "opponent_dim"),
    "opponent_type": ("type", "type"),
}
"""What is recorded of beliefs, with the name of its last dimension for discrete and for continuous actions."""


class Recorder:
    """Collects one arm's metrics and beliefs; its state is a dictionary of tensors.

    Where beliefs are recorded in every state and actions are discrete, the joint policy that is played is judged
    exactly as well: by the game's own `scores`, and, if the game has rules and a discount or terminates at once, by
    every agent's `return` (normalised if discounted) and by `nash_conv`. What actors with a memory believe depends on
    more than the state: with one of them, beliefs are recorded where the agents are.

    Args:
        game: the game played.
        seats: one per agent.
        records: how many records the run will make.
        draws: draws per belief and replicate, for continuous actions.

    Attributes:
        everywhere: whether beliefs are recorded in every state, and not where the agents are.
    """

    def __init__(self, game: Game, seats: Sequence[Seat], records: int, draws: int) -> None:
        self.game, self.seats, self.draws = game, seats, draws
        self.records, self.made = records, 0
        self.tensors: dict[str, Tensor] = {}
        self.everywhere = game.shared_observation and all(
            isinstance(seat.observation, Discrete) and seat.observation.n <= MAX_STATES for seat in seats
        )
        self.discrete = all(isinstance(seat.action, Discrete) for seat in seats)
        self.rules = self._rules() if self.everywhere and self.discrete else None

    @torch.no_grad()
    def record(
        self, obs: Sequence[Tensor], actors: Sequence[Actor], memories: Sequence[Memory], reward: Tensor
    ) -> None:
        """Add one record.

        Args:
            obs: each agent's current observation, `replicates x environments x event`.
            actors: one per seat.
            memories: what each remembers, see `Actor.begin`.
            reward: mean since the last record, `replicates x agents`.
        """
        self.everywhere = self.everywhere and not any(memories)
        probes = [self._states(seat) for seat in self.seats] if self.everywhere else obs
        devices = [self.seats[0].device] if self.seats[0].device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # draws that only describe: play goes on as without them
            beliefs = [
                actor.beliefs(probe, memory, self.draws)
                for actor, probe, memory in zip(actors, probes, memories, strict=True)
            ]
        self._keep("reward", reward)
        if all("policy" in belief for belief in beliefs):
            self._keep_worth([belief["policy"] for belief in beliefs], obs)
        self._keep_elbo(beliefs, obs)
        self._keep_beliefs(beliefs)
        self.made += 1

    def _states(self, seat: Seat) -> Tensor:
        return torch.arange(seat.observation.features, device=seat.device).expand(seat.replicates, -1)

    def _here(self, value: Tensor, obs: Tensor) -> Tensor:
        """What was recorded in every state where the agents are, `replicates x environments x ...`."""
        return value[self.seats[0].rows, obs] if self.everywhere else value

    def _rules(self) -> Dynamics | None:
        """The game's rules, on the device, where returns are defined."""
        rules, device = self.game.dynamics(), self.seats[0].device
        if rules is None or (self.game.discount is None and bool(rules.transition.any())):
            return None
        return Dynamics(rules.initial.to(device), rules.transition.to(device), rules.reward.to(device))

    def _keep_worth(self, policies: Sequence[Tensor], obs: Sequence[Tensor]) -> None:
        """What a joint policy is worth; policies are `replicates x states x actions`, or draws."""
        here = [self._here(policy, seen) for policy, seen in zip(policies, obs, strict=True)]
        optimum = joint_optimum_probability(self.game, self.seats, here)
        if optimum is not None:
            self._keep("joint_optimum_probability", optimum.mean(1))
        if not (self.everywhere and self.discrete):
            return
        for name, share in self.game.scores(policies).items():
            self._keep(name, share)
        if self.rules is None:
            return
        if self.game.discount is None and self.rules.reward.shape[1] == 1:
            returns, gains = _one_shot(self.rules.reward, policies)
        else:
            returns = expected_return(self.rules, policies, self.game.discount)
            gains = nash_conv(self.rules, policies, self.game.discount)
        self._keep("return", returns)
        self._keep("nash_conv", gains)

    def _keep_elbo(self, beliefs: Sequence[Mapping[str, Tensor]], obs: Sequence[Tensor]) -> None:
        for name in ELBO_PARTS:
            parts = [belief.get(name) for belief in beliefs]
            if all(part is None for part in parts):
                continue
            columns = [
                torch.full((seat.replicates,), math.nan) if part is None else self._here(part, seen).mean(1)
                for seat, part, seen in zip(self.seats, parts, obs, strict=True)
            ]
            self._keep(name, torch.stack([column.cpu() for column in columns], dim=-1))

    def _keep_beliefs(self, beliefs: Sequence[Mapping[str, Tensor]]) -> None:
        for seat, belief in zip(self.seats, beliefs, strict=True):
            for name in BELIEFS:
                value = belief.get(name)
                if value is not None:
                    self._keep(f"{name}/{seat.index}", value)
                elif name == "policy":  # of one that can only draw
                    states = seat.observation.features if self.everywhere else seat.environments
                    drawn = () if isinstance(seat.action, Discrete) else (self.draws,)
                    shape = (seat.replicates, states, *drawn, seat.action.features)
                    self._keep(f"policy/{seat.index}", torch.full(shape, math.nan))

    def _keep(self, name: str, value: Tensor) -> None:
        if name not in self.tensors:
            self.tensors[name] = torch.full((self.records, *value.shape), math.nan, dtype=torch.float32)
        self.tensors[name][self.made] = value

    def state_dict(self) -> dict[str, Any]:
        """What has been recorded."""
        kept = {name: value[: self.made].clone() for name, value in self.tensors.items()}
        return {"made": self.made, "everywhere": self.everywhere, "tensors": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`."""
        self.made, self.everywhere = state["made"], state["everywhere"]
        for name, value in state["tensors"].items():
            self.tensors[name] = torch.full((self.records, *value.shape[1:]), math.nan, dtype=torch.float32)
            self.tensors[name][: self.made] = value

    def metrics(self) -> xr.Dataset:
        """Dims `replicate, step` and, of what every agent has, `agent`; the caller gives `step` its values."""
        dims = ("step", "replicate", "agent")
        data = {name: (dims[: value.dim()], value.numpy()) for name, value in self.tensors.items() if "/" not in name}
        coordinates = {"agent": np.arange(len(self.seats)), "replicate": np.arange(self.seats[0].replicates)}
        return xr.Dataset(data, coords=coordinates).transpose("replicate", "step", ...)

    def beliefs(self) -> xr.Dataset:
        """Dims `replicate, step, agent, state` and those of the belief, padded with NaN where agents differ."""
        merged: dict[str, Any] = {}
        for name, (discrete, continuous) in BELIEFS.items():
            values = [self._belief(name, seat) for seat in self.seats]
            shapes = [value.shape for value in values if value is not None]
            if not shapes:
                continue
            widest = [max(sizes) for sizes in zip(*shapes, strict=True)]
            stacked = np.full((widest[0], widest[1], len(values), *widest[2:]), np.nan, dtype=np.float32)
            for agent, value in enumerate(values):
                if value is not None:
                    stacked[:, :, agent][tuple(slice(size) for size in value.shape)] = value.numpy()
            drawn = isinstance(self.seats[0].action, Box) and discrete != continuous
            last = ("draw", continuous) if drawn else (discrete,)
            merged[name] = (("step", "replicate", "agent", "state", *last), stacked)
        dataset = xr.Dataset(merged, coords={"agent": np.arange(len(self.seats))})
        return dataset.transpose("replicate", "step", "agent", "state", ...).assign(self._optimum())

    def _belief(self, name: str, seat: Seat) -> Tensor | None:
        """`records x replicates x states x ...`; what the opponents really do follows from their policies."""
        if name != "opponent_policy":
            return self.tensors.get(f"{name}/{seat.index}")
        others = [self.tensors[f"policy/{agent}"] for agent in seat.opponents]
        return joint_belief(seat, others) if others else None

    def _optimum(self) -> dict[str, Any]:
        """Where the optimum is, for the one state that a stateless game has."""
        mask = optimum_mask(self.game, [seat.action_spaces[seat.index] for seat in self.seats], torch.device("cpu"))
        if mask is not None:
            own, opponents = [], []
            for seat in self.seats:
                own.append(mask.movedim(seat.index, 0).flatten(1).any(1).to(torch.int8).numpy())
                opponents.append(mask.any(seat.index).flatten().to(torch.int8).numpy())
            return {
                "optimal_action": (("agent", "action"), _pad(own, 0)),
                "optimal_opponent_action": (("agent", "opponent_action"), _pad(opponents, 0)),
            }
        optimum = getattr(self.game, "optimum", None)
        if optimum is None:
            return {}
        points = [np.atleast_1d(np.asarray(point, dtype=np.float32)) for point in optimum]
        others = [np.concatenate([points[agent] for agent in seat.opponents]) for seat in self.seats]
        return {
            "optimal_action": (("agent", "action_dim"), _pad(points, np.nan)),
            "optimal_opponent_action": (("agent", "opponent_dim"), _pad(others, np.nan)),
        }


def _pad(rows: Sequence[np.ndarray[Any, Any]], missing: float) -> np.ndarray[Any, Any]:
    padded = np.full((len(rows), max(len(row) for row in rows)), missing, dtype=rows[0].dtype)
    for agent, row in enumerate(rows):
        padded[agent, : len(row)] = row
    return padded


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
        pays = reward[agent, 0].movedim(agent, 0).unsqueeze(0)
        for policy in reversed(played[:agent] + played[agent + 1 :]):
            pays = torch.einsum("r...b,rb->r...", pays, policy)
        own.append(pays)
    returns = torch.stack([(pays * policy).sum(-1) for pays, policy in zip(own, played, strict=True)], dim=-1)
    best = torch.stack([pays.amax(-1) for pays in own], dim=-1)
    return returns, (best - returns).clamp_min(0).sum(-1)


def joint_belief(seat: Seat, policies: Sequence[Tensor]) -> Tensor:
    """The joint of several agents' independent policies: probabilities `... x joint_actions`, or draws `... x dims`."""
    if isinstance(seat.opponent_action, Box):
        return torch.cat(list(policies), dim=-1)
    return _product(policies)


def _product(policies: Sequence[Tensor]) -> Tensor:
    """Probabilities of joint actions, the last agent's action fastest: `... x (product of actions)`."""
    joint = policies[0]
    for policy in policies[1:]:
        joint = (joint.unsqueeze(-1) * policy.unsqueeze(-2)).flatten(-2)
    return joint


def optimum_mask(game: Game, spaces: Sequence[Space], device: torch.device) -> Tensor | None:
    """Which joint actions are optimal, bool `actions_1 x ... x actions_n`; `None` without a (discrete) optimum."""
    if not all(isinstance(space, Discrete) for space in spaces):
        return None
    grid = torch.meshgrid([torch.arange(space.features, device=device) for space in spaces], indexing="ij")
    return game.is_optimal(grid)


def joint_optimum_probability(game: Game, seats: Sequence[Seat], policies: Sequence[Tensor]) -> Tensor | None:
    """The joint policy's probability of the game's optimum, `replicates x environments`.

    Args:
        game: says which joint actions are optimal.
        seats: one per agent.
        policies: beliefs called `policy`, at the same observations.
    """
    spaces = seats[0].action_spaces
    if isinstance(joint_space(spaces), Box):
        optimal = game.is_optimal(policies)
        return None if optimal is None else optimal.float().mean(-1)
    mask = optimum_mask(game, spaces, policies[0].device)
    if mask is None:
        return None
    return (_product(policies) * mask.flatten()).sum(-1)
