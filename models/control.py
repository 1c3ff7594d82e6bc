"""One step of play as a generative model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor

from inference_marl.inference.plates import replicate_and_batch
from inference_marl.models.critics import Critic
from inference_marl.models.optimality import Optimality
from inference_marl.models.priors import OpponentPrior
from inference_marl.types import Seat


class ControlModel(PyroModule):
    """One agent's model of one step of play::

        b ~ P(b | s)                     # site `opponent_action`, weight beta (1 in the paper)
        a ~ Uniform(A)                   # site `action`, weight alpha
        log p(o = 1 | s, a, b) = Q(s, a, b) + const      # site `optimality`, observed

    With a guide `rho(b | s) pi(a | s, b)` the ELBO is Eq. 7 of Tian et al. (2019), with the weight alpha of their
    Section 3.1 on the entropy and minus the constant `alpha log|A|`, because the uniform policy is normalised
    here. The weights are `poutine.scale` on the sites, in the model and in the guide.

    Shapes: `obs` is `replicates x batch x event`; sites are `[extra x] replicates x batch | event`.

    Attributes:
        opponent_prior: `P(b | s)`.
        critic: `Q(s, a, b)`.
        temperature: alpha, positive; the learner sets it before each use.
        kl_weight: beta, positive; likewise.
    """

    def __init__(self, seat: Seat, opponent_prior: OpponentPrior, critic: Critic, optimality: Optimality) -> None:
        super().__init__()
        self.seat = seat
        self.opponent_prior = opponent_prior
        self.critic = critic
        self.optimality = optimality
        self.temperature = 1.0
        self.kl_weight = 1.0
        self._read = (critic,)

    @contextmanager
    def reading(self, critic: Critic) -> Iterator[None]:
        """Let the model, and any guide in closed form, read another critic inside, such as a target critic."""
        before, self._read = self._read, (critic,)
        try:
            yield
        finally:
            self._read = before

    def q(self, obs: Tensor, action: Tensor, opponent_action: Tensor) -> Tensor:
        """The critic's value, `[extra x] replicates x batch`."""
        value: Tensor = self._read[0](obs, action, opponent_action)
        return value

    def q_table(self, obs: Tensor) -> Tensor:
        """All values at `obs`, `replicates x batch x actions x opponent_actions`; discrete spaces only."""
        return self._read[0].table(obs)

    def forward(self, obs: Tensor) -> None:
        """The generative process; `obs` is `replicates x batch x event`."""
        with replicate_and_batch(obs):
            with poutine.scale(scale=self.kl_weight):
                opponent_action = pyro.sample("opponent_action", self.opponent_prior(obs))
            with poutine.scale(scale=self.temperature):
                action = pyro.sample("action", self.seat.action.uniform(self.seat.dtype, self.seat.device))
            self.optimality(self.q(obs, action, opponent_action))
