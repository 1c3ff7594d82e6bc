"""Opponents who are alike: what one of them does tells something about the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn.functional import one_hot

from inference_marl.described import IncompatibleError
from inference_marl.inference.svi import Fit, check_step_size
from inference_marl.models.priors import TabularCounts


class HierarchicalDirichlet(TabularCounts):
    """Opponents' strategies scatter around a common one, in each state::

        mu_s ~ Dirichlet(1, ..., 1)                             # site `common_strategy`
        theta_sj ~ Dirichlet(strength mu_s)                     # of opponent j
        b_j ~ Categorical(theta_sj)                             # counts: site `opponent_counts`

        q(mu_s) = Dirichlet(concentration_s)                    # fitted by SVI
        P(b | s) = prod_j E_q[theta_sj | counts] = prod_j (count_sj + strength E_q[mu_s]) / (total_s + strength)

    The strategies are integrated out: given `mu` an opponent's counts are Dirichlet-multinomial. A new state starts
    uniform; from the first observation on, each opponent's forecast leans on what the others did, less so the more
    there is of its own. The mean-field ELBO has the KL divergence of `q(mu)` in closed form, so a state that was never
    seen stays at its prior exactly. Discrete states and actions.

    Args:
        strength: how alike the opponents are, in observations: what they have in common weighs as much as that many
            of an opponent's own actions. Small values keep them apart, large ones make them one.
        window: joint observations remembered per replicate; `None` for all.
        steps: gradient steps per observation.
        learning_rate: Adam's step size, on the logarithm of the concentration.
        particles: draws of `mu` per gradient.

    Raises:
        ValueError: if a number is not positive.
    """

    played: Tensor

    def __init__(
        self,
        strength: float = 10.0,
        window: int | None = None,
        steps: int = 5,
        learning_rate: float = 0.05,
        particles: int = 4,
    ) -> None:
        super().__init__(window)
        if not strength > 0:
            raise ValueError(f"strength: got {strength}, expected a positive number")
        for name, number in [("steps", steps), ("particles", particles)]:
            if number < 1:
                raise ValueError(f"{name}: got {number}, expected a positive integer")
        check_step_size(learning_rate, None)
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
        self.optimisation = Fit(
            "opponent prior",
            TraceMeanField_ELBO(num_particles=self.particles, vectorize_particles=True, max_plate_nesting=3),
            self.likelihood,
            self.approximation,
            [self.log_concentration],
            learning_rate=self.learning_rate,
        )

    def _each(self, counts: Tensor) -> Tensor:
        """Each opponent's own counts, `... x opponents x actions`, from counts of joint actions."""
        return torch.einsum("...b,bja->...ja", counts, self.played)

    @contextmanager
    def _replicates_and_states(self) -> Iterator[None]:
        replicates, states, _ = self.counts.shape
        with pyro.plate("replicate", replicates, dim=-3), pyro.plate("state", states, dim=-2):
            yield

    def likelihood(self) -> None:
        """The Pyro model of the class docstring, for all that is remembered."""
        counts = self._each(self.counts)
        with self._replicates_and_states():
            common = pyro.sample("common_strategy", dist.Dirichlet(torch.ones_like(counts[:, :, :1])))
            with pyro.plate("opponent", counts.shape[2], dim=-1):
                strategies = dist.DirichletMultinomial(self.strength * common, counts.sum(-1))
                pyro.sample("opponent_counts", strategies, obs=counts)

    def approximation(self) -> None:
        """The Pyro guide: `q(mu)`."""
        with self._replicates_and_states():
            pyro.sample("common_strategy", dist.Dirichlet(self.log_concentration.exp().unsqueeze(-2)))

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        """Count the newest observations and fit `q(mu)` to what is remembered.

        Raises:
            NonFiniteError: if the loss is not finite.
        """
        super().observe(obs, opponent_action)
        for _ in range(self.steps):
            self.optimisation.step(self.counts.shape[1])

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The predictive at `obs`: opponents are independent, each with its own mean strategy."""
        common = self.log_concentration[self.seat.rows, obs].softmax(-1).unsqueeze(-2)
        logits = (self._each(self.counts_at(obs)) + self.strength * common).log()
        return dist.Categorical(logits=torch.einsum("...ja,bja->...b", logits, self.played))
