"""Populations of opponents, as distributions of their private types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inference_marl.described import Count, Described, NotNegative, Positive, Whole, brief, within
from inference_marl.games.tables import numbers

Point = npt.NDArray[np.float64]
"""One opponent's type, `features`."""

Table = npt.NDArray[np.float64]
"""The types of all opponents of a population, `replicates x count x features`."""


class Types(Described, ABC):
    """Base: a finite population of opponents, with types drawn from a distribution.

    Attributes:
        count: number of opponents in each replicate.
        seed: random seed. An opponent's type depends only on it, the population's name, the replicate and the
            opponent's number, so no population changes with the size of another.
    """

    count: int
    seed: int = 0

    def table(self, features: int, replicates: int, name: str) -> Table:
        """All types, `replicates x count x features`.

        Args:
            features: number of coordinates of a type.
            replicates: number of replicates.
            name: name of the population.

        Raises:
            ValueError: like `draw`.
        """
        words = list(name.encode())

        def point(replicate: int, number: int) -> Point:
            return self.draw(features, number, np.random.default_rng([self.seed, replicate, number, *words]))

        return np.array([[point(replicate, number) for number in range(self.count)] for replicate in range(replicates)])

    @abstractmethod
    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """Draw the type of one opponent.

        Args:
            features: number of coordinates of the type.
            number: the opponent's number in the population, from 0.
            random: random generator of this opponent.

        Raises:
            ValueError: if types have another number of coordinates. The message begins with the argument.
        """


class UniformTypes(Types):
    """Types drawn uniformly from a box.

    Args:
        low: lower bound of each coordinate, or one for all.
        high: upper bounds, likewise.
        count: number of opponents in each replicate.
        seed: see `Types`.

    Raises:
        ValueError: if a lower bound exceeds its upper bound.
    """

    def __init__(
        self, low: float | Sequence[float], high: float | Sequence[float], count: Count, seed: Whole = 0
    ) -> None:
        self.low, self.high, self.count, self.seed = low, high, count, seed
        lengths = {np.size(each) for each in (low, high) if np.ndim(each)}
        if len(lengths) > 1 or 0 in lengths or not np.all(np.less_equal(low, high)):
            raise ValueError(f"low: got {low} with high = {high}, expected as many numbers, none above its high")

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """Draw a point of the box."""
        low, high = (_sized(name, getattr(self, name), features) for name in ("low", "high"))
        return random.uniform(low, high)


class ShellTypes(Types):
    """Types with coordinates far from 0: absolute values uniform in an interval, and random signs.

    Args:
        inner: lower bound of absolute values.
        outer: upper bound of absolute values.
        count: number of opponents in each replicate.
        seed: see `Types`.

    Raises:
        ValueError: if `inner` exceeds `outer`.
    """

    def __init__(self, inner: NotNegative, outer: Positive, count: Count, seed: Whole = 0) -> None:
        self.inner, self.outer, self.count, self.seed = inner, outer, count, seed
        if inner > outer:
            raise ValueError(f"inner: got {inner}, expected at most outer = {outer}")

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """Draw an absolute value and a sign for each coordinate."""
        signs = 2.0 * random.integers(2, size=features) - 1.0
        return signs * random.uniform(self.inner, self.outer, features)


class DirichletTypes(Types):
    """Types drawn from a Dirichlet distribution, such as mixed strategies.

    Args:
        concentration: parameter for each probability, or one for all; 1 is uniform over the simplex, and smaller ones
            prefer its corners.
        count: number of opponents in each replicate.
        seed: see `Types`.
    """

    def __init__(self, concentration: Positive | Sequence[Positive], count: Count, seed: Whole = 0) -> None:
        self.concentration, self.count, self.seed = concentration, count, seed

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """Draw a point of the simplex."""
        return random.dirichlet(_sized("concentration", self.concentration, features))


class ListedTypes(Types):
    """Given types, the same in all replicates.

    Args:
        points: type of each opponent.

    Raises:
        ValueError: if they are not lists of numbers of equal length.
    """

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        table = numbers("points", points)
        if table.dim() != 2:
            raise ValueError(f"points: got {points}, expected a list of numbers for each opponent")
        self.points, self.count = table.numpy(), len(table)

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """Return the type of that number."""
        return _sized("points", self.points[number], features)


class MixedTypes(Types):
    """A mixture of populations: the opponents of the first part, then those of the next ones.

    The weight of a part is its number of opponents. A part's opponents stay the same if another one's `count` changes.

    Args:
        parts: the populations, with their own seeds.

    Raises:
        ValueError: if they are not a list of populations, or there are none.
    """

    def __init__(self, parts: Sequence[Types]) -> None:
        if not isinstance(parts, Sequence):
            raise ValueError(f"parts: got {type(parts).__name__}, expected a list of populations")
        if not parts:
            raise ValueError("parts: got none, expected at least one population of opponents")
        for number, part in enumerate(parts):
            if not isinstance(part, Types):
                raise ValueError(f"parts[{number}]: got {brief(part)}, expected a population such as UniformTypes")
        self.parts, self.count = parts, sum(part.count for part in parts)

    def table(self, features: int, replicates: int, name: str) -> Table:
        """All types, see `Types.table`."""
        found = []
        for number, part in enumerate(self.parts):
            with within(f"parts[{number}]"):
                found.append(part.table(features, replicates, f"{name}.{number}"))
        return np.concatenate(found, 1)

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """Draw the type from the part that has that opponent."""
        for part in self.parts:
            if number < part.count:
                break
            number -= part.count
        return part.draw(features, number, random)


def _sized(name: str, value: float | Sequence[float] | Point, features: int) -> Point:
    """Expand a value to one number per coordinate.

    Raises:
        ValueError: if there is neither one number nor one per coordinate.
    """
    found = np.asarray(value, dtype=np.float64)
    if found.ndim and found.shape != (features,):
        raise ValueError(f"{name}: got {found.size} numbers, expected {features}, those of a type in this game")
    return np.broadcast_to(found, (features,))
