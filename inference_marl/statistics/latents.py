"""Beliefs about who the opponents are, as evaluations over trials record them: the datasets of `latent.nc`.

Those of an evaluation called `held_out` are in `latent_held_out.nc`. A dataset has the variables

* `mean`, `sd`: of every coordinate of the belief z, `learner, replicate, step, opponent, episodes, latent`, where an
  episode begins before which the opponents were met for `episodes` others; a belief that is a point has no `sd`;
* `type`: what is hidden in them, `learner, replicate, step, opponent, ability`, if the game tells.

Learners with fewer coordinates than others are padded, and those without a belief filled, with NaN.
"""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

LATENT = "latent"
"""Beginning of the files' names."""

MEAN, SD, TYPE = "mean", "sd", "type"

DIMS = {
    MEAN: ("opponent", "episodes", "latent"),
    SD: ("opponent", "episodes", "latent"),
    TYPE: ("opponent", "ability"),
}
"""What is recorded, with its dimensions besides those of all records."""

ATTRIBUTES = {
    MEAN: {"long_name": "mean of z"},
    SD: {"long_name": "standard deviation of z"},
    TYPE: {"long_name": "hidden type of the opponents"},
}


def check_kept(names: Iterable[str]) -> None:
    """Refuse names of what an evaluation keeps, as returned by `Evaluation.kept`, that are none of `DIMS`.

    Raises:
        ValueError: if there is one.
    """
    for name in names:
        if name not in DIMS:
            raise ValueError(
                f"kept: got {name}, expected one of {', '.join(DIMS)}; return other numbers from `measure`, and "
                "declare them in `metrics`"
            )


def believing(latents: xr.Dataset) -> list[str]:
    """The learners with a belief at the last record."""
    known = latents[MEAN].isel(step=-1).notnull().any(["replicate", *DIMS[MEAN]])
    return [str(name) for name in latents["learner"].to_numpy()[known.to_numpy()]]


def at_the_end(latents: xr.Dataset, learner: str) -> xr.Dataset:
    """What a learner believed at the last record, in the order of `episodes`.

    Without coordinates that only others have, and without `sd` of a point.
    """
    here = latents.sel(learner=learner).isel(step=-1).sortby("episodes").dropna("latent", how="all", subset=[MEAN])
    return here.drop_vars([name for name in (SD, TYPE) if name in here and not bool(here[name].notnull().any())])
