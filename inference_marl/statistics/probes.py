"""Linear probes of latent beliefs: how well they predict each component of the opponents' hidden type.

A probe (Alain and Bengio 2017) is a linear function of the mean of z, fitted to one component of the type by ridge
regression, with the penalty chosen by leave-one-out error over opponents. It is scored on opponents that it was not
fitted to, so the score is not due to overfitting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import special  # type: ignore[import-untyped, unused-ignore]

from inference_marl.statistics.adaptation import NOMINAL
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.latents import MEAN, SD, TYPE, at_the_end, believing
from inference_marl.types import PROBABILITY, Metric

Chosen = npt.NDArray[np.bool_]
"""Mask of opponents, one bool each."""

PENALTIES = np.geomspace(1e-5, 1e3, 17)
"""Candidate penalties, in units of the largest squared singular value."""

HALF = float(special.ndtri((1 + NOMINAL) / 2))
"""Half-width of a normal's central interval of coverage `NOMINAL`, in standard deviations."""

KNOWN = 0.8
"""R2 of predictions from samples of z from which a component counts as known, so that its uncertainty is meaningful.

Predictions from samples are shrunk where beliefs are wide. At this R2 the intervals of a calibrated belief have
coverage 0.8, at higher ones up to `NOMINAL`.
"""

R2 = Metric(
    "probe_r2",
    "R2 of a linear probe",
    dims=(),
    higher_is_better=True,
    meaning="One minus the squared error of the probe over that of a constant, the mean of the scored opponents.",
)

COVERAGE = Metric(
    "probe_coverage",
    "coverage of the probe's intervals",
    bounds=PROBABILITY,
    dims=(),
    meaning=f"Share of opponents whose true number lies in the central {100 * NOMINAL:g} % interval of a linear "
    "function of z, which is normal under the belief.",
)


class Probe(NamedTuple):
    """A linear function.

    Attributes:
        weights: `latent x abilities`.
        intercept: `abilities`.
    """

    weights: Numbers
    intercept: Numbers

    def __call__(self, mean: Numbers) -> Numbers:
        """Predictions, `opponents x abilities`, from the mean of z, `opponents x latent`."""
        predicted: Numbers = mean @ self.weights + self.intercept
        return predicted


def fit(mean: Numbers, truth: Numbers) -> Probe:
    """Fit a probe, by ridge regression of each component of the type.

    Args:
        mean: the means of z, `opponents x latent`.
        truth: the types, `opponents x abilities`.

    Returns:
        The probe; constant if z does not vary, and NaN without opponents.
    """
    if not len(mean):
        return Probe(np.full((mean.shape[1], truth.shape[1]), np.nan), np.full(truth.shape[1], np.nan))
    centre, level = mean.mean(0), truth.mean(0)
    left, sizes, right = np.linalg.svd(mean - centre, full_matrices=False)
    if sizes[0] <= 1e-6 * np.abs(mean).max(initial=1.0):
        return Probe(np.zeros((mean.shape[1], truth.shape[1])), level)
    along = left.T @ (truth - level)
    shrunk = sizes**2 / (sizes**2 + PENALTIES[:, None] * sizes[0] ** 2)  # penalties x directions
    errors = truth - level - np.einsum("od,pd,da->poa", left, shrunk, along)
    leverage = 1 / len(mean) + np.einsum("od,pd->po", left**2, shrunk)
    best = np.square(errors / (1 - leverage).clip(1e-9)[..., None]).mean(1).argmin(0)  # for each ability
    weights = right.T @ (shrunk[best].T / sizes.clip(1e-300)[:, None] * along)
    return Probe(weights, level - centre @ weights)


def fit_draws(mean: Numbers, sd: Numbers, truth: Numbers) -> Probe:
    """Fit the linear functions of z itself that minimise the expected squared error over z and opponents.

    The expected error is that of the mean plus `(w * sd)^2`. So this is also a ridge regression, with the belief's own
    variance as the penalty, and uncertain coordinates get small weights. Where beliefs are wide, predictions are shrunk
    compared with those from means.

    Args:
        mean: the means of z, `opponents x latent`.
        sd: the standard deviations of z, likewise.
        truth: the types, `opponents x abilities`.

    Returns:
        The probe; NaN without opponents.
    """
    if not len(mean):
        return fit(mean, truth)
    centred, level = mean - mean.mean(0), truth.mean(0)
    weights = np.linalg.solve(centred.T @ centred + np.diag(np.square(sd).sum(0)), centred.T @ (truth - level))
    return Probe(weights, level - mean.mean(0) @ weights)


