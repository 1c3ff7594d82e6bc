"""The generative model of one step of play."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyro
from pyro import poutine
from torch import Tensor

from inference_marl.inference.factored import Factored, as_factored, opponent_sites
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.schedules import Number
from inference_marl.models.critics import Critic
from inference_marl.models.optimality import Optimality
from inference_marl.models.priors import OpponentPrior
from inference_marl.types import Seat


@dataclass(frozen=True)
class ControlModel:
    """One agent's model of one step of play::

        b ~ P(b | s)                     # site `opponent_action`, or one per opponent; weight beta (1 in the paper)
        a ~ Uniform(A)                   # site `action`, weight alpha
        log p(o = 1 | s, a, b) = Q(s, a, b) + const      # site `optimality`, observed

    With a guide `rho(b | s) pi(a | s, b)` the ELBO is Eq. 7 of Tian et al. (2019), with the weight alpha of their
    Section 3.1 on the entropy, minus the constant `alpha log|A|` because the uniform policy is normalised here. The
    weights are `poutine.scale` on the sites, in the model and in the guide.

    The object only combines bound parts and is cheap to create: `dataclasses.replace` gives the same model with another
    temperature or a target critic.

    Shapes: `obs` is `replicates x batch x event`; sites are `[extra x] replicates x batch | event`.

    Attributes:
        seat: the agent's place in the game.
        prior: `P(b | s)`, bound.
        critic: `Q(s, a, b)`, bound.
        optimality: likelihood of optimality given a value.
        temperature: alpha, positive.
        kl_weight: beta, positive.
    """

    seat: Seat
    prior: OpponentPrior
    critic: Critic
    optimality: Optimality
    temperature: Number = 1.0
    kl_weight: Number = 1.0

    def opponent_prior(self, obs: Tensor) -> Factored:
        """`P(b | s)`, batch shape `[extra x] replicates x batch`."""
        return as_factored(self.prior.given(self, obs), self.seat.opponent_actions)

    def at(self, obs: Tensor) -> AtOnce:
        """Return this model at the fixed observations `obs`, with the values that guides read computed once."""
        return AtOnce(self, self.opponent_prior(obs), self.q_table(obs))

    def q(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """The critic's value, `[extra x] replicates x batch`."""
        value: Tensor = self.critic(obs, action, *opponent_actions)
        return value

    def q_table(self, obs: Tensor) -> Tensor:
        """All values at `obs`, `replicates x batch x actions x (opponents' joint actions)`; discrete spaces only."""
        return self.critic.table(obs)

    def __call__(self, obs: Tensor) -> None:
        """Run the generative process.

        Raises:
            ValueError: if `obs` is not `replicates x batch x event`.
        """
        sizes = ONE_STEP.sizes(obs, self.seat.observation.event_shape)
        with ONE_STEP.open(sizes).within():
            with poutine.scale(scale=self.kl_weight):
                opponent_actions = self.opponent_prior(obs).sites(opponent_sites(len(self.seat.opponents)))
            with poutine.scale(scale=self.temperature):
                action = pyro.sample("action", self.seat.action.uniform(self.seat.dtype, self.seat.device))
            self.optimality(self.q(obs, action, *opponent_actions))


class AtOnce(NamedTuple):
    """A `ControlModel` of discrete spaces at fixed observations, with its values cached; methods ignore their `obs`."""

    model: ControlModel
    prior: Factored
    table: Tensor

    @property
    def temperature(self) -> Number:
        """See `ControlModel`."""
        return self.model.temperature

    @property
    def kl_weight(self) -> Number:
        """See `ControlModel`."""
        return self.model.kl_weight

    def opponent_prior(self, obs: Tensor) -> Factored:
        """`P(b | s)`at the fixed observations."""
        return self.prior

    def q_table(self, obs: Tensor) -> Tensor:
        """`Q(s, ., .)`at the fixed observations."""
        return self.table
