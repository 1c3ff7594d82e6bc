"""Replay: the last transitions of every replicate, in ring buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inference_marl.spaces import Discrete, Space
from inference_marl.types import Experience, Seat


def _dtype(space: Space, seat: Seat) -> torch.dtype:
    return torch.int64 if isinstance(space, Discrete) else seat.dtype


class Ring(nn.Module):
    """Named tensors of the last `capacity` entries of every replicate, `replicates x capacity x event`.

    Args:
        seat: gives replicates and device.
        capacity: entries kept per replicate.
        entries: event shape and type of each named tensor.
    """

    def __init__(self, seat: Seat, capacity: int, entries: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        super().__init__()
        self.capacity, self.size, self.position = capacity, 0, 0
        self.names = tuple(entries)
        for name, (shape, dtype) in entries.items():
            zeros = torch.zeros(seat.replicates, capacity, *shape, dtype=dtype, device=seat.device)
            self.register_buffer(name, zeros)

    def push(self, **entries: Tensor) -> None:
        """Append `replicates x n x event` entries, dropping the oldest; of more than `capacity`, the last."""
        n = min(next(iter(entries.values())).shape[1], self.capacity)
        device = next(iter(entries.values())).device
        where = torch.arange(self.position, self.position + n, device=device) % self.capacity
        for name in self.names:
            getattr(self, name)[:, where] = entries[name][:, -n:]
        self.position = (self.position + n) % self.capacity
        self.size = min(self.size + n, self.capacity)

    def sample(self, batch_size: int) -> dict[str, Tensor]:
        """`replicates x batch_size x event` entries, uniform with replacement, independent per replicate.

        Raises:
            IndexError: if nothing was pushed yet.
        """
        if not self.size:
            raise IndexError("sample: got an empty ring, expected at least one push before it")
        first = getattr(self, self.names[0])
        replicates = first.shape[0]
        index = torch.randint(self.size, (replicates, batch_size), device=first.device)
        rows = torch.arange(replicates, device=first.device).unsqueeze(-1)
        return {name: getattr(self, name)[rows, index] for name in self.names}

    def get_extra_state(self) -> dict[str, int]:
        """Where the ring stands, for `state_dict`."""
        return {"size": self.size, "position": self.position}

    def set_extra_state(self, state: Any) -> None:
        """Undo `get_extra_state`."""
        self.size, self.position = state["size"], state["position"]


class Replay(Ring):
    """Transitions as one seat sees them, stored as `Experience`.

    Args:
        seat: whose view.
        capacity: transitions kept per replicate.
    """

    def __init__(self, seat: Seat, capacity: int) -> None:
        obs = (seat.observation.event_shape, _dtype(seat.observation, seat))
        super().__init__(
            seat,
            capacity,
            {
                "obs": obs,
                "action": (seat.action.event_shape, _dtype(seat.action, seat)),
                "opponent_action": (seat.opponent_action.event_shape, _dtype(seat.opponent_action, seat)),
                "reward": ((), seat.dtype),
                "next_obs": obs,
                "terminated": ((), torch.bool),
            },
        )

    def add(self, experience: Experience) -> None:
        """Append a view of the newest step."""
        self.push(**experience.tensors())

    def draw(self, batch_size: int) -> Experience:
        """A minibatch, `replicates x batch_size`."""
        return Experience(**self.sample(batch_size))


class Observed(Ring):
    """What the opponents did where: `(obs, opponent_action)` pairs, for fitting a prior.

    Args:
        seat: whose opponents.
        capacity: pairs kept per replicate.
    """

    def __init__(self, seat: Seat, capacity: int) -> None:
        super().__init__(
            seat,
            capacity,
            {
                "obs": (seat.observation.event_shape, _dtype(seat.observation, seat)),
                "opponent_action": (seat.opponent_action.event_shape, _dtype(seat.opponent_action, seat)),
            },
        )
