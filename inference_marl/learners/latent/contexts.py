"""What an agent believes of the opponents it plays, from what it has seen in the trial so far."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from inference_marl.described import Count, IncompatibleError, Whole, hyperparameters
from inference_marl.inference.networks import MLP, BatchedGRU
from inference_marl.learners.latent.rows import Rows
from inference_marl.learners.latent.trials import Steps, Trials
from inference_marl.types import Memory, Part, Start

LEAST_VARIANCE = 1e-3
"""Of a factor, so that no single transition says everything."""


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
    """

    is_point: ClassVar[bool] = True
    is_told: ClassVar[bool] = False
    needs_tasks: ClassVar[bool] = True

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
class GaussianFactors(Context):
    """q(z | c) proportional to N(z; 0, I) prod_n N(z; m(c_n), s(c_n)): each transition is a factor, in any order.

    The encoder of PEARL (Rakelly et al. 2019, Eq. 2). A product of normals is a normal, whose precision is the sum of
    theirs, so the sums of precisions and of weighted means are all the evidence there is, and a transition more is two
    additions. What was added stays as the encoder saw it then, where the authors' code encodes the whole context anew.

    In training, the context of a task is a set of transitions of one recent trial of it, each as likely, and the
    steps that are learned from are of any trial. In the authors' code both are of what was played most lately, and the
    context has always the same size; here that varies from none on, as it does in play.

    Args:
        latent: coordinates of z.
        hidden: widths of the encoder's hidden layers.
        prior_factor: whether the prior is a factor, as in Bayes' rule. In the authors' code it is not: there z has its
            prior before the first transition only, and the width of the factors is all there is afterwards.
        context_steps: most transitions of a context in training.
        least_context_steps: fewest, as long as the trial has as many.
        recent_trials: a context is of one of the last so many trials of its task.
    """

    is_point = False

    latent: Count = 6
    hidden: Sequence[Count] = (64, 64)
    prior_factor: bool = True
    context_steps: Count = 30
    least_context_steps: Whole = 0
    recent_trials: Count = 6
    network: MLP = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)
        if self.least_context_steps > self.context_steps:
            raise ValueError(
                f"least_context_steps: got {self.least_context_steps}, expected at most context_steps, "
                f"{self.context_steps}"
            )

    def setup(self) -> None:
        """Create the network that makes factors."""
        super().setup()
        self.features = self.latent
        self.network = MLP(self.seat, self.layout.features, 2 * self.latent, self.hidden)

    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """No precision."""
        shape = (replicates, environments, self.latent)
        return {"precision": self.zeros(*shape), "weighted": self.zeros(*shape)}

    def factors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Precisions of factors, and their means times these, `replicates x batch x latent`, of rows."""
        mean, spread = self.network(rows).chunk(2, -1)
        precision = (softplus(spread) + LEAST_VARIANCE).reciprocal()
        return precision, precision * mean

    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """Add a factor."""
        precision, weighted = self.factors(rows)
        return {"precision": evidence["precision"] + precision, "weighted": evidence["weighted"] + weighted}

    def read(self, evidence: Memory) -> Posterior:
        """The product of the factors."""
        total = evidence["precision"]
        total = total + 1 if self.prior_factor else torch.where(total == 0, 1.0, total)
        return Posterior(evidence["weighted"] / total, total.rsqrt())

    def forward(self, rows: Tensor, there: Tensor | None = None) -> Posterior:
        """q(z | c), `replicates x tasks x latent`.

        Args:
            rows: transitions, `replicates x tasks x steps x row`.
            there: which of them count, bool, without the last dimension; `None` for all.
        """
        factors = [each.unflatten(1, rows.shape[1:3]) for each in self.factors(rows.flatten(1, 2))]
        if there is not None:
            factors = [each * there.unsqueeze(-1) for each in factors]
        precision, weighted = (each.sum(2) for each in factors)
        return self.read({"precision": precision, "weighted": weighted})

    def draw(self, trials: Trials, groups: Tensor, count: int, by_episode: bool) -> Drawn:
        """See `Context`; one belief per task."""
        recent = trials.draw_trials(groups, self.recent_trials)
        context = trials.draw_sets(recent, self.least_context_steps, self.context_steps)
        mean, sd = self(context.rows, context.there)
        believed = Posterior(mean.unsqueeze(2), sd.unsqueeze(2))
        encoded = context.rows.shape[1] * context.rows.shape[2]
        return Drawn(trials.draw_steps(groups, count), believed, believed, encoded)


@hyperparameters
class Recurrent(Context):
    """The state of a gated recurrent unit that has read the trial's transitions in order: a point, without a KL.

    It learns from whole trials, one of each task, from their first transition on, so in training it meets the states
    that it is in when it plays. That needs the time of all their steps, so with `every_step` all of these are learned
    from, however many; without it as many as learners with another context learn from.

    Args:
        hidden: units.
        every_step: whether an update learns from all steps of a trial, or from so many of them, drawn at random, as the
            learner's `batch` says.
    """

    hidden: Count = 64
    every_step: bool = True
    unit: BatchedGRU = field(init=False)

    def setup(self) -> None:
        """Create the unit."""
        super().setup()
        seat, self.features = self.seat, self.hidden
        inputs = self.layout.features
        self.unit = BatchedGRU(seat.replicates, inputs, self.hidden, device=seat.device, dtype=seat.dtype)

    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """A state of 0."""
        return {"hidden": self.zeros(replicates, environments, self.hidden)}

    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """The next state."""
        return {"hidden": self.unit(rows, evidence["hidden"])}

    def read(self, evidence: Memory) -> Posterior:
        """The state."""
        return Posterior(evidence["hidden"])

    def states(self, rows: Tensor) -> Tensor:
        """The states before each step of trials and after the last, `replicates x tasks x (steps + 1) x hidden`."""
        states = self.unit.unrolled(rows.permute(2, 0, 1, 3), self.zeros(*rows.shape[:2], self.hidden))
        return pad(states.permute(1, 2, 0, 3), (0, 0, 1, 0))

    def draw(self, trials: Trials, groups: Tensor, count: int, by_episode: bool) -> Drawn:
        """See `Context`; one belief per step."""
        steps = trials.whole(trials.draw_trials(groups))
        states, (*_, length, _) = self.states(steps.rows), steps.rows.shape
        place = torch.arange(length, device=states.device).expand(steps.ended.shape)
        if not self.every_step:
            assert steps.there is not None
            lengths = steps.there.sum(-1, keepdim=True)
            draws = torch.rand(*lengths.shape[:2], count, device=states.device, dtype=torch.float64)
            place = (draws * lengths).long()
        before, after = place, place + 1
        if by_episode:  # the state in which the episode began
            begins = pad(steps.ended[..., :-1], (1, 0), value=True)
            first = torch.where(begins, torch.arange(length, device=states.device), 0).cummax(-1).values
            before = after = first.gather(-1, place)
        chosen = steps if self.every_step else _taken(steps, place)
        found = [states.gather(2, each.unsqueeze(-1).expand(*each.shape, self.hidden)) for each in (before, after)]
        return Drawn(chosen, Posterior(found[0]), Posterior(found[1]), groups.shape[1] * length)


def _taken(steps: Steps, place: Tensor) -> Steps:
    """Some steps of each task, by place, `replicates x tasks x count`."""
    rows = steps.rows.gather(2, place.unsqueeze(-1).expand(*place.shape, steps.rows.shape[-1]))
    return Steps(rows, steps.terminated.gather(2, place), steps.ended.gather(2, place))


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
