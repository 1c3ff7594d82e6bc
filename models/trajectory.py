"""A whole episode as a generative model."""

from __future__ import annotations

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor

from inference_marl.inference.plates import replicate_and_batch
from inference_marl.models.critics import Critic
from inference_marl.models.dynamics import InitialState, TransitionModel
from inference_marl.models.optimality import Optimality
from inference_marl.models.priors import OpponentPrior
from inference_marl.types import Seat


class TrajectoryModel(PyroModule):
    """One agent's model of `horizon` steps of play, with optimality observed at every one of them::

        s_0 ~ P(s_0)                                     # site `state_0`, or given
        for t = 0, ..., horizon - 1:
            b_t ~ P(b | s_t)                             # site `opponent_action_t`, weight beta (1 in the paper)
            a_t ~ Uniform(A)                             # site `action_t`, weight alpha
            log p(o_t = 1 | s_t, a_t, b_t) = R(s_t, a_t, b_t) + const      # site `optimality_t`, observed
            s_{t+1} ~ T(s_{t+1} | s_t, a_t, b_t)         # site `state_{t+1}`, weight 1; not after the last step

    This is Eq. 23 and 26 of Tian et al. (2019). With a guide that keeps the dynamics (Eq. 25) the transitions cancel
    and the ELBO is Eq. 32, whose maximum is the soft value of Eq. 9, 12 and 13; with one that bends them it can rise up
    to the log-evidence `log P(o_{0:T} = 1)`, which counts on luck. `inference_marl.inference.exact` has all three in
    closed form for tables.

    Shapes: `obs` is `replicates x batch x event`; sites are `[extra x] replicates x batch | event`. Steps are
    `pyro.markov`, so enumerated sites reuse dimensions; with enumerated states the cost of exact sums is linear in the
    horizon.

    Attributes:
        opponent_prior: `P(b | s)`.
        transition: `T(s' | s, a, b)`.
        reward: `R(s, a, b)`, a critic whose values are rewards of one step.
        temperature: alpha, positive; the learner sets it before each use.
        kl_weight: beta, positive; likewise.

    Args:
        seat: who models.
        opponent_prior: bound to `seat`.
        transition: bound to `seat`; `None` for a horizon of 1, which has no next state.
        reward: bound to `seat`.
        optimality: how a reward becomes a likelihood.
        horizon: steps.
        initial: distribution of `s_0`; `None` starts at the given observations, and conditions on them.
    """

    def __init__(
        self,
        seat: Seat,
        opponent_prior: OpponentPrior,
        transition: TransitionModel | None,
        reward: Critic,
        optimality: Optimality,
        horizon: int,
        initial: InitialState | None = None,
    ) -> None:
        super().__init__()
        if horizon < 1:
            raise ValueError(f"horizon: got {horizon}, expected a positive integer")
        if transition is None and horizon > 1:
            raise ValueError(f"transition: got none with horizon = {horizon}, expected one; without, plan 1 step")
        self.seat = seat
        self.opponent_prior = opponent_prior
        self.transition = transition
        self.reward = reward
        self.optimality = optimality
        self.horizon = horizon
        self.initial = initial
        self.temperature = 1.0
        self.kl_weight = 1.0

    def q_table(self, obs: Tensor) -> Tensor:
        """Rewards of one step, `replicates x batch x actions x opponent_actions`: what a myopic opponent looks at."""
        return self.reward.table(obs)

    @torch.no_grad()
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, transition and log-prior of every state and action, as `inference_marl.inference.exact` takes them.

        The reward is the log-probability of being optimal. All lead with `replicates`; discrete spaces only.
        """
        seat = self.seat
        spaces = (seat.observation, seat.action, seat.opponent_action)
        shape = [space.features for space in spaces]
        states = torch.arange(shape[0], device=seat.device).expand(seat.replicates, -1)
        reward = self.reward.table(states) - self.optimality.offset
        log_prior = self.opponent_prior(states).logits.expand(*states.shape, -1)
        if self.transition is None:
            return reward, reward.new_zeros(*reward.shape, shape[0]), log_prior
        grid = torch.meshgrid(*(torch.arange(size, device=seat.device) for size in shape), indexing="ij")
        state, action, opponent_action = (index.reshape(-1, 1, 1) for index in grid)
        moves: Tensor = self.transition(state, action, opponent_action).expand((len(state), seat.replicates, 1)).probs
        return reward, moves.squeeze(-2).movedim(0, 1).unflatten(1, shape), log_prior

    def forward(self, obs: Tensor) -> None:
        """The generative process from `obs`, `replicates x batch x event`; with `initial`, only its shape matters."""
        seat = self.seat
        with replicate_and_batch(obs):
            state = obs if self.initial is None else pyro.sample("state_0", self.initial())
            for t in pyro.markov(range(self.horizon)):
                with poutine.scale(scale=self.kl_weight):
                    opponent_action = pyro.sample(f"opponent_action_{t}", self.opponent_prior(state))
                with poutine.scale(scale=self.temperature):
                    action = pyro.sample(f"action_{t}", seat.action.uniform(seat.dtype, seat.device))
                # In a context of its own: the value of a factor has the dimensions of everything it depends on, and as
                # part of the step Pyro would take them for the next step's own when it reuses them.
                with pyro.markov():
                    self.optimality(self.reward(state, action, opponent_action), f"optimality_{t}")
                if self.transition is not None and t + 1 < self.horizon:
                    state = pyro.sample(f"state_{t + 1}", self.transition(state, action, opponent_action))
