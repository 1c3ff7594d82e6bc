"""Deterministic actor-critics, batched over replicates and agents: DDPG, DDPG with an opponent module, and MADDPG."""

from inference_marl.learners.deterministic.base import DeterministicActorCritic
from inference_marl.learners.deterministic.ddpg import Ddpg
from inference_marl.learners.deterministic.ddpg_om import DdpgOm
from inference_marl.learners.deterministic.maddpg import Maddpg
from inference_marl.learners.deterministic.modelling import ModellingOthers
from inference_marl.learners.deterministic.opponents import InferredPolicies, OpponentModule, PredictedActions

__all__ = [
    "Ddpg",
    "DdpgOm",
    "DeterministicActorCritic",
    "InferredPolicies",
    "Maddpg",
    "ModellingOthers",
    "OpponentModule",
    "PredictedActions",
]
