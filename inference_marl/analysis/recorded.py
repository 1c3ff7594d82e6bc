"""Finished runs, read from their folders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from inference_marl.described import InspectError
from inference_marl.experiment import Levels
from inference_marl.learners.variational import ELBO_PARTS
from inference_marl.runs import checksums
from inference_marl.runs.errors import RunError
from inference_marl.runs.folder import of_replicates
from inference_marl.statistics.beliefs import BELIEFS, action_sizes
from inference_marl.statistics.forecasts import forecast_scores
from inference_marl.statistics.latents import LATENT
from inference_marl.statistics.metrics import OF_PLAY, is_zero_sum
from inference_marl.statistics.summary import declared
from inference_marl.types import Metric

ESTIMATE = ["mean", "low", "high"]
"""The columns of an estimate."""


@dataclass(frozen=True)
class Recorded:
    """A finished run in memory.

    Attributes:
        folder: folder of the run.
        spec: the resolved experiment, the content of `spec.yaml`.
        metrics: `metrics.nc`.
        posterior: `posterior.nc`; `None` if the run has none.
        surface: `surface.nc`; `None` if the game has no reward surface.
        solution: `solution.nc`; `None` if there is no exact solution to compare with.
        summary: `summary.json`.
    """

    folder: Path
    spec: dict[str, Any]
    metrics: xr.Dataset
    posterior: xr.Dataset | None
    surface: xr.Dataset | None
    solution: xr.Dataset | None
    summary: dict[str, Any]

    @property
    def beliefs(self) -> xr.Dataset:
        """`posterior`.

        Raises:
            InspectError: if the run has no beliefs.
        """
        if self.posterior is None:
            raise InspectError(f"{self.folder}: got a run without posterior.nc, expected one that records beliefs")
        return self.posterior

    def frame(self) -> pd.DataFrame:
        """All estimates of `summary.json` as one tidy frame, with a row per estimate, in full precision.

        Returns:
            Columns are `learner`, one per factor of a design (`..._level` if another column has its name), `agent`
            (missing for the mean over agents), `reference` (for paired differences, the learner that is subtracted),
            `metric`, `step`, `mean`, `low`, `high` (95 %; missing if the replicates give no interval; infinite if later
            than the last step), `replicates` and `published`.
        """
        rows = [row for part in ("results", "agents", "differences") for row in self.summary.get(part) or []]
        keys = ["learner", "agent", "reference", "metric", "step"]
        found = pd.DataFrame(rows).reindex(columns=[*keys, *ESTIMATE, "replicates"])
        found[ESTIMATE] = found[ESTIMATE].astype(np.float64)
        censored = found["metric"].map(lambda name: self.metric(name).censored).astype(bool)
        found.loc[censored & found["mean"].isna(), "mean"] = math.inf
        found.loc[censored & found["low"].notna() & found["high"].isna(), "high"] = math.inf
        found["published"] = [self._published(row) for row in found.itertuples(index=False)]
        factors = pd.DataFrame.from_dict(self.spec.get("levels") or {}, orient="index")
        for place, factor in enumerate(factors.columns, 1):
            name = f"{factor}_level" if factor in found else factor
            found.insert(place, name, found["learner"].map(factors[factor]))
        return found

    def _published(self, row: Any) -> float:
        """The published number for a row of the frame, or NaN.

        For agent 0 of a zero-sum game it is that of `return_0`, or else of `return`, which cannot be a mean there. For
        a mean over agents without their own rows, it may be the mean of published numbers of single agents.
        """
        numbers: dict[str, float] = (self.summary.get("published") or {}).get(row.learner, {})
        metric, agent = row.metric, row.agent
        if not pd.isna(row.reference):
            return math.nan
        if not pd.isna(agent):
            of_all = numbers.get(metric, math.nan) if self.zero_sum and agent == 0 else math.nan
            return numbers.get(f"{metric}_{agent:g}", of_all)
        single = [number for name, number in numbers.items() if name.removeprefix(f"{metric}_").isdecimal()]
        apart = self.zero_sum or self.has_own_learners(row.learner)
        return numbers.get(metric, fmean(single) if single and not apart else math.nan)

    def _repr_html_(self) -> str:
        """HTML for notebooks: estimates at the last step, as means over agents."""
        found = self.frame()
        last = found[(found["step"] == self.last_step) & found["agent"].isna() & found["reference"].isna()]
        table = last.set_index(["learner", "metric"])["mean"].unstack(sort=False)
        table = table.rename(columns=lambda name: self.metric(name).label).rename_axis(columns=None)
        return f"<p>{escape(self.title)}</p>{table.to_html(border=0, na_rep='-', float_format='{:.3f}'.format)}"

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return str(self.metrics.attrs.get("experiment", self.folder.name))

    @property
    def game(self) -> str:
        """The description of the game."""
        return str(self.metrics.attrs.get("game", "a game"))

    @property
    def made(self) -> dict[str, Any]:
        """Durations and versions, which differ between repetitions of the same run."""
        return self.summary.get("made") or self.summary

    @property
    def title(self) -> str:
        """One line that describes the run."""
        line = f"{self.name}: {self.game}, {self.replicates}, at step {self.last_step}"
        failed = [f"{arm} failed, and is shown as far as it came" for arm in self.failed]
        return "\n".join([line, *failed, *self.failed_replicates, *self.several_versions])

    @property
    def replicates(self) -> str:
        """The number of replicates, in words."""
        count = self.metrics.sizes["replicate"]
        return f"{count} replicate{'s' if count > 1 else ''}"

    @property
    def last_step(self) -> int:
        """The environment step of the last record."""
        return int(self.metrics["step"][-1])

    @property
    def learners(self) -> list[str]:
        """The names of the arms that have results."""
        names: list[str] = self.metrics["learner"].to_numpy().tolist()
        return names

    @cached_property
    def declared(self) -> dict[str, Metric]:
        """The metrics that its results may contain, in the order of its table."""
        return declared(self.metrics)

    def metric(self, name: str) -> Metric:
        """The declaration of a metric, including those of single agents."""
        stem, _, agent = name.rpartition("_")
        return self.declared.get(name) or self.declared.get(stem if agent.isdecimal() else name) or Metric(name)

    @cached_property
    def zero_sum(self) -> bool:
        """Whether the agents' rewards sum to 0."""
        return is_zero_sum(self.metrics)

    def has_own_learners(self, arm: str) -> bool:
        """Whether each seat of an arm has its own learner."""
        return isinstance((self.spec.get("arms") or {}).get(arm), list)

    @property
    def levels(self) -> Levels:
        """The level of each factor by arm; without a design, the only factor is the arm's name."""
        levels: Levels = self.spec.get("levels") or {arm: {"arm": arm} for arm in self.spec["arms"]}
        return levels

    @cached_property
    def actions(self) -> xr.Dataset | None:
        """`actions.nc`; `None` if the run has none."""
        path = self.folder / "actions.nc"
        _check(self.folder, path.name)
        return _dataset(path) if path.is_file() else None

    @cached_property
    def latents(self) -> dict[str, xr.Dataset]:
        """The latent beliefs about opponents recorded by evaluations, by evaluation (`statistics.latents`).

        They are in the experiment's order; the name of a single evaluation may be empty.
        """
        said = self.spec.get("evaluation") or {}
        names = [""] if "class_path" in said else list(said)
        files = {name: f"{LATENT}_{name}.nc" if name else f"{LATENT}.nc" for name in names}
        _check(self.folder, *files.values())
        return {name: _dataset(self.folder / file) for name, file in files.items() if (self.folder / file).is_file()}

    @cached_property
    def forecast_scores(self) -> xr.DataArray | None:
        """See `inference_marl.statistics.forecasts.forecast_scores`; `None` without recorded beliefs or actions."""
        return forecast_scores(self.posterior, self.actions) if self.posterior is not None and self.actions else None

    @property
    def failed(self) -> dict[str, str]:
        """The reasons of failed arms, by name."""
        return self.summary.get("failed") or {}

    @property
    def failed_replicates(self) -> list[str]:
        """A line for each arm with replicates that failed while the others continued."""
        lost: dict[str, dict[str, str]] = self.summary.get("failed_replicates") or {}
        return [of_replicates(arm, why, self.metrics.sizes["replicate"]) for arm, why in lost.items()]

    @property
    def several_versions(self) -> list[str]:
        """A line if the run was resumed under other versions of packages that its numbers depend on, else none."""
        each = [*(self.made.get("versions_before") or []), self.made.get("versions") or {}]
        named = {name: list(dict.fromkeys(at[name] for at in each if name in at)) for name in each[0]}
        differ = [f"{name} {' and then '.join(known)}" for name, known in named.items() if len(known) > 1]
        return [f"played under several versions: {', '.join(differ)}"] if differ else []


