"""Populations of opponents: distributions of the private types that tell one from another."""

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
    """So many opponents, and where their types are from.

    Attributes:
        count: how many opponents there are in each replicate.
        seed: random seed. An opponent's type depends on it, the population's name, the replicate and the opponent's
            number in the population alone, so no population changes with the size of another.
    """

    count: int
    seed: int = 0

    def table(self, features: int, replicates: int, name: str) -> Table:
        """All types, `replicates x count x features`.

        Args:
            features: numbers in a type.
            replicates: their number.
            name: of the population.

        Raises:
            ValueError: as `draw`.
        """
        words = list(name.encode())

        def point(replicate: int, number: int) -> Point:
            return self.draw(features, number, np.random.default_rng([self.seed, replicate, number, *words]))

        return np.array([[point(replicate, number) for number in range(self.count)] for replicate in range(replicates)])

    @abstractmethod
    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """The type of one opponent.

        Args:
            features: numbers in it.
            number: which of the population's opponents it is, from 0.
            random: random numbers of this opponent alone.

        Raises:
            ValueError: if types do not have so many numbers. The message begins with the argument.
        """


class UniformTypes(Types):
    """Types that are drawn uniformly from a box.

    Args:
        low: the least of each number, or of all.
        high: the largest.
        count: opponents in each replicate.
        seed: see `Types`.

    Raises:
        ValueError: if a number of `low` is above that of `high`.
    """

    def __init__(
        self, low: float | Sequence[float], high: float | Sequence[float], count: Count, seed: Whole = 0
    ) -> None:
        self.low, self.high, self.count, self.seed = low, high, count, seed
        lengths = {np.size(each) for each in (low, high) if np.ndim(each)}
        if len(lengths) > 1 or 0 in lengths or not np.all(np.less_equal(low, high)):
            raise ValueError(f"low: got {low} with high = {high}, expected as many numbers, none above its high")

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """A point of the box."""
        low, high = (_sized(name, getattr(self, name), features) for name in ("low", "high"))
        return random.uniform(low, high)


class ShellTypes(Types):
    """Types far from the middle on every axis: sizes are drawn uniformly from an interval, signs from both.

    Args:
        inner: the least absolute value of each number.
        outer: the largest.
        count: opponents in each replicate.
        seed: see `Types`.

    Raises:
        ValueError: if `inner` is above `outer`.
    """

    def __init__(self, inner: NotNegative, outer: Positive, count: Count, seed: Whole = 0) -> None:
        self.inner, self.outer, self.count, self.seed = inner, outer, count, seed
        if inner > outer:
            raise ValueError(f"inner: got {inner}, expected at most outer = {outer}")

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """A size and a sign for each number."""
        signs = 2.0 * random.integers(2, size=features) - 1.0
        return signs * random.uniform(self.inner, self.outer, features)


class DirichletTypes(Types):
    """Types that are probabilities, such as mixed strategies, from a Dirichlet distribution.

    Args:
        concentration: of each probability, or of all; 1 is uniform over the simplex, less means nearer to its corners.
        count: opponents in each replicate.
        seed: see `Types`.
    """

    def __init__(self, concentration: Positive | Sequence[Positive], count: Count, seed: Whole = 0) -> None:
        self.concentration, self.count, self.seed = concentration, count, seed

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """A point of the simplex."""
        return random.dirichlet(_sized("concentration", self.concentration, features))


class ListedTypes(Types):
    """Types that are given, the same in all replicates.

    Args:
        points: one per opponent.

    Raises:
        ValueError: if they are not equally long lists of numbers.
    """

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        table = numbers("points", points)
        if table.dim() != 2:
            raise ValueError(f"points: got {points}, expected a list of numbers for each opponent")
        self.points, self.count = table.numpy(), len(table)

    def draw(self, features: int, number: int, random: np.random.Generator) -> Point:
        """The point of that number."""
        return _sized("points", self.points[number], features)


class MixedTypes(Types):
    """Opponents of several kinds: those of the first part, then those of the next one.

    How many opponents each part has is its weight. A part's opponents stay the same if another one's `count` changes.

    Args:
        parts: populations of their own, with their own seeds.

    Raises:
        ValueError: if they are no list of populations, or there are none.
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
        """The type of the part that has that number."""
        for part in self.parts:
            if number < part.count:
                break
            number -= part.count
        return part.draw(features, number, random)


def _sized(name: str, value: float | Sequence[float] | Point, features: int) -> Point:
    """One number per feature.

    Raises:
        ValueError: if there are others than one, or one each.
    """
    found = np.asarray(value, dtype=np.float64)
    if found.ndim and found.shape != (features,):
        raise ValueError(f"{name}: got {found.size} numbers, expected {features}, those of a type in this game")
    return np.broadcast_to(found, (features,))