def probed(known: xr.Dataset, tested: xr.Dataset) -> xr.Dataset | None:
    """Fit probes to some opponents and test them on others, for each replicate.

    If both sets contain the same opponents, probes are fitted to one half of these and tested on the other, and vice
    versa. No probe is fitted to an opponent that it is tested on, or to one of the same type.

    Args:
        known: a learner's beliefs about the opponents to fit probes to, see `latents.at_the_end`.
        tested: its beliefs about the opponents to test them on.

    Returns:
        * `predicted`: predictions, `replicate, opponent, episodes, ability`, by probes fitted to beliefs after the same
          number of episodes;
        * `r2`: R2 of these predictions, `replicate, episodes, ability`; it may be negative;
        * `interval_mean`, `interval_sd`: mean and standard deviation of a linear function of z, a normal: `w . mean`
          plus a constant, and `|w * sd|`. The function is the best one for samples of z after the most episodes
          (`fit_draws`), since the meaning of z should not depend on their number. Its own error is not included;
        * `interval_r2`: R2 of these means, `replicate, episodes, ability`;
        * `coverage`: share of central intervals that contain the true value, likewise;
        * `type`: the true values.

        `interval_...` and `coverage` are missing if beliefs are points. `None` if no types are known, the types of both
        sets have different components, as in different games, or there is no common number of episodes.
    """
    numbers = sorted(set(tested["episodes"].to_numpy().tolist()) & set(known["episodes"].to_numpy().tolist()))
    if TYPE not in known or TYPE not in tested or not numbers:
        return None
    if not np.array_equal(known["ability"], tested["ability"]):
        return None
    known, tested = known.sel(episodes=numbers), tested.sel(episodes=numbers)
    each = [_of_replicate(*(_arrays(data, at) for data in (known, tested))) for at in range(known.sizes["replicate"])]
    dims = {"predicted": ("opponent", "episodes", "ability"), "r2": ("episodes", "ability")}
    dims |= {"interval_mean": dims["predicted"], "interval_sd": dims["predicted"]}
    dims |= {"interval_r2": dims["r2"], "coverage": dims["r2"]}
    variables = {name: (("replicate", *dims[name]), np.stack([found[name] for found in each])) for name in each[0]}
    coordinates = {name: tested[name] for name in ("replicate", "episodes", "ability") if name in tested.coords}
    return xr.Dataset({**variables, TYPE: tested[TYPE]}, coordinates)


def probed_everywhere(latents: Mapping[str, xr.Dataset], learner: str) -> dict[str, xr.Dataset]:
    """`probed` for a learner in each evaluation, with probes fitted to the opponents of the first one.

    Args:
        latents: the datasets of `latent.nc` by evaluation.
        learner: name of the learner.

    Returns:
        Results by evaluation, without those in which it has no belief, types are not known, or types have other
        components than in the first evaluation.
    """
    believed = {name: at_the_end(each, learner) for name, each in latents.items() if learner in believing(each)}
    known = next((each for each in believed.values() if TYPE in each), None)
    found = {} if known is None else {name: probed(known, each) for name, each in believed.items()}
    return {name: each for name, each in found.items() if each is not None}


def known(by_evaluation: Mapping[str, xr.Dataset]) -> list[str]:
    """The components of types that a learner knows after the most episodes, in the first evaluation.

    Args:
        by_evaluation: the result of `probed_everywhere`.

    Returns:
        Names of components with an `interval_r2` of at least `KNOWN`; empty if beliefs are points.
    """
    first = next(iter(by_evaluation.values()))
    if "interval_r2" not in first:
        return []
    r2 = first["interval_r2"].isel(episodes=-1).mean("replicate", skipna=False)
    return [str(name) for name in r2["ability"].to_numpy()[r2.to_numpy() >= KNOWN]]


class _Arrays(NamedTuple):
    """Beliefs of one replicate, `episodes x opponents x latent`, and types, `opponents x abilities`."""

    mean: Numbers
    sd: Numbers | None
    truth: Numbers


def _arrays(data: xr.Dataset, replicate: int) -> _Arrays:
    here = data.isel(replicate=replicate)
    mean, sd = (
        here[name].transpose("episodes", "opponent", "latent").to_numpy().astype(np.float64) if name in here else None
        for name in (MEAN, SD)
    )
    assert mean is not None
    return _Arrays(mean, sd, here[TYPE].transpose("opponent", "ability").to_numpy().astype(np.float64))


def _parts(known: Numbers, tested: Numbers) -> Iterator[tuple[Chosen, Chosen]]:
    """Masks of the opponents to fit probes to and to test them on, given their types: one or two pairs."""
    names = np.unique(np.concatenate([known, tested]), axis=0, return_inverse=True)[1].reshape(-1)
    theirs, others = names[: len(known)], names[len(known) :]
    shared = np.intersect1d(theirs, others)
    # Halves are by order of play, since a population may be sorted by type.
    order = {name: place for place, name in enumerate(dict.fromkeys(others.tolist()))}
    half = np.array([order[name] % 2 for name in others.tolist()]) if len(shared) else np.zeros(len(others), np.int64)
    for number in np.unique(half):
        chosen = half == number
        yield ~np.isin(theirs, others[chosen]), chosen


def _of_replicate(known: _Arrays, tested: _Arrays) -> dict[str, Numbers]:
    """The variables of `probed` for one replicate."""
    predicted = np.full((len(tested.mean), *tested.truth.shape), np.nan)
    centre, width = predicted.copy(), predicted.copy()
    if all(np.isfinite(each).all() for data in (known, tested) for each in (data.mean, data.truth)):
        for fitted, chosen in _parts(known.truth, tested.truth):
            truth = known.truth[fitted]
            for at, mean in enumerate(known.mean):
                predicted[at, chosen] = fit(mean[fitted], truth)(tested.mean[at, chosen])
            if known.sd is not None and tested.sd is not None:
                probe = fit_draws(known.mean[-1, fitted], known.sd[-1, fitted], truth)
                centre[:, chosen] = probe(tested.mean[:, chosen])
                width[:, chosen] = np.sqrt(np.square(tested.sd[:, chosen]) @ np.square(probe.weights))
    found = {"predicted": predicted.swapaxes(0, 1), "r2": _r2(predicted, tested.truth)}
    if tested.sd is None:
        return found
    covered = np.where(np.isnan(centre), np.nan, np.abs(tested.truth - centre) <= HALF * width).mean(1)
    return found | {
        "interval_mean": centre.swapaxes(0, 1),
        "interval_sd": width.swapaxes(0, 1),
        "interval_r2": _r2(centre, tested.truth),
        "coverage": covered,
    }


def _r2(predicted: Numbers, truth: Numbers) -> Numbers:
    """R2, `episodes x abilities`, of predictions `episodes x opponents x abilities`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Numbers = 1 - np.square(predicted - truth).sum(1) / np.square(truth - truth.mean(0)).sum(0)
    return found
