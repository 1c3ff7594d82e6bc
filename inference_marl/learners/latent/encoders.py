"""Encoders of what an agent has seen in a trial: a product of normals, or a recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from inference_marl.described import Count, Whole, hyperparameters
from inference_marl.inference.networks import MLP, BatchedGRU
from inference_marl.learners.latent.contexts import Context, Drawn, Posterior
from inference_marl.learners.latent.trials import Steps, Trials
from inference_marl.types import Memory

LEAST_VARIANCE = 1e-3
"""Of a factor, so that no single transition says everything."""


@hyperparameters
class GaussianFactors(Context):
    """q(z | c) proportional to N(z; 0, I) prod_n N(z; m(c_n), s(c_n)): each transition is a factor, in any order.

    The encoder of PEARL (Rakelly et al. 2019, Eq. 2). A product of normals is a normal, whose precision is the sum of
    theirs, so the sums of precisions and of weighted means are all the evidence there is, and a transition more is two
    additions. What was added stays as the encoder saw it then, where the authors' code encodes the whole context anew.

    In training, the context of a task is a set of transitions of one recent trial of it, each as likely. In the
    authors' code it is of what was played most lately, and has always the same size; here that varies from none on, as
    it does in play. What z has to explain are steps of any trial of the task, or, with `explains="context"`, those of
    the context itself. With a `kl_weight` of 1 over their mean number (2 / `context_steps`, if trials are as long),
    minus the loss of a learner trained by opponents is then the ELBO of the contexts, per transition: what is believed
    is as wide as the evidence says, and not as some weight does.

    Args:
        latent: coordinates of z.
        hidden: widths of the encoder's hidden layers.
        prior_factor: whether the prior is a factor, as in Bayes' rule. In the authors' code it is not: there z has its
            prior before the first transition only, and the width of the factors is all there is afterwards.
        explains: see above.
        context_steps: most transitions of a context in training.
        least_context_steps: fewest, as long as the trial has as many.
        recent_trials: a context is of one of the last so many trials of its task.
    """

    is_point = False

    latent: Count = 6
    hidden: Sequence[Count] = (64, 64)
    prior_factor: bool = True
    explains: Literal["trials", "context"] = "trials"
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
        steps = context if self.explains == "context" else trials.draw_steps(groups, count)
        return Drawn(steps, believed, believed, encoded)


@hyperparameters
class Recurrent(Context):
    """The state of a gated recurrent unit that has read the trial's transitions in order: a point, without a KL.

    It learns from whole trials, one of each task, from their first transition on (or, of a trial longer than the
    replay, from the first that is left), so in training it meets the states that it is in when it plays. That needs
    the time of all their steps, so with `every_step` all of these are learned from, however many; without it as many
    as learners with another context learn from.

    Args:
        hidden: units.
        every_step: whether an update learns from all steps of a trial, or from so many of them, drawn at random, as the
            learner's `batch` says.
    """

    from_their_beginning = True

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
