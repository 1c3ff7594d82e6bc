"""The motion of bodies in a plane and their contact forces.

Positions, velocities and forces are `count x 2 x replicates x environments`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

DT = 0.1
"""Time per step."""
DAMPING = 0.25
"""Fraction of its velocity that a body loses per step."""
STIFFNESS = 100.0
"""Acceleration of bodies in contact per unit of overlap."""
SOFTNESS = 1e-3
"""Smoothing length of the onset of contact, in units of position."""
CLOSEST = 1e-9
"""Bodies nearer than this, in units of position, do not push each other, since the direction is undefined."""

Rules = Literal["mpe2", "openai"]


class Body(NamedTuple):
    """A disc in the plane, of mass 1.

    Attributes:
        size: radius, in units of position.
        solid: whether it and other solid bodies repel each other in contact.
        acceleration: acceleration at full force, in units of position per squared unit of time.
        top_speed: maximum speed, in units of position per unit of time.
        within: initial coordinates are uniform in `[-within, within]`.
    """

    size: float = 0.05
    solid: bool = False
    acceleration: float = 5.0
    top_speed: float = math.inf
    within: float = 1.0


class Physics(NamedTuple):
    """Constants of the motion of movers and of contacts with landmarks, in one dtype on one device.

    Attributes:
        keep: fraction of the velocity that is left after a step.
        kick: change of velocity in a step at full force, `movers x 1 x 1 x 1`.
        top_speed: squared maximum speeds, `movers x 1 x 1`; empty if there are none.
        differences: matrix of the differences of positions of solid bodies that may touch, `pairs x bodies`, with
            entries 1 and -1. Landmarks are included if movers can touch them.
        impulses: contribution of each pair's contact to the velocities, `movers x pairs`.
        reach: distance at which each pair touches, `pairs x 1 x 1`, in units of `-SOFTNESS`.
    """

    keep: Tensor
    kick: Tensor
    top_speed: Tensor
    differences: Tensor
    impulses: Tensor
    reach: Tensor

    @classmethod
    def of(cls, movers: Sequence[Body], landmarks: Sequence[Body]) -> Self:
        """The constants of the given bodies, in double precision."""
        count, every = len(movers), [*movers, *landmarks]
        solid = [index for index, body in enumerate(every) if body.solid]
        pairs = [(one, other) for one, other in combinations(solid, 2) if one < count]
        obstacles = any(other >= count for _, other in pairs)
        differences = torch.zeros(len(pairs), len(every) if obstacles else count, dtype=torch.float64)
        for row, (one, other) in enumerate(pairs):
            differences[row, one], differences[row, other] = 1.0, -1.0
        reach = [-(every[one].size + every[other].size) / SOFTNESS for one, other in pairs]
        speeds = [body.top_speed**2 for body in movers]
        return cls(
            torch.tensor(1 - DAMPING, dtype=torch.float64),
            _column([body.acceleration * DT for body in movers], 3),
            _column(speeds if min(speeds, default=math.inf) < math.inf else [], 2),
            differences,
            -STIFFNESS * SOFTNESS * DT * differences[:, :count].mT,
            _column(reach, 2),
        )

    def like(self, some: Tensor) -> Self:
        """The constants in the dtype and on the device of a tensor."""
        return type(self)(*(part.to(some) for part in self))

    def step(
        self, position: Tensor, velocity: Tensor, landmarks: Tensor | None, forces: Tensor, rules: Rules
    ) -> tuple[Tensor, Tensor]:
        """The positions and velocities after a step, given forces in units of full force."""
        new = torch.addcmul(self.keep * velocity, self.kick, forces)
        if len(self.reach):
            new = new + self._contacts(position, landmarks)
        if len(self.top_speed):
            new = new / (squared(new) / self.top_speed).clamp_min(1).sqrt().unsqueeze(1)
        return torch.add(position, new if rules == "openai" else velocity, alpha=DT), new

    def _contacts(self, position: Tensor, landmarks: Tensor | None) -> Tensor:
        """The changes of velocity due to contacts of solid bodies, `movers x 2 x ...`."""
        bodies = position
        if landmarks is not None and self.differences.shape[1] > len(position):
            bodies = torch.cat([position, landmarks])
        apart = (self.differences @ bodies.flatten(1)).view(-1, *position.shape[1:])
        square = squared(apart)
        length = square.masked_fill(square < CLOSEST**2, math.inf).sqrt()
        overlap = logsigmoid(torch.add(self.reach, length, alpha=1 / SOFTNESS))  # -softplus, without a threshold
        pushes = apart * (overlap / length).unsqueeze(1)
        return (self.impulses @ pushes.flatten(1)).view_as(position)


def _column(numbers: Sequence[float], singles: int) -> Tensor:
    """Numbers in double precision, followed by `singles` dimensions of size 1."""
    return torch.tensor(numbers, dtype=torch.float64).view(-1, *[1] * singles)


def squared(difference: Tensor) -> Tensor:
    """The squared length of vectors, `[... x] 2 x replicates x environments` to `[... x] replicates x environments`."""
    x, y = difference.unbind(-3)
    return torch.addcmul(x * x, y, y)


def distance(difference: Tensor) -> Tensor:
    """The length of vectors, as `squared`; the gradient is 0 where it is (rounded to) 0."""
    return squared(difference).clamp_min(1e-30).sqrt()
