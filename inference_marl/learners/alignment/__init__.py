"""Opponent shaping by first-order policy gradients: Advantage Alignment and LOQA."""

from inference_marl.learners.alignment.base import AdvantageAlignment
from inference_marl.learners.alignment.recurrent import RecurrentAlignment
from inference_marl.learners.alignment.tabular import TabularAlignment

__all__ = ["AdvantageAlignment", "RecurrentAlignment", "TabularAlignment"]
