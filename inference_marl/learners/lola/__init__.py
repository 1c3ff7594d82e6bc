"""Learning with opponent-learning awareness: exact, from imagined rollouts, or with an inferred learning rule."""

from inference_marl.learners.lola.best_response import BestResponse
from inference_marl.learners.lola.dice import LolaDice
from inference_marl.learners.lola.gradient import ExactGradientLearner, GradientLearner, NaiveGradient
from inference_marl.learners.lola.rules import LearningRule, LolaRule, NaiveRule, StaticRule
from inference_marl.learners.lola.shaping import Lola, LookAhead, StableOpponentShaping
from inference_marl.learners.lola.unknown_rule import LolaUnknownRule
from inference_marl.learners.lola.unsteady import UnsteadyGradient

__all__ = [
    "BestResponse",
    "ExactGradientLearner",
    "GradientLearner",
    "LearningRule",
    "Lola",
    "LolaDice",
    "LolaRule",
    "LolaUnknownRule",
    "LookAhead",
    "NaiveGradient",
    "NaiveRule",
    "StableOpponentShaping",
    "StaticRule",
    "UnsteadyGradient",
]
