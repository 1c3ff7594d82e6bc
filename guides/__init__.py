"""The variational side: an agent's policy, and its model of the opponents that it plans with.

Import as `inference_marl.guides`. Guides refer to models only by the names of the sites they share.
"""

from inference_marl.guides.closed_form import ClosedForm, Empirical, Optimal
from inference_marl.guides.conditionals import CategoricalNetwork, SplineFlow, Tabular, TanhNormalNetwork
from inference_marl.guides.implicit import Implicit, SamplerNetwork
from inference_marl.guides.mixtures import TanhNormalMixture
from inference_marl.guides.orderings import Guide, OpponentFirst, PolicyFirst
from inference_marl.guides.trajectory import ExactTrajectory, TrajectoryGuide
from inference_marl.inference.opponents import Autoregressive, Independent, Joint, Opponents, Shared

__all__ = [
    "Autoregressive",
    "CategoricalNetwork",
    "ClosedForm",
    "Empirical",
    "ExactTrajectory",
    "Guide",
    "Implicit",
    "Independent",
    "Joint",
    "OpponentFirst",
    "Opponents",
    "Optimal",
    "PolicyFirst",
    "SamplerNetwork",
    "Shared",
    "SplineFlow",
    "Tabular",
    "TanhNormalMixture",
    "TanhNormalNetwork",
    "TrajectoryGuide",
]
