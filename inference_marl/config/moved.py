"""Import paths of classes that have moved: what older experiment files and run folders say, and where it is now.

Files written since name classes by where they are exported, so a row is needed only where a public path changed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from inference_marl.described import public_path

MOVED: Mapping[str, str] = MappingProxyType(
    {
        "inference_marl.schedules": "inference_marl.inference.schedules",  # since 0.1.0
        "inference_marl.learners.stationary": "inference_marl.learners",
        "inference_marl.learners.lola.learners": "inference_marl.learners.lola",
        "inference_marl.models.priors": "inference_marl.models",
    }
)
"""Modules before, and where what they defined is now."""


def present(path: str) -> str:
    """The present import path of a class that a file names, which is `path` itself if nothing moved."""
    module, dot, name = path.rpartition(".")
    return f"{MOVED.get(module, module)}{dot}{name}"


def with_public_names(content: Any) -> Any:
    """A copy of a file's content in which every class of this package is named by its present public path."""
    if isinstance(content, list):
        return [with_public_names(item) for item in content]
    if not isinstance(content, dict):
        return content
    changed = {key: with_public_names(value) for key, value in content.items()}
    path = changed.get("class_path")
    if isinstance(path, str) and path.startswith("inference_marl."):
        changed["class_path"] = _public(present(path))
    return changed


def _public(path: str) -> str:
    module, _, name = path.rpartition(".")
    try:
        return public_path(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError):  # of another version
        return path
