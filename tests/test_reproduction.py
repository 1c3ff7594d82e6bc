"""What the shipped experiments must show, on the shipped files with their own seeds.

Each bound says how often it would fail for a correct implementation under another seed.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from inference_marl.spec import load
from inference_marl.statistics import first_lasting_step

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def run(tmp_path: Path, file: str, **overrides: Any) -> tuple[Path, dict[tuple[str, str, int], float]]:
    experiment = load(EXPERIMENTS / file, list(overrides.items()))
    folder = experiment.run(tmp_path, progress=False)
    rows = json.loads((folder / "summary.json").read_text())["results"]
    return folder, {(row["learner"], row["metric"], row["step"]): row["mean"] for row in rows}


def test_climbing_in_short(tmp_path: Path) -> None:
    """200 replicates: the order of the variants. True values about .98, .157, .942; bounds are 3.5 errors away."""
    _, at = run(tmp_path, "climbing.yaml", replicates=200, record_every=25)
    optimum = {name: at[name, "joint_optimum_probability", 300] for name in load(EXPERIMENTS / "climbing.yaml").arms}
    assert optimum["rommeo_q"] > 0.93
    assert optimum["rommeo_q_emp"] < 0.25
    assert 0.85 < optimum["rommeo_q_uniform_prior"] < 0.98
    assert optimum["rommeo_q_optimistic"] > 0.99
    assert at["rommeo_q_optimistic", "joint_optimum_probability", 25] > 0.95


@pytest.mark.slow
def test_climbing(tmp_path: Path) -> None:
    """ROMMEO-Q in [.975, .995], reward about 11; EMP in [.10, .20]; uniform prior about .94; optimistic >= .98.

    With 4000 replicates the standard errors are .002, .003, .004. Over 8000 replicates of two seeds ROMMEO-Q is at
    .981, so its lower bound is 3 errors away: a correct implementation fails about once in 500 seeds.
    """
    folder, at = run(tmp_path, "climbing.yaml", replicates=4000)
    assert 0.975 <= at["rommeo_q", "joint_optimum_probability", 300] <= 0.995
    assert at["rommeo_q", "reward", 300] == pytest.approx(11, abs=0.2)
    assert 0.10 <= at["rommeo_q_emp", "joint_optimum_probability", 300] <= 0.20
    assert at["rommeo_q_uniform_prior", "joint_optimum_probability", 300] == pytest.approx(0.94, abs=0.02)
    metrics = xr.open_dataset(folder / "metrics.nc")
    curves = metrics["joint_optimum_probability"].mean("replicate")
    optimistic = curves.sel(learner="rommeo_q_optimistic")
    assert (optimistic.sel(step=slice(25, None)) >= 0.98).all()
    # The mean's own limit is .98, which it may or may not touch; .95 it passes for good at step 60 (two seeds of 4000).
    paper = first_lasting_step(curves.sel(learner="rommeo_q").to_numpy() >= 0.95, metrics["step"].to_numpy())
    assert 50 <= float(paper) <= 75


@pytest.mark.slow
def test_the_opponent_model_thinks_ahead(tmp_path: Path) -> None:
    """Fig. 1c: rho passes 1/2 before the opponent's policy does. The lead is about 1.3 steps, with error .08."""
    _, at = run(tmp_path, "climbing.yaml", replicates=1000)
    assert at["rommeo_q", "opponent_model_lead", 300] > 0.5


@pytest.mark.slow
def test_max_of_two_quadratics(tmp_path: Path) -> None:
    """At least 90 % of the 32 replicates have a return of at least 9 over the last 10 of 200 episodes."""
    folder, at = run(tmp_path, "max_of_two_quadratics.yaml")
    assert at["rommeo_ac", "success_rate", 5000] >= 0.9
    reward = xr.open_dataset(folder / "metrics.nc")["reward"].sel(learner="rommeo_ac").mean("agent")
    assert (reward.isel(step=slice(-10, None)).mean("step") >= 9).mean() >= 0.9


def test_luck_is_not_a_plan(tmp_path: Path) -> None:
    """The exact posterior expects 6 more than it should and earns 2 less; 100 replicates give errors of .2 and less."""
    _, at = run(tmp_path, "risky_bridge.yaml", replicates=100, steps=60)
    assert at["inferred_dynamics", "elbo", 60] > 6 > 2 > at["kept_dynamics", "elbo", 60]
    assert at["inferred_dynamics", "reward", 60] < at["kept_dynamics", "reward", 60] - 1
    assert at["inferred_dynamics", "elbo_gap", 60] == pytest.approx(0, abs=1e-4)
    assert at["kept_dynamics_svi", "elbo", 60] == pytest.approx(at["kept_dynamics", "elbo", 60], abs=0.1)


@pytest.mark.slow
def test_rommeo_q_ablation(tmp_path: Path) -> None:
    """Each variant within 3 points of what an independent implementation found (4000 seeds).

    Its standard errors are at most .004 and ours, with 1000 seeds, at most .012, so a bound is 2.4 errors away where it
    is nearest (optimistic, empirical): about one correct implementation in 60 fails. `no_kl` with optimistic values is
    left out: there rho was the argmax, here a small KL weight breaks the ties of equal values by the prior.
    """
    _, at = run(tmp_path, "rommeo_q_ablation.yaml")
    found = {
        "random-annealed-full": 0.985,
        "random-annealed-empirical_guide": 0.157,
        "random-annealed-uniform_prior": 0.942,
        "random-annealed-no_kl": 0.984,
        "random-annealed-fixed_uniform": 0.111,
        "optimistic-constant-full": 0.999,
        "optimistic-constant-empirical_guide": 0.251,
        "optimistic-constant-uniform_prior": 0.947,
        "optimistic-constant-fixed_uniform": 0.112,
    }
    measured = {name: at[name, "joint_optimum_probability", 300] for name in found}
    assert measured == pytest.approx(found, abs=0.03)
