"""The generative side: an agent's assumptions about its opponents, its dynamics and its own optimality.

Import as `inference_marl.models`. Models refer to guides only by the names of the sites they share.
"""

from inference_marl.models.amortised import Amortised
from inference_marl.models.bayesian_critic import BayesianCritic
from inference_marl.models.control import ControlModel
from inference_marl.models.counts import DirichletMultinomial, EmpiricalFrequency, TabularCounts
from inference_marl.models.critics import Critic, NetworkCritic, TabularCritic
from inference_marl.models.dynamics import (
    DeterministicTransition,
    DirichletTransition,
    InitialState,
    KnownReward,
    KnownTransition,
    TransitionModel,
)
from inference_marl.models.ensemble import GaussianEnsemble
from inference_marl.models.hierarchical import HierarchicalDirichlet
from inference_marl.models.learning_rules import FilteredOpponent, LearningRuleFilter
from inference_marl.models.level_k import LevelK
from inference_marl.models.opponent_logits import ClonedOpponent, CountedOpponent, OpponentLogits
from inference_marl.models.opponent_types import OpponentTypes
from inference_marl.models.optimality import BernoulliOptimality, ExponentialOptimality, Optimality
from inference_marl.models.priors import Fixed, OpponentPrior, Uniform
from inference_marl.models.trajectory import TrajectoryModel

__all__ = [
    "Amortised",
    "BayesianCritic",
    "BernoulliOptimality",
    "ClonedOpponent",
    "ControlModel",
    "CountedOpponent",
    "Critic",
    "DeterministicTransition",
    "DirichletMultinomial",
    "DirichletTransition",
    "EmpiricalFrequency",
    "ExponentialOptimality",
    "FilteredOpponent",
    "Fixed",
    "GaussianEnsemble",
    "HierarchicalDirichlet",
    "InitialState",
    "KnownReward",
    "KnownTransition",
    "LearningRuleFilter",
    "LevelK",
    "NetworkCritic",
    "OpponentLogits",
    "OpponentPrior",
    "OpponentTypes",
    "Optimality",
    "TabularCounts",
    "TabularCritic",
    "TrajectoryModel",
    "TransitionModel",
    "Uniform",
]
