"""Versions of this package and of the packages that affect the results of a run."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = {"inference_marl": "inference-marl", "torch": "torch", "pyro": "pyro-ppl", "numpy": "numpy"}
"""Packages that affect results: their names in `summary.json`, and those of their distributions."""


def installed_version(distribution: str) -> str:
    """The version of an installed distribution; `not installed` if there is none, as in a bare source tree."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Current versions of Python and of the packages that affect results."""
    return {"python": platform.python_version()} | {name: installed_version(of) for name, of in PACKAGES.items()}


__version__ = installed_version("inference-marl")
