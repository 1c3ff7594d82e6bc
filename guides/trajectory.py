"""Guides of whole trajectories, fitted or exact."""

from __future__ import annotations

from functools import partial
from typing import Literal, Protocol, Self

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex
from pyro.poutine.runtime import InferDict
from torch import Tensor

from inference_marl.described import IncompatibleError, within
from inference_marl.guides.closed_form import ClosedForm, Empirical
from inference_marl.guides.conditionals import Tabular
from inference_marl.inference.conditional import Conditional, PyroPart, Reads, local_parameters, need_density
from inference_marl.inference.exact import Factors, smooth
from inference_marl.inference.factored import Factored, as_factored, opponent_sites
from inference_marl.inference.opponents import Autoregressive, bind_over_opponents, for_each, need_own
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.tables import tabulate
from inference_marl.spaces import Discrete, Space, joint_action
from inference_marl.types import Seat


class ReadsTrajectory(Reads, Protocol):
    """The part of a trajectory model that its guide may read."""

    @property
    def horizon(self) -> int:
        """Number of steps."""

    @property
    def initial(self) -> Conditional | None:
        """`P(s_0)`, or `None` if the initial state is given."""

    @property
    def transition(self) -> Conditional | None:
        """`T(s' | s, a, b)`, or `None` for one step."""

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, transition and log-prior, as in `inference_marl.inference.exact`, with `replicates` first."""


class TrajectoryGuide(PyroPart):
    """An amortised variational posterior over trajectories, in ROMMEO's order (Tian et al. 2019, Eq. 25)::

        for t = 0, ..., horizon - 1:
            b_t ~ rho(b | t, s_t)                 # site `opponent_action_t`, or one per opponent (`..._0_t`)
            a_t ~ pi(a | t, s_t, b_t)             # site `action_t`
            s_{t+1} ~ T(s' | s_t, a_t, b_t)       # site `state_{t+1}`, dynamics kept
                  or q(s' | t, s_t, a_t, b_t)     #                     dynamics inferred

    The factors also condition on the step, since less can be gained near the end. The initial state follows the model.

    Kept dynamics are the paper's choice and the sound one: the agent controls only its actions. Inferred dynamics, `q`
    proportional to `T` times a fitted factor, maximise the same ELBO over more guides and reach the evidence, but treat
    luck as controllable. Where a risk pays 10 with probability .1 and costs 2 otherwise, `E[r] = -.8` but `log
    E[exp(r)] = 7.7`: such a guide takes the risk, because trajectories that are optimal throughout were lucky.
    `experiments/risky_bridge.yaml` measures the cost (Levine 2018, Section 2.4).

    Args:
        opponent_model: rho, a conditional on step and state; `Empirical` for rho := P.
        policy: pi, a conditional on step, state and the opponents' action.
        dynamics: `kept` or `inferred`; the latter for discrete states.
        enumerate: whether to sum over discrete sites exactly, by parallel enumeration; otherwise they are sampled, with
            score-function gradients.
    """

    def __init__(
        self,
        opponent_model: Conditional,
        policy: Conditional,
        dynamics: Literal["kept", "inferred"] = "kept",
        enumerate: bool = True,
    ) -> None:
        super().__init__()
        self.opponent_model = opponent_model
        self.policy = policy
        self.dynamics = dynamics
        self.enumerate = enumerate
        self.bend: Conditional = Tabular()

    def bind(self, seat: Seat, horizon: int) -> Self:
        """Return a working copy for models of `horizon` steps, in `seat`.

        Raises:
            IncompatibleError: if a factor does not fit its site.
        """
        return self._bound(seat=seat, horizon=horizon)

    def setup(self) -> None:
        """Bind the factors, with the step as their first parent."""
        seat = self.seat
        drawn = not isinstance(seat.observation, Discrete)
        if self.enumerate and drawn and isinstance(seat.action, Discrete) and self.horizon > 1:
            raise IncompatibleError(
                f"got true with continuous states, {seat.observation}, where exact sums over actions grow "
                "exponentially with the horizon, expected false",
                key="enumerate",
            )
        parents: list[Space] = [Discrete(self.horizon), seat.observation]
        for name in ("opponent_model", "policy"):
            with within(name):
                factor: Conditional = getattr(self, name)
                need_density(factor)
                takes_the_prior = isinstance(factor, Empirical) and name == "opponent_model"
                if factor.learns_from_play or (isinstance(factor, ClosedForm) and not takes_the_prior):
                    raise IncompatibleError(
                        f"got {type(factor).__name__}, which a guide of trajectories cannot fit, expected a "
                        "conditional with parameters such as Tabular or CategoricalNetwork, or the whole guide in "
                        "closed form: ExactTrajectory"
                    )
                if name == "policy":
                    need_own(factor)
                    self.policy = factor.bind(seat, seat.action, [*parents, *seat.opponent_actions])
                else:
                    self.opponent_model = bind_over_opponents(for_each(factor, seat, Autoregressive), seat, parents)
        if self.dynamics == "inferred":
            with within("dynamics"):
                self.bend = self.bend.bind(seat, seat.observation, [*parents, *seat.spaces[1:]])

    def believe(self, step: int, state: Tensor, model: ReadsTrajectory) -> Factored:
        """rho(b | t, s): batch shape `[extra x] replicates x batch`."""
        if isinstance(self.opponent_model, Empirical):
            with local_parameters():  # the model's parameters are not the guide's
                return model.opponent_prior(state)
        return as_factored(self.opponent_model(self._at(step), state), self.seat.opponent_actions)

    def choose(self, step: int, state: Tensor, *opponent_actions: Tensor) -> dist.TorchDistribution:
        """pi(a | t, s, b): batch shape `[extra x] replicates x batch`."""
        distribution: dist.TorchDistribution = self.policy(self._at(step), state, *opponent_actions)
        return distribution

    def move(
        self, step: int, state: Tensor, action: Tensor, *opponent_actions: Tensor, model: ReadsTrajectory
    ) -> dist.TorchDistribution:
        """The distribution of the next state: batch shape `[extra x] replicates x batch`."""
        if model.transition is None:
            raise IncompatibleError("transition: got none, expected one: the horizon is more than one step")
        with local_parameters():
            kept: dist.TorchDistribution = model.transition(state, action, *opponent_actions)
        if self.dynamics == "kept":
            return kept
        if not isinstance(kept, dist.Categorical):
            raise IncompatibleError(
                f"dynamics: got inferred, with a transition that is a {type(kept).__name__}, expected a Categorical, "
                "or dynamics: kept"
            )
        bend: dist.TorchDistribution = self.bend(self._at(step), state, action, *opponent_actions)
        return dist.Categorical(logits=kept.logits + bend.logits)

    def _at(self, step: int) -> Tensor:
        return torch.full((1, 1), step, device=self.seat.device)

    def forward(self, obs: Tensor, model: ReadsTrajectory) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sample all sites from `obs`, `replicates x batch x event`; returns the first actions, own and opponents'."""
        seat = self.seat
        played: list[tuple[Tensor, tuple[Tensor, ...]]] = []
        with ONE_STEP.open(ONE_STEP.sizes(obs, seat.observation.event_shape)).within():
            state = obs
            if model.initial is not None:
                state = pyro.sample("state_0", model.initial(), infer=self._infer(seat.observation))
            for t in pyro.markov(range(model.horizon)):
                with poutine.scale(scale=model.kl_weight):
                    names = opponent_sites(len(seat.opponents), t)
                    opponent_actions = self.believe(t, state, model).sites(names, self._infer)
                with poutine.scale(scale=model.temperature):
                    action = pyro.sample(
                        f"action_{t}", self.choose(t, state, *opponent_actions), infer=self._infer(seat.action)
                    )
                played.append((action, opponent_actions))
                if t + 1 < model.horizon:
                    moved = self.move(t, state, action, *opponent_actions, model=model)
                    state = pyro.sample(f"state_{t + 1}", moved, infer=self._infer(seat.observation))
        return played[0]

    def _infer(self, space: object) -> InferDict | None:
        return InferDict(enumerate="parallel") if self.enumerate and isinstance(space, Discrete) else None

    @torch.no_grad()
    def tables(self, model: ReadsTrajectory) -> Factors:
        """All factors at every step and state, as `exact.evaluate` takes them. Discrete spaces only."""
        seat, horizon = self.seat, self.horizon
        state, action, joint = seat.observation, seat.action, seat.opponent_action
        states = torch.arange(state.features, device=seat.device).expand(seat.replicates, -1)
        rho = [self.believe(t, states, model).table().exp().expand(*states.shape, -1) for t in range(horizon)]
        given = [state, *seat.opponent_actions]
        pi = [tabulate(partial(self.choose, t), seat, given).flatten(2, -2).mT for t in range(horizon)]
        moves = [
            tabulate(partial(self.move, t, model=model), seat, seat.spaces).flatten(3, -2) for t in range(horizon - 1)
        ]
        sizes = (state.features, action.features, joint.features, state.features)
        last = moves[-1] if moves else rho[0].new_zeros(seat.replicates, *sizes)
        return Factors(torch.stack(pi, 1), torch.stack(rho, 1), torch.stack([*moves, last], 1))


class ExactTrajectory(TrajectoryGuide):
    """The optimal guide, computed by backward recursion (Tian et al. 2019, Eq. 9-11), without parameters.

    With inferred dynamics it is the model's exact posterior (for weights of 1). Only for discrete games small enough
    for tables of `horizon x states x actions x opponent_actions x states`.

    Args:
        dynamics: `kept` or `inferred`, see `TrajectoryGuide`.
    """

    pi: Tensor
    rho: Tensor
    moves: Tensor

    def __init__(self, dynamics: Literal["kept", "inferred"] = "kept") -> None:
        super().__init__(Tabular(), Tabular(), dynamics)

    def setup(self) -> None:
        """Allocate the solution; raises `IncompatibleError` if a space is not discrete."""
        seat = self.seat
        if not seat.is_discrete:
            raise IncompatibleError(f"ExactTrajectory got {seat.spaces}, expected Discrete spaces; use TrajectoryGuide")
        for name in ("opponent_model", "policy", "bend"):
            delattr(self, name)
        for name in ("pi", "rho", *(["moves"] if self.dynamics == "inferred" else [])):
            self.register_buffer(name, torch.empty(0))

    @torch.no_grad()
    def solve(self, model: ReadsTrajectory) -> None:
        """Recompute the factors from the current model."""
        reward, transition, log_prior = model.tables()
        weights = {"temperature": model.temperature, "kl_weight": model.kl_weight}
        found = smooth(reward, transition, log_prior, model.horizon, dynamics=self.dynamics, **weights)
        self.pi, self.rho = found.policy, found.opponent_model
        if self.dynamics == "inferred":
            self.moves = found.transition

    def believe(self, step: int, state: Tensor, model: ReadsTrajectory) -> Factored:
        """rho(b | t, s)."""
        found = dist.Categorical(logits=Vindex(self.rho)[self.seat.rows, step, state, :].log())
        return as_factored(found, self.seat.opponent_actions)

    def choose(self, step: int, state: Tensor, *opponent_actions: Tensor) -> dist.TorchDistribution:
        """pi(a | t, s, b)."""
        by_pair, joint = self.pi.movedim(-2, -1), joint_action(self.seat.opponent_actions, opponent_actions)
        return dist.Categorical(logits=Vindex(by_pair)[self.seat.rows, step, state, joint, :].log())

    def move(
        self, step: int, state: Tensor, action: Tensor, *opponent_actions: Tensor, model: ReadsTrajectory
    ) -> dist.TorchDistribution:
        """The distribution of the next state, under the model's dynamics or the inferred ones."""
        if self.dynamics == "kept":
            return super().move(step, state, action, *opponent_actions, model=model)
        joint = joint_action(self.seat.opponent_actions, opponent_actions)
        row = Vindex(self.moves)[self.seat.rows, step, state, action, joint, :]
        return dist.Categorical(logits=row.log())

    @torch.no_grad()
    def tables(self, model: ReadsTrajectory) -> Factors:
        """The current factors."""
        if self.dynamics == "inferred":
            return Factors(self.pi, self.rho, self.moves)
        kept = model.tables()[1].unsqueeze(1)
        return Factors(self.pi, self.rho, kept.expand(-1, self.horizon, -1, -1, -1, -1))
