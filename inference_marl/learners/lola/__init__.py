"""Learning with opponent-learning awareness, with exact gradients: naive, LOLA of any order, LookAhead, SOS."""

from inference_marl.learners.lola.gradient import ExactGradientLearner, NaiveGradient
from inference_marl.learners.lola.shaping import Lola, LookAhead, StableOpponentShaping

__all__ = ["ExactGradientLearner", "Lola", "LookAhead", "NaiveGradient", "StableOpponentShaping"]
