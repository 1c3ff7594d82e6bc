"""Latent beliefs about the opponents, as recorded by evaluations over trials: the datasets of `latent.nc`.

Those of an evaluation named `held_out` are in `latent_held_out.nc`. A dataset has the variables

* `mean`, `sd`: mean and standard deviation of every coordinate of z at the start of an episode, after `episodes` others
  against the same opponents, `learner, replicate, step, opponent, episodes, latent`; a point belief has no `sd`;
* `type`: the opponents' hidden type, `learner, replicate, step, opponent, ability`, if the game gives it.

Learners with fewer coordinates than others are padded with NaN, and learners without a belief are NaN throughout.
"""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

LATENT = "latent"
"""Prefix of the files' names."""

MEAN, SD, TYPE = "mean", "sd", "type"

DIMS = {
    MEAN: ("opponent", "episodes", "latent"),
    SD: ("opponent", "episodes", "latent"),
    TYPE: ("opponent", "ability"),
}
"""The recorded variables, with their dimensions besides those of all records."""

ATTRIBUTES = {
    MEAN: {"long_name": "mean of z"},
    SD: {"long_name": "standard deviation of z"},
    TYPE: {"long_name": "hidden type of the opponents"},
}


def check_kept(names: Iterable[str]) -> None:
    """Check that the names returned by `Evaluation.kept` are in `DIMS`.

    Raises:
        ValueError: if one is not.
    """
    for name in names:
        if name not in DIMS:
            raise ValueError(
                f"kept: got {name}, expected one of {', '.join(DIMS)}; return other numbers from `measure`, and "
                "declare them in `metrics`"
            )


def believing(latents: xr.Dataset) -> list[str]:
    """The learners with a latent belief at the last record."""
    known = latents[MEAN].isel(step=-1).notnull().any(["replicate", *DIMS[MEAN]])
    return [str(name) for name in latents["learner"].to_numpy()[known.to_numpy()]]


def at_the_end(latents: xr.Dataset, learner: str) -> xr.Dataset:
    """A learner's beliefs at the last record, in the order of `episodes`.

    Coordinates that only other learners have are left out, and so is the `sd` of a point belief.
    """
    here = latents.sel(learner=learner).isel(step=-1).sortby("episodes").dropna("latent", how="all", subset=[MEAN])
    return here.drop_vars([name for name in (SD, TYPE) if name in here and not bool(here[name].notnull().any())])
