"""Scripted agents for specific games; those for any game are in `learners.scripted`."""

from __future__ import annotations

from inference_marl.learners.scripts.bayesian import BayesOracle, PlaysItsType
from inference_marl.learners.scripts.coins import CoinTaker
from inference_marl.learners.scripts.guard import Raiders
from inference_marl.learners.scripts.kuhn import KuhnPlayer

__all__ = ["BayesOracle", "CoinTaker", "KuhnPlayer", "PlaysItsType", "Raiders"]
