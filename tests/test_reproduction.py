"""What the shipped experiments must show, on the shipped files with their own seeds.

Each bound says how often it would fail for a correct implementation under another seed.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

from inference_marl.analysis.recorded import read
from inference_marl.config.factors import ablation
from inference_marl.config.files import load, load_any
from inference_marl.experiment import Experiment, Suite
from inference_marl.games import MatrixGame, MeetingGrid
from inference_marl.inference.returns import expected_return
from inference_marl.runs.run import run as run_experiment
from inference_marl.statistics.time_to_threshold import first_lasting_step
from inference_marl.types import Learner

EXPERIMENTS = Path(__file__).parents[1] / "experiments"

ERRORS = 4
"""Standard errors that `check` allows for, estimated from the replicates. With its true mean at a bound a correct
implementation fails once in 30,000 seeds; in the middle of a range much narrower than the errors, once in 16,000."""


def run(tmp_path: Path, file: str, **overrides: Any) -> tuple[Path, dict[tuple[str, str, int], float]]:
    experiment = load(EXPERIMENTS / file, list(overrides.items()))
    folder = run_experiment(experiment, tmp_path, progress=False)
    rows = json.loads((folder / "summary.json").read_text())["results"]
    return folder, {(row["learner"], row["metric"], row["step"]): row["mean"] for row in rows}


def runs_of(file: str, *left_out: str, **overrides: Any) -> Mapping[str, Experiment]:
    """The runs of a shipped suite, without those left out."""
    suite = load_any(EXPERIMENTS / file, [*overrides.items(), *((f"runs.{name}", None) for name in left_out)])
    assert isinstance(suite, Suite)
    return suite.runs


def play(tmp_path: Path, experiment: Experiment) -> xr.Dataset:
    """The metrics of every replicate."""
    return xr.load_dataset(run_experiment(experiment, tmp_path, progress=False) / "metrics.nc")


def at_end(metrics: xr.Dataset, metric: str, learner: str) -> xr.DataArray:
    """By replicate and, of what every agent has, by agent."""
    return metrics[metric].sel(learner=learner).isel(step=-1).astype("float64")


def check(values: xr.DataArray, low: float = -math.inf, high: float = math.inf) -> None:
    """The mean over replicates is from `low` to `high`, give or take `ERRORS` standard errors.

    Agents are averaged within a replicate; of several steps every one is checked.
    """
    values = values.mean("agent") if "agent" in values.dims else values
    mean = values.mean("replicate")
    slack = ERRORS * values.std("replicate", ddof=1) / math.sqrt(values.sizes["replicate"])
    found = f"got {mean.to_numpy().round(4)} +- {slack.to_numpy().round(4)}, expected from {low} to {high}"
    assert ((mean + slack >= low) & (mean - slack <= high)).all(), found


def check_near(values: xr.DataArray, expected: float, tolerance: float) -> None:
    """`check` of `expected - tolerance` and `expected + tolerance`."""
    check(values, expected - tolerance, expected + tolerance)


def squared_deviations(returns: xr.DataArray) -> xr.DataArray:
    """From each agent's mean over replicates, so that their mean is the square of the return's deviation."""
    return (returns - returns.mean("replicate")) ** 2


def test_climbing_in_short(tmp_path: Path) -> None:
    """200 replicates: the order of the variants. True values about .98, .157, .942; bounds are 3.5 errors away."""
    _, at = run(tmp_path, "climbing.yaml", replicates=200, steps=150, record_every=25)
    optimum = {name: at[name, "joint_optimum_probability", 150] for name in load(EXPERIMENTS / "climbing.yaml").arms}
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


@pytest.mark.long
@pytest.mark.slow
def test_max_of_two_quadratics(tmp_path: Path) -> None:
    """At least 90 % of the 32 replicates have a return of at least 9 over the last 10 of 200 episodes."""
    folder, at = run(tmp_path, "max_of_two_quadratics.yaml")
    assert at["rommeo_ac", "success_rate", 5000] >= 0.9
    reward = xr.open_dataset(folder / "metrics.nc")["reward"].sel(learner="rommeo_ac").mean("agent")
    assert (reward.isel(step=slice(-10, None)).mean("step") >= 9).mean() >= 0.9


@pytest.mark.slow
def test_luck_is_not_a_plan(tmp_path: Path) -> None:
    """The exact posterior expects 6 more than it should and earns 2 less; 100 replicates give errors of .2 and less."""
    others = dict.fromkeys(["arms.kept_dynamics_svi", "arms.learned_dynamics", "arms.rommeo_q"])
    _, at = run(tmp_path, "risky_bridge.yaml", replicates=100, steps=60, **others)
    assert at["inferred_dynamics", "elbo", 60] > 6 > 2 > at["kept_dynamics", "elbo", 60]
    assert at["inferred_dynamics", "reward", 60] < at["kept_dynamics", "reward", 60] - 1
    assert at["inferred_dynamics", "elbo_gap", 60] == pytest.approx(0, abs=1e-4)


@pytest.mark.long
@pytest.mark.slow
def test_a_fitted_plan_comes_up_to_the_exact_one(tmp_path: Path) -> None:
    """In short in tests/learners/test_planner.py; the gap is about .035, with 100 replicates known to .01."""
    others = dict.fromkeys(["arms.inferred_dynamics", "arms.learned_dynamics", "arms.rommeo_q"])
    _, at = run(tmp_path, "risky_bridge.yaml", replicates=100, steps=60, **others)
    assert at["kept_dynamics_svi", "elbo", 60] == pytest.approx(at["kept_dynamics", "elbo", 60], abs=0.1)


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.slow
def test_why_the_prior_predicts_better(tmp_path: Path) -> None:
    """It is the temperature, with any initial values and either memory of the prior; 200 of the 1000 replicates.

    Bounds are between a third and two thirds of what 1000 replicates found. Fast annealing and a constant temperature
    with random values are left out, where both forecast about equally well.
    """
    folder, _ = run(tmp_path, "forecast_ablation.yaml", replicates=200)
    scores = read(folder).forecast_scores
    assert scores is not None
    better = (scores.sel(forecaster="rho") - scores.sel(forecaster="P")).mean("agent")
    for rest in (f"{values}-{prior}" for values in ("random", "optimistic") for prior in ("long", "short")):
        check(better.sel(learner=f"annealed-{rest}").mean("step"), high=-0.15)
        check(better.sel(learner=f"annealed-{rest}", step=slice(60)).mean("step"), high=-0.8)
        check(better.sel(learner=f"annealed-{rest}", step=slice(61, 120)).mean("step"), low=0.01)
        check(better.sel(learner=f"hot-{rest}").mean("step"), high=-0.15)
        check(better.sel(learner=f"both_annealed-{rest}").mean("step"), low=0.01)
    for prior in ("long", "short"):
        check(better.sel(learner=f"constant-optimistic-{prior}").mean("step"), low=0.03)


@pytest.mark.long
@pytest.mark.slow
def test_figure1_as_in_the_paper(tmp_path: Path) -> None:
    """Within 3 points of what the public code does in 60 seeds, or in 4000 of an independent implementation (ROMMEO-Q).

    At most 1e-4 per line. PR2-Q is compared with the 95 % interval of its 60 seeds, for it was not run otherwise, EMP
    with both measurements. Of epsilon-greedy policies it is the greedy part that counts: success. Rewards are means
    over the last 10 steps.
    """
    [experiment] = runs_of(
        "rommeo_figure1.yaml", "tuned", "tuned_over_3000_steps", replicates=1000, record_every=10
    ).values()
    metrics = play(tmp_path, experiment)
    check_near(at_end(metrics, "joint_optimum_probability", "rommeo_q"), 0.985, 0.03)
    check(at_end(metrics, "joint_optimum_probability", "rommeo_q_emp"), 0.135 - 0.03, 0.163 + 0.03)
    check_near(at_end(metrics, "joint_optimum_probability", "fmq"), 0.66, 0.03)
    check_near(at_end(metrics, "joint_optimum_probability", "wolf_phc"), 0.147, 0.03)
    check(at_end(metrics, "joint_optimum_probability", "pr2"), 0.10, 0.30)
    check(at_end(metrics, "success_rate", "jal"), 0, 0.03)
    check_near(at_end(metrics, "reward", "jal"), -25.5, 0.5)
    check_near(at_end(metrics, "success_rate", "jal_faithful"), 0.16, 0.03)


def default_rommeo_q() -> Learner:
    """As `tuned` has it."""
    learner = runs_of("rommeo_figure1.yaml", "as_in_the_paper", "tuned_over_3000_steps")["tuned"].arms["rommeo_q"]
    assert isinstance(learner, Learner)
    return learner


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("payoff", "steps", "since", "promised"),
    [
        ("climbing", 300, 25, 0.98),
        ("fully_stochastic_climbing", 600, 300, 0.99),
        ("penalty", 300, 100, 0.99),
    ],
)
def test_rommeo_q_default(tmp_path: Path, payoff: str, steps: int, since: int, promised: float) -> None:
    """One setting: the mean probability of an optimum is as promised since some step, at every 25th.

    If the true mean is at the bound, 5e-6 per step, for the estimated error grows with the failures: less than 1e-4 for
    the 13 steps of a run together.
    """
    experiment = Experiment(
        MatrixGame(payoff), {"rommeo_q": default_rommeo_q()}, replicates=10_000, steps=steps, record_every=25
    )
    optimum = play(tmp_path, experiment)["joint_optimum_probability"].sel(learner="rommeo_q", step=slice(since, None))
    check(optimum.astype("float64"), low=promised)


@pytest.mark.long
@pytest.mark.slow
def test_sharpened_counts_break_the_symmetry_of_the_penalty_game(tmp_path: Path) -> None:
    """Two equal optima: with the paper's exponent a seed hardly ever settles on one, with the default's nearly always.

    Settled means a probability above .9 of playing an optimum: two agents who each play both at random are at 1/2, so
    success (above 1/2) would not tell them apart. The shares are about 0 and 1: far less than 1e-4.
    """
    experiment = Experiment(MatrixGame("penalty"), {"rommeo_q": default_rommeo_q()}, 1000, 300, record_every=300)
    metrics = play(tmp_path, ablation(experiment, {"opponent_prior.exponent": [1.0, 4.0]}))
    papers = at_end(metrics, "joint_optimum_probability", "exponent_1") > 0.9
    defaults = at_end(metrics, "joint_optimum_probability", "exponent_4") > 0.9
    assert papers.mean() < 0.75
    check(defaults.astype("float64"), low=0.99)


@pytest.mark.long
@pytest.mark.slow
def test_convergence_rates(tmp_path: Path) -> None:
    """Within 5 points of Matignon, Laurent and Le Fort-Piat (2012) where they have a number; at most 1e-4 per number.

    ROMMEO-Q's default, which they do not have, is to find the optimum of all three games in 99 % of the replicates.
    """
    published = {
        "deterministic": {
            "decentralised_q": 0.16,
            "distributed_q": 1.0,
            "hysteretic_q": 1.0,
            "recursive_fmq": 1.0,
            "wolf_phc": 0.0,
        },
        "partially_stochastic": {"distributed_q": 0.07, "hysteretic_q": 0.82, "recursive_fmq": 1.0},
        "fully_stochastic": {"hysteretic_q": 0.0, "recursive_fmq": 0.58},
    }
    runs = runs_of("convergence_rates.yaml", "fully_stochastic_other_cells", replicates=1000, record_every=5000)
    for run, experiment in runs.items():
        metrics = play(tmp_path, experiment)
        for learner, rate in published[run].items():
            check_near(at_end(metrics, "success_rate", learner), rate, 0.05)
        check(at_end(metrics, "success_rate", "rommeo_q"), low=0.99)


@pytest.mark.long
@pytest.mark.slow
def test_lola_tables(tmp_path: Path) -> None:
    """The exact rows, in ranges about what the public code gives with 4096 seeds; at most 1e-4 per line.

    In matching pennies it is the deviation that tells LOLA from its variants that look ahead. Of LOLA against naive
    learning only the paper's order is kept (-1.28 and -1.54 there, about -1.38 and -1.40 here): LOLA's lead is about 8
    standard errors of the paired difference.
    """
    runs = runs_of("lola_table.yaml", "longer_and_elsewhere", replicates=4096, record_every=200)
    dilemma = play(tmp_path, runs["prisoners_dilemma"])
    check(at_end(dilemma, "return", "lola"), -1.06, -1.03)
    check(at_end(dilemma, "tit_for_tat", "lola"), 0.78, 0.82)
    check(at_end(dilemma, "return", "naive"), -2.00, -1.985)
    check(at_end(dilemma, "tit_for_tat", "naive"), 0.20, 0.21)

    pennies = play(tmp_path, runs["matching_pennies"])
    check(squared_deviations(at_end(pennies, "return", "lola")), 0.03**2, 0.05**2)
    check(at_end(pennies, "near_uniform", "lola"), low=0.965)
    check(squared_deviations(at_end(pennies, "return", "naive")), 0.38**2, 0.46**2)
    check(squared_deviations(at_end(pennies, "return", "lola_with_look_ahead")), high=0.005**2)
    check(squared_deviations(at_end(pennies, "return", "sos")), high=0.005**2)

    higher = play(tmp_path, runs["higher_order"])
    first, second = at_end(higher, "return", "first_second").transpose("agent", ...)
    check_near(first, -1.16, 0.05)
    check_near(second, -1.18, 0.05)
    lola, naive = at_end(higher, "return", "first_naive").transpose("agent", ...)
    for lead in (lola - naive, naive + 2):
        error = float(lead.std("replicate", ddof=1)) / math.sqrt(lead.sizes["replicate"])
        assert float(lead.mean()) - ERRORS * error > 0


def test_matching_pennies_is_zero_sum() -> None:
    """What one agent gains the other loses: the exact game, unlike in public code, does not pay both alike."""
    game = MatrixGame("matching_pennies", horizon=None, memory=1, discount=0.9)
    policies = [torch.softmax(2 * torch.randn(100, 5, 2, dtype=torch.float64), -1) for _ in range(2)]
    returns = expected_return(game.dynamics(), policies, game.discount)
    assert returns[:, 0].std() > 0.1
    torch.testing.assert_close(returns[:, 0], -returns[:, 1])


@pytest.mark.slow
@pytest.mark.long
def test_communication_emerges_where_models_of_the_others_are_of_what_they_do_now(tmp_path: Path) -> None:
    """On speaker and listener; those of the whole replay say that the listener has not heeded the speaker so far.

    Without communication the listener can only go between the landmarks, .60 from the goal on average.
    """
    experiment = runs_of("inferred_policies.yaml")["speaker_listener"]
    named = ("known", "window_1600", "window_200000")
    short = experiment.replace(arms={name: experiment.arms[name] for name in named})
    metrics = xr.load_dataset(run_experiment(short, tmp_path, progress=False) / "metrics.nc")
    distance = metrics["evaluation_distance"].isel(step=slice(-3, None)).mean(["step", "replicate"])
    assert distance.sel(learner="known") < 0.54
    assert distance.sel(learner="window_1600") < 0.5
    assert distance.sel(learner="window_200000") > 0.56


@pytest.mark.slow
def test_what_factors_cannot_say_of_several_opponents(tmp_path: Path) -> None:
    """A product of factors is far from a posterior that expects the others to agree, what conditions on them is not."""
    experiment = runs_of("several_opponents.yaml")["agree"]
    named = ("autoregressive", "independent", "local")
    short = experiment.replace(arms={name: experiment.arms[name] for name in named}, replicates=4)
    metrics = xr.load_dataset(run_experiment(short, tmp_path, progress=False) / "metrics.nc")
    last = metrics.isel(step=-1).mean("agent")
    gap = {name: last["elbo_gap"].sel(learner=name) for name in named}
    assert (gap["autoregressive"] < 0.01).all()
    assert (gap["local"] < 0.01).all()
    assert (gap["independent"] > 0.6).all()
    assert (last["total_correlation"].sel(learner="autoregressive") > 0.5).all()
    assert (last["total_correlation"].sel(learner="independent") < 1e-6).all()


def rewards_on_the_grid(run: Experiment, policies: xr.DataArray | None = None) -> torch.Tensor:
    """Exact reward per step, horizon included: of the most probable actions by replicate, or the best there can be."""
    game = run.game
    assert isinstance(game, MeetingGrid)
    assert game.horizon is not None
    rules = game.dynamics()
    if policies is None:
        pays, moves = rules.reward[0].flatten(1), rules.transition.flatten(1, 2)  # states x joint actions
    else:
        actions = policies.transpose("agent", "replicate", "state", "action").argmax("action").to_numpy()
        cell = (torch.arange(len(rules.initial)), *torch.from_numpy(actions))
        pays, moves = rules.reward[0][cell].unsqueeze(-1), rules.transition[cell].unsqueeze(-2)  # of a single choice
    value = pays.new_zeros(pays.shape[:-1])
    for _ in range(game.horizon):
        value = (pays + torch.einsum("...sat,...t->...sa", moves, value)).amax(-1)
    return value @ rules.initial / game.horizon


@pytest.mark.parametrize("name", ["certain", "slip"])
def test_success_on_the_meeting_grid_is_95_per_cent_of_the_optimum(name: str) -> None:
    run = runs_of("meeting_grid.yaml")[name]
    asked = run.evaluations[""].success_reward
    assert asked == pytest.approx(0.95 * float(rewards_on_the_grid(run)), abs=1e-3)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["certain", "slip"])
def test_rommeo_ac_learns_to_meet(tmp_path: Path, name: str) -> None:
    """In at least 7 of 8 seeds the greedy policies come up to 95 % of the finite-horizon optimum within 600 updates.

    Over three sets of 16 seeds 46 of 48 did without chance, and 46 with; the worst set has 15 of 16. At that rate a
    correct implementation fails, with 3 of 16 below, about once in 40 seeds; the shipped ones are at 16 of 16.
    """
    experiment = runs_of("meeting_grid.yaml")[name]
    short = experiment.replace(arms={"rommeo_ac": experiment.arms["rommeo_ac"]}, evaluation=None)
    policies = xr.load_dataset(run_experiment(short, tmp_path, progress=False) / "posterior.nc")["policy"]
    reached = rewards_on_the_grid(short, policies.sel(learner="rommeo_ac").isel(step=-1))
    assert (reached >= 0.95 * rewards_on_the_grid(short)).double().mean() >= 7 / 8


@pytest.mark.long
@pytest.mark.slow
def test_a_belief_that_predicts_pays_against_opponents_never_met(tmp_path: Path) -> None:
    """With another seed than the file's, and its opponents; differences of the same 6 replicates."""
    experiment = runs_of("guard.yaml")["guard"].replace(seed=1)
    arms = {name: experiment.arms[name] for name in ("nobody", "told", "pearl", "belief_step")}
    metrics = play(tmp_path, experiment.replace(arms=arms))

    def gain(learner: str, after: int, population: str = "interpolated") -> xr.DataArray:
        name = f"return_after_{after}_{population}"
        return at_end(metrics, name, learner) - at_end(metrics, name, "nobody")

    check(gain("told", 5), low=1.2)
    check(gain("pearl", 0), high=0.0)
    check(gain("belief_step", 0), low=0.0)
    check(gain("belief_step", 1), low=1.0)
    for population in ("interpolated", "extrapolated"):
        check(gain("belief_step", 5, population) - 0.7 * gain("told", 5, population), low=0.0)
