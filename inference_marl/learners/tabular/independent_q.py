"""Independent Q-learning, which treats the other agents as part of the environment."""

from __future__ import annotations

from torch import Tensor

from inference_marl.described import hyperparameters
from inference_marl.inference.schedules import Number, current
from inference_marl.learners.tabular.base import ValueLearner


@hyperparameters
class IndependentQ(ValueLearner):
    """Independent Q-learning over own actions (Watkins and Dayan 1992; Tan 1993).

    Also called decentralised Q-learning (Matignon et al. 2012), or an independent learner (Claus and Boutilier 1998).
    """

    def rates(self, cell: Tensor, error: Tensor) -> Number:
        """The current learning rate, for all errors."""
        return current(self.rate, self.updates)
