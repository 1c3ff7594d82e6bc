"""Multi-agent control as probabilistic inference.

A game is a Pyro model, an agent is a Pyro guide, and learning is SVI on the ROMMEO ELBO (Tian et al. 2019).

The names that most programs need are here and imported on first access; the others are in the subpackages `games`,
`models`, `guides` and `learners`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_marl.analysis.arviz import (
        compare_forecasts,
        forecasts,
        latent_posterior,
        parameter_posterior,
        summary,
        to_arviz,
    )
    from inference_marl.analysis.recorded import read
    from inference_marl.config.factors import ablation
    from inference_marl.config.files import dump, load
    from inference_marl.config.tournament import tournament
    from inference_marl.experiment import Experiment, Suite
    from inference_marl.runs.frozen import Frozen
    from inference_marl.runs.run import resume, run
    from inference_marl.runs.versions import __version__

__all__ = [
    "Experiment",
    "Frozen",
    "Suite",
    "__version__",
    "ablation",
    "compare_forecasts",
    "dump",
    "forecasts",
    "latent_posterior",
    "load",
    "parameter_posterior",
    "read",
    "resume",
    "run",
    "summary",
    "to_arviz",
    "tournament",
]

_WHERE = {
    "Experiment": "experiment",
    "Frozen": "runs.frozen",
    "Suite": "experiment",
    "__version__": "runs.versions",
    "ablation": "config.factors",
    "compare_forecasts": "analysis.arviz",
    "dump": "config.files",
    "forecasts": "analysis.arviz",
    "latent_posterior": "analysis.arviz",
    "load": "config.files",
    "parameter_posterior": "analysis.arviz",
    "read": "analysis.recorded",
    "resume": "runs.run",
    "run": "runs.run",
    "summary": "analysis.arviz",
    "to_arviz": "analysis.arviz",
    "tournament": "config.tournament",
}

if not all(Path(__file__).with_name(_room).is_dir() for _room in ("models", "guides")):
    raise ImportError(
        f"{Path(__file__).with_name('models')}: got no folder, expected a link to one, which git makes where it may: "
        "git config core.symlinks true && git checkout -- inference_marl/models inference_marl/guides "
        "inference_marl/experiments (see docs/platforms.md); or install the wheel, which has no links"
    )


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
