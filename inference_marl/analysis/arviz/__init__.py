"""Exports to ArviZ: beliefs and their summary, forecasts, and posteriors over parameters and latent types.

Functions take a run's folder, or the result of `read`. ArviZ itself is imported when one of them needs it.
"""

from inference_marl.analysis.arviz.beliefs import summary, to_arviz
from inference_marl.analysis.arviz.forecasting import compare_forecasts, forecasts
from inference_marl.analysis.arviz.latents import latent_posterior
from inference_marl.analysis.arviz.parameters import parameter_posterior

__all__ = ["compare_forecasts", "forecasts", "latent_posterior", "parameter_posterior", "summary", "to_arviz"]
