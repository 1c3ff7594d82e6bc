"""Action and observation spaces, and the joint action of several agents.

A space says what a tensor of actions or observations means: its event shape, how a network reads it
(`encode`), the uniform distribution over it, and the size of that distribution's support.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class Discrete:
    """The integers `0 .. n - 1`; a batch of them is an `int64` tensor without an event dimension."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"Discrete.n: got {self.n}, expected a positive integer")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: `()`."""
        return ()

    @property
    def features(self) -> int:
        """Width of `encode`'s last dimension: one per value."""
        return self.n

    @property
    def log_size(self) -> float:
        """`log n`: the `log |A|` of the soft value."""
        return math.log(self.n)

    def encode(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot features: `values` is `...`, the result `... x n`."""
        return one_hot(values, self.n).to(dtype)

    def uniform(self, dtype: torch.dtype, device: torch.device) -> dist.TorchDistribution:
        """The uniform distribution, batch shape `()`."""
        return dist.Categorical(logits=torch.zeros(self.n, dtype=dtype, device=device))


@dataclass(frozen=True)
class Box:
    """The cube `[low, high] ** dim`; a batch of points is a floating tensor `... x dim`."""

    low: float
    high: float
    dim: int = 1

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Box: got low = {self.low}, high = {self.high}, expected low < high")
        if self.dim < 1:
            raise ValueError(f"Box.dim: got {self.dim}, expected a positive integer")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: `(dim,)`."""
        return (self.dim,)

    @property
    def features(self) -> int:
        """Width of `encode`'s last dimension: `dim`."""
        return self.dim

    @property
    def log_size(self) -> float:
        """Log-volume, `dim log(high - low)`: the `log |A|` of the soft value for densities."""
        return self.dim * math.log(self.high - self.low)

    @property
    def centre(self) -> float:
        """Middle of an edge."""
        return (self.high + self.low) / 2

    @property
    def half_width(self) -> float:
        """Half the length of an edge."""
        return (self.high - self.low) / 2

    def encode(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Coordinates scaled to `[-1, 1]`: `values` and the result are `... x dim`."""
        return ((values - self.centre) / self.half_width).to(dtype)

    def uniform(self, dtype: torch.dtype, device: torch.device) -> dist.TorchDistribution:
        """The uniform density, batch shape `()`, event shape `(dim,)`."""
        low = torch.full((self.dim,), self.low, dtype=dtype, device=device)
        high = torch.full_like(low, self.high)
        # torch's support excludes the upper edge, which a squashed sample may round to.
        closed = torch.nextafter(high, torch.full_like(high, torch.inf))
        uniform: dist.TorchDistribution = dist.Uniform(low, closed, validate_args=False).to_event(1)
        return uniform


Space = Discrete | Box


def joint_space(spaces: Sequence[Space]) -> Space:
    """The space of several agents' joint action.

    Discrete spaces multiply (one index, the last agent's action runs fastest); boxes with the same edge are
    concatenated.

    Raises:
        ValueError: if kinds or edges differ, so that one site cannot hold the joint action.
    """
    if all(isinstance(space, Discrete) for space in spaces):
        return Discrete(math.prod(space.features for space in spaces))
    edges = {(space.low, space.high) for space in spaces if isinstance(space, Box)}
    if len(edges) != 1 or any(isinstance(space, Discrete) for space in spaces):
        raise ValueError(
            f"action spaces: got {list(spaces)}, expected all Discrete, or all Box with the same low and high, "
            "so that the opponents' joint action is one variable"
        )
    low, high = edges.pop()
    return Box(low, high, sum(space.features for space in spaces))


def joint_action(spaces: Sequence[Space], actions: Sequence[Tensor]) -> Tensor:
    """The joint action of several agents as one value of `joint_space(spaces)`.

    Args:
        spaces: one per agent.
        actions: one tensor per agent, `... x event_shape`; leading shapes broadcast.
    """
    if any(isinstance(space, Box) for space in spaces):
        return _side_by_side(actions)
    index = torch.zeros_like(actions[0])
    for space, action in zip(spaces, actions, strict=True):
        index = index * space.features + action
    return index


def separate_actions(spaces: Sequence[Space], joint: Tensor) -> list[Tensor]:
    """Undo `joint_action`: one tensor per agent, `... x event_shape`.

    Args:
        spaces: one per agent.
        joint: a value of `joint_space(spaces)`, `... x event_shape`.
    """
    if any(isinstance(space, Box) for space in spaces):
        return list(joint.split([space.features for space in spaces], dim=-1))
    actions: list[Tensor] = []
    for space in reversed(spaces):
        actions.insert(0, joint % space.features)
        joint = joint.div(space.features, rounding_mode="floor")
    return actions


def joint_names(spaces: Sequence[Space], names: Sequence[str] | None = None) -> list[str]:
    """What to call the joint actions of several agents, in the order of `joint_action`.

    Args:
        spaces: one `Discrete` per agent.
        names: of every agent's actions; letters if `None`, or numbers beyond 26 actions.
    """
    if names is not None:
        return [" & ".join(parts) for parts in itertools.product(names, repeat=len(spaces))]

    def letters(count: int) -> list[str]:
        return [chr(ord("A") + i) if count <= 26 else str(i) for i in range(count)]

    return ["".join(parts) for parts in itertools.product(*(letters(space.features) for space in spaces))]


def encode(spaces: Sequence[Space], values: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """What a network reads: every value's features side by side.

    Args:
        spaces: one per value.
        values: tensors `batch_shape x event_shape`; the batch shapes broadcast, so enumerated sites may carry
            extra dimensions on the left.
        dtype: floating type of the result.

    Returns:
        `batch_shape x (sum of features)`.
    """
    return _side_by_side([space.encode(value, dtype) for space, value in zip(spaces, values, strict=True)])


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Concatenates last dimensions; the others broadcast."""
    if len(parts) == 1:
        return parts[0]
    if len({part.shape[:-1] for part in parts}) > 1:
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        parts = [part.expand(*shape, part.shape[-1]) for part in parts]
    return torch.cat(list(parts), dim=-1)