def read(run: Path | str | Recorded) -> Recorded:
    """Read a run's folder; a `Recorded` is returned unchanged.

    Raises:
        InspectError: if the folder is not a run, the run has not finished, or a file is damaged.
    """
    if isinstance(run, Recorded):
        return run
    folder = Path(run)
    if not folder.is_dir():
        raise InspectError(f"{folder}: got no such folder, expected the folder of a run")
    if not (folder / "spec.yaml").is_file():
        raise InspectError(f"{folder}: got a folder without spec.yaml, expected the folder of a run")
    # The last file that a run writes.
    if not (folder / "metrics.nc").is_file() or not (folder / "summary.json").is_file():
        raise InspectError(
            f"{folder}: got a run that has not finished (no results yet); go on with: inference-marl resume {folder}"
        )
    _check(folder, "spec.yaml", "metrics.nc", "posterior.nc", "surface.nc", "solution.nc", "summary.json")
    metrics = _dataset(folder / "metrics.nc")
    metrics = _declare(metrics.rename(success="success_rate") if "success" in metrics else metrics)
    posterior, surface, solution = (
        _dataset(path) if (path := folder / name).is_file() else None
        for name in ("posterior.nc", "surface.nc", "solution.nc")
    )
    spec = _mapping(folder / "spec.yaml", yaml.safe_load)
    if posterior is not None and "state" in posterior.sizes and "state" not in posterior.coords:
        posterior = posterior.assign_coords(state=np.arange(posterior.sizes["state"]))
    if posterior is not None and posterior.sizes["agent"] > 2 and "other" not in posterior.sizes:
        posterior = _about_each(posterior)
    results = _mapping(folder / "summary.json", json.loads)
    # Older folders have these entries at the top level.
    results.setdefault("made", {key: results[key] for key in ("seconds", "versions") if key in results})
    return Recorded(folder, spec, metrics, posterior, surface, solution, results)


