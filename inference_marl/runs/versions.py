"""Versions of this package and of what the numbers of a run depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = {"inference_marl": "inference-marl", "torch": "torch", "pyro": "pyro-ppl", "numpy": "numpy"}
"""What the numbers of a run depend on: names in `summary.json`, and those of the distributions."""


def installed_version(distribution: str) -> str:
    """The version of an installed distribution; `not installed` if there is none, as in a mere source tree."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers of a run depend on, as they are now."""
    return {"python": platform.python_version()} | {name: installed_version(of) for name, of in PACKAGES.items()}


__version__ = installed_version("inference-marl")
