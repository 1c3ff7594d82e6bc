"""Fictitious play: best responses to the frequencies of the opponents' past actions, with known payoffs."""

from __future__ import annotations

from dataclasses import field

from inference_marl.described import hyperparameters
from inference_marl.inference.schedules import ByReplicate, Schedule
from inference_marl.learners.tabular.exploration import EpsilonGreedy, Exploration
from inference_marl.learners.tabular.joint_action import JointActionLearner
from inference_marl.types import Experience


@hyperparameters
class FictitiousPlay(JointActionLearner):
    """Fictitious play: a best response to the opponents' empirical frequencies, with known payoffs (Brown 1951)::

        EV(s, a) = sum_b P(b | s) r(s, a, b)

    The payoffs `r` are the known game's mean rewards, so only the counts change. Each state of a game is played as a
    separate matrix game, ignoring later states.

    Args:
        exploration: maps expected payoffs to probabilities; the default is the best response, with ties split evenly.
            `Boltzmann` makes it stochastic fictitious play (Fudenberg and Levine 1998, Chapter 4).
        opponent_prior: P(b | s), by counting; the default `EmpiricalFrequency()` is Brown's. Fudenberg and Levine's
            initial weights are the concentration of a `DirichletMultinomial`.
    """

    exploration: Exploration | None = None  # type: ignore[assignment]  # set by `__post_init__`
    rate: float | Schedule = field(default=1.0, init=False)
    discount: float | ByReplicate = field(default=0.0, init=False)
    initial: float | tuple[float, float] = field(default=0.0, init=False)
    divide_by_sum: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.exploration = self.exploration or EpsilonGreedy(0.0)
        super().__post_init__()

    def setup(self) -> None:
        """Look up the payoffs, `replicates x states x (actions x opponent_actions)`, and create the counts.

        Raises:
            IncompatibleError: like all tabular learners, or if the game does not provide its rules as tables.
        """
        super().setup()
        rules, _ = self.known_rules()
        _, reward = rules.seen_by(self.seat.index)
        self.values.copy_(reward.flatten(1).expand_as(self.values))

    def update(self, seen: Experience) -> None:
        """Do nothing: the payoffs are known, and `store` counts."""
