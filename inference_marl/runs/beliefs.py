"""Writes `posterior.nc`: agents' policies and their beliefs about the opponents' actions and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from inference_marl.described import parts as parts_of
from inference_marl.experiment import Experiment
from inference_marl.runs.measures import optimum_mask
from inference_marl.runs.netcdf import Part, Variable, write_variables
from inference_marl.runs.records import Records, RecordsOf, coordinates_of
from inference_marl.spaces import Box, Discrete, joint_names
from inference_marl.statistics.beliefs import EVERY_STATE, WHERE_AGENTS_ARE
from inference_marl.types import OF_ALL_OPPONENTS, Bindable, Game, Seat, numbered

LAST = {
    "policy": ("action", "action_dim"),
    "opponent_model": ("opponent_action", "opponent_dim"),
    "opponent_prior": ("opponent_action", "opponent_dim"),
    "opponent_policy": ("opponent_action", "opponent_dim"),
    "opponent_type": ("type", "type"),
    **dict.fromkeys(OF_ALL_OPPONENTS.values(), ("joint_opponent_action", "joint_opponent_action")),
}
"""The recorded beliefs, with the name of the last dimension for discrete and for continuous actions."""


def write_beliefs(path: Path, experiment: Experiment, recorded: RecordsOf) -> xr.Dataset | None:
    """Write the beliefs and policies that arms have recorded, and the game's optimum, if it is known."""
    game, seats = experiment.game, experiment.seats()
    variables = {}
    for name, (discrete, continuous) in LAST.items():
        parts = [
            part
            for learner, records in enumerate(recorded.values())
            for seat in seats
            for part in _belief(records, learner, name, seat)
        ]
        drawn = isinstance(seats[0].action, Box) and discrete != continuous
        last = ("draw", continuous) if drawn else (discrete,)
        if parts:
            variables[name] = Variable(("learner", "replicate", "step", *parts[0].at, "state", *last), parts)
    sizes = {dim: size for variable in variables.values() for dim, size in variable.sizes.items()}
    everywhere = {records.everywhere for records in recorded.values()}
    counted = " or ".join(EVERY_STATE if each else WHERE_AGENTS_ARE for each in sorted(everywhere, reverse=True))
    skeleton = xr.Dataset(
        _optimum(game, seats),
        coordinates_of(recorded, len(seats), "beliefs", experiment.beliefs_every) | _names(sizes, experiment),
        _belief_attributes(game) | {"state_counts": counted},
    )
    if len(seats) > 2:
        skeleton.coords["other"] = np.arange(len(seats))
    if game.state_names is not None and all(everywhere):
        skeleton.coords["state"] = list(game.state_names)
    return write_variables(path, skeleton, variables)


def _belief(records: Records, learner: int, name: str, seat: Seat) -> list[Part]:
    """The parts of one agent's belief, one for each opponent; the opponents' actual policies are the other agents'."""
    agent, opponents = seat.index, seat.opponents
    if LAST[name][0] != "opponent_action":
        places = {f"{name}.{agent}": {"agent": agent}}
    else:
        believed = [f"{each}.{agent}" for each in numbered(name, len(opponents))]
        columns = [f"policy.{other}" for other in opponents] if name == "opponent_policy" else believed
        several = [{"other": other} if len(opponents) > 1 else {} for other in opponents]
        places = {column: {"agent": agent, **other} for column, other in zip(columns, several, strict=True)}
    known = records.columns["beliefs"]
    return [Part.of(records, learner, "beliefs", column, **at) for column, at in places.items() if column in known]


def _belief_attributes(game: Game) -> dict[str, Any]:
    space = game.action_spaces[0]
    if not isinstance(space, Box):
        return {"kind": "discrete"}
    attributes: dict[str, Any] = {"kind": "continuous", "low": space.low, "high": space.high}
    radius = getattr(game, "optimum_radius", None)
    return attributes if radius is None else {**attributes, "optimum_radius": radius}


def _names(sizes: Mapping[str, int], experiment: Experiment) -> dict[str, list[str]]:
    """Names of actions, as given by the game, and of the opponents' types, as given by the learners."""
    game, seats = experiment.game, experiment.seats()
    spaces = {
        "action": [[seat.action] for seat in seats],
        "opponent_action": [[seat.action] for seat in seats],
        "joint_opponent_action": [list(seat.opponent_actions) for seat in seats],
    }
    named = {
        dim: [joint_names(group, game.action_names) for group in groups]
        for dim, groups in spaces.items()
        if all(isinstance(space, Discrete) for group in groups for space in group)
    }
    found = (part.type_names for _, part in parts_of(experiment.arms) if isinstance(part, Bindable))
    named["type"] = [list(names) for names in found if names]
    return {
        dim: _common(each)
        for dim, each in named.items()
        if dim in sizes and max(map(len, each), default=0) == sizes[dim]
    }


def _common(named: Sequence[list[str]]) -> list[str]:
    """The longest list of names if all others are its prefixes and no name is repeated; otherwise numbers."""
    longest = max(named, key=len)
    alike = all(names == longest[: len(names)] for names in named) and len(set(longest)) == len(longest)
    return longest if alike else [str(number) for number in range(len(longest))]


def _optimum(game: Game, seats: Sequence[Seat]) -> dict[str, Any]:
    """The optimum of a stateless game, for its only state."""
    mask = optimum_mask(game, seats[0])
    if mask is not None:
        each = [mask.cpu().movedim(seat.index, 0).flatten(1).any(1).to(torch.int8).numpy() for seat in seats]
        return _parts(_pad(each, 0), "action", "opponent_action")
    optimum = getattr(game, "optimum", None)
    if optimum is None:
        return {}
    points = [np.atleast_1d(np.asarray(point, dtype=np.float32)) for point in optimum]
    return _parts(_pad(points, np.nan), "action_dim", "opponent_dim")


def _parts(own: np.ndarray[Any, Any], dim: str, opponent_dim: str) -> dict[str, Any]:
    """Every agent's own part of the optimum, `agents x ...`, and its opponents' part."""
    found: dict[str, Any] = {"optimal_action": (("agent", dim), own)}
    if len(own) == 2:
        found["optimal_opponent_action"] = (("agent", opponent_dim), own[::-1])
    elif len(own) > 2:
        others = np.broadcast_to(own, (len(own), *own.shape))
        found["optimal_opponent_action"] = (("agent", "other", opponent_dim), others)
    return found


def _pad(rows: Sequence[np.ndarray[Any, Any]], missing: float) -> np.ndarray[Any, Any]:
    padded = np.full((len(rows), max(len(row) for row in rows)), missing, dtype=rows[0].dtype)
    for agent, row in enumerate(rows):
        padded[agent, : len(row)] = row
    return padded
