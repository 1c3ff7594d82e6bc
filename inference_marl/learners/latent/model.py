"""The generative model of a learner's trials, and its guide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference_marl.inference.factored import opponent_sites
from inference_marl.inference.plates import OpenPlates
from inference_marl.inference.schedules import Number
from inference_marl.learners.latent.contexts import Drawn, Posterior
from inference_marl.learners.latent.networks import OF_TASKS, OpponentActions, Outcomes, Twins
from inference_marl.learners.latent.rows import Apart

CONTEXT = "context"
"""The name of the site of z."""

ActorReads = Literal["draw", "moments", "forecasts"]
CriticReads = Literal["draw", "moments", "actions"]


def reading(how: str, believed: Posterior, z: Tensor) -> Tensor:
    """The input of a network from a belief, `... x features`: a `draw` of z, or its `moments`, mean and sd.

    For a point, both are the point.
    """
    return z if how == "draw" or believed.sd is None else torch.cat([believed.mean, believed.sd], -1)


@dataclass(eq=False, repr=False)
class TrialModel:
    """The model of trials of several tasks, given z, which represents the opponents of a task::

        z   ~ N(0, I)                          in plates replicate, task; the site `context`
        y_k ~ N(Q_k(s, a, z), 1/2), k = 0, 1    and batch: TD targets of two critics, the sites `target_k`
        b_j ~ P(b_j | s, z)                    likewise, every opponent's action, if there is an opponent model
        r ~ P(r | s, a, b, z), s' ~ P(s' | s, a, b, z)      and the sites `reward` and `next_obs`, if z explains these

        guide:  z ~ q(z | c)

    The log-density of a normal of variance 1/2 is minus the squared error, so minus the ELBO is the critics' loss of
    PEARL (Rakelly et al. 2019, Eq. 1 and 3) up to a constant. The targets depend on z too, but without gradients. If
    the belief is a point, z is this point, and the guide is empty.

    The site of z is scaled in the guide as in the model: Pyro takes the scale of an analytic KL from the guide alone
    and would ignore one in the model. With `batch` steps of each task the scale is `kl_weight` times `batch`, so that
    minus the ELBO, divided by tasks times steps, is

        (mean over steps of squared errors - log P(b | s, z)) + kl_weight (mean over tasks of KL(q(z | c) || N(0, I)))

    with -log P(r | s, a, b, z) - log P(s' | s, a, b, z) added to the first term, if z explains these.

    Args:
        drawn: the data.
        seen: the parts of its rows.
        critics: the critics Q.
        critic_reads: the input of Q from the belief about z, or the opponents' `actions` in its place, for Q(s, a, b).
        leads_encoder: whether the encoder gets Q's gradient.
        opponents: P(b | s, z), if any.
        outcomes: P(r | s, a, b, z) and P(s' | s, a, b, z), if any.
        unit: unit of rewards in `outcomes`, a number or `replicates x 1 x 1`.
        target: maps z to targets, `replicates x tasks x steps`.
        kl_weight: weight of the KL, a number or `replicates x 1 x 1`.

    Attributes:
        z: the last draw, without gradients.
        squared_error: mean squared error of the critics, `replicates`.
        opponent_nll: mean of -log P(b | s, z), likewise.
    """

    drawn: Drawn
    seen: Apart
    critics: Twins
    critic_reads: CriticReads
    leads_encoder: bool
    opponents: OpponentActions | None
    outcomes: Outcomes | None
    unit: Number
    target: Callable[[Tensor], Tensor]
    kl_weight: Number
    z: Tensor = field(init=False)
    squared_error: Tensor = field(init=False)
    opponent_nll: Tensor | None = None

    def __call__(self) -> None:
        """Run the model."""
        plates = OF_TASKS.open(self.seen.reward.shape)
        mean, sd = self.drawn.before
        z = mean if sd is None else self._sampled(plates, dist.Normal(torch.zeros_like(mean), 1.0, validate_args=False))
        self.z = z.detach()
        believed = self.drawn.before if self.leads_encoder else self.drawn.before.detach()
        if self.critic_reads == "actions":
            given = torch.cat(self.seen.opponent_actions, -1)
        else:
            given = reading(self.critic_reads, believed, z if self.leads_encoder else self.z)
        target = self.target(self.z)
        values = self.critics(self.seen.obs, given, self.seen.action)
        self.squared_error = self.mean(sum((value.detach() - target).square() for value in values) / len(values))
        with plates.within(), self._of_steps():
            for number, value in enumerate(values):
                pyro.sample(f"target_{number}", dist.Normal(value, math.sqrt(0.5), validate_args=False), obs=target)
            if self.opponents is not None:
                self._opponents_act(self.opponents, z)
            if self.outcomes is not None:
                seen = self.seen
                reward, after = self.outcomes(seen.obs, seen.action, *seen.opponent_actions, z)
                pyro.sample("reward", reward, obs=seen.reward / self.unit)
                pyro.sample("next_obs", after, obs=seen.next_obs)

    def guide(self) -> None:
        """Run the guide: z given its context."""
        mean, sd = self.drawn.before
        if sd is not None:
            self._sampled(OF_TASKS.open(self.seen.reward.shape), dist.Normal(mean, sd, validate_args=False))

    def _sampled(self, plates: OpenPlates, normal: dist.Normal) -> Tensor:
        weight = self.kl_weight * self.seen.reward.shape[-1]
        with plates.within("replicate", "task"), poutine.scale(scale=weight):
            z: Tensor = pyro.sample(CONTEXT, normal.to_event(1))
        return z

    def _opponents_act(self, opponents: OpponentActions, z: Tensor) -> None:
        total: Tensor | float = 0.0
        acts = opponents(self.seen.obs, z)
        for name, act, action in zip(opponent_sites(len(acts)), acts, self.seen.opponent_actions, strict=True):
            pyro.sample(name, act, obs=action)
            total = total - act.log_prob(action).detach()
        self.opponent_nll = self.mean(torch.as_tensor(total))

    @contextmanager
    def _of_steps(self) -> Iterator[None]:
        """Context that masks padding, if trials have different lengths, and rescales the remaining steps."""
        there = self.drawn.steps.there
        if there is None:
            yield
            return
        share = there.to(self.seen.reward.dtype).mean((1, 2), keepdim=True).clamp_min(1 / there[0].numel())
        only: Any = poutine.mask(mask=cast(torch.BoolTensor, there))
        with only, poutine.scale(scale=share.reciprocal()):
            yield

    def mean(self, values: Tensor) -> Tensor:
        """Means over actual steps, `replicates`, of `replicates x tasks x steps`."""
        there = self.drawn.steps.there
        if there is None:
            return values.mean((1, 2))
        return (values * there).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)
