"""An opponent prior fitted by gradient descent to the opponents' recent actions."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.infer import Trace_ELBO
from torch import Tensor

from inference_marl.described import Clip, Count, IncompatibleError, Positive, within
from inference_marl.inference.conditional import Conditional, need_density
from inference_marl.inference.factored import Factored, as_factored, opponent_sites
from inference_marl.inference.opponents import Independent, bind_over_opponents, for_each
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.replay import Ring, entries_of
from inference_marl.inference.schedules import ByReplicate
from inference_marl.inference.svi import elbo_loss, no_guide
from inference_marl.models.priors import OpponentPrior


class Amortised(OpponentPrior):
    """`P_psi(b | s)`: a conditional fitted to the opponents' recent actions by maximum likelihood::

        b ~ P_psi(b | s)                 # site `opponent_action`, or one per opponent, observed at their actions

    This is the prior of ROMMEO-AC (Tian et al. 2019, Algorithm 2).

    Args:
        conditional: the family, such as `TanhNormalNetwork` or `CategoricalNetwork`. With several opponents a network
            is copied for each of them, see `Independent`, and `Tabular` models their joint action.
        window: observations remembered per replicate. The authors' code fits to the most recent batch; a short window
            lets the prior follow the policy into a local optimum and hold the opponent model there.
        batch_size: observations drawn from the window per step.
        steps: gradient steps per update.
        learning_rate: Adam's step size, positive.
        max_gradient_norm: clip each replicate's gradient; `None` for no clipping.
    """

    by_replicate = frozenset({"learning_rate"})
    over = "each"

    def __init__(
        self,
        conditional: Conditional,
        window: Count = 10_000,
        batch_size: Count = 256,
        steps: Count = 1,
        learning_rate: Positive | ByReplicate = 1e-2,
        max_gradient_norm: Clip = None,
    ) -> None:
        super().__init__()
        self.conditional = conditional
        self.window, self.batch_size, self.steps = window, batch_size, steps
        self.learning_rate, self.max_gradient_norm = learning_rate, max_gradient_norm

    def setup(self) -> None:
        """Bind the conditional and create its optimiser and its buffer of observations.

        Raises:
            IncompatibleError: if the conditional does not fit the opponents' action spaces, or has no parameters.
        """
        with within("conditional"):
            need_density(self.conditional)
            conditional = for_each(self.conditional, self.seat, Independent)
            self.conditional = bind_over_opponents(conditional, self.seat, self.parents)
        parameters = list(self.conditional.parameters())
        if not parameters:
            raise IncompatibleError(
                f"got {type(self.conditional).__name__}, which has no parameters to fit, expected one that has, such "
                "as TanhNormalNetwork, CategoricalNetwork or Tabular",
                key="conditional",
            )
        self.names = opponent_sites(len(self.seat.opponents))
        spaces = {"obs": self.parents[0], **dict(zip(self.names, self.seat.opponent_actions, strict=True))}
        self.observed = Ring(self.seat, self.window, entries_of(spaces, self.seat.dtype))
        self.optimiser = Optimiser("opponent prior", parameters, self.learning_rate, self.max_gradient_norm)

    @property
    def full_support(self) -> bool:
        """See `Conditional`."""
        return self.conditional.full_support

    def likelihood(self, obs: Tensor, *opponent_actions: Tensor) -> None:
        """The Pyro model of the class docstring."""
        with ONE_STEP.open(ONE_STEP.sizes(obs, self.parents[0].event_shape)).within():
            as_factored(self.conditional(obs), self.seat.opponent_actions).sites(self.names, obs=opponent_actions)

    def observe(self, obs: Tensor, *opponent_actions: Tensor) -> None:
        """Store the newest observations."""
        self.observed.push({"obs": obs, **dict(zip(self.names, opponent_actions, strict=True))})

    def fit(self) -> None:
        """Take gradient steps on the stored observations."""
        for _ in range(self.steps):
            batch = self.observed.sample(self.batch_size)
            data = batch["obs"], *(batch[name] for name in self.names)
            self.optimiser.step(elbo_loss(Trace_ELBO(), self.likelihood, no_guide, self.batch_size, *data))

    def forward(self, *parents: Tensor) -> Factored | dist.TorchDistribution:
        """The conditional at `obs`."""
        distribution: Factored | dist.TorchDistribution = self.conditional(*parents)
        return distribution
