"""A hierarchical prior for similar opponents: the actions of each inform the predictions of the others."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn.functional import one_hot

from inference_marl.described import Count, IncompatibleError, Positive
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.plates import OpenPlates, Plates
from inference_marl.inference.svi import elbo_loss, estimator
from inference_marl.models.counts import TabularCounts, Window


class HierarchicalDirichlet(TabularCounts):
    """A hierarchical Dirichlet prior: in each state, the opponents' strategies vary around a common one::

        mu_s ~ Dirichlet(1, ..., 1)                             # site `common_strategy`
        theta_sj ~ Dirichlet(strength mu_s)                     # of opponent j
        b_j ~ Categorical(theta_sj)                             # counts: site `opponent_counts`

        q(mu_s) = Dirichlet(concentration_s)                    # fitted by SVI
        P(b | s) = prod_j E_q[theta_sj | counts] = prod_j (count_sj + strength E_q[mu_s]) / (total_s + strength)

    The strategies are integrated out: given `mu` an opponent's counts are Dirichlet-multinomial. A new state starts
    uniform; from the first observation on, each opponent's prediction is shrunk towards the actions of the others, less
    so the more data there are on that opponent. The mean-field ELBO has the KL divergence of `q(mu)` in closed form, so
    an unseen state stays exactly at its prior. Discrete states and actions.

    Args:
        strength: similarity of the opponents, as a number of observations: the common strategy weighs as much as that
            many of an opponent's own actions. Small values treat opponents separately, large ones as identical.
        window: joint observations remembered per replicate; `None` for all.
        steps: gradient steps per update.
        learning_rate: Adam's step size on the logarithm of the concentration, positive.
        particles: draws of `mu` per gradient.
    """

    plates = Plates(("replicate", "state", "opponent"))
    played: Tensor

    def __init__(
        self,
        strength: Positive = 10.0,
        window: Window = None,
        steps: Count = 5,
        learning_rate: Positive = 0.05,
        particles: Count = 4,
    ) -> None:
        super().__init__(window)
        self.strength, self.steps, self.learning_rate, self.particles = strength, steps, learning_rate, particles

    def setup(self) -> None:
        """Start without observations and with `q(mu)` at its prior, `replicates x states x actions`.

        Raises:
            IncompatibleError: if the opponents have different numbers of actions.
        """
        super().setup()
        actions = [self.seat.action_spaces[agent].features for agent in self.seat.opponents]
        if len(set(actions)) != 1:
            raise IncompatibleError(
                f"HierarchicalDirichlet got opponents with {', '.join(map(str, actions))} actions, expected equally "
                "many, since their strategies have a mean in common; use DirichletMultinomial"
            )
        # Which action each opponent plays in each joint action: one-hot, `joint_actions x opponents x actions`.
        grid = torch.cartesian_prod(*(torch.arange(n, device=self.seat.device) for n in actions))
        self.register_buffer("played", one_hot(grid.view(-1, len(actions)), actions[0]).to(self.seat.dtype))
        self.log_concentration = nn.Parameter(self.counts.new_zeros(*self.counts.shape[:2], actions[0]))
        self.elbo = estimator(TraceMeanField_ELBO, self.particles, self.plates)
        self.optimiser = Optimiser("opponent prior", [self.log_concentration], self.learning_rate)

    def _each(self, counts: Tensor) -> Tensor:
        """Each opponent's own counts, `... x opponents x actions`, from counts of joint actions."""
        return torch.einsum("...b,bja->...ja", counts, self.played)

    def _open(self) -> OpenPlates:
        replicates, states, _ = self.counts.shape
        return self.plates.open((replicates, states, self.played.shape[1]))

    def likelihood(self) -> None:
        """The Pyro model of the class docstring, for all remembered observations."""
        counts = self._each(self.counts)
        plates = self._open()
        with plates.within("replicate", "state"):
            common = pyro.sample("common_strategy", dist.Dirichlet(torch.ones_like(counts[:, :, :1])))
            with plates.within("opponent"):
                strategies = dist.DirichletMultinomial(self.strength * common, counts.sum(-1))
                pyro.sample("opponent_counts", strategies, obs=counts)

    def approximation(self) -> None:
        """The Pyro guide: `q(mu)`."""
        with self._open().within("replicate", "state"):
            pyro.sample("common_strategy", dist.Dirichlet(self.log_concentration.exp().unsqueeze(-2)))

    def fit(self) -> None:
        """Fit `q(mu)` to the remembered observations."""
        for _ in range(self.steps):
            self.optimiser.step(elbo_loss(self.elbo, self.likelihood, self.approximation, self.counts.shape[1]))

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The predictive at `obs`: independent opponents, each with its own mean strategy."""
        common = self.log_concentration[self.seat.rows, obs].softmax(-1).unsqueeze(-2)
        logits = (self._each(self.counts_at(obs)) + self.strength * common).log()
        return dist.Categorical(logits=torch.einsum("...ja,bja->...b", logits, self.played))
