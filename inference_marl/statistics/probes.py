"""Linear probes: what a belief about opponents says of each number that is hidden in them (Alain and Bengio 2017).

A probe is a linear function of the mean of z, fitted to one number of the hidden type (ridge regression, whose penalty
has the least error on opponents that are left out one by one). It is scored on opponents that it was not fitted to, so
it tells what can be read off the belief, and not what so many coefficients find by chance.
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
"""Which opponents, one bool each."""

PENALTIES = np.geomspace(1e-5, 1e3, 17)
"""Of which one is chosen, in units of the largest squared singular value."""

HALF = float(special.ndtri((1 + NOMINAL) / 2))
"""Standard deviations of a normal in half of its central interval."""

KNOWN = 0.8
"""R2 of what is read off draws, from which a number counts as known, so that it is worth asking how sure one is of it.

What is read off draws is flatter than it should be where beliefs are wide. With this R2 a calibrated belief is covered
in 0.8 of cases, with more in up to `NOMINAL`.
"""

R2 = Metric(
    "probe_r2",
    "R2 of a linear probe",
    dims=(),
    higher_is_better=True,
    meaning="One minus the squared error of the probe, over that of the mean of the opponents it is scored on.",
)

COVERAGE = Metric(
    "probe_coverage",
    "coverage of the probe's intervals",
    bounds=PROBABILITY,
    dims=(),
    meaning="Share of opponents whose true number lies in the central interval of the normal that a linear function of "
    f"z has, which has a probability of {NOMINAL:g}.",
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
    """The probe of some opponents, a ridge regression of each ability.

    Args:
        mean: of z, `opponents x latent`.
        truth: `opponents x abilities`.

    Returns:
        A constant where z does not vary; not numbers without opponents.
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
    best = np.square(errors / (1 - leverage).clip(1e-9)[..., None]).mean(1).argmin(0)  # of each ability
    weights = right.T @ (shrunk[best].T / sizes.clip(1e-300)[:, None] * along)
    return Probe(weights, level - centre @ weights)


def fit_draws(mean: Numbers, sd: Numbers, truth: Numbers) -> Probe:
    """The linear functions of z itself with the least squared error that is expected over z and opponents.

    The expected error is that of the mean plus `(w * sd)^2`. So this is a ridge regression, too, whose penalty is the
    belief's own variance, and weighs no coordinate by chance that the belief leaves open. Where beliefs are wide it is
    flatter than what their means say.

    Args:
        mean: of z, `opponents x latent`.
        sd: likewise.
        truth: `opponents x abilities`.

    Returns:
        Not numbers without opponents.
    """
    if not len(mean):
        return fit(mean, truth)
    centred, level = mean - mean.mean(0), truth.mean(0)
    weights = np.linalg.solve(centred.T @ centred + np.diag(np.square(sd).sum(0)), centred.T @ (truth - level))
    return Probe(weights, level - mean.mean(0) @ weights)


def probed(known: xr.Dataset, tested: xr.Dataset) -> xr.Dataset | None:
    """What probes fitted to some opponents say of others, replicate by replicate.

    Where opponents of the two are the same, probes are fitted to one half of them and tested on the other, and the
    other way round. In any case none is fitted to an opponent that it is tested on, nor to one of the same type.

    Args:
        known: what a learner believes of the opponents that probes are fitted to, see `latents.at_the_end`.
        tested: likewise of those that they are scored on.

    Returns:
        * `predicted`: `replicate, opponent, episodes, ability`, by probes of beliefs after as many episodes;
        * `r2`: `replicate, episodes, ability`, of these predictions; it may be negative;
        * `interval_mean`, `interval_sd`: of the normal that a linear function of z has, `w . mean` plus a constant and
          `|w * sd|`: the function that is best for draws of z after the most episodes (`fit_draws`), since what z means
          should not depend on how many there were. The function's own error is not part of it;
        * `interval_r2`: `replicate, episodes, ability`, of these means;
        * `coverage`: likewise, how often central intervals contain the true number;
        * `type`: the true numbers.

        `interval_...` and `coverage` are missing if beliefs are points, and all of it (`None`) if no types are known,
        types of the two do not consist of the same numbers, as in different games, or no number of episodes is that of
        both.
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
    """`probed` of a learner in each evaluation, by probes that are fitted to opponents of the first one.

    Args:
        latents: by evaluation, as in `latent.nc`.
        learner: its name.

    Returns:
        By evaluation; without those in which it has no belief, or no types are known, or types consist of other numbers
        than those of the first one.
    """
    believed = {name: at_the_end(each, learner) for name, each in latents.items() if learner in believing(each)}
    known = next((each for each in believed.values() if TYPE in each), None)
    found = {} if known is None else {name: probed(known, each) for name, each in believed.items()}
    return {name: each for name, each in found.items() if each is not None}


def known(by_evaluation: Mapping[str, xr.Dataset]) -> list[str]:
    """The numbers that a learner knows, after the most episodes, of opponents like those that probes are fitted to.

    Args:
        by_evaluation: what `probed_everywhere` found.

    Returns:
        Those with an `interval_r2` of `KNOWN` or more; none if beliefs are points.
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
    """Which opponents a probe is fitted to, and which it is tested on, by their types: one or two pairs of masks."""
    names = np.unique(np.concatenate([known, tested]), axis=0, return_inverse=True)[1].reshape(-1)
    theirs, others = names[: len(known)], names[len(known) :]
    shared = np.intersect1d(theirs, others)
    # In the order in which they were met, since a population may be sorted by type.
    order = {name: place for place, name in enumerate(dict.fromkeys(others.tolist()))}
    half = np.array([order[name] % 2 for name in others.tolist()]) if len(shared) else np.zeros(len(others), np.int64)
    for number in np.unique(half):
        chosen = half == number
        yield ~np.isin(theirs, others[chosen]), chosen


def _of_replicate(known: _Arrays, tested: _Arrays) -> dict[str, Numbers]:
    """What `probed` returns of a replicate, with its dimensions."""
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
    """`episodes x abilities`, of predictions `episodes x opponents x abilities`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Numbers = 1 - np.square(predicted - truth).sum(1) / np.square(truth - truth.mean(0)).sum(0)
    return found
