"""Learners: one file per algorithm, each on the contract of `inference_marl.types.Learner`.

Every file in this folder, and below it, is imported here, so an experiment file can name the learners it defines: to
add one is to add a file. In Python they are imported from their files; the variational ones from here as well.
"""

import importlib
import pkgutil

from inference_marl.learners.planner import Planner
from inference_marl.learners.rommeo import Rommeo
from inference_marl.learners.scripted import Stationary

__all__ = ["Planner", "Rommeo", "Stationary"]

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
