"""Results of linear probes: what latent beliefs know about hidden types, and with what certainty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import xarray as xr

from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.report.adaptation import SURE, WRONG
from inference_marl.analysis.tables import Section, cell
from inference_marl.statistics.adaptation import NOMINAL, episodes
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.metrics import estimate
from inference_marl.statistics.probes import COVERAGE, HALF, KNOWN, R2, known, probed_everywhere
from inference_marl.types import Metric

Probed = Mapping[str, Mapping[str, xr.Dataset]]
"""Probes by learner and evaluation."""


def probes(recorded: Recorded) -> list[Section]:
    """R2 of linear probes and coverage of their intervals; empty if beliefs or hidden types were not recorded.

    Intervals are 95 % confidence intervals over replicates.
    """
    found = {learner: probed_everywhere(recorded.latents, learner) for learner in recorded.learners}
    found = {learner: each for learner, each in found.items() if each}
    return [section for section in (knows(found), sure(found)) if section is not None]


def knows(found: Probed) -> Section | None:
    """R2 of linear probes by arm, evaluation and number of episodes."""
    rows = _rows(found, "r2", R2)
    if rows is None:
        return None
    first = next(iter(next(iter(found.values()))))
    what = (
        "R2 of linear probes, from the mean of z to each number of the opponents' hidden type, by number of episodes "
        "with them: 1 for exact predictions, 0 for those no better than the mean of all opponents, and less "
        f"for worse ones. Fitted in each replicate to one half of the{f' {first}' if first else ''} opponents and "
        f"scored on the other, both ways{_elsewhere(found, first)}. Means over replicates, ± half of the 95 % interval "
        "(Student's)."
    )
    return Section("What does the belief know?", what, rows, figures=("probes",))


def _elsewhere(found: Probed, first: str) -> str:
    others = list(dict.fromkeys(name for each in found.values() for name in each if name != first))
    if not others:
        return ""
    return (
        f"; {_listed(others)} ones are scored by probes fitted to all {first} ones, except those that are the same "
        "as the scored ones"
    )


def sure(found: Probed) -> Section | None:
    """Coverage of intervals for known numbers, with a note on arms that are much too confident."""
    rows = _rows(found, "coverage", COVERAGE)
    if rows is None:
        return None
    what = (
        f"Share of opponents whose true number lies in the central {SURE} interval of the distribution of a linear "
        f"function of z, w . mean ± {HALF:.2f} |w * sd|: {NOMINAL:g} if the belief is as wide as its errors, less "
        "if it is overconfident. The function is the best for draws of z after the most episodes, fitted to the same "
        "opponents as the probes. Its own error is not included; for other opponents it may be wrong even if the "
        f"belief is right. Only for numbers with an R2 of {KNOWN:g} or more, where a calibrated belief has a "
        f"share of 0.8 to {NOMINAL:g}. Means over replicates with 95 % intervals."
    )
    return Section("How sure is the belief of what it knows?", what, rows, " ".join(_overconfident(found)))


def _overconfident(found: Probed) -> Iterator[str]:
    """Yield a sentence for each arm and evaluation with low coverage of known numbers after the most episodes."""
    for learner, by_evaluation in found.items():
        for evaluation, each in by_evaluation.items():
            if "coverage" not in each:
                continue
            last = each["coverage"].isel(episodes=-1).mean("replicate", skipna=False)
            wrong = [name for name in known(by_evaluation) if float(last.sel(ability=name)) < WRONG]
            if wrong:
                most = int(each["episodes"][-1])
                shares = [f"{100 * float(last.sel(ability=name)):.0f}" for name in wrong]
                whose = f"{evaluation} opponents" if evaluation else "its opponents"
                yield (
                    f"{learner} is confident and wrong about {_listed(wrong)} of {whose}: after {episodes(most)} with "
                    f"them, its {SURE} intervals contain {_listed(shares)} % of the true numbers."
                )


def _rows(found: Probed, what: str, metric: Metric) -> pd.DataFrame | None:
    """Estimates by coordinate of the type, with a row for each evaluation, arm and number of episodes."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    evaluations = dict.fromkeys(name for each in found.values() for name in each)
    for evaluation in evaluations:
        for learner, by_evaluation in found.items():
            each = by_evaluation.get(evaluation)
            if each is None or what not in each:
                continue
            asked = each["ability"].to_numpy().tolist() if what == "r2" else known(by_evaluation)
            for number in _some(each["episodes"].to_numpy().tolist()) if asked else ():
                values = each[what].sel(episodes=number)
                cells = {name: cell(metric, estimate(metric, _of(values, name))) for name in asked}
                rows[evaluation, learner, f"after {number}"] = cells
    if not rows:
        return None
    every = next(iter(next(iter(found.values())).values()))["ability"].to_numpy().tolist()
    columns = [name for name in every if any(name in row for row in rows.values())]
    texts = [[row.get(column, "-") for column in columns] for row in rows.values()]
    by_all = pd.MultiIndex.from_tuples(list(rows))
    return pd.DataFrame(texts, by_all if any(evaluations) else by_all.droplevel(0), columns)


def _of(values: xr.DataArray, ability: str) -> Numbers:
    found: Numbers = values.sel(ability=ability).to_numpy()
    return found


def _some(numbers: Sequence[int]) -> list[int]:
    """The first two numbers of episodes and the last."""
    return sorted({*numbers[:2], numbers[-1]})


def _listed(words: Sequence[str]) -> str:
    """Join words as in `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
