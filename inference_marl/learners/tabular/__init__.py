"""Tabular learners, one file each. `base` has their common code, and `exploration` maps values to policies."""

from inference_marl.learners.tabular.base import JointValueLearner, TabularLearner, ValueLearner
from inference_marl.learners.tabular.distributed_q import DistributedQ
from inference_marl.learners.tabular.exploration import Boltzmann, EpsilonGreedy, Exploration
from inference_marl.learners.tabular.fictitious_play import FictitiousPlay
from inference_marl.learners.tabular.fmq import FMQ
from inference_marl.learners.tabular.hill_climbing import PHC, WoLFPHC
from inference_marl.learners.tabular.hysteretic_q import HystereticQ
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.learners.tabular.joint_action import JointActionLearner
from inference_marl.learners.tabular.lenient_q import LenientQ
from inference_marl.learners.tabular.minimax import Minimax
from inference_marl.learners.tabular.pr2_q import PR2Q
from inference_marl.learners.tabular.recursive_fmq import RecursiveFMQ

__all__ = [
    "FMQ",
    "PHC",
    "PR2Q",
    "Boltzmann",
    "DistributedQ",
    "EpsilonGreedy",
    "Exploration",
    "FictitiousPlay",
    "HystereticQ",
    "IndependentQ",
    "JointActionLearner",
    "JointValueLearner",
    "LenientQ",
    "Minimax",
    "RecursiveFMQ",
    "TabularLearner",
    "ValueLearner",
    "WoLFPHC",
]
