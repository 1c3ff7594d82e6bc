"""Learners: one file per algorithm, each implementing `inference_marl.types.Learner`.

Every module in this folder and its subfolders is imported here, so that experiment files can name its learners: to add
a learner, add a file. In Python, `Rommeo`, `Planner`, `Ddpg`, `DdpgOm`, `Maddpg`, `Masql`, `Pr2Ac`, `Pearl`, `Scripted`
and `Stationary` are imported from here, the others from `learners.tabular`, `learners.lola`, `learners.alignment` and
`learners.scripts`.
"""

import importlib
import pkgutil

from inference_marl.learners.deterministic import Ddpg, DdpgOm, Maddpg
from inference_marl.learners.latent import Pearl
from inference_marl.learners.masql import Masql
from inference_marl.learners.planner import Planner
from inference_marl.learners.pr2_ac import Pr2Ac
from inference_marl.learners.rommeo import Rommeo
from inference_marl.learners.scripted import Scripted, Stationary

__all__ = ["Ddpg", "DdpgOm", "Maddpg", "Masql", "Pearl", "Planner", "Pr2Ac", "Rommeo", "Scripted", "Stationary"]

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
