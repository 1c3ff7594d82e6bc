"""The generative model of a whole episode."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch import Tensor

from inference_marl.described import expect
from inference_marl.inference.factored import Factored, as_factored, opponent_sites
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.schedules import Number
from inference_marl.inference.tables import tabulate
from inference_marl.models.critics import Critic
from inference_marl.models.dynamics import InitialState, TransitionModel
from inference_marl.models.optimality import Optimality
from inference_marl.models.priors import OpponentPrior
from inference_marl.types import Seat


@dataclass(frozen=True)
class TrajectoryModel:
    """One agent's model of `horizon` steps of play, with optimality observed at every step::

        s_0 ~ P(s_0)                                     # site `state_0`, or given
        for t = 0, ..., horizon - 1:
            b_t ~ P(b | s_t)                             # site `opponent_action_t`, or one per opponent (`..._0_t`)
            a_t ~ Uniform(A)                             # site `action_t`, weight alpha; that of b_t is beta
            log p(o_t = 1 | s_t, a_t, b_t) = R(s_t, a_t, b_t) + const      # site `optimality_t`, observed
            s_{t+1} ~ T(s_{t+1} | s_t, a_t, b_t)         # site `state_{t+1}`, weight 1; not after the last step

    This is Eq. 23 and 26 of Tian et al. (2019). With a guide that keeps the dynamics (Eq. 25) the transitions cancel
    and the ELBO is Eq. 32, whose maximum is the soft value of Eq. 9, 12 and 13; with inferred dynamics it can reach the
    log-evidence `log P(o_{0:T} = 1)`, which is optimistic about chance events. `inference_marl.inference.exact` has all
    three in closed form for tables.

    Shapes: `obs` is `replicates x batch x event`; sites are `[extra x] replicates x batch | event`. Steps are
    `pyro.markov`, so enumerated sites reuse dimensions, and the cost of exact sums over enumerated states is linear in
    the horizon.

    Attributes:
        seat, prior, optimality, temperature, kl_weight: see `ControlModel`.
        transition: `T(s' | s, a, b)`, bound; `None` for a horizon of 1, which has no next state.
        reward: `R(s, a, b)`, bound: a critic whose values are one-step rewards.
        horizon: number of steps.
        initial: distribution of `s_0`; `None` conditions on the given observations as the start.

    Raises:
        ValueError: if the horizon is not positive, or exceeds 1 without a transition.
    """

    seat: Seat
    prior: OpponentPrior
    transition: TransitionModel | None
    reward: Critic
    optimality: Optimality
    horizon: int
    initial: InitialState | None = None
    temperature: Number = 1.0
    kl_weight: Number = 1.0

    def __post_init__(self) -> None:
        expect("a positive integer", horizon=self.horizon)
        if self.transition is None and self.horizon > 1:
            raise ValueError(f"transition: got none with horizon = {self.horizon}, expected one; without, plan 1 step")

    def opponent_prior(self, obs: Tensor) -> Factored:
        """`P(b | s)`, batch shape `[extra x] replicates x batch`."""
        return as_factored(self.prior.given(self, obs), self.seat.opponent_actions)

    def q_table(self, obs: Tensor) -> Tensor:
        """One-step rewards in the shape of `ControlModel.q_table`: the values of a myopic opponent."""
        return self.reward.table(obs)

    @torch.no_grad()
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, transition and log-prior of every state and action, as inputs of `inference_marl.inference.exact`.

        The reward is the log-probability of being optimal. `replicates` is the first dimension of all. Discrete spaces
        only.
        """
        seat = self.seat
        states = torch.arange(seat.observation.features, device=seat.device).expand(seat.replicates, -1)
        reward = self.reward.table(states) - self.optimality.offset
        log_prior = self.opponent_prior(states).table().expand(*states.shape, -1)
        if self.transition is None:
            return reward, reward.new_zeros(*reward.shape, states.shape[1]), log_prior
        return reward, tabulate(self.transition, seat, seat.spaces).flatten(3, -2), log_prior

    def __call__(self, obs: Tensor) -> None:
        """Run the generative process from `obs`, `replicates x batch x event`; `initial` reads only its shape."""
        seat = self.seat
        sizes = ONE_STEP.sizes(obs, seat.observation.event_shape)
        with ONE_STEP.open(sizes).within():
            state = obs if self.initial is None else pyro.sample("state_0", self.initial())
            for t in pyro.markov(range(self.horizon)):
                with poutine.scale(scale=self.kl_weight):
                    opponent_actions = self.opponent_prior(state).sites(opponent_sites(len(seat.opponents), t))
                with poutine.scale(scale=self.temperature):
                    action = pyro.sample(f"action_{t}", seat.action.uniform(seat.dtype, seat.device))
                # In a separate context: a factor's value has the dimensions of everything it depends on; as part of
                # the step, Pyro would mistake them for the next step's when it reuses them.
                with pyro.markov():
                    self.optimality(self.reward(state, action, *opponent_actions), f"optimality_{t}")
                if self.transition is not None and t + 1 < self.horizon:
                    state = pyro.sample(f"state_{t + 1}", self.transition(state, action, *opponent_actions))
