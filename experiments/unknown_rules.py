"""What `unknown_rules.yaml` found, from the folder of its run: own values, detection of rules and its calibration.

    inference-marl run unknown_rules
    python experiments/unknown_rules.py runs/unknown_rules

Own values are exact normalised returns, averaged over all updates. ± is half of a 95 % interval over seeds (Student's);
differences are of the same seeds. `After n updates` means that the opponent has been seen at n + 1 policies.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy import stats

from inference_marl.games import MatrixGame
from inference_marl.inference.returns import best_response_return

GAME = MatrixGame("prisoners_dilemma", horizon=50, memory=1, discount=0.96)
FIXED = ["fixed_1", "fixed_3", "fixed_10"]
LEARNERS = ["inferred", *FIXED, "finer", "step_size"]
KNOWN = ["static", "naive_01", "naive_03", "naive_1", "naive_3", "lola"]
UNKNOWN = ["naive_003", "naive_06", "lola_3", "noisy", "drifting", "always_defect", "tit_for_tat"]
MISLEADING = ["late", "feint", "leaps", "itself"]
BOUNDS = (0.0, 0.5, 0.7, 0.9, 0.97, 1.01)
Array = np.ndarray[Any, Any]


def within(values: Array) -> str:
    """A mean and half of its 95 % interval."""
    half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / values.size**0.5
    return f"{values.mean():+.3f} ± {half:.3f}"


def own_values(metrics: xr.Dataset) -> dict[tuple[str, str], Array]:
    """The learner's mean return over the run, one per seed, by learner and opponent."""
    own = metrics["return"].isel(agent=0).mean("step")
    return {
        (learner, opponent): own.sel(learner=f"{learner}-{opponent}").to_numpy()
        for learner in LEARNERS
        for opponent in (*KNOWN, *UNKNOWN, *MISLEADING)
    }


def values_table(values: dict[tuple[str, str], Array]) -> None:
    """Own values, with the paired differences of the inferred from the fixed ones."""
    for name, opponents in {"known": KNOWN, "unknown": UNKNOWN, "misleading": MISLEADING}.items():
        rows = {each: {learner: f"{values[learner, each].mean():.3f}" for learner in LEARNERS} for each in opponents}
        means = {learner: np.stack([values[learner, each] for each in opponents]) for learner in LEARNERS}
        rows["mean"] = {learner: f"{each.mean():.3f}" for learner, each in means.items()}
        table = pd.DataFrame(rows).T
        for fixed in FIXED:
            gains = {each: within(values["inferred", each] - values[fixed, each]) for each in opponents}
            gains["mean"] = within((means["inferred"] - means[fixed]).mean(0))
            table[f"gain over {fixed}"] = pd.Series(gains)
        gains = {each: within(values["finer", each] - values["fixed_10", each]) for each in opponents}
        gains["mean"] = within((means["finer"] - means["fixed_10"]).mean(0))
        table["finer's over fixed_10"] = pd.Series(gains)
        print(f"\nOwn value against {name} rules\n{table.to_string()}")


def locked_in(metrics: xr.Dataset) -> None:
    """How many seeds end in mutual defection, whose return is -2."""
    last = metrics["return"].isel(agent=0, step=-1)
    shares = {
        opponent: {each: float((last.sel(learner=f"{each}-{opponent}") < -1.8).mean()) for each in LEARNERS}
        for opponent in ("static", "naive_003", "naive_1", *MISLEADING)
    }
    print(f"\nShare of seeds with a last return below -1.8\n{pd.DataFrame(shares).T.round(2).to_string()}")


def responses(values: dict[tuple[str, str], Array], posterior: xr.Dataset) -> None:
    """How far from best responses to static opponents, and from the best fixed assumption against learners."""
    rules = GAME.dynamics()
    assert rules is not None
    print()
    for opponent in ("static", "always_defect", "tit_for_tat"):
        policies = posterior["policy"].sel(learner=f"inferred-{opponent}").isel(step=0)
        played = policies.transpose("replicate", "agent", "state", "action").to_numpy()
        pair = [torch.from_numpy(played[:, agent].astype(np.float64)) for agent in (0, 1)]
        best = best_response_return(rules, pair, 0.96)[:, 0].numpy()
        loss = {learner: within(best - values[learner, opponent]) for learner in LEARNERS}
        print(f"Below the best response to {opponent} ({best.mean():.3f}): {loss}")
    for opponent in KNOWN[1:]:
        best_fixed = max(FIXED, key=lambda fixed: values[fixed, opponent].mean())
        below = within(values[best_fixed, opponent] - values["inferred", opponent])
        print(f"{opponent}: below the best fixed one, {best_fixed}: {below}")


def detection(posterior: xr.Dataset) -> None:
    """How often the most probable rule is right, learning is told from standing still, and what is claimed."""
    weights = posterior["opponent_type"].isel(agent=0, state=0).transpose("learner", "replicate", "step", "type")
    weights = weights.isel(type=slice(len(KNOWN)))  # others have more
    found = np.stack([weights.sel(learner=f"inferred-{each}").to_numpy() for each in KNOWN])
    truth = np.arange(len(KNOWN)).reshape(-1, 1)
    rows = {}
    for after in (1, 2, 3, 5, 6, 10, 11, 20, 21, 50, 99):
        now = found[:, :, after]
        right = now.argmax(-1) == truth
        told = (now[..., 0] > 0.5) == (truth == 0)
        by_rule = {f"told: {name}": told[number].mean() for number, name in enumerate(KNOWN)}
        rows[after] = {"rule right": right.mean(), "claimed": now.max(-1).mean(), "told": told.mean(), **by_rule}
    print(f"\nRules in the bank, after n updates\n{pd.DataFrame(rows).T.round(3).to_string()}")
    calibration = {}
    for after in (3, 6, 11, 21, 99):
        now = found[:, :, after]
        claim, right = now.max(-1), now.argmax(-1) == truth
        for low, high in itertools.pairwise(BOUNDS):
            some = (claim >= low) & (claim < high)
            if some.any():
                share = {"claimed": claim[some].mean(), "right": right[some].mean(), "number": some.sum()}
                calibration[after, f"{low}-{min(high, 1.0)}"] = share
    print(f"\nCalibration: the most probable rule\n{pd.DataFrame(calibration).T.round(3).to_string()}")
    learning = 1 - weights.isel(type=0)
    at = [6, 20, 29, 40, 99]
    means = learning.isel(step=at).mean("replicate")
    everyone = (*KNOWN, *UNKNOWN, *MISLEADING)
    rows = {each: dict(zip(at, means.sel(learner=f"inferred-{each}").to_numpy(), strict=True)) for each in everyone}
    print(f"\nP(learning), mean over seeds, after n updates\n{pd.DataFrame(rows).T.round(3).to_string()}")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    metrics, posterior = (xr.open_dataset(folder / name, engine="h5netcdf") for name in ("metrics.nc", "posterior.nc"))
    values = own_values(metrics)
    values_table(values)
    locked_in(metrics)
    responses(values, posterior)
    detection(posterior)


if __name__ == "__main__":
    main()
