"""The posterior over a Dirichlet prior's parameters, for ArviZ: against closed forms and what the learner believed."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl import parameter_posterior
from inference_marl.analysis.recorded import read
from inference_marl.described import InspectError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.guides import OpponentFirst, Optimal, TanhNormalNetwork
from inference_marl.learners import Rommeo, Stationary
from inference_marl.learners.tabular import FictitiousPlay
from inference_marl.models import (
    DirichletMultinomial,
    EmpiricalFrequency,
    NetworkCritic,
    OpponentPrior,
    TabularCritic,
    Uniform,
)
from inference_marl.runs.run import run
from inference_marl.statistics.beliefs import jointly

CONCENTRATION = 4.0
DRAWS = 4000


class Decided(DirichletMultinomial):
    """No posterior any more, whatever it is made from."""


def rommeo(prior: OpponentPrior) -> Rommeo:
    guide = OpponentFirst(opponent_model=Optimal(), policy=Optimal())
    return Rommeo(opponent_prior=prior, guide=guide, critic=TabularCritic())


def played(game: Any, arms: Any, out: Path, **sizes: Any) -> Path:
    return run(Experiment(game, arms, seed=3, **sizes), out, progress=False)


@pytest.fixture(scope="module")
def stateless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Against an opponent who mostly plays its first action, so that twelve observations and the prior disagree."""
    mostly, dirichlet = Stationary(probabilities=[0.85, 0.15, 0]), DirichletMultinomial(CONCENTRATION)
    arms = {
        "rommeo": [rommeo(dirichlet), mostly],
        "forgetting": [rommeo(DirichletMultinomial(CONCENTRATION, window=5)), mostly],
        "fictitious": [FictitiousPlay(opponent_prior=dirichlet), mostly],
        "counting": rommeo(EmpiricalFrequency(smoothing=1.0)),
        "subclass": rommeo(Decided(CONCENTRATION)),
    }
    return played(MatrixGame("climbing"), arms, tmp_path_factory.mktemp("runs"), replicates=3, steps=6, environments=2)


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three agents with 2, 3 and 4 actions, who remember the last joint action: 25 states."""
    payoff = np.random.default_rng(0).normal(size=(3, 2, 3, 4)).tolist()
    game = MatrixGame(payoff, common=False, horizon=4, memory=1)
    out = tmp_path_factory.mktemp("runs")
    return played(game, {"rommeo": rommeo(DirichletMultinomial(2.0))}, out, replicates=2, steps=60)


def group(data: Any, name: str) -> xr.Dataset:
    return data[name] if isinstance(data[name], xr.Dataset) else data[name].to_dataset()


def opponents_action(actions: xr.Dataset, agent: int, sizes: tuple[int, ...]) -> np.ndarray:
    """By hand: the joint action of all but one agent, `environment x step`."""
    others = [other for other in range(len(sizes)) if other != agent]
    taken = [actions["actions"].isel(agent=other).to_numpy() for other in others]
    return np.ravel_multi_index(taken, [sizes[other] for other in others])


def leave_one_out(states: np.ndarray, taken: np.ndarray, concentration: float, size: int) -> float:
    """Of the Dirichlet-multinomial: each observation given all others in its state."""
    cells, totals = Counter(zip(states.ravel(), taken.ravel(), strict=True)), Counter(states.ravel())
    return sum(
        math.log((concentration + cells[state, action] - 1) / (concentration * size + totals[state] - 1))
        for state, action in zip(states.ravel(), taken.ravel(), strict=True)
    )


def elpd(data: Any) -> float:
    import arviz as az

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = az.loo(data)
    return float(found["elpd_loo"] if "elpd_loo" in dir(found) else found.elpd)


@pytest.mark.parametrize("learner", ["rommeo", "fictitious"])
@pytest.mark.parametrize("replicate", [0, 1])
def test_loo_is_the_closed_form(stateless: Path, learner: str, replicate: int) -> None:
    actions = read(stateless).actions
    assert actions is not None
    taken = opponents_action(actions.sel(learner=learner).isel(replicate=replicate), 0, (3, 3))
    exact = leave_one_out(np.zeros_like(taken), taken, CONCENTRATION, 3)
    found = elpd(parameter_posterior(stateless, learner, replicate=replicate, draws=DRAWS))
    assert found == pytest.approx(exact, abs=0.2)
    # No prior, or the data without the last step, would be further away.
    for other, concentration in ((taken, 1e-3), (taken[:, :-1], CONCENTRATION)):
        assert abs(leave_one_out(np.zeros_like(other), other, concentration, 3) - exact) > 0.3


@pytest.mark.slow
def test_loo_conditions_on_the_state(stateful: Path) -> None:
    actions = read(stateful).actions
    assert actions is not None
    here = actions.sel(learner="rommeo").isel(replicate=0)
    taken, states = opponents_action(here, 1, (2, 3, 4)), here["state"].to_numpy().astype(int)
    data = parameter_posterior(stateful, agent=1, draws=DRAWS)
    assert group(data, "posterior")["theta"].dims == ("chain", "draw", "state", "opponent_action")
    assert group(data, "posterior")["theta"].shape == (1, DRAWS, 25, 8)
    exact, pooled = (leave_one_out(where, taken, 2.0, 8) for where in (states, np.zeros_like(states)))
    assert elpd(data) == pytest.approx(exact, abs=0.5)
    assert abs(pooled - exact) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "learner", "agent", "step"),
    [
        *[("stateless", "rommeo", 0, step) for step in (1, 4, 6)],
        *[("stateless", "forgetting", 0, step) for step in (2, 3, 6)],
        *[("stateful", "rommeo", agent, step) for agent in (0, 1, 2) for step in (7, None)],
    ],
)
def test_the_mean_is_what_the_prior_predicted(
    name: str, learner: str, agent: int, step: int | None, request: pytest.FixtureRequest
) -> None:
    """In every state, within five standard errors."""
    recorded = read(request.getfixturevalue(name))
    theta = group(parameter_posterior(recorded, learner, agent, 1, step, draws=DRAWS), "posterior")["theta"]
    believed = jointly(recorded.beliefs)["opponent_prior"].sel(learner=learner).isel(replicate=1, agent=agent)
    believed = believed.sel(step=step or recorded.last_step).to_numpy()[:, : theta.sizes["opponent_action"]]
    mean, error = theta.mean(("chain", "draw")).to_numpy(), theta.std(("chain", "draw")).to_numpy() / math.sqrt(DRAWS)
    assert (np.abs(mean - believed.reshape(mean.shape)) < 5 * error + 1e-6).all()


def test_draws_of_the_prior_know_no_data(stateless: Path) -> None:
    theta = group(parameter_posterior(stateless, "rommeo", draws=DRAWS), "prior")["theta"]
    assert theta.sum("opponent_action").to_numpy() == pytest.approx(1)
    # Beta(4, 8): mean 1/3, variance 4 * 8 / (12^2 * 13).
    assert theta.mean(("chain", "draw")).to_numpy() == pytest.approx(1 / 3, abs=0.012)
    assert theta.var(("chain", "draw")).to_numpy() == pytest.approx(32 / (144 * 13), rel=0.12)


def test_likelihoods_are_those_of_the_observed_actions(stateful: Path) -> None:
    data = parameter_posterior(stateful, agent=1, draws=20, seed=5)
    theta, likelihood = group(data, "posterior")["theta"], group(data, "log_likelihood")["opponent_action"]
    observed = group(data, "observed_data")["opponent_action"]
    assert likelihood.dims == ("chain", "draw", "observation")
    assert observed["step"].to_numpy().tolist() == list(range(1, 61))
    for i in (0, 17, 59):
        of_state = theta.sel(state=observed["state"].to_numpy()[i])
        expected = np.log(of_state.isel(opponent_action=int(observed[i])))
        np.testing.assert_allclose(likelihood.isel(observation=i), expected)
    again, other = (group(parameter_posterior(stateful, agent=1, draws=20, seed=seed), "posterior") for seed in (5, 6))
    assert again.equals(group(data, "posterior"))
    assert not other.equals(again)


def test_arviz_reads_it(stateless: Path, tmp_path: Path) -> None:
    import arviz as az

    data = parameter_posterior(stateless, "rommeo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert az.summary(data)["mean"].shape == (3,)
        data.to_netcdf(tmp_path / "parameters.nc")
        assert elpd(az.from_netcdf(tmp_path / "parameters.nc")) == pytest.approx(elpd(data))


@pytest.mark.slow
def test_what_has_no_such_posterior_is_refused(stateless: Path, tmp_path: Path) -> None:
    refused = {
        "counting": "counting, agent 0: got EmpiricalFrequency, expected DirichletMultinomial, whose posterior",
        "subclass": "subclass, agent 0: got Decided, expected DirichletMultinomial",
        "nobody": "learner: got 'nobody', which was not recorded, expected one of rommeo",
    }
    for learner, message in refused.items():
        with pytest.raises(InspectError, match=message):
            parameter_posterior(stateless, learner)
    for where, message in {
        "agent": "rommeo, agent 1: got no opponent prior",
        "replicate": r"replicate: got 3, .* expected one of 0, 1, 2",
        "step": r"step: got 7, .* expected one of 1, 2, 3, 4, 5, 6",
    }.items():
        chosen = {"agent": 1, "replicate": 3, "step": 7}[where]
        with pytest.raises(InspectError, match=message):
            parameter_posterior(stateless, "rommeo", **{where: chosen})
    arms = {"rommeo": rommeo(DirichletMultinomial())}
    silent = played(MatrixGame("climbing"), arms, tmp_path, replicates=1, steps=2, record_actions=False)
    with pytest.raises(InspectError, match=r"got a run without actions\.nc, expected one with record_actions"):
        parameter_posterior(silent)
    network = TanhNormalNetwork(hidden=[4])
    continuous = Rommeo(
        opponent_prior=Uniform(), guide=OpponentFirst(network, network), critic=NetworkCritic(hidden=[4])
    )
    folder = played(MaxOfTwoQuadratics(), {"rommeo_ac": continuous}, tmp_path, replicates=1, steps=2, draws=2)
    with pytest.raises(InspectError, match="rommeo_ac, agent 0: got Uniform, expected DirichletMultinomial"):
        parameter_posterior(folder)
