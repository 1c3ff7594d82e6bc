"""Games of incomplete information, in which an opponent has a private type."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from inference_marl.described import within
from inference_marl.games.hidden_types import Types
from inference_marl.games.tables import Kept
from inference_marl.types import Game, State

TYPE = "type"
"""The key of the opponent's type in the state, floating, `replicates x environments x features`."""


class BayesianGame(Game):
    """Base: a game in which an opponent has a private type (Harsanyi 1967, 'Games with incomplete information').

    A type is a vector. It is part of the state, and only the opponent's seat observes it. A task is an opponent: those
    of the first population are `0, 1, ...`, and those of the next ones follow. An opponent stays for the whole task,
    which may be several episodes, so that agents can adapt to it. An experiment and each of its evaluations choose the
    population from which tasks are drawn (`play.Tasks`).

    Each replicate has its own opponents, the same in all arms and at all times. Without tasks, every episode has a new
    opponent from the first population.

    Args:
        populations: types of opponents by the name of their population (letters, digits and `_`).
        low: lower bound of a type's coordinates.
        high: upper bound of a type's coordinates.
        features: number of coordinates of a type.

    Raises:
        ValueError: if there are no populations, or types do not fit the game.
    """

    alone = True  # types depend on the replicate's number

    def __init__(self, populations: Mapping[str, Types], low: float, high: float, features: int) -> None:
        if not populations:
            raise ValueError("populations: got none, expected at least one population of opponents")
        self._types, self._features, self._range = dict(populations), features, (low, high)
        ranges, first = {}, 0
        for name, types in self._types.items():
            if not re.fullmatch(r"\w+", str(name)):
                raise ValueError(f"populations: got one called {name!r}, expected letters, digits and _ only")
            if not isinstance(types, Types):
                raise ValueError(f"populations.{name}: got {types!r}, expected types such as UniformTypes")
            ranges[name] = range(first, first := first + types.count)
        self.populations, self.tasks = ranges, first
        self._tables: dict[tuple[int, torch.device], Tensor] = Kept()
        self._points(1)

    def check_types(self, points: Tensor) -> str | None:
        """Describe why some types, `... x features`, are not valid in this game; `None` if all are."""
        low, high = self._range
        inside = bool(((points >= low) & (points <= high)).all())
        return None if inside else f"numbers from {points.min():g} to {points.max():g}, expected {low:g} to {high:g}"

    def hidden_type(self, task: Tensor) -> Tensor:
        """The opponent's type, see `Game.hidden_type`."""
        key = (len(task), task.device)
        if key not in self._tables:
            self._tables[key] = self._points(len(task)).to(task.device)
        return self._tables[key][torch.arange(len(task), device=task.device).unsqueeze(1), task]

    def drawn_type(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None
    ) -> State:
        """Draw the type as part of an initial state; arguments are those of `reset`."""
        if task is None:
            first = next(iter(self.populations.values()))
            task = torch.randint(len(first), (replicates, environments), device=device)
        return {TYPE: self.hidden_type(task).to(dtype)}

    def _points(self, replicates: int) -> Tensor:
        """All types, float64, `replicates x tasks x features`."""
        found = []
        for name, types in self._types.items():
            with within(f"populations.{name}"):
                table = torch.from_numpy(types.table(self._features, replicates, name))
                if (wrong := self.check_types(table)) is not None:
                    raise ValueError(f"got types of {wrong}")
            found.append(table)
        return torch.cat(found, 1)
