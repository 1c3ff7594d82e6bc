"""Replay buffers: the most recent transitions of every replicate, in ring buffers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inference_marl.spaces import Space
from inference_marl.types import Seat, Transition

Entries = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Maps the names of tensors to their event shape and type."""


def entries_of(spaces: Mapping[str, Space], dtype: torch.dtype) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return the `Entries` of values of named spaces; `dtype` is the floating type."""
    return {name: (space.event_shape, space.stored(dtype)) for name, space in spaces.items()}


class Ring(nn.Module):
    """Ring buffers, one per replicate and key, of the last `capacity` entries of named tensors.

    Rings fill independently: an entry may be omitted from one ring only. While nothing is omitted, all rings are at the
    same position, which is stored as one number.

    Args:
        seat: provides replicates and device.
        capacity: entries kept per ring.
        entries: event shape and type of each named tensor, which is stored as `replicates x (keys capacity) x event`.
        keys: number of rings per replicate, such as one per task.
    """

    only_for_learning: ClassVar[bool] = True
    """Learners' snapshots omit this module."""

    def __init__(self, seat: Seat, capacity: int, entries: Entries, keys: int = 1) -> None:
        super().__init__()
        self.capacity, self.keys, self.names = capacity, keys, tuple(entries)
        self._shape = (seat.replicates, keys)
        self._position: int | Tensor = 0 if keys == 1 else torch.zeros(self._shape, dtype=torch.int64)
        self._size: int | Tensor = 0 if keys == 1 else torch.zeros(self._shape, dtype=torch.int64)
        for name, (shape, dtype) in entries.items():
            zeros = torch.zeros(seat.replicates, keys * capacity, *shape, dtype=dtype, device=seat.device)
            self.register_buffer(name, zeros)
        self._later: tuple[str, ...] = ()

    def keep_too(self, name: str, like: Tensor) -> None:
        """Also keep a bool tensor with entries like `like`, `replicates x n x event`; true in earlier entries."""
        first = getattr(self, self.names[0])
        true = torch.ones(*first.shape[:2], *like.shape[2:], dtype=torch.bool, device=first.device)
        self.register_buffer(name, true, persistent=False)  # in the extra state, since it is added later
        self.names, self._later = (*self.names, name), (*self._later, name)

    def push(self, entries: Mapping[str, Tensor], key: Tensor | None = None, kept: Tensor | None = None) -> None:
        """Append entries and drop the oldest; if there are more than `capacity`, the last are kept.

        Args:
            entries: each `replicates x n x event`.
            key: the ring of each entry, int64, `replicates x n`; negative keys omit the entry.
            kept: bool, `replicates x n`; false omits the entry.
        """
        if isinstance(self._position, int) and isinstance(self._size, int) and key is None and kept is None:
            first = entries[self.names[0]]
            n = min(first.shape[1], self.capacity)
            where = torch.arange(self._position, self._position + n, device=first.device) % self.capacity
            for name in self.names:
                getattr(self, name)[:, where] = entries[name][:, -n:]
            self._position = (self._position + n) % self.capacity
            self._size = min(self._size + n, self.capacity)
        else:
            self._push_apart(entries, key, kept)

    def _push_apart(self, entries: Mapping[str, Tensor], key: Tensor | None, kept: Tensor | None) -> None:
        """Implement `push` for rings at different positions, one column of entries at a time."""
        first = entries[self.names[0]]
        device, (replicates, n) = first.device, first.shape[:2]
        position, size = self._apart(device)
        key = torch.zeros(replicates, n, dtype=torch.int64, device=device) if key is None else key
        kept = key >= 0 if kept is None else kept & (key >= 0)
        for column in range(n):
            (rows,) = kept[:, column].nonzero(as_tuple=True)
            rings = key[rows, column]
            where = rings * self.capacity + position[rows, rings]
            for name in self.names:
                getattr(self, name)[rows, where] = entries[name][rows, column]
            position[rows, rings] = (position[rows, rings] + 1) % self.capacity
            size[rows, rings] = (size[rows, rings] + 1).clamp_max(self.capacity)
        self._position, self._size = position, size

    def _apart(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The position and the number of entries of each ring, `replicates x keys`."""
        position, size = (
            torch.full(self._shape, at, device=device) if isinstance(at, int) else at.to(device)
            for at in (self._position, self._size)
        )
        return position, size

    def ready(self, least: int) -> bool:
        """Whether every ring holds at least `least` entries."""
        return self._size >= least if isinstance(self._size, int) else bool((self._size >= least).all())

    def held(self, keys: Tensor) -> Tensor:
        """The number of entries of the rings `keys`, int64, `replicates x tasks`."""
        return self._apart(keys.device)[1].gather(1, keys)

    def sample(self, batch_size: int, keys: Tensor | None = None, also_empty: bool = False) -> dict[str, Tensor]:
        """Draw entries uniformly with replacement, independently per replicate.

        Args:
            batch_size: entries per ring.
            keys: which rings, int64, `replicates x tasks`; `None` for the only one.
            also_empty: whether to return zeros for an empty ring, instead of an error, if there are several.

        Returns:
            `replicates x batch_size x event`, or `replicates x tasks x batch_size x event`.

        Raises:
            IndexError: if a ring is empty.
        """
        if not also_empty and not self.ready(1) and (keys is None or not isinstance(self._size, Tensor)):
            raise IndexError("sample: got an empty ring, expected at least one push before it")
        device = getattr(self, self.names[0]).device
        rows = torch.arange(self._shape[0], device=device).view(-1, 1)
        if isinstance(self._size, int) and keys is None:
            return self._taken(rows, torch.randint(self._size, (self._shape[0], batch_size), device=device))
        rings = torch.zeros_like(rows) if keys is None else keys
        _, size = self._apart(device)
        held = size[rows, rings].unsqueeze(-1)  # replicates x tasks x 1
        if not also_empty and not bool(held.all()):
            raise IndexError("sample: got an empty ring, expected at least one push before it")
        drawn = (torch.rand(*rings.shape, batch_size, device=device) * held).long().minimum((held - 1).clamp_min(0))
        index = drawn + rings.unsqueeze(-1) * self.capacity
        index = index.squeeze(1) if keys is None else index
        return self._taken(rows if keys is None else rows.unsqueeze(-1), index)

    def _taken(self, rows: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The entries at `index` in the rings, by name."""
        places = (rows * self.keys * self.capacity + index).flatten()
        entries = {name: getattr(self, name).flatten(0, 1).index_select(0, places) for name in self.names}
        return {name: value.view(*index.shape, *value.shape[1:]) for name, value in entries.items()}

    def get_extra_state(self) -> dict[str, Any]:
        """The positions and sizes of the rings and the tensors of `keep_too`, for `state_dict`."""
        later = {name: getattr(self, name) for name in self._later}
        return {"size": self._size, "position": self._position, **later}

    def set_extra_state(self, state: Any) -> None:
        """Restore from `get_extra_state`."""
        # Copied, because rings at different positions are updated in place.
        self._size, self._position = copy.deepcopy((state["size"], state["position"]))
        for name in self._later:
            getattr(self, name).fill_(True)
        for name in [name for name in state if name not in ("size", "position")]:
            if name not in self._later:
                self.keep_too(name, state[name])
            getattr(self, name).copy_(state[name])


class Replay(Ring):
    """A replay buffer of all agents' transitions in which the seat's agent, or some agent of a team, took part.

    For one agent, transitions that begin after it has left the episode are omitted, and one at whose end it leaves
    counts as terminated. For a team, transitions that begin after all its agents have left are omitted. The others also
    hold which agents were `alive` and which actions were legal, in games where some are not.

    Args:
        seat: the learner's seat.
        capacity, keys: see `Ring`.
        team: the agents of a team; `None` for the seat's agent alone.
    """

    def __init__(self, seat: Seat, capacity: int, keys: int = 1, team: Sequence[int] | None = None) -> None:
        self.seat_index, self.team = seat.index, None if team is None else list(team)
        spaces: dict[str, Space] = {}
        for agent, (seen, done) in enumerate(zip(seat.observations, seat.action_spaces, strict=True)):
            spaces |= {f"obs_{agent}": seen, f"next_obs_{agent}": seen, f"action_{agent}": done}
        entries = entries_of(spaces, seat.dtype) | {"rewards": ((len(seat.action_spaces),), seat.dtype)}
        entries |= {"terminated": ((), torch.bool), "ended": ((), torch.bool)}
        super().__init__(seat, capacity, entries, keys)
        self.agents = len(seat.action_spaces)

    def add(self, batch: Transition, key: Tensor | None = None) -> None:
        """Append transitions, `replicates x n`, such as `Trajectory.flat`; for `key` see `Ring.push`."""
        entries = {"rewards": batch.rewards, "ended": batch.ended}
        entries["terminated"] = batch.terminated if self.team else batch.terminated_for(self.seat_index)
        for agent in range(self.agents):
            entries[f"obs_{agent}"], entries[f"next_obs_{agent}"] = batch.obs[agent], batch.next_obs[agent]
            entries[f"action_{agent}"] = batch.actions[agent]
        kept = None if batch.alive is None else batch.alive[..., self.team or [self.seat_index]].any(-1)
        if self.team:
            entries |= self._of_the_team(batch)
            kept = None if kept is None or bool(kept.all()) else kept
        self.push(entries, key, kept)

    def _of_the_team(self, batch: Transition) -> dict[str, Tensor]:
        """Which agents were alive and which actions were legal, if the game says so."""
        said = {"alive": batch.alive, "next_alive": batch.next_alive}
        for name, masks in (("mask", batch.masks), ("next_mask", batch.next_masks)):
            said |= {f"{name}_{agent}": mask for agent, mask in enumerate(masks or ())}
        for name, value in said.items():
            if value is not None and name not in self.names:
                self.keep_too(name, value)
        every = batch.terminated.new_ones(())
        known = {name: getattr(self, name).shape[2:] for name in self._later}
        return {
            name: every.expand(*batch.terminated.shape, *event) if (value := said.get(name)) is None else value
            for name, event in known.items()
        }

    def draw(self, batch_size: int, keys: Tensor | None = None, also_empty: bool = False) -> Transition:
        """Draw a minibatch, see `Ring.sample`."""
        drawn = self.sample(batch_size, keys, also_empty)

        def of_all(name: str) -> tuple[Tensor, ...]:
            return tuple(drawn[f"{name}_{agent}"] for agent in range(self.agents))

        def masks(name: str) -> tuple[Tensor | None, ...] | None:
            found = tuple(drawn.get(f"{name}_{agent}") for agent in range(self.agents))
            return None if all(mask is None for mask in found) else found

        return Transition(
            of_all("obs"),
            of_all("action"),
            drawn["rewards"],
            of_all("next_obs"),
            drawn["terminated"],
            drawn["ended"],
            alive=drawn.get("alive"),
            next_alive=drawn.get("next_alive"),
            masks=masks("mask"),
            next_masks=masks("next_mask"),
        )
