"""Generative side: what an agent assumes about its opponents, its dynamics and its own optimality.

Import as `inference_marl.models`. A model knows a guide only by the names of the sites they share.
"""

from inference_marl.models.control import ControlModel
from inference_marl.models.critics import Critic, NetworkCritic, TabularCritic
from inference_marl.models.optimality import BernoulliOptimality, ExponentialOptimality, Optimality
from inference_marl.models.priors import (
    Amortised,
    DirichletMultinomial,
    EmpiricalFrequency,
    Fixed,
    OpponentPrior,
    TabularCounts,
    Uniform,
)

__all__ = [
    "Amortised",
    "BernoulliOptimality",
    "ControlModel",
    "Critic",
    "DirichletMultinomial",
    "EmpiricalFrequency",
    "ExponentialOptimality",
    "Fixed",
    "NetworkCritic",
    "OpponentPrior",
    "Optimality",
    "TabularCounts",
    "TabularCritic",
    "Uniform",
]
