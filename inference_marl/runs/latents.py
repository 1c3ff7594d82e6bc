"""Writes `latent.nc`: latent beliefs about the opponents that evaluations keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from inference_marl.experiment import Experiment
from inference_marl.play import Evaluation, TrialEvaluation
from inference_marl.runs.netcdf import Part, Variable, write_variables
from inference_marl.runs.records import Records
from inference_marl.statistics.latents import ATTRIBUTES, DIMS, LATENT, TYPE
from inference_marl.types import Game


def latent_files(experiment: Experiment) -> list[str]:
    """Names of the files of latent beliefs that a run of an experiment may have."""
    return [f"{LATENT}{suffix}.nc" for suffix in experiment.evaluations]


def write_latents(folder: Path, experiment: Experiment, recorded: Mapping[str, Records]) -> None:
    """Write the latent beliefs that arms have recorded, one file for each evaluation that kept any."""
    for (suffix, evaluation), name in zip(experiment.evaluations.items(), latent_files(experiment), strict=True):
        variables = _variables(recorded, LATENT + suffix)
        if not variables:
            continue
        counts = [records.counts.get(LATENT + suffix, 0) for records in recorded.values()]
        coordinates = {
            "learner": list(recorded),
            "replicate": np.arange(experiment.replicates),
            "step": np.arange(1, max(counts) + 1) * evaluation.every,
            **_labels(experiment.game, evaluation, variables),
        }
        write_variables(folder / name, xr.Dataset(coords=coordinates), variables)


def _variables(recorded: Mapping[str, Records], stream: str) -> dict[str, Variable]:
    found = {}
    for name, dims in DIMS.items():
        parts = [
            Part.of(records, learner, stream, name)
            for learner, records in enumerate(recorded.values())
            if name in records.columns.get(stream, {})
        ]
        if parts:
            found[name] = Variable(("learner", "replicate", "step", *dims), parts, ATTRIBUTES[name])
    return found


def _labels(game: Game, evaluation: Evaluation, variables: Mapping[str, Variable]) -> dict[str, list[int] | list[str]]:
    """Labels of coordinates: numbers of earlier episodes, and names of the components of a type."""
    found: dict[str, list[int] | list[str]] = {}
    if isinstance(evaluation, TrialEvaluation):
        found["episodes"] = list(evaluation.after)
    if TYPE in variables:
        count = variables[TYPE].sizes["ability"]
        names = getattr(evaluation.game or game, "feature_names", None)
        found["ability"] = list(names or [f"type {number}" for number in range(1, count + 1)])
    return found
