"""PEARL against opponents, an actor-critic with a latent belief about them, and its exchangeable parts."""

from inference_marl.learners.latent.contexts import Context, Told
from inference_marl.learners.latent.encoders import GaussianFactors, Recurrent
from inference_marl.learners.latent.pearl import Pearl

__all__ = ["Context", "GaussianFactors", "Pearl", "Recurrent", "Told"]