def _check(folder: Path, *names: str) -> None:
    """Raise `InspectError` for files that have changed since they were written."""
    try:
        checksums.check(folder, names)
    except RunError as error:
        raise InspectError(str(error)) from error


def _declare(metrics: xr.Dataset) -> xr.Dataset:
    """Add the declarations of variables that versions before 0.2.0 did not write."""
    known = {metric.name: metric for metric in (*OF_PLAY, *ELBO_PARTS)}
    for name, values in metrics.items():
        if "metric" not in values.attrs:
            metric = known.get(str(name), Metric(str(name), dims=("agent",) if "agent" in values.dims else ()))
            values.attrs |= metric.attributes()
    return metrics


def _about_each(posterior: xr.Dataset) -> xr.Dataset:
    """Convert beliefs about joint actions, as recorded by 0.1.0, to beliefs about every opponent."""
    discrete, sizes = posterior.attrs["kind"] == "discrete", action_sizes(posterior)
    own, joint = ("action", "opponent_action") if discrete else ("action_dim", "opponent_dim")
    if joint not in posterior.sizes:
        return posterior
    everyone, most = range(len(sizes)), max(sizes)
    found = posterior.drop_dims(joint)
    for name in [name for name in BELIEFS if name in posterior]:
        values = posterior[name].transpose("agent", ..., joint).to_numpy()
        each = np.full((len(sizes), len(sizes), *values.shape[1:-1], most), np.nan, values.dtype)
        for agent in everyone:
            others = [other for other in everyone if other != agent]
            shape = [sizes[other] for other in others]
            for at, other in enumerate(others):
                if discrete:
                    table = values[agent][..., : int(np.prod(shape))].reshape(*values.shape[1:-1], *shape)
                    part = table.sum(tuple(place - len(shape) for place in range(len(shape)) if place != at))
                else:
                    part = values[agent][..., sum(shape[:at]) : sum(shape[: at + 1])]
                each[agent, other, ..., : sizes[other]] = part
        dims = [dim for dim in posterior[name].dims if dim not in ("agent", joint)]
        found[name] = (("agent", "other", *dims, joint), each)
    if "optimal_action" in posterior:
        best = posterior["optimal_action"].to_numpy()
        found["optimal_opponent_action"] = (("agent", "other", joint), np.broadcast_to(best, (len(sizes), *best.shape)))
    coordinates: dict[str, Any] = {"other": posterior["agent"].to_numpy()}
    return found.assign_coords(coordinates | ({joint: posterior[own].to_numpy()} if own in posterior.coords else {}))


def _dataset(path: Path) -> xr.Dataset:
    """Load a netCDF file into memory.

    Raises:
        InspectError: if the file cannot be read.
    """
    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError) as error:
        raise InspectError(f"{path}: got a file that cannot be read ({error}), expected netCDF") from error


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Parse a text file as a mapping.

    Raises:
        InspectError: if the file cannot be read or is not a mapping.
    """
    try:
        found = parse(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).split())
        raise InspectError(f"{path}: got a file that cannot be read ({why}), expected that of a run") from error
    if not isinstance(found, dict):
        raise InspectError(f"{path}: got {type(found).__name__}, expected a mapping, as a run writes it")
    return found
