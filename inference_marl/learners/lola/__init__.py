"""Learning with opponent-learning awareness: exact (naive, LOLA of any order, LookAhead, SOS) or from imagined play."""

from inference_marl.learners.lola.best_response import BestResponse
from inference_marl.learners.lola.dice import LolaDice
from inference_marl.learners.lola.gradient import ExactGradientLearner, GradientLearner, NaiveGradient
from inference_marl.learners.lola.opponents import ClonedOpponent, CountedOpponent, OpponentLogits
from inference_marl.learners.lola.shaping import Lola, LookAhead, StableOpponentShaping

__all__ = [
    "BestResponse",
    "ClonedOpponent",
    "CountedOpponent",
    "ExactGradientLearner",
    "GradientLearner",
    "Lola",
    "LolaDice",
    "LookAhead",
    "NaiveGradient",
    "OpponentLogits",
    "StableOpponentShaping",
]
