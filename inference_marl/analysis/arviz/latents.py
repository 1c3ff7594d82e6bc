"""Draws from latent beliefs about the opponents of an evaluation, for ArviZ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from inference_marl.analysis.arviz.library import tree
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.described import InspectError
from inference_marl.statistics.latents import MEAN, SD, TYPE, at_the_end, believing
from inference_marl.statistics.probes import probed_everywhere


def latent_posterior(
    run: Path | str | Recorded,
    learner: str | None = None,
    evaluation: str | None = None,
    draws: int = 100,
    seed: int = 0,
) -> Any:
    """A learner's latent beliefs z about the opponents of an evaluation over trials, at the run's last record.

    * `posterior`: `z`, `chain x draw x replicate x opponent x episodes x latent`, independent draws, hence one chain,
      from the normal beliefs at the start of an episode, after `episodes` earlier ones with the same opponents; a point
      has a single draw;
    * `constant_data`: `mean` and, except for points, `sd` of these normals, the opponents' hidden `type`, and the
      results of probes, `probe_predicted`, `probe_r2` and so on (`statistics.probes.probed`).

    There are many beliefs, so select some: `arviz.summary(data, coords={"replicate": [0], "opponent": [0]})`.

    Args:
        run: a run's folder, or the result of `read`.
        learner: name of the arm; `None` for the first with such a belief.
        evaluation: name of the evaluation; `None` for the first.
        draws: number of draws of z.
        seed: random seed of the draws.

    Returns:
        `xarray.DataTree`; `arviz.InferenceData` on ArviZ 0.23.

    Raises:
        InspectError: if the folder is not a run, the run is not finished, no evaluation, or not the named one, recorded
            beliefs, or the learner has none.
    """
    recorded = read(run)
    if not recorded.latents:
        raise InspectError(
            f"{recorded.folder}: got no recorded latent beliefs, expected a TrialEvaluation with posteriors: true, and "
            "a learner with a latent belief about its opponents, such as Pearl with a context"
        )
    known = list(recorded.latents)
    evaluation = known[0] if evaluation is None else evaluation
    if evaluation not in known:
        raise InspectError(f"evaluation: got {evaluation}, expected one of {', '.join(known)}")
    having = believing(recorded.latents[evaluation])
    learner = having[0] if learner is None else learner
    if learner not in having:
        raise InspectError(f"learner: got {learner} without a latent belief, expected one of {', '.join(having)}")
    here = at_the_end(recorded.latents[evaluation], learner)
    here = here.assign_coords({dim: here[dim] for dim in here.dims})
    probed = probed_everywhere(recorded.latents, learner).get(evaluation, xr.Dataset()).drop_vars(TYPE, errors="ignore")
    facts = here.merge(probed.rename({name: f"probe_{name}" for name in probed}), compat="override")
    drawn = _latent_draws(here, draws, np.random.default_rng(seed))
    return tree(recorded, {"posterior": drawn.to_dataset(name="z"), "constant_data": facts}, evaluation=evaluation)


def _latent_draws(believed: xr.Dataset, draws: int, rng: np.random.Generator) -> xr.DataArray:
    """Draws from every belief, `chain x draw x ...`; a single one for points."""
    mean = believed[MEAN].transpose("replicate", "opponent", "episodes", "latent").astype(np.float64)
    if SD not in believed:
        return mean.expand_dims(chain=[0], draw=[0])
    noise = xr.DataArray(rng.standard_normal((1, draws, *mean.shape)), dims=("chain", "draw", *mean.dims))
    z = mean + believed[SD] * noise
    return z.transpose("chain", "draw", ...).assign_coords(chain=[0], draw=np.arange(draws))
