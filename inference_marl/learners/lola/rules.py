"""Learning rules: what a learner may believe that its opponent does at an update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from inference_marl.described import Described, NotNegative, hyperparameters
from inference_marl.learners.lola.derivatives import Derivatives


class LearningRule(Described, ABC):
    """Predicts how an agent changes its logits at an update. A subclass defines `change`.

    Attributes:
        learns: whether it changes them at all.
        step_size: of its step, per unit of the gradient of a value that is not normalised; 0 if it does not learn.
    """

    learns: ClassVar[bool] = True
    step_size: float

    @abstractmethod
    def change(self, at: Derivatives, agent: int) -> Tensor:
        """What the agent adds to its logits, `replicates x states x (actions - 1)`.

        Args:
            at: derivatives of both agents' values at their current logits, in seat order.
            agent: whose rule it is.
        """


@hyperparameters
class StaticRule(LearningRule):
    """The agent does not learn."""

    learns = False

    def __post_init__(self) -> None:
        self.step_size = 0.0

    def change(self, at: Derivatives, agent: int) -> Tensor:
        """Nothing."""
        return at.parameters[agent].new_zeros(()).expand_as(at.parameters[agent])


@hyperparameters
class NaiveRule(LearningRule):
    """The agent ascends its own value, as `NaiveGradient`: `eta grad_i V^i`.

    Args:
        step_size: eta.
    """

    step_size: NotNegative = 1.0

    def change(self, at: Derivatives, agent: int) -> Tensor:
        """A step along its gradient."""
        return self.step_size * at.gradients(agent)[agent]


@hyperparameters
class LolaRule(LearningRule):
    """The agent shapes a naive opponent, as `Lola` of order 1 (Foerster et al. 2018, section 4.2).

    Args:
        step_size: of its own step.
        opponent_step_size: that it takes its opponent to have.
    """

    step_size: NotNegative = 1.0
    opponent_step_size: NotNegative = 1.0

    def change(self, at: Derivatives, agent: int) -> Tensor:
        """A step along its gradient and the shaping term."""
        gradients = at.gradients(agent)
        shaping = at.change(of=1 - agent, wrt=agent, direction=gradients[1 - agent])
        return self.step_size * (gradients[agent] + self.opponent_step_size * shaping)
