"""What learners share whose guide is fitted to the ELBO of a model of their own."""

from __future__ import annotations

from typing import Any

from pyro.infer import Trace_ELBO, TraceEnum_ELBO

from inference_marl.described import IncompatibleError, within
from inference_marl.guides import Guide, TrajectoryGuide
from inference_marl.inference.objectives import MAX_PLATE_NESTING
from inference_marl.inference.replay import Replay
from inference_marl.inference.schedules import Schedule, as_schedule, positive
from inference_marl.inference.svi import Fit, check_step_size
from inference_marl.models import ControlModel, ExponentialOptimality, OpponentPrior, Optimality, TrajectoryModel
from inference_marl.spaces import Discrete
from inference_marl.types import Experience, Learner


class VariationalLearner(Learner):
    """Base: an opponent prior, a guide, their weights, replay, and the optimiser of the guide's parameters, if any.

    Args:
        opponent_prior: P(b | s).
        guide: rho and pi.
        optimality: how a value becomes a likelihood; exponential if `None`.
        temperature: alpha > 0.
        kl_weight: beta > 0.
        replay: transitions kept per replicate; `None` learns from the newest step alone.
        batch_size: transitions drawn from replay per update.
        guide_learning_rate: Adam's step size for the guide.
        guide_steps: gradient steps on the guide per update.
        particles: draws per datum in the guide's ELBO gradient.
        max_gradient_norm: clip each replicate's guide gradient; `None` for no clipping.

    Raises:
        ValueError: if a number is out of its range.
    """

    _model: tuple[Any]

    def __init__(
        self,
        opponent_prior: OpponentPrior,
        guide: Guide | TrajectoryGuide,
        optimality: Optimality | None,
        temperature: float | Schedule,
        kl_weight: float | Schedule,
        replay: int | None,
        batch_size: int,
        guide_learning_rate: float,
        guide_steps: int,
        particles: int,
        max_gradient_norm: float | None,
    ) -> None:
        super().__init__()
        at_least("replay", replay, 1)
        at_least("batch_size", batch_size, 1)
        at_least("guide_steps", guide_steps, 0)
        at_least("particles", particles, 1)
        check_step_size(guide_learning_rate, max_gradient_norm, "guide_learning_rate")
        self.opponent_prior = opponent_prior
        self.guide = guide
        self.optimality = optimality or ExponentialOptimality()
        self.temperature, self.kl_weight = as_schedule(temperature), as_schedule(kl_weight)
        positive(0, temperature=self.temperature, kl_weight=self.kl_weight)
        self.replay_capacity, self.batch_size = replay, batch_size
        self.guide_learning_rate, self.guide_steps, self.particles = guide_learning_rate, guide_steps, particles
        self.max_gradient_norm = max_gradient_norm
        self.updates = 0

    def bind_prior(self) -> OpponentPrior:
        """The prior in its seat: the first thing that `setup` does.

        Raises:
            IncompatibleError: if it does not fit, or nobody is there to have expectations of.
        """
        seat = self.seat
        if len(seat.action_spaces) < 2:
            raise IncompatibleError(f"{type(self).__name__} got a game of one agent, expected opponents to model")
        if isinstance(seat.action, Discrete) != isinstance(seat.opponent_action, Discrete):
            raise IncompatibleError(
                f"{type(self).__name__} got own actions {seat.action} and opponents' {seat.opponent_action}, expected "
                "both Discrete or both Box"
            )
        with within("opponent_prior"):
            self.opponent_prior = self.opponent_prior.bind(seat, seat.opponent_action, [seat.observation])
        return self.opponent_prior

    def bind_guide(self, model: ControlModel | TrajectoryModel, enumerates: bool, follows: bool = True) -> None:
        """The guide, its optimiser and the replay: the last thing that `setup` does.

        Args:
            model: what the guide approximates.
            enumerates: whether the guide's sites are summed out.
            follows: whether the guide's opponent model gives nothing to actions that the prior gives nothing to.

        Raises:
            IncompatibleError: if the guide does not fit the model.
        """
        # In a tuple: its parts are registered as the learner's own, and must not be registered twice.
        self._model = (model,)
        self.set_weights()
        with within("opponent_prior"):
            self.opponent_prior.attach(model)
        with within("guide"):
            self.guide = self.guide.bind(self.seat, model)
        parameters = list(self.guide.parameters())
        if not self.opponent_prior.full_support and (parameters or not follows):
            what = "a guide fitted by SVI" if parameters else "an opponent model that does not follow it"
            raise IncompatibleError(
                f"got {type(self.opponent_prior).__name__} with actions of probability 0 and {what}, whose ELBO is "
                "then minus infinity; expected smoothing > 0 (or another prior with full support), or a guide in "
                "closed form",
                key="opponent_prior",
            )
        elbo = (TraceEnum_ELBO if enumerates else Trace_ELBO)(
            num_particles=self.particles, vectorize_particles=True, max_plate_nesting=MAX_PLATE_NESTING
        )
        self.fitting = (
            Fit(
                "guide",
                elbo,
                model,
                self.guide,
                parameters,
                frozen=model.parameters(),
                learning_rate=self.guide_learning_rate,
                max_gradient_norm=self.max_gradient_norm,
            )
            if parameters
            else None
        )
        self.replay = Replay(self.seat, self.replay_capacity) if self.replay_capacity else None

    def set_weights(self) -> None:
        """Give the model the temperature and KL weight of now."""
        model = self._model[0]
        model.temperature, model.kl_weight = positive(
            self.updates, temperature=self.temperature, kl_weight=self.kl_weight
        )

    def remember(self, newest: Experience) -> Experience:
        """Show the prior what the opponents did and store the step; returns what to learn from."""
        self.opponent_prior.observe(newest.obs, newest.opponent_action)
        if self.replay is None:
            return newest
        self.replay.add(newest)
        return self.replay.draw(self.batch_size)

    def get_extra_state(self) -> dict[str, Any]:
        """The number of updates, for `state_dict`."""
        return {"updates": self.updates}

    def set_extra_state(self, state: Any) -> None:
        """Undo `get_extra_state`."""
        self.updates = state["updates"]
        self.set_weights()


def at_least(name: str, number: int | None, least: int) -> None:
    """Refuse an integer below `least`.

    Raises:
        ValueError: if it is; `None` passes.
    """
    if number is not None and number < least:
        raise ValueError(f"{name}: got {number}, expected an integer of at least {least}")
