"""Results of `unknown_rules.yaml`: the learner's own values, and detection of learning rules with its calibration.

    inference-marl run unknown_rules
    python experiments/unknown_rules.py runs/unknown_rules

It prints tables and draws `figures/learning_rules.png` in that folder, also for other iterated games with two actions
(run with `--game.payoff stag_hunt` and the like). Own values are exact normalised returns, averaged over all updates.
± is half of a 95 % interval over seeds (Student's); differences are over the same seeds. `After n updates` means that
the learner has observed n + 1 policies of the opponent.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from inference_marl import load
from inference_marl.analysis.plots import drawing
from inference_marl.inference.returns import best_response_return
from inference_marl.types import Game

KNOWN = ["static", "naive_01", "naive_03", "naive_1", "naive_3", "lola"]
GROUPS = {
    "known": KNOWN,
    "unknown": ["naive_003", "naive_06", "lola_3", "noisy", "drifting", "always_defect", "tit_for_tat"],
    "misleading": ["late", "feint", "leaps", "itself"],
}
BOUNDS = (0.0, 0.5, 0.7, 0.9, 0.97, 1.01)
PHASES = ((1, 4), (4, 12), (12, 50), (50, 100))
"""Half-open ranges of updates that are pooled in the reliability diagram."""

Array = np.ndarray[Any, Any]
Levels = Mapping[str, Mapping[str, str]]


def within(values: Array) -> str:
    """A mean with half of its 95 % interval, as text."""
    half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / values.size**0.5
    return f"{values.mean():+.3f} ± {half:.3f}"


def own_values(metrics: xr.Dataset, levels: Levels) -> dict[tuple[str, str], Array]:
    """The learner's mean return over the run, one per seed, by learner and opponent."""
    own = metrics["return"].isel(agent=0).mean("step")
    return {(at["learner"], at["opponent"]): own.sel(learner=arm).to_numpy() for arm, at in levels.items()}


def learners_of(values: dict[tuple[str, str], Array]) -> list[str]:
    """The learners, in the order of the file."""
    return list(dict.fromkeys(learner for learner, _ in values))


def fixed_of(values: dict[tuple[str, str], Array]) -> list[str]:
    """The learners that shape with a fixed strength."""
    return [each for each in learners_of(values) if each.startswith("fixed")]


def values_table(values: dict[tuple[str, str], Array]) -> None:
    """Print own values, with paired differences between the inferred and the fixed learners."""
    learners = learners_of(values)
    for name, opponents in GROUPS.items():
        rows = {each: {learner: f"{values[learner, each].mean():.3f}" for learner in learners} for each in opponents}
        means = {learner: np.stack([values[learner, each] for each in opponents]) for learner in learners}
        rows["mean"] = {learner: f"{each.mean():.3f}" for learner, each in means.items()}
        table = pd.DataFrame(rows).T
        for fixed in fixed_of(values):
            gains = {each: within(values["inferred", each] - values[fixed, each]) for each in opponents}
            gains["mean"] = within((means["inferred"] - means[fixed]).mean(0))
            table[f"gain over {fixed}"] = pd.Series(gains)
        gains = {each: within(values["finer", each] - values["fixed_10", each]) for each in opponents}
        gains["mean"] = within((means["finer"] - means["fixed_10"]).mean(0))
        table["finer's over fixed_10"] = pd.Series(gains)
        print(f"\nOwn value against {name} rules\n{table.to_string()}")


def locked_in(metrics: xr.Dataset, learners: list[str]) -> None:
    """Print the number of seeds that end in mutual defection, with return -2 in the prisoner's dilemma."""
    last = metrics["return"].isel(agent=0, step=-1)
    shares = {
        opponent: {each: float((last.sel(learner=f"{each}-{opponent}") < -1.8).mean()) for each in learners}
        for opponent in ("static", "naive_003", "naive_1", *GROUPS["misleading"])
    }
    print(f"\nShare of seeds with a last return below -1.8\n{pd.DataFrame(shares).T.round(2).to_string()}")


def responses(values: dict[tuple[str, str], Array], posterior: xr.Dataset, game: Game) -> None:
    """Print the distance to best responses to static opponents, and to the best fixed assumption against learners."""
    rules, fixed = game.dynamics(), fixed_of(values)
    if rules is None or game.discount is None:
        raise SystemExit(
            f"game: got {type(game).__name__} without tables or discount, expected an iterated matrix game"
        )
    print()
    for opponent in ("static", "always_defect", "tit_for_tat"):
        policies = posterior["policy"].sel(learner=f"inferred-{opponent}").isel(step=0)
        played = policies.transpose("replicate", "agent", "state", "action").to_numpy()
        pair = [torch.from_numpy(played[:, agent].astype(np.float64)) for agent in (0, 1)]
        best = best_response_return(rules, pair, game.discount)[:, 0].numpy()
        loss = {learner: within(best - values[learner, opponent]) for learner in learners_of(values)}
        print(f"Below the best response to {opponent} ({best.mean():.3f}): {loss}")
    for opponent in KNOWN[1:]:
        best_fixed = max(fixed, key=lambda strength: values[strength, opponent].mean())
        below = within(values[best_fixed, opponent] - values["inferred", opponent])
        print(f"{opponent}: below the best fixed one, {best_fixed}: {below}")


