"""What a run's folder has to tell, as plain text and figures: the command `inference-marl inspect`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from inference_marl.posterior import InspectError, Recorded, read, summary
from inference_marl.readings import PROBABILITY_FLOOR, divergences, modelling
from inference_marl.statistics import Interval, learner_lead, mean_interval

__all__ = ["InspectError", "inspect_run", "results_table"]

MAX_ROWS = 40
"""Rows of the ArviZ summary that are printed."""

METRICS = {
    "reward": "reward per step",
    "joint_optimum_probability": "joint probability of the optimum",
    "success_rate": "success rate",
    "steps_to_success": "steps to lasting success (median)",
    "elbo": "ELBO",
    "opponent_model_lead": "opponent model's lead, in steps",
}


def inspect_run(run: Path | str, print: Callable[[str], object] = print) -> None:
    """Print what a run found and draw its figures into its folder.

    Args:
        run: the folder of a finished run.
        print: where the text goes, a block of lines at a time, at most about 100 columns wide.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished.
    """
    from inference_marl.plots import write_all  # matplotlib, which the table alone does not need

    recorded = read(run)
    print(results_table(recorded))
    posterior = recorded.posterior
    if posterior is None or not modelling(posterior):
        print("\nNo learner of this run has an opponent model, so there are no beliefs to show.")
    else:
        print(_beliefs(recorded))
        print(_thinks_ahead(posterior))
        print(_accuracy(posterior))
    paths = write_all(recorded)
    print(f"\nFigures in {paths[0].parent}:\n" + "\n".join(f"  {path.name}" for path in paths))


def results_table(run: Path | str | Recorded) -> str:
    """The results at the last step, every learner under every metric, with published values beside them.

    Args:
        run: the folder of a finished run, or what `read` made of it.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished.
    """
    recorded = run if isinstance(run, Recorded) else read(run)
    metrics, found = recorded.metrics, recorded.summary
    last = int(metrics["step"][-1])
    published = found.get("published") or {}
    lines: list[Sequence[str]] = []
    for metric, name in METRICS.items():
        rows = [row for row in found["results"] if row["metric"] == metric and row["step"] == last]
        lines += [[name]] if rows else []
        for row in rows:
            reference = published.get(row["learner"], {}).get(metric)
            beside = [] if reference is None else [_number(reference)]
            lines.append([f"  {row['learner']}", *_row(row, last), str(row["replicates"]), *beside])
    header = ["", "mean", "95 % interval", "replicates", *(["published"] if published else [])]
    title = f"{metrics.attrs.get('experiment', recorded.folder.name)}: {metrics.attrs.get('game', 'a game')}, "
    count = metrics.sizes["replicate"]
    title += f"{count} replicate{'s' if count > 1 else ''}, at step {last}"
    source = f"\npublished: {found['source']}" if published and found.get("source") else ""
    return f"{title}\n\n{_table(header, lines)}{source}"


def _row(row: Mapping[str, Any], last: int) -> list[str]:
    """Estimate and interval of a results row; a median that was not reached is more than the last step."""
    censored = row["metric"] == "steps_to_success"
    beyond, digits = (f"> {last}", 1) if censored else ("-", 3)
    mean, low, high = (beyond if row[key] is None else _number(row[key], digits) for key in ("mean", "low", "high"))
    return [mean, "-" if row["low"] is None and row["high"] is None else f"[{low}, {high}]"]


def _beliefs(recorded: Recorded) -> str:
    table = summary(recorded)
    text = table.head(MAX_ROWS).to_string(float_format=lambda value: f"{value:.3f}", na_rep="-")
    cut = (
        ""
        if len(table) <= MAX_ROWS
        else (f"\n... and {len(table) - MAX_ROWS} more rows: inference_marl.posterior.summary('{recorded.folder}')")
    )
    discrete = recorded.posterior is not None and recorded.posterior.attrs["kind"] == "discrete"
    what = (
        "rho's probability of each action; mean, sd and interval over replicates"
        if discrete
        else "rho's draws, all replicates together; r_hat asks whether the replicates agree"
    )
    return f"\nBeliefs about the opponents at the last step, summarised by ArviZ\n({what})\n\n{text}{cut}"


def _thinks_ahead(posterior: xr.Dataset) -> str:
    """Leads of all learners with an opponent model."""
    rows = []
    for learner in modelling(posterior):
        ahead = learner_lead(posterior, learner)
        if ahead is not None:
            excluded = f"{ahead.excluded} of {len(ahead.steps)}"
            rows.append([learner, *_interval(ahead.interval), excluded, *_interval(ahead.mean_gap)])
    title = "\nDoes the opponent model think ahead?"
    if not rows:
        return f"{title} That needs a game with a known optimum."
    what = (
        "lead: environment steps by which rho's probability of the optimum passes 1/2 for good before the\n"
        "opponents' policy does; replicates where either never does are excluded, so see the gap as well:\n"
        "rho's probability minus the policy's, averaged over the whole run and all replicates"
        if posterior.attrs["kind"] == "discrete"
        else "lead: environment steps by which the mean of rho comes to the optimum for good before the mean\n"
        "of the opponents' policy does; replicates where either never does are excluded, so see the gap as\n"
        "well: rho's share of records at the optimum minus the policy's, over all replicates"
    )
    return f"{title}\n({what})\n\n" + _table(["", "lead", "95 % interval", "excluded", "gap", "95 % interval"], rows)


def _accuracy(posterior: xr.Dataset) -> str:
    """Divergences of all learners with an opponent model, at the last record."""
    rows = []
    discrete = posterior.attrs["kind"] == "discrete"
    for learner in modelling(posterior):
        found = divergences(posterior, learner)
        if found is not None:
            positive = [mean_interval(values, bounds=(0, math.inf)) for values in (found.from_prior, found.from_truth)]
            intervals = [*positive, mean_interval(found.log_score, bounds=(-math.inf, 0 if discrete else math.inf))]
            rows.append([learner, *(" ".join(_interval(interval)) for interval in intervals)])
    how = f"probabilities below {PROBABILITY_FLOOR:g} count as that" if discrete else "from normals fitted to the draws"
    return (
        "\nHow far rho is from the prior P and from the truth at the last step, in nats, with 95 % intervals\n"
        f"({how};\nlog score: what the opponents' policy expects of log rho, higher is better)\n\n"
        + _table(["", "KL(rho || P)", "KL(truth || rho)", "log score"], rows)
    )


def _interval(interval: Interval) -> list[str]:
    ends = f"[{_number(interval.low)}, {_number(interval.high)}]" if math.isfinite(interval.low) else "-"
    return [_number(interval.mean), ends]


def _number(value: float, digits: int = 3) -> str:
    """So many decimals, one where the number is large; `-` for NaN."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else f"{value}"
    text = f"{value:.{digits}f}" if abs(value) < 100 else f"{value:.1f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left; rows may be shorter than the header."""
    filled = [[*row, *[""] * (len(header) - len(row))] for row in [header, *rows]]
    # A row of one cell is a heading and may run on over the empty columns.
    widths = [max(len(row[i]) for row in filled if i or row[1]) for i in range(len(header))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in filled
    ]
    return "\n".join(line.rstrip() for line in lines)
