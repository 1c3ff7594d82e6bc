"""Action and observation spaces, and the joint action of several agents.

A space defines what a tensor of actions or observations means: its event shape, its network features (`encode`), the
uniform distribution over it, and the log-size of its support.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.described import expect


@dataclass(frozen=True)
class Discrete:
    """The integers `0 .. n - 1`; a batch of them is an `int64` tensor without an event dimension.

    Where samples must be differentiable, a floating-point tensor `... x n` holds points of the simplex: relaxed or
    one-hot values. The two are distinguished by dtype, never by shape.
    """

    n: int

    def __post_init__(self) -> None:
        expect("a positive integer", **{"Discrete.n": self.n})

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: `()`."""
        return ()

    @property
    def features(self) -> int:
        """Size of the last dimension of `encode`'s result: one per value."""
        return self.n

    @property
    def log_size(self) -> float:
        """`log n`, the `log |A|` of the soft value."""
        return math.log(self.n)

    def stored(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of stored values: `int64`, regardless of `dtype`."""
        return torch.int64

    def encode(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot features, `...` to `... x n`; points of the simplex are returned as features."""
        return values.to(dtype) if values.is_floating_point() else one_hot(values, self.n).to(dtype)

    def uniform(self, dtype: torch.dtype, device: torch.device) -> dist.TorchDistribution:
        """The uniform distribution, batch shape `()`."""
        return dist.Categorical(logits=torch.zeros(self.n, dtype=dtype, device=device))

    def misfit(self, values: Tensor) -> str | None:
        """The reason why some values, `... x event_shape`, are not in the space; `None` if all are."""
        if values.dtype != torch.int64:
            return f"{values.dtype}, expected int64"
        least, most = (int(end) for end in values.aminmax()) if values.numel() else (0, 0)
        if not 0 <= least <= most < self.n:
            return f"numbers from {least} to {most}, expected 0 to {self.n - 1}"
        return None


@dataclass(frozen=True)
class Box:
    """Points between `low` and `high`; a batch of them is a floating-point tensor `... x shape`.

    Args:
        low, high: the bounds: a number, or one per coordinate if the box is a vector. Infinite for no bound.
        shape: shape of one value; an integer `n` stands for a vector of length `n`, three integers for an image.

    Raises:
        ValueError: if `low` is not below `high`, or the numbers of bounds and coordinates differ.
    """

    low: float | tuple[float, ...] = -math.inf
    high: float | tuple[float, ...] = math.inf
    shape: tuple[int, ...] = (1,)

    def __init__(
        self,
        low: float | Sequence[float] = -math.inf,
        high: float | Sequence[float] = math.inf,
        shape: int | Sequence[int] = 1,
    ) -> None:
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"Box.shape: got {shape}, expected positive integers")
        edges = [_edge(name, value, sizes) for name, value in (("low", low), ("high", high))]
        pairs = torch.broadcast_tensors(*(torch.tensor(edge, dtype=torch.float64) for edge in edges))
        if not bool((pairs[0] < pairs[1]).all()):
            raise ValueError(f"Box.low: got {low} with high = {high}, expected low < high")
        for name, value in zip(("low", "high", "shape"), (*edges, sizes), strict=True):
            object.__setattr__(self, name, value)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return self.shape

    @property
    def features(self) -> int:
        """Size of the last dimension of `encode`'s result: the number of coordinates."""
        return math.prod(self.shape)

    @cached_property
    def bounded(self) -> bool:
        """Whether every coordinate is bounded on both sides."""
        return all(bool(edge.isfinite().all()) for edge in self.edges(torch.float64, torch.device("cpu")))

    @property
    def log_size(self) -> float:
        """Log-volume, the `log |A|` of the soft value for densities; infinite if the box is unbounded."""
        low, high = self.edges(torch.float64, torch.device("cpu"))
        return float((high - low).log().sum())

    def edges(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds, `shape`."""
        low, high = (
            torch.tensor(edge, dtype=dtype, device=device).expand(self.shape) for edge in (self.low, self.high)
        )
        return low, high

    def scale(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Centre and half-width of every coordinate, `shape`; 0 and 1 for unbounded coordinates."""
        return _scale(self, dtype, device)

    @cached_property
    def _unscaled(self) -> bool:
        """Whether no coordinate is bounded on both sides, so that nothing is scaled."""
        low, high = self.edges(torch.float64, torch.device("cpu"))
        return not bool((low.isfinite() & high.isfinite()).any())

    def stored(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of stored values: `dtype`."""
        return dtype

    def encode(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Features, `... x features`: bounded coordinates scaled to `[-1, 1]`, others unchanged."""
        if self._unscaled:
            return values.to(dtype).flatten(-len(self.shape))
        centre, half_width = self.scale(values.dtype, values.device)
        return ((values - centre) / half_width).to(dtype).flatten(-len(self.shape))

    def decode(self, features: Tensor) -> Tensor:
        """Invert `encode`: features `... x features` to values `... x shape`."""
        centre, half_width = self.scale(features.dtype, features.device)
        values: Tensor = centre + half_width * features.unflatten(-1, self.shape)
        return values

    def uniform(self, dtype: torch.dtype, device: torch.device) -> dist.TorchDistribution:
        """The uniform density, batch shape `()`, event shape `shape`.

        Raises:
            ValueError: if the box is unbounded.
        """
        if not self.bounded:
            raise ValueError(f"got {self}, expected a box with finite edges: no density is uniform on another")
        low, high = self.edges(dtype, device)
        # torch's support excludes the upper bound, to which a squashed sample may be rounded.
        closed = torch.nextafter(high, torch.full_like(high, torch.inf))
        uniform: dist.TorchDistribution = dist.Uniform(low, closed, validate_args=False).to_event(len(self.shape))
        return uniform

    def misfit(self, values: Tensor) -> str | None:
        """See `Discrete.misfit`."""
        if not values.is_floating_point():
            return f"{values.dtype}, expected a floating type"
        low, high = _loose_edges(self, values.dtype, values.device)
        if not bool(((values >= low) & (values <= high)).all()):
            least, most = float(values.min()), float(values.max())
            return f"numbers from {least:.6g} to {most:.6g}, expected {self.low} to {self.high}"
        return None


def _edge(name: str, value: float | Sequence[float], shape: tuple[int, ...]) -> float | tuple[float, ...]:
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy arrays and tensors
    if not isinstance(value, Sequence):
        return value
    if (len(value),) != shape:
        raise ValueError(f"Box.{name}: got {len(value)} numbers, expected one, or one per dimension of {shape}")
    return value[0] if len(set(value)) == 1 else tuple(value)


@cache
def _scale(box: Box, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    low, high = box.edges(torch.float64, device)
    known = low.isfinite() & high.isfinite()
    centre = torch.where(known, (low + high) / 2, 0.0)
    half_width = torch.where(known, (high - low) / 2, 1.0)
    return centre.to(dtype), half_width.to(dtype)


@cache
def _loose_edges(box: Box, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The bounds, slightly widened, since rounding may move a value that was scaled into the box out of it."""
    low, high = box.edges(dtype, device)
    return low - 1e-5 * (1 + low.abs()), high + 1e-5 * (1 + high.abs())


Space = Discrete | Box


def joint_space(spaces: Sequence[Space]) -> Space:
    """The space of several agents' joint action.

    For discrete spaces it is one index, in which the last agent's action varies fastest; boxes are concatenated.

    Raises:
        ValueError: if discrete spaces and boxes are mixed or a box is not a vector, since one Pyro site cannot hold
            such a joint action.
    """
    if all(isinstance(space, Discrete) for space in spaces):
        return Discrete(math.prod(space.features for space in spaces))
    boxes = [space for space in spaces if isinstance(space, Box) and len(space.shape) == 1]
    if len(boxes) < len(spaces):
        raise ValueError(
            f"action spaces: got {list(spaces)}, expected all Discrete, or all Box with one dimension, so that the "
            "opponents' joint action is one variable"
        )
    edges = [box.edges(torch.float64, torch.device("cpu")) for box in boxes]
    low, high = (torch.cat(side).tolist() for side in zip(*edges, strict=True))
    return Box(low, high, len(low))


def joint_action(spaces: Sequence[Space], actions: Sequence[Tensor]) -> Tensor:
    """The joint action of several agents as one value of `joint_space(spaces)`.

    Args:
        spaces: one per agent.
        actions: one tensor per agent, `... x event_shape`; leading shapes broadcast.
    """
    if any(isinstance(space, Box) for space in spaces):
        return _side_by_side(actions)
    index, *others = actions
    for space, action in zip(spaces[1:], others, strict=True):
        index = index * space.features + action
    return index


def separate_actions(spaces: Sequence[Space], joint: Tensor) -> list[Tensor]:
    """Invert `joint_action`: one tensor per agent, `... x event_shape`."""
    if any(isinstance(space, Box) for space in spaces):
        return list(joint.split([space.features for space in spaces], dim=-1))
    actions: list[Tensor] = []
    for space in reversed(spaces):
        actions.insert(0, joint % space.features)
        joint = joint.div(space.features, rounding_mode="floor")
    return actions


def joint_names(spaces: Sequence[Space], names: Sequence[str] | None = None) -> list[str]:
    """Names of several agents' joint actions, in the order of `joint_action`.

    Args:
        spaces: one `Discrete` per agent.
        names: names of each agent's actions; letters if `None`, or numbers if some agent has more than 26 actions.
    """
    if names is not None:
        return [" & ".join(parts) for parts in itertools.product(names, repeat=len(spaces))]

    sizes = [space.features for space in spaces]
    if max(sizes, default=0) > 26:  # concatenated numbers would be ambiguous: 1 and 11, 11 and 1
        return [" & ".join(map(str, parts)) for parts in itertools.product(*map(range, sizes))]
    letters = [[chr(ord("A") + i) for i in range(size)] for size in sizes]
    return ["".join(parts) for parts in itertools.product(*letters)]


def encode(spaces: Sequence[Space], values: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Concatenated features of several values, as network input: `batch_shape x (sum of features)`.

    Args:
        spaces: one per value.
        values: tensors `batch_shape x event_shape`; the batch shapes broadcast, so enumerated sites may have extra
            dimensions on the left.
        dtype: floating-point type of the result.
    """
    return _side_by_side([space.encode(value, dtype) for space, value in zip(spaces, values, strict=True)])


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate along the last dimension; the others broadcast."""
    if len(parts) == 1:
        return parts[0]
    if len({part.shape[:-1] for part in parts}) > 1:
        # Not torch.broadcast_shapes, which imports SymPy: that takes a second.
        shape = torch.broadcast_tensors(*(part[..., 0] for part in parts))[0].shape
        parts = [part.expand(*shape, part.shape[-1]) for part in parts]
    return torch.cat(list(parts), dim=-1)
