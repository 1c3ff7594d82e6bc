"""Who forecasts the opponents' next actions how well, for ArviZ's comparison of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from inference_marl.analysis.arviz.library import elpd, known
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import modelling
from inference_marl.statistics.forecasts import total_scores


def forecasts(run: Path | str | Recorded, learner: str | None = None) -> dict[str, Any]:
    """How well rho, the prior P and a uniform guess forecast the opponents' next actions, for `arviz.compare`.

    The expected log predictive density is leave-future-out, one step ahead (`statistics.forecasts`). Its pointwise
    values are the replicates, which are independent, each summed over agents and records; so standard errors are honest
    and `n_data_points` counts replicates.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; the first with an opponent model if `None`.

    Returns:
        ArviZ's `ELPDData` by symbol: `rho`, `P` and `uniform`. ArviZ 0.23 knows no leave-future-out and calls it `loo`.

    Raises:
        InspectError: as `to_arviz`, or if no belief of the learner was followed by recorded actions.
    """
    recorded = read(run)
    pointwise = _total_scores(recorded, learner or next(iter(modelling(recorded.beliefs)), None))
    return {str(symbol): elpd(pointwise.sel(forecaster=symbol, drop=True)) for symbol in pointwise["forecaster"].values}


def compare_forecasts(run: Path | str | Recorded, learners: Sequence[str], agent: int = 0) -> dict[str, Any]:
    """As `forecasts`, of several learners' opponent models in one seat, for `arviz.compare`.

    Args:
        run: a run's folder, or what `read` made of it.
        learners: which arms, at least one.
        agent: whose opponent model.

    Returns:
        ArviZ's `ELPDData` of rho by learner.

    Raises:
        InspectError: as `forecasts`, if there is no such agent, or if the learners' opponents did not play the same
            actions: then they forecast different things, and scores cannot be compared. Scripted opponents do.
    """
    recorded = read(run)
    agent = known(recorded.beliefs, "agent", agent)
    pointwise = {learner: _total_scores(recorded, learner, agent) for learner in learners}
    if not pointwise:
        raise InspectError("learners: got none, expected at least one")
    assert recorded.actions is not None  # since there are scores
    others = recorded.actions["actions"].drop_isel(agent=agent)
    for learner in learners:
        if not others.sel(learner=learner, drop=True).equals(others.sel(learner=learners[0], drop=True)):
            raise InspectError(
                f"learners: got {learners[0]} and {learner}, whose opponents played different actions, expected arms "
                "against the same fixed opponents, such as scripted ones"
            )
    return {learner: elpd(each.sel(forecaster="rho", drop=True)) for learner, each in pointwise.items()}


def _total_scores(recorded: Recorded, learner: str | None, agent: int | None = None) -> xr.DataArray:
    """A learner's summed forecast scores, of all its agents or of one, `forecaster x replicate`."""
    learner, scores = known(recorded.metrics, "learner", learner), recorded.forecast_scores
    if scores is None or learner not in modelling(recorded.beliefs):
        raise InspectError(
            f"{recorded.folder}: got no recorded belief of {learner} about its opponents that is followed by recorded "
            "actions, expected a learner with an opponent model, and a run with beliefs_every and record_actions"
        )
    sums, _ = total_scores(scores if agent is None else scores.isel(agent=[agent]), learner)
    return sums
