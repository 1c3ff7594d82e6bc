"""Results of `guard_opponents.yaml`: returns by number of training opponents.

    inference-marl run guard_opponents
    python experiments/guard_opponents.py runs/guard_opponents

It prints the returns of an episode after five against the same opponent, for held-out opponents like those of training
(interpolated) and beyond them (extrapolated), and draws `figures/training_opponents.png` in that folder. ± is half of a
95 % interval over seeds (Student's); differences from the first arm are over the same seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from inference_marl import read
from inference_marl.analysis.plots import drawing
from inference_marl.statistics.intervals import mean_interval

AFTER = 5
POPULATIONS = ("interpolated", "extrapolated")

Runs = Mapping[int, xr.Dataset]
"""Metrics by number of training opponents."""


def runs_in(folder: Path) -> Runs:
    """The runs named `opponents_8` and so on, fewest opponents first."""
    names = [path.name for path in folder.glob("opponents_*") if path.name.removeprefix("opponents_").isdecimal()]
    if not names:
        raise SystemExit(f"{folder}: got no run called opponents_8 or the like, expected those of guard_opponents.yaml")
    counts = sorted(int(name.removeprefix("opponents_")) for name in names)
    return {count: read(folder / f"opponents_{count}").metrics for count in counts}


def earned(metrics: xr.Dataset, population: str, arm: str) -> np.ndarray:
    """Returns of an arm, one per seed."""
    values: np.ndarray = metrics[f"return_after_{AFTER}_{population}"].sel(learner=arm).isel(step=-1).to_numpy()
    return values


def text(values: np.ndarray) -> str:
    """A mean with half of its 95 % interval, as text."""
    found = mean_interval(values)
    return f"{found.mean:.2f} ± {found.high - found.mean:.2f}"


def tables(runs: Runs) -> None:
    """Print returns, and differences from the first arm."""
    arms = next(iter(runs.values()))["learner"].to_numpy().tolist()
    for population in POPULATIONS:
        found = {arm: {count: earned(each, population, arm) for count, each in runs.items()} for arm in arms}
        rows = {arm: {count: text(values) for count, values in of.items()} for arm, of in found.items()}
        print(f"\nReturn after {AFTER} episodes, {population} opponents\n{pd.DataFrame(rows).T.to_string()}")
        first = found[arms[0]]
        gains = {arm: {n: text(values - first[n]) for n, values in found[arm].items()} for arm in arms[1:]}
        print(f"\nMore than {arms[0]}\n{pd.DataFrame(gains).T.to_string()}")


@drawing.styled
def training_opponents(runs: Runs) -> Figure:
    """Plot returns by number of training opponents, with a panel per population."""
    figure, (axes,) = drawing.panels(1, len(POPULATIONS), (4.2, 3.4), sharex=False, sharey=False)
    counts, first = list(runs), next(iter(runs.values()))
    looks = drawing.looks(first["learner"].to_numpy().tolist())
    for axis, population in zip(axes, POPULATIONS, strict=True):
        for place, (arm, look) in zip(np.geomspace(0.92, 1.09, len(looks)), looks.items(), strict=True):
            ends = [mean_interval(earned(each, population, arm)) for each in runs.values()]
            at = np.array(counts) * place
            axis.plot(at, [each.mean for each in ends], marker="o", markersize=3.5, **look)
            axis.vlines(at, [each.low for each in ends], [each.high for each in ends], color=look["color"], alpha=0.5)
        axis.set(title=population, xlabel="opponents in training", xscale="log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel(f"return after {AFTER} episodes")
    return drawing.finish(figure, "mean and 95 % interval; held-out opponents are the same everywhere", *axes, of=first)


def main() -> None:
    """Print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="runs of guard_opponents.yaml")
    folder = parser.parse_args().folder
    runs = runs_in(folder)
    tables(runs)
    path = folder / "figures" / "training_opponents.png"
    path.parent.mkdir(exist_ok=True)
    training_opponents(runs).savefig(path, dpi=150)
    print(f"\nThe figure is {path}")


if __name__ == "__main__":
    main()
