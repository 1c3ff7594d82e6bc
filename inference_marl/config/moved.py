"""Import paths of classes that have moved: what older experiment files and run folders say, and where it is now.

Files written since name classes by where they are exported, so a row is needed only where a public path changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MOVED: Mapping[str, str] = MappingProxyType(
    {
        "inference_marl.schedules": "inference_marl.inference.schedules",  # since 0.1.0
        "inference_marl.learners.stationary": "inference_marl.learners.scripted",
    }
)
"""Modules before and now; what they define kept its name."""


def present(path: str) -> str:
    """The import path of today for one that a file says, which is itself if nothing moved."""
    module, dot, name = path.rpartition(".")
    return f"{MOVED.get(module, module)}{dot}{name}"
