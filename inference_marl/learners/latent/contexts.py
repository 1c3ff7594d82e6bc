"""Contexts: an agent's belief about its opponents as a function of the trial so far."""

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
        sd: standard deviations, likewise; `None` for a point.
    """

    mean: Tensor
    sd: Tensor | None = None

    def detach(self) -> Posterior:
        """The posterior without gradients."""
        return Posterior(self.mean.detach(), None if self.sd is None else self.sd.detach())

    def unsqueeze(self, dim: int) -> Posterior:
        """The posterior with one more dimension."""
        return Posterior(self.mean.unsqueeze(dim), None if self.sd is None else self.sd.unsqueeze(dim))

    def draw(self) -> Tensor:
        """Draw from the posterior, without gradients."""
        return self.mean if self.sd is None else torch.addcmul(self.mean, self.sd, torch.randn_like(self.mean)).detach()


class Drawn(NamedTuple):
    """The data of an update, and the beliefs at them.

    Attributes:
        steps: `replicates x tasks x steps`.
        before, after: beliefs before and after each step, `replicates x tasks x (steps or 1) x features`.
        encoded: number of transitions that were encoded for them, in each replicate.
    """

    steps: Steps
    before: Posterior
    after: Posterior
    encoded: int


@hyperparameters
class Context(Part):
    """Base: a belief about the opponents as a function of evidence, which an actor's memory accumulates.

    Attributes:
        features: number of coordinates of the belief.
        is_point: whether beliefs are points instead of normals.
        is_told: whether the context is given the task.
        needs_tasks: whether tasks are needed, which say which episodes are against the same opponents.
        from_their_beginning: whether it learns only from trials that are complete from their first step on.
    """

    is_point: ClassVar[bool] = True
    is_told: ClassVar[bool] = False
    needs_tasks: ClassVar[bool] = True
    from_their_beginning: ClassVar[bool] = False

    features: int = field(init=False)
    layout: Rows = field(init=False)

    def setup(self) -> None:
        """Create the layout of steps as rows."""
        self.layout = Rows(self.seat)

    def zeros(self, *shape: int) -> Tensor:
        """Zeros of the seat's type."""
        return torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device)

    @abstractmethod
    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """The evidence at the start of a trial by name, `replicates x environments x ...`."""
        raise NotImplementedError(f"{type(self).__name__}.initial_evidence is not defined")

    def begin(self, start: Start) -> Memory:
        """The evidence at the start of the tasks of `start`."""
        return self.initial_evidence(*start.episode.shape)

    @abstractmethod
    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """Add a step, `replicates x environments x row`, to the evidence."""
        raise NotImplementedError(f"{type(self).__name__}.gather is not defined")

    @abstractmethod
    def read(self, evidence: Memory) -> Posterior:
        """The belief given the evidence, `replicates x environments x features`."""
        raise NotImplementedError(f"{type(self).__name__}.read is not defined")

    @abstractmethod
    def draw(self, trials: Trials, groups: Tensor, count: int, by_episode: bool) -> Drawn:
        """Draw steps to learn from, and compute the beliefs at them, with gradients.

        Args:
            trials: the replay buffer.
            groups: groups of trials to draw from, `replicates x tasks`, see `Trials.draw_tasks`.
            count: number of steps of each task.
            by_episode: whether beliefs are fixed within an episode.
        """
        raise NotImplementedError(f"{type(self).__name__}.draw is not defined")


@hyperparameters
class Told(Context):
    """An oracle context: the opponents' hidden type, as given by the game (`Game.hidden_type`)."""

    is_told = True

    def setup(self) -> None:
        """Look up the number of coordinates of a type.

        Raises:
            IncompatibleError: if the game has no hidden type.
        """
        super().setup()
        self.features = self.types(torch.zeros(self.seat.replicates, 1, dtype=torch.int64)).shape[-1]

    def types(self, task: Tensor) -> Tensor:
        """The hidden types of tasks, `replicates x tasks` to `... x features`.

        Raises:
            IncompatibleError: if the game has no hidden type.
        """
        game = self.seat.game
        found = None if game is None else game.hidden_type(task.to(self.seat.device))
        if found is None:
            name = "rules that are not this package's" if game is None else type(game).__name__
            raise IncompatibleError(f"Told got {name}, without hidden_type, expected a game that gives it")
        return found.to(dtype=self.seat.dtype, device=self.seat.device)

    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """Zeros, before a task is given."""
        return {"told": self.zeros(replicates, environments, self.features)}

    def begin(self, start: Start) -> Memory:
        """The types of the tasks.

        Raises:
            IncompatibleError: if there are no tasks.
        """
        if start.task is None:
            raise IncompatibleError("Told got no task, expected the key tasks, of the experiment or of its evaluation")
        return {"told": self.types(start.task)}

    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """Return the evidence unchanged."""
        return {"told": evidence["told"]}

    def read(self, evidence: Memory) -> Posterior:
        """The type as a point."""
        return Posterior(evidence["told"])

    def draw(self, trials: Trials, groups: Tensor, count: int, by_episode: bool) -> Drawn:
        """See `Context`."""
        told = Posterior(self.types(trials.table.task.gather(1, groups)).unsqueeze(2))
        return Drawn(trials.draw_steps(groups, count), told, told, 0)


class _Nothing(Context):
    """A context without evidence and belief."""

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
    """The context of `Pearl` with `context=None`, not yet bound."""
    return _Nothing()
