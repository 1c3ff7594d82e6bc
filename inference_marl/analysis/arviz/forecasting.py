"""Scores of forecasts of the opponents' next actions, for ArviZ's comparison of models."""

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
    """Score rho's, the prior's and uniform forecasts of the opponents' next actions, for `arviz.compare`.

    The expected log predictive density is leave-future-out, one step ahead (`statistics.forecasts`). Its pointwise
    values are those of independent replicates, summed over agents and records, so standard errors are valid and
    `n_data_points` counts replicates.

    Args:
        run: a run's folder, or the result of `read`.
        learner: name of the arm; `None` for the first with an opponent model.

    Returns:
        ArviZ's `ELPDData` by symbol: `rho`, `P` and `uniform`. ArviZ 0.23 has no leave-future-out and calls it `loo`.

    Raises:
        InspectError: like `to_arviz`, or if no belief of the learner was followed by recorded actions.
    """
    recorded = read(run)
    pointwise = _total_scores(recorded, learner or next(iter(modelling(recorded.beliefs)), None))
    return {str(symbol): elpd(pointwise.sel(forecaster=symbol, drop=True)) for symbol in pointwise["forecaster"].values}


def compare_forecasts(run: Path | str | Recorded, learners: Sequence[str], agent: int = 0) -> dict[str, Any]:
    """Score the opponent models of several learners in one seat, as in `forecasts`, for `arviz.compare`.

    Args:
        run: a run's folder, or the result of `read`.
        learners: names of the arms, at least one.
        agent: index of the agent.

    Returns:
        ArviZ's `ELPDData` of rho by learner.

    Raises:
        InspectError: like `forecasts`, if there is no such agent, or if the learners' opponents did not play the same
            actions, as scripted opponents do: scores of different actions cannot be compared.
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
    """A learner's summed forecast scores, for all its agents or one, `forecaster x replicate`."""
    learner, scores = known(recorded.metrics, "learner", learner), recorded.forecast_scores
    if scores is None or learner not in modelling(recorded.beliefs):
        raise InspectError(
            f"{recorded.folder}: got no recorded belief of {learner} about its opponents that is followed by recorded "
            "actions, expected a learner with an opponent model, and a run with beliefs_every and record_actions"
        )
    sums, _ = total_scores(scores if agent is None else scores.isel(agent=[agent]), learner)
    return sums
