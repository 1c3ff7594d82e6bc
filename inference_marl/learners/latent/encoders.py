"""Contexts that encode a trial's transitions, by a product of normals or a recurrent unit."""

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
"""Lower bound of a factor's variance, so that no single transition determines z."""


@hyperparameters
class GaussianFactors(Context):
    """PEARL's encoder, a product of normal factors: `q(z | c) ∝ N(z; 0, I) prod_n N(z; m(c_n), s(c_n))`.

    Each transition is a factor, in any order (Rakelly et al. 2019, Eq. 2). A product of normals is a normal, whose
    precision is the sum of theirs, so the evidence consists of the sums of precisions and of weighted means, to which a
    transition is added at constant cost. Factors are not recomputed when the encoder changes, whereas the authors' code
    encodes the whole context anew.

    In training, the context of a task is a random set of transitions of one of its recent trials, all equally likely.
    In the authors' code it is drawn from the most recent transitions and has a fixed size; here the size varies from 0
    on, as in play. z has to explain steps of any trial of the task or, with `explains="context"`, those of the context
    itself. With a `kl_weight` of 1 over their mean number (2 / `context_steps`, if trials are as long), minus the loss
    of a learner trained by opponents is then the ELBO of the contexts per transition, so that the width of the
    posterior is determined by the evidence and not by a tuned weight.

    Args:
        latent: number of coordinates of z.
        hidden: widths of the encoder's hidden layers.
        prior_factor: whether the prior is a factor, as in Bayes' rule. In the authors' code it is not: the prior is
            used before the first transition only, and afterwards only the factors determine the width.
        explains: see above.
        context_steps: maximum number of transitions of a context in training.
        least_context_steps: minimum number, if the trial has as many.
        recent_trials: number of the most recent trials of a task from which a context is drawn.
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
        """Create the network of factors."""
        super().setup()
        self.features = self.latent
        self.network = MLP(self.seat, self.layout.features, 2 * self.latent, self.hidden)

    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """Precisions and weighted means of 0."""
        shape = (replicates, environments, self.latent)
        return {"precision": self.zeros(*shape), "weighted": self.zeros(*shape)}

    def factors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Precisions of the factors of rows, and means times precisions, `replicates x batch x latent`."""
        mean, spread = self.network(rows).chunk(2, -1)
        precision = (softplus(spread) + LEAST_VARIANCE).reciprocal()
        return precision, precision * mean

    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """Add the factor of a step."""
        precision, weighted = self.factors(rows)
        return {"precision": evidence["precision"] + precision, "weighted": evidence["weighted"] + weighted}

    def read(self, evidence: Memory) -> Posterior:
        """The product of the factors."""
        total = evidence["precision"]
        total = total + 1 if self.prior_factor else torch.where(total == 0, 1.0, total)
        return Posterior(evidence["weighted"] / total, total.rsqrt())

    def forward(self, rows: Tensor, there: Tensor | None = None) -> Posterior:
        """Compute q(z | c), `replicates x tasks x latent`.

        Args:
            rows: transitions, `replicates x tasks x steps x row`.
            there: which rows are transitions and not padding, bool, without the last dimension; `None` for all.
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
    """A recurrent encoder: the state of a gated recurrent unit after the trial's transitions, a point without a KL.

    It learns from whole trials, one of each task, from their first transition on (or from the first one left, for a
    trial longer than the replay buffer), so that states in training are distributed as in play. Since this encodes all
    their steps anyway, `every_step` also learns from all of them.

    Args:
        hidden: number of hidden units.
        every_step: whether an update learns from all steps of a trial, or from random ones, as many as the learner's
            `batch`.
    """

    from_their_beginning = True

    hidden: Count = 64
    every_step: bool = True
    unit: BatchedGRU = field(init=False)

    def setup(self) -> None:
        """Create the recurrent unit."""
        super().setup()
        seat, self.features = self.seat, self.hidden
        inputs = self.layout.features
        self.unit = BatchedGRU(seat.replicates, inputs, self.hidden, device=seat.device, dtype=seat.dtype)

    def initial_evidence(self, replicates: int, environments: int) -> Memory:
        """A hidden state of 0."""
        return {"hidden": self.zeros(replicates, environments, self.hidden)}

    def gather(self, evidence: Memory, rows: Tensor) -> Memory:
        """Advance the hidden state by a step."""
        return {"hidden": self.unit(rows, evidence["hidden"])}

    def read(self, evidence: Memory) -> Posterior:
        """The hidden state as a point."""
        return Posterior(evidence["hidden"])

    def states(self, rows: Tensor) -> Tensor:
        """The hidden states before each step and after the last, `replicates x tasks x (steps + 1) x hidden`."""
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
        if by_episode:  # the state at the start of the episode
            begins = pad(steps.ended[..., :-1], (1, 0), value=True)
            first = torch.where(begins, torch.arange(length, device=states.device), 0).cummax(-1).values
            before = after = first.gather(-1, place)
        chosen = steps if self.every_step else _taken(steps, place)
        found = [states.gather(2, each.unsqueeze(-1).expand(*each.shape, self.hidden)) for each in (before, after)]
        return Drawn(chosen, Posterior(found[0]), Posterior(found[1]), groups.shape[1] * length)


def _taken(steps: Steps, place: Tensor) -> Steps:
    """Select steps of each task by index, `replicates x tasks x count`."""
    rows = steps.rows.gather(2, place.unsqueeze(-1).expand(*place.shape, steps.rows.shape[-1]))
    return Steps(rows, steps.terminated.gather(2, place), steps.ended.gather(2, place))
