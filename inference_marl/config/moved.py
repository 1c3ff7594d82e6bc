"""Former import paths of classes, for older experiment files and run folders.

Newer files name classes by where they are exported, so an entry is needed only if a public path has changed.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from inference_marl.described import plain, public_path

MOVED: Mapping[str, str] = MappingProxyType(
    {
        "inference_marl.schedules": "inference_marl.inference.schedules",  # since 0.1.0
        "inference_marl.learners.stationary": "inference_marl.learners",
        "inference_marl.learners.lola.learners": "inference_marl.learners.lola",
        "inference_marl.learners.bayesian": "inference_marl.learners.scripts",
        "inference_marl.learners.coins": "inference_marl.learners.scripts",
        "inference_marl.learners.guard": "inference_marl.learners.scripts",
        "inference_marl.learners.kuhn": "inference_marl.learners.scripts",
        "inference_marl.models.priors": "inference_marl.models",
        "inference_marl.guides.autoregressive": "inference_marl.guides",
    }
)
"""Former modules, and the present modules of their classes."""


def present(path: str) -> str:
    """The present import path of a class that a file names; `path` itself if it has not moved."""
    module, dot, name = path.rpartition(".")
    return f"{MOVED.get(module, module)}{dot}{name}"


def up_to_date(content: Any) -> Any:
    """A copy of a file's content with present public paths for all classes of this package.

    Arguments that a class did not have when the file was written are added with their defaults.
    """
    if isinstance(content, list):
        return [up_to_date(item) for item in content]
    if not isinstance(content, dict):
        return content
    changed = {key: up_to_date(value) for key, value in content.items()}
    path = changed.get("class_path")
    if isinstance(path, str) and path.startswith("inference_marl."):
        module, _, name = present(path).rpartition(".")
        try:
            cls = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):  # a class of another version
            return changed
        parameters = inspect.signature(cls).parameters.values()
        defaults = {each.name: plain(each.default) for each in parameters if each.default is not each.empty}
        changed |= {"class_path": public_path(cls), "init_args": {**defaults, **changed.get("init_args", {})}}
    return changed
