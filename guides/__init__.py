"""Variational side: what an agent does and which opponent it plans with.

Import as `inference_marl.guides`. A guide knows a model only by the names of the sites they share.
"""

from inference_marl.guides.closed_form import ClosedForm, Empirical, Optimal
from inference_marl.guides.conditionals import CategoricalNetwork, SplineFlow, Tabular, TanhNormalNetwork
from inference_marl.guides.orderings import Guide, OpponentFirst, PolicyFirst

__all__ = [
    "CategoricalNetwork",
    "ClosedForm",
    "Empirical",
    "Guide",
    "OpponentFirst",
    "Optimal",
    "PolicyFirst",
    "SplineFlow",
    "Tabular",
    "TanhNormalNetwork",
]
