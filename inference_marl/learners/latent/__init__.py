"""A learner with a belief about whom it plays against: PEARL, with its parts to be swapped."""

from inference_marl.learners.latent.contexts import Context, Told
from inference_marl.learners.latent.encoders import GaussianFactors, Recurrent
from inference_marl.learners.latent.pearl import Pearl

__all__ = ["Context", "GaussianFactors", "Pearl", "Recurrent", "Told"]