def believed(posterior: xr.Dataset) -> dict[str, Array]:
    """The posterior of `inferred` over every opponent's rule, `replicates x steps x rules`."""
    weights = posterior["opponent_type"].isel(agent=0, state=0).transpose("learner", "replicate", "step", "type")
    weights = weights.isel(type=slice(len(KNOWN)))  # others have more
    return {each: weights.sel(learner=f"inferred-{each}").to_numpy() for group in GROUPS.values() for each in group}


def detection(beliefs: dict[str, Array]) -> None:
    """Print how often the most probable rule is right and learning is detected, and the believed probabilities."""
    found = np.stack([beliefs[each] for each in KNOWN])
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
    at = [6, 20, 29, 40, 99]
    learning = {each: dict(zip(at, 1 - now[:, at, 0].mean(0), strict=True)) for each, now in beliefs.items()}
    print(f"\nP(learning), mean over seeds, after n updates\n{pd.DataFrame(learning).T.round(3).to_string()}")


@drawing.styled
def learning_rules(beliefs: dict[str, Array]) -> Figure:
    """Plot the believed probability that each opponent learns, and the accuracy of the most probable rule."""
    figure, ((*over_time, reliability),) = drawing.panels(1, len(GROUPS) + 1, (3.3, 2.6), sharex=False)
    for axis, (group, opponents) in zip(over_time, GROUPS.items(), strict=True):
        for number, each in enumerate(opponents):
            learning = 1 - beliefs[each][..., 0]
            half = stats.t.ppf(0.975, len(learning) - 1) * learning.std(0, ddof=1) / len(learning) ** 0.5
            mean, updates = learning.mean(0), np.arange(learning.shape[1])
            axis.plot(updates, mean, label=each, **drawing.look(number))
            axis.fill_between(updates, mean - half, mean + half, color=drawing.look(number)["color"], alpha=0.15, lw=0)
        axis.set(title=f"rules: {group}", xlabel="updates of the opponent", ylim=drawing.PROBABILITY_AXIS)
    over_time[0].set_ylabel("P(learning)")
    found = np.stack([beliefs[each] for each in KNOWN])
    truth = np.arange(len(KNOWN)).reshape(-1, 1, 1)
    claim, right = found.max(-1), found.argmax(-1) == truth
    for number, (first, last) in enumerate(PHASES):
        points = [
            of_bin(claim[:, :, first:last], right[:, :, first:last], *ends) for ends in itertools.pairwise(BOUNDS)
        ]
        at, share, low, high = np.array([point for point in points if point is not None]).T
        label = f"updates {first} to {last - 1}"
        reliability.errorbar(at, share, [share - low, high - share], label=label, capsize=2, **drawing.look(number))
    reliability.plot([0, 1], [0, 1], color=drawing.NOTE, lw=0.8)
    reliability.set(
        title="most probable rule", xlabel="claimed probability", ylabel="share that is right", xlim=(0.2, 1.03)
    )
    for axis in (*over_time, reliability):
        axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    count = len(found[0])
    return drawing.finish(
        figure, f"LolaUnknownRule, {count} seeds of each opponent; means with 95 % intervals over seeds"
    )


def of_bin(claim: Array, right: Array, low: float, high: float) -> tuple[float, float, float, float] | None:
    """Mean claim and accuracy of a bin, with a 95 % bootstrap interval over seeds; `None` if the bin is empty.

    Args:
        claim: probabilities of the most probable rule, `opponents x replicates x steps`; replicates are resampled.
        right: whether that rule is the true one, likewise.
        low: lower end of the bin.
        high: upper end of the bin.
    """
    inside = (claim >= low) & (claim < high)
    total, hits = inside.sum((0, 2)), (inside & right).sum((0, 2))
    if not total.sum():
        return None
    drawn = np.random.default_rng(0).integers(len(total), size=(2000, len(total)))
    all_drawn = total[drawn].sum(1)
    shares = (hits[drawn].sum(1) / np.maximum(all_drawn, 1))[all_drawn > 0]
    ends, share = np.quantile(shares, [0.025, 0.975]), hits.sum() / total.sum()
    return float(claim[inside].mean()), float(share), float(min(ends[0], share)), float(max(ends[1], share))


def main() -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    metrics, posterior = (xr.open_dataset(folder / name, engine="h5netcdf") for name in ("metrics.nc", "posterior.nc"))
    experiment = load(folder / "spec.yaml")
    values, beliefs = own_values(metrics, experiment.levels), believed(posterior)
    values_table(values)
    locked_in(metrics, learners_of(values))
    responses(values, posterior, experiment.game)
    detection(beliefs)
    path = folder / "figures" / "learning_rules.png"
    path.parent.mkdir(exist_ok=True)
    learning_rules(beliefs).savefig(path, dpi=150)
    print(f"\nThe figure is {path}")


if __name__ == "__main__":
    main()
