"""Learning rules: hypotheses about an opponent's update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from inference_marl.described import Described, NotNegative, hyperparameters
from inference_marl.learners.lola.derivatives import Derivatives


class LearningRule(Described, ABC):
    """Base: predicts the change of an agent's logits in an update. A subclass defines `change`.

    Attributes:
        learns: whether the agent learns.
        step_size: step size per unit of the gradient of the unnormalised value; 0 if the agent does not learn.
    """

    learns: ClassVar[bool] = True
    step_size: float

    @abstractmethod
    def change(self, at: Derivatives, agent: int) -> Tensor:
        """The change of the agent's logits, `replicates x states x (actions - 1)`.

        Args:
            at: derivatives of both agents' values at their current logits, in seat order.
            agent: index of the agent.
        """


@hyperparameters
class StaticRule(LearningRule):
    """The agent does not learn."""

    learns = False

    def __post_init__(self) -> None:
        self.step_size = 0.0

    def change(self, at: Derivatives, agent: int) -> Tensor:
        """No change."""
        return at.parameters[agent].new_zeros(()).expand_as(at.parameters[agent])


@hyperparameters
class NaiveRule(LearningRule):
    """The agent ascends its own value like `NaiveGradient`: `eta grad_i V^i`.

    Args:
        step_size: eta.
    """

    step_size: NotNegative = 1.0

    def change(self, at: Derivatives, agent: int) -> Tensor:
        """A step along the gradient."""
        return self.step_size * at.gradients(agent)[agent]


@hyperparameters
class LolaRule(LearningRule):
    """The agent shapes a naive opponent like `Lola` of order 1 (Foerster et al. 2018, section 4.2).

    Args:
        step_size: step size of the agent.
        opponent_step_size: step size that the agent assumes of its opponent.
    """

    step_size: NotNegative = 1.0
    opponent_step_size: NotNegative = 1.0

    def change(self, at: Derivatives, agent: int) -> Tensor:
        """A step along the gradient plus the shaping term."""
        gradients = at.gradients(agent)
        shaping = at.change(of=1 - agent, wrt=agent, direction=gradients[1 - agent])
        return self.step_size * (gradients[agent] + self.opponent_step_size * shaping)
