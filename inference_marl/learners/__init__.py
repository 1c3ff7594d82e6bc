"""Learners: one file per algorithm family, each on the contract of `inference_marl.types.Learner`."""

from inference_marl.learners.planner import Planner
from inference_marl.learners.rommeo import Rommeo
from inference_marl.learners.stationary import Stationary

__all__ = ["Planner", "Rommeo", "Stationary"]
