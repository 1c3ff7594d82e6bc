"""Scripted agents for any game, which never learn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import In, IncompatibleError, NotNegative, hyperparameters
from inference_marl.inference.conditional import Conditional
from inference_marl.models import Fixed, Uniform
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Actor, Decision, Memory


class Script(Actor):
    """Base: an agent with a fixed policy, from which it also draws when others act greedily."""

    @abstractmethod
    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The policy, see `Actor.policy`."""

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Draw from the policy, with and without `explore`."""
        strategy, memory = self.policy(obs, memory, mask)
        return Decision(strategy.sample(), memory)


class _Drawn(Conditional):
    """One strategy per replicate, drawn from Dirichlet(concentration, ..., concentration); the same in every state."""

    targets = (Discrete,)

    def __init__(self, concentration: float) -> None:
        super().__init__()
        self.concentration = concentration

    def setup(self) -> None:
        """Draw the strategies, `replicates x 1 x actions`."""
        seat = self.seat
        shape = (seat.replicates, 1, self.target.features)
        # In float64: small concentrations underflow in float32, which makes strategies less extreme.
        symmetric = torch.full(shape, self.concentration, dtype=torch.float64, device=seat.device)
        self.register_buffer("logits", dist.Dirichlet(symmetric).sample().log().to(seat.dtype))

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The strategies, batch shape `replicates x 1`."""
        return dist.Categorical(logits=self.logits)


class _Point(Conditional):
    """A point mass at a fixed point of a box."""

    targets = (Box,)

    def __init__(self, point: Sequence[float]) -> None:
        super().__init__()
        self.point = tuple(point)

    def setup(self) -> None:
        """Check that the point, `features`, is in the box."""
        seat, box = self.seat, self.target
        if len(self.point) != box.features:
            raise IncompatibleError(f"got {len(self.point)} numbers, expected {box.features}", key="action")
        point = torch.tensor(self.point, dtype=seat.dtype, device=seat.device).view(box.event_shape)
        if (wrong := box.misfit(point)) is not None:
            raise IncompatibleError(f"got {wrong}", key="action")
        self.register_buffer("value", point)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The point, batch shape `()`."""
        return dist.Delta(self.value, event_dim=self.value.dim())


@hyperparameters
class Stationary(Script):
    """Plays the same mixed strategy at every step, by default the uniform one, in any action space.

    Args:
        probabilities: probability of each action; normalised.
        action: coordinates of the point that it always plays instead, in a box.
        concentration: if given, every replicate instead draws its probabilities at the start of a run, from the
            Dirichlet distribution with this concentration for every action (discrete actions). The true opponent is
            then a draw from a belief's prior, as checks of calibration require.

    Raises:
        ValueError: if more than one argument is given, or one is out of range.
    """

    probabilities: Sequence[NotNegative] | None = None
    action: Sequence[float] | None = None
    concentration: Annotated[float | None, In("a positive number", ", or null for probabilities")] = None
    strategy: Conditional = field(init=False)

    def __post_init__(self) -> None:
        given = [name for name in ("probabilities", "action", "concentration") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{given[1]}: got {getattr(self, given[1])} beside {given[0]}, expected only one of the two"
            )
        if self.concentration is not None:
            self.strategy = _Drawn(self.concentration)
        elif self.action is not None:
            self.strategy = _Point(self.action)
        else:
            self.strategy = Uniform() if self.probabilities is None else Fixed(self.probabilities)

    def setup(self) -> None:
        """Check or draw the strategy.

        Raises:
            IncompatibleError: if the number of probabilities is not the number of actions, the point is not in the box,
                or the strategy does not fit the kind of action space.
        """
        self.strategy = self.strategy.bind(self.seat, self.seat.action, [self.seat.observation])

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The strategy, for all observations."""
        strategy: dist.TorchDistribution = self.strategy(obs)
        return strategy.expand(obs.shape[:2]), memory


@hyperparameters
class Scripted(Script):
    """Plays a given policy, a table over finitely many states and actions.

    In a repeated game with a memory of one step, these are the strategies of memory one: tit for tat in the prisoner's
    dilemma, from the second seat, is `[[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]]`.

    Args:
        probabilities: probability of each action, one row per state; normalised.

    Raises:
        ValueError: if a row has no positive number.
    """

    probabilities: Sequence[Sequence[NotNegative]]
    table: Tensor = field(init=False)

    def __post_init__(self) -> None:
        for state, row in enumerate(self.probabilities):
            if not sum(row) > 0:
                raise ValueError(f"probabilities: got {list(row)} in state {state}, expected one that is positive")

    def setup(self) -> None:
        """Check the sizes.

        Raises:
            IncompatibleError: if there is not one row per state and one number per action.
        """
        spaces = (self.seat.observation, self.seat.action)
        got = (len(self.probabilities), *{len(row) for row in self.probabilities})
        if not all(isinstance(space, Discrete) for space in spaces) or got != tuple(each.features for each in spaces):
            raise IncompatibleError(
                f"got rows and numbers in each {got}, expected one row per observation and one number per action: "
                f"{spaces[0]}, {spaces[1]}",
                key="probabilities",
            )
        table = torch.tensor(self.probabilities, dtype=self.seat.dtype, device=self.seat.device)
        self.register_buffer("table", table / table.sum(-1, keepdim=True))

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The row of the observed state."""
        return dist.Categorical(probs=self.table[obs]), memory
