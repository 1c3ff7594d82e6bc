"""What an agent believes of the opponents it plays, from what it has seen in the trial so far."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.learners.latent.rows import Rows
from inference_marl.learners.latent.trials import Steps, Trials
from inference_marl.types import Memory, Part, Start


class Posterior(NamedTuple):
    """A belief about the opponents: a normal with independent coordinates, or a point.

    Attributes:
        mean: `... x features`.
        sd: its standard deviations, likewise; `None` of a point.
    """

    mean: Tensor
    sd: Tensor | None = None

    def detach(self) -> Posterior:
        """The same as a constant."""
        return Posterior(self.mean.detach(), None if self.sd is None else self.sd.detach())

    def unsqueeze(self, dim: int) -> Posterior:
        """The same with one more dimension."""
        return Posterior(self.mean.unsqueeze(dim), None if self.sd is None else self.sd.unsqueeze(dim))

    def draw(self) -> Tensor:
        """A draw, without gradient."""
        return self.mean if self.sd is None else torch.addcmul(self.mean, self.sd, torch.randn_like(self.mean)).detach()


class Drawn(NamedTuple):
    """What an update learns from.

    Attributes:
        steps: `replicates x tasks x steps`.
        before, after: what is believed before and after each step, `replicates x tasks x (steps or 1) x features`.
        encoded: how many transitions were read for that, in each replicate.
    """

    steps: Steps
    before: Posterior
    after: Posterior
    encoded: int


@hyperparameters
class Context(Part):
    """Base: what is believed of opponents is a function of evidence, which is gathered in a memory.

    Attributes:
        features: of what is believed.
        is_point: whether beliefs are points, and not normals.
        is_told: whether it is told the task.
        needs_tasks: whether it has to be known which episodes are against the same opponents.
        from_their_beginning: whether it learns from trials as they were from their first step on.
    """

    is_point: ClassVar[bool] = True
    is_told: ClassVar[bool] = False
    needs_tasks: ClassVar[bool] = True
    from_their_beginning: ClassVar[bool] = False

    features: int = field(init=False)
    layout: Rows = field(init=False)

    def setup(self) -> None:
        """Know how steps are read."""
        self.layout = Rows(self.seat)

    def zeros(self, *shape: int) -> Tensor:
        """Zeros in the seat's type."""
        return torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device)

    @abstractmethod
    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """The evidence at the start of a trial, by name, `replicates x environments x ...`."""
        raise NotImplementedError(f"{type(self).__name__}.initial_evidence is not defined")

    def begin(self, start: Start) -> Memory:
        """The evidence where tasks begin."""
        return self.initial_evidence(*start.episode.shape)

    @abstractmethod
    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """The evidence with a step more, `replicates x environments x row`."""
        raise NotImplementedError(f"{type(self).__name__}.gather is not defined")

    @abstractmethod
    def read(self, evidence: Memory) -> Posterior:
        """What is believed by the evidence, `replicates x environments x features`."""
        raise NotImplementedError(f"{type(self).__name__}.read is not defined")

    @abstractmethod
    def draw(self, trials: Trials, groups: Tensor, count: int, by_episode: bool) -> Drawn:
        """Steps to learn from, and what is believed there, with gradients.

        Args:
            trials: what was played.
            groups: of which tasks, `replicates x tasks`, see `Trials.draw_tasks`.
            count: steps of each task.
            by_episode: whether beliefs stay as they are in an episode.
        """
        raise NotImplementedError(f"{type(self).__name__}.draw is not defined")


@hyperparameters
class Told(Context):
    """The hidden type of the opponents, which the game tells (`Game.hidden_type`): an oracle, to compare with."""

    is_told = True

    def setup(self) -> None:
        """Ask the game how many numbers a type has.

        Raises:
            IncompatibleError: if it does not say.
        """
        super().setup()
        self.features = self.types(torch.zeros(self.seat.replicates, 1, dtype=torch.int64)).shape[-1]

    def types(self, task: Tensor) -> Tensor:
        """The hidden types of tasks, `replicates x tasks` to `... x features`.

        Raises:
            IncompatibleError: if the game does not say.
        """
        game = self.seat.game
        found = None if game is None else game.hidden_type(task.to(self.seat.device))
        if found is None:
            name = "rules that are not this package's" if game is None else type(game).__name__
            raise IncompatibleError(f"Told got {name}, without hidden_type, expected a game that tells what is hidden")
        return found.to(dtype=self.seat.dtype, device=self.seat.device)

    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """Zeros, where nobody has said anything."""
        return {"told": self.zeros(replicates, environments, self.features)}

    def begin(self, start: Start) -> Memory:
        """The types of the tasks.

        Raises:
            IncompatibleError: if there are none.
        """
        if start.task is None:
            raise IncompatibleError("Told got no task, expected the key tasks, of the experiment or of its evaluation")
        return {"told": self.types(start.task)}

    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """As before."""
        return {"told": evidence["told"]}

    def read(self, evidence: Memory) -> Posterior:
        """What was told."""
        return Posterior(evidence["told"])

    def draw(self, trials: Trials, groups: Tensor, count: int, by_episode: bool) -> Drawn:
        """See `Context`."""
        told = Posterior(self.types(trials.table.task.gather(1, groups)).unsqueeze(2))
        return Drawn(trials.draw_steps(groups, count), told, told, 0)


class _Nothing(Context):
    """No evidence, no belief."""

    needs_tasks = False

    def setup(self) -> None:
        super().setup()
        self.features = 0

    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        return {}

    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        return {}

    def read(self, evidence: Memory) -> Posterior:
        return Posterior(self.zeros(self.seat.replicates, self.seat.environments, 0))

    def draw(self, trials: Trials, groups: Tensor, count: int, by_episode: bool) -> Drawn:
        nothing = Posterior(self.zeros(*groups.shape, 1, 0))
        return Drawn(trials.draw_steps(groups, count), nothing, nothing, 0)


def nothing() -> Context:
    """What `Pearl` has where its context is `None`, to be bound."""
    return _Nothing()
