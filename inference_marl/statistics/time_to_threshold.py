"""Time to threshold, and the lead of opponent models over the opponents' policies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from inference_marl.statistics.beliefs import Numbers, optimum_probability
from inference_marl.statistics.intervals import RESAMPLES, Band, Interval, check_level, mean_band, mean_interval


def first_lasting_step(condition: npt.ArrayLike, steps: npt.ArrayLike) -> Numbers:
    """First recorded step from which a condition holds up to and including the last record.

    Args:
        condition: bool, `... x steps`.
        steps: environment steps of the records, increasing, `steps`.

    Returns:
        Steps, `...`; `inf` where the condition does not hold at the last record.

    Raises:
        ValueError: if the number of records differs or is zero.
    """
    held, at = np.asarray(condition, dtype=np.bool_), np.asarray(steps, dtype=np.float64)
    if at.ndim != 1 or held.shape[-1:] != at.shape or not len(at):
        raise ValueError(f"condition: got shape {held.shape} for {at.shape} steps, expected one column per step")
    to_the_end = np.logical_and.accumulate(held[..., ::-1], axis=-1)[..., ::-1]
    first: Numbers = np.where(to_the_end[..., -1], at[to_the_end.argmax(-1)], np.inf)
    return first


def relapses(condition: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether rows relapse: a condition holds at two successive records, and fails at two successive later ones.

    Args:
        condition: bool, `rows x steps`.

    Returns:
        Bool, one for each row in which the condition holds at two successive records.
    """
    held = np.asarray(condition, dtype=np.bool_)
    twice, never = held[..., 1:] & held[..., :-1], ~held[..., 1:] & ~held[..., :-1]
    before: npt.NDArray[np.bool_] = np.logical_or.accumulate(twice, axis=-1)
    found: npt.NDArray[np.bool_] = np.any(before & never, axis=-1)[np.any(twice, axis=-1)]
    return found


def lasting_step_of_mean(
    values: npt.ArrayLike, threshold: float, steps: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """First recorded step from which the mean over replicates stays at or above a threshold, to the last record.

    The interval is from the percentile bootstrap with `RESAMPLES` resamples of the replicates, with a fixed seed, so
    that equal data have equal intervals.

    Args:
        values: `replicates x steps`.
        threshold: the threshold that the mean must reach.
        steps: environment steps of the records, increasing, `steps`.
        level: coverage, in (0, 1), approximate.

    Returns:
        `inf` if the mean is below the threshold at the last record; ends are NaN for fewer than two replicates, or
        identical ones.
    """
    check_level(level)
    data = np.asarray(values, dtype=np.float64)
    replicates = len(data)
    first = float(first_lasting_step(data.mean(0) >= threshold, steps)) if replicates else math.nan
    if replicates < 2 or not np.ptp(data, axis=0).max() > 0:
        return Interval(first, math.nan, math.nan)
    generator, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES // 50):  # bounded memory
        chosen = generator.integers(replicates, size=(50, replicates))
        times = np.stack([np.bincount(each, minlength=replicates) for each in chosen])
        drawn.append(first_lasting_step(times @ data / replicates >= threshold, steps))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")  # knows infinity
    return Interval(first, float(low), float(high))


@dataclass(frozen=True)
class Lead:
    """The lead of opponent models over the opponents' policies, see `lead`.

    Attributes:
        steps: environment steps, `replicates`; positive where the model is first, NaN where excluded.
        interval: mean over the replicates that are not excluded.
        excluded: number of replicates in which the model or the truth never passes the threshold for good.
        gap: the model's probability minus the true one, over all replicates, at each record.
        mean_gap: the gap averaged over records.
    """

    steps: Numbers
    interval: Interval
    excluded: int
    gap: Band
    mean_gap: Interval


def lead(
    model: npt.ArrayLike, truth: npt.ArrayLike, steps: npt.ArrayLike, threshold: float = 0.5, level: float = 0.95
) -> Lead:
    """Number of steps by which the opponent model finds the optimum before the opponents' policy does.

    A replicate's lead is the `first_lasting_step` above the threshold of the truth minus that of the model, averaged
    over its agents. If any of these never passes for good, the lead is censored: the replicate is excluded and counted.
    This selects the seeds in which both succeed, so see also `gap`, which uses all seeds.

    Args:
        model: the opponent model's probability of the optimum, `replicates x [agents x] steps`.
        truth: its probability under the opponents' actual policy, in the same shape.
        steps: environment steps of the records, `steps`.
        threshold: probability to pass, in (0, 1).
        level: coverage of the intervals.

    Source: "thinks ahead", Tian et al. (2019), section 5.1 and Fig. 1c, for one trial; the measures are ours.

    Raises:
        ValueError: if shapes differ.
    """
    believed, actual = np.asarray(model, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if believed.shape != actual.shape or believed.ndim not in (2, 3):
        raise ValueError(
            f"model, truth: got shapes {believed.shape} and {actual.shape}, "
            "expected the same, replicates x steps or replicates x agents x steps"
        )
    if believed.ndim == 2:
        believed, actual = believed[:, None], actual[:, None]
    early, late = (first_lasting_step(value > threshold, steps) for value in (believed, actual))
    both = np.isfinite(early + late).all(1)
    leads = np.full(len(believed), np.nan)
    leads[both] = (late[both] - early[both]).mean(1)
    gap = (believed - actual).mean(1)
    return Lead(
        steps=leads,
        interval=mean_interval(leads[both], level),
        excluded=int((~both).sum()),
        gap=mean_band(gap, level),
        mean_gap=mean_interval(gap.mean(1), level),
    )


def learner_lead(posterior: xr.Dataset, learner: str, threshold: float = 0.5) -> Lead | None:
    """`lead` of one learner, over its agents' beliefs about every opponent; `None` if it cannot be measured."""
    here = posterior.sel(learner=[learner])
    model, truth = (optimum_probability(here, name) for name in ("opponent_model", "opponent_policy"))
    if model is None or truth is None:
        return None
    # One belief for each pair of an agent and an opponent.
    beliefs = [dim for dim in model.dims if dim in ("agent", "other")]
    model, truth = (each[0].stack(belief=beliefs).transpose("replicate", "belief", "step") for each in (model, truth))
    having = model.notnull().all(["replicate", "step"]).to_numpy()
    if not having.any():
        return None
    believed, actual = (each.to_numpy()[:, having] for each in (model, truth))
    return lead(believed, actual, posterior["step"].to_numpy(), threshold)
