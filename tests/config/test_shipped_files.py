"""The experiment files of this repository: their Python twins, their dumps, and that they can be played."""

import importlib.util
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from inference_marl.config.factors import ablation
from inference_marl.config.files import build, build_suite, dump, load_any
from inference_marl.experiment import Experiment, Suite
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, RiskyBridge
from inference_marl.guides import (
    Empirical,
    ExactTrajectory,
    OpponentFirst,
    Optimal,
    Tabular,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.schedules import ExponentialDecay, InverseTime
from inference_marl.learners import Planner, Rommeo, Scripted, Stationary
from inference_marl.learners.lola import (
    Lola,
    LolaRule,
    LolaUnknownRule,
    NaiveGradient,
    NaiveRule,
    StaticRule,
    UnsteadyGradient,
)
from inference_marl.models import (
    Amortised,
    DirichletMultinomial,
    DirichletTransition,
    EmpiricalFrequency,
    KnownReward,
    KnownTransition,
    NetworkCritic,
    TabularCritic,
    Uniform,
)
from inference_marl.runs.run import run
from inference_marl.types import Actor

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


AFTER_OTHERS = {"guard_raiders", "guard_learned"}
"""Files whose actors are of other runs."""

FILES = sorted(path for path in EXPERIMENTS.glob("*.yaml") if path.stem not in AFTER_OTHERS)
LARGE = {
    *("games_table", "equal_optima", "cross_play", "rommeo_figure1", "convergence_rates", "any_scale", "any_scale_ac"),
    *("rommeo_figure2", "rommeo_figure2_tuning", "rommeo_figure2_exploration", "rommeo_ac_to_ddpg_om"),
    *("to_the_letter", "several_opponents", "spread", "physical_deception"),
    *("rommeo_ac_ablation", "rommeo_q_ablation", "forecast_ablation", "unknown_rules", "navigation"),
    *("guard", "guard_ablation", "guard_blamed", "guard_calibration", "guard_controls", "guard_opponents"),
    *("guard_specialists", "guard_three", "shaping_strength", "reciprocity", "unseen_rps"),
}
NEEDS_VMAS = pytest.mark.skipif(importlib.util.find_spec("vmas") is None, reason="VMAS is not installed")


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Of a shipped file: suites of many arms are slow tests."""
    return [pytest.mark.slow] * (name in LARGE) + [NEEDS_VMAS] * (name == "navigation")


SMALLER_FIRST = [pytest.param(file, marks=marks(file.stem), id=file.stem) for file in FILES]


def climbing_twin() -> Experiment:
    def rommeo_q(**changes: Any) -> Rommeo:
        arguments: dict[str, Any] = {
            "opponent_prior": EmpiricalFrequency(window=50),
            "guide": OpponentFirst(opponent_model=Optimal(), policy=Optimal()),
            "critic": TabularCritic(initial=(0.0, 1.0), rate=InverseTime(start=1.0, scale=1e4)),
            "temperature": ExponentialDecay(start=500.0, rate=0.1, floor=0.1),
        }
        return Rommeo(**arguments | changes)

    return Experiment(
        MatrixGame("climbing"),
        arms={
            "rommeo_q": rommeo_q(),
            "rommeo_q_emp": rommeo_q(guide=OpponentFirst(Empirical(), Optimal())),
            "rommeo_q_uniform_prior": rommeo_q(opponent_prior=Uniform()),
            "rommeo_q_optimistic": rommeo_q(
                opponent_prior=EmpiricalFrequency(window=10, smoothing=0.1),
                critic=TabularCritic(initial=20.0, rate=1.0),
                temperature=1.0,
            ),
        },
        replicates=1000,
        steps=300,
        source="Tian et al. 2019, Figure 1",
        published={
            "rommeo_q": {"joint_optimum_probability": 0.98, "reward": 11.0},
            "rommeo_q_emp": {"joint_optimum_probability": 0.12, "reward": -7.0},
        },
    )


def network() -> TanhNormalNetwork:
    return TanhNormalNetwork(hidden=[64, 64])


def rommeo_ac(
    window: int = 5000, target_rate: float = 0.01, opponent_model: Conditional | None = None, **changes: Any
) -> Rommeo:
    arguments: dict[str, Any] = {
        "opponent_prior": Amortised(network(), window=window, learning_rate=5e-3),
        "guide": OpponentFirst(opponent_model or network(), network()),
        "critic": NetworkCritic(hidden=[64, 64], learning_rate=5e-3, target_rate=target_rate),
        "temperature": ExponentialDecay(start=5.0, rate=0.01, floor=0.1),
        "discount": 0.95,
        "replay": 5000,
        "batch_size": 256,
        "warmup": 150,
        "guide_learning_rate": 1e-2,
    }
    return Rommeo(**arguments | changes)


def quadratics_twin() -> Experiment:
    return Experiment(
        MaxOfTwoQuadratics(variant="text"),
        arms={"rommeo_ac": rommeo_ac()},
        replicates=32,
        steps=5000,
        record_every=25,
        success_window=10,
        checkpoint_every=500,
        source="Tian et al. 2019, Figure 2b, read off its one curve (at 10 from about episode 14 on)",
        published={"rommeo_ac": {"reward": 10.0, "steps_to_success": 350}},
    )


def rommeo_q_ablation_twin() -> Experiment:
    rommeo_q = Rommeo(
        opponent_prior=EmpiricalFrequency(window=50),
        guide=OpponentFirst(opponent_model=Optimal(), policy=Optimal()),
        critic=TabularCritic(initial=(0.0, 1.0), rate=InverseTime(start=1.0, scale=1e4)),
        temperature=ExponentialDecay(start=500.0, rate=0.1, floor=0.1),
    )
    experiment = Experiment(
        MatrixGame("climbing"), arms={"rommeo_q": rommeo_q}, replicates=1000, steps=300, record_every=5
    )
    optimistic = {
        "critic": TabularCritic(initial=20.0, rate=1.0),
        "opponent_prior": EmpiricalFrequency(window=10, smoothing=0.1),
    }
    return ablation(
        experiment,
        {
            "values": {"random": {}, "optimistic": optimistic},
            "schedule": {"annealed": {}, "constant": {"temperature": 1.0}},
            "variant": {
                "full": {},
                "empirical_guide": {"guide.opponent_model": Empirical()},
                "uniform_prior": {"opponent_prior": Uniform()},
                "no_kl": {"kl_weight": 1e-3},
                "fixed_uniform": {"opponent_prior": Uniform(), "guide.opponent_model": Empirical()},
            },
        },
    )


def forecast_ablation_twin() -> Experiment:
    rommeo_q = Rommeo(
        opponent_prior=EmpiricalFrequency(window=50),
        guide=OpponentFirst(opponent_model=Optimal(), policy=Optimal()),
        critic=TabularCritic(initial=(0.0, 1.0), rate=InverseTime(start=1.0, scale=1e4)),
        temperature=ExponentialDecay(start=500.0, rate=0.1, floor=0.1),
    )
    experiment = Experiment(
        MatrixGame("climbing"),
        arms={"rommeo_q": rommeo_q},
        replicates=1000,
        steps=300,
        record_every=5,
        beliefs_every=1,
    )
    return ablation(
        experiment,
        {
            "weights": {
                "annealed": {},
                "annealed_fast": {"temperature": ExponentialDecay(start=500.0, rate=0.5, floor=0.1)},
                "both_annealed": {"kl_weight": ExponentialDecay(start=500.0, rate=0.1, floor=1.0)},
                "hot": {"temperature": 10.0},
                "constant": {"temperature": 1.0},
            },
            "values": {"random": {}, "optimistic": {"critic": TabularCritic(initial=20.0, rate=1.0)}},
            "prior": {"long": {}, "short": {"opponent_prior": EmpiricalFrequency(window=10, smoothing=0.1)}},
        },
    )


def rommeo_ac_ablation_twin() -> Experiment:
    """Arms written out one by one, so that the file's design is checked against what it stands for."""
    wide = TanhNormalNetwork(hidden=[100, 100])
    authors_annealing = ExponentialDecay(500.0, 0.1, 0.1, 10)
    authors = rommeo_ac(
        opponent_prior=Amortised(wide, window=512, batch_size=512, learning_rate=1e-2),
        guide=OpponentFirst(wide, wide),
        critic=NetworkCritic(hidden=[100, 100], learning_rate=1e-2, target_rate=0.01),
        temperature=authors_annealing,
        batch_size=512,
        warmup=0,
    )
    above_rewards, optimistic = (
        NetworkCritic(hidden=[64, 64], learning_rate=5e-3, target_rate=0.01, initial=initial)
        for initial in (20.0, 200.0)
    )
    designed: dict[str, dict[str, Rommeo]] = {
        "variant": {
            "empirical_guide": rommeo_ac(opponent_model=Empirical()),
            "uniform_prior": rommeo_ac(opponent_prior=Uniform()),
            "no_kl": rommeo_ac(kl_weight=1e-3),
            "fixed_uniform": rommeo_ac(opponent_model=Empirical(), opponent_prior=Uniform()),
        },
        "exploration": {
            "no_warmup": rommeo_ac(warmup=0),
            "constant_temperature": rommeo_ac(temperature=0.1),
            "constant_temperature_no_warmup": rommeo_ac(temperature=0.1, warmup=0),
            "authors_annealing_no_warmup": rommeo_ac(temperature=authors_annealing, warmup=0),
        },
        "critic": {
            "above_rewards": rommeo_ac(critic=above_rewards),
            "optimistic": rommeo_ac(critic=optimistic),
            "fast_target": rommeo_ac(target_rate=0.1),
        },
        "setting": {"short_prior_window": rommeo_ac(window=256), "authors_setting": authors},
    }
    reference = {"variant": "full", "exploration": "annealed", "critic": "random", "setting": "ours"}
    arms, levels = {"reference": rommeo_ac()}, {"reference": reference}
    for factor, changed in designed.items():
        arms |= changed
        levels |= {level: reference | {factor: level} for level in changed}
    return Experiment(
        MaxOfTwoQuadratics(variant="text"),
        arms=arms,
        levels=levels,
        replicates=32,
        steps=2500,
        record_every=25,
        success_window=10,
        checkpoint_every=500,
        seed=1,
    )


def risky_bridge_twin() -> Experiment:
    def planner(**changes: Any) -> Planner:
        arguments: dict[str, Any] = {
            "opponent_prior": DirichletMultinomial(),
            "reward": KnownReward(),
            "transition": KnownTransition(),
            "guide": ExactTrajectory("kept"),
            "horizon": 3,
            "temperature": 0.5,
        }
        return Planner(**arguments | changes)

    rommeo_q = Rommeo(
        opponent_prior=DirichletMultinomial(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(initial=0.0, rate=0.1),
        temperature=0.5,
        discount=0.99,
    )
    return Experiment(
        RiskyBridge(),
        arms={
            "kept_dynamics": planner(),
            "inferred_dynamics": planner(guide=ExactTrajectory("inferred")),
            "kept_dynamics_svi": planner(guide=TrajectoryGuide(Tabular(), Tabular()), guide_learning_rate=0.1),
            "learned_dynamics": planner(
                transition=DirichletTransition(0.1), reward=TabularCritic(initial=0.0, rate=1.0)
            ),
            "rommeo_q": rommeo_q,
        },
        replicates=1000,
        steps=150,
        record_every=3,
    )


def unknown_rules_twin() -> Experiment:
    rules = [StaticRule(), *(NaiveRule(step_size=eta) for eta in (0.1, 0.3, 1.0, 3.0)), LolaRule()]
    experiment = Experiment(
        MatrixGame("prisoners_dilemma", horizon=50, memory=1, discount=0.96),
        arms={"pair": [LolaUnknownRule(), NaiveGradient()]},
        replicates=48,
        environments=4,
        collect=50,
        steps=5000,
        checkpoint_every=5000,
        record_actions=False,
        dtype="float64",
        seed=1000,
    )
    learners = {
        "inferred": {},
        **{f"fixed_{eta}": {"0.gate": "open", "0.opponent_step_size": float(eta)} for eta in (1, 3)},
        "fixed_10": {"0.gate": "open"},
        "finer": {"0.rules": [*rules, NaiveRule(step_size=0.03)]},
        "step_size": {"0.gate": "step_size"},
    }
    opponents = {
        **{
            name: {"1": NaiveGradient(step_size=eta)}
            for name, eta in {"static": 0.0, "naive_01": 0.1, "naive_03": 0.3, "naive_1": 1.0, "naive_3": 3.0}.items()
        },
        "lola": {"1": Lola()},
        "naive_003": {"1": NaiveGradient(step_size=0.03)},
        "naive_06": {"1": NaiveGradient(step_size=0.6)},
        "lola_3": {"1": Lola(opponent_step_size=3.0)},
        "noisy": {"1": UnsteadyGradient(step_size=0.3, noise=1.0)},
        "drifting": {"1": UnsteadyGradient(step_size=0.01, noise=20.0)},
        "always_defect": {"1": Stationary(probabilities=[0, 1])},
        "tit_for_tat": {"1": Scripted(probabilities=[[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])},
        "late": {"1": UnsteadyGradient(after=30)},
        "feint": {"1": UnsteadyGradient(until=10)},
        "leaps": {"1": NaiveGradient(update_every=10, step_size=10.0)},
        "itself": {"1": LolaUnknownRule()},
    }
    return ablation(experiment, {"learner": learners, "opponent": opponents})


TWINS = {
    "climbing": climbing_twin,
    "forecast_ablation": forecast_ablation_twin,
    "max_of_two_quadratics": quadratics_twin,
    "risky_bridge": risky_bridge_twin,
    "rommeo_ac_ablation": rommeo_ac_ablation_twin,
    "rommeo_q_ablation": rommeo_q_ablation_twin,
    "unknown_rules": unknown_rules_twin,
}


def test_every_file_of_one_experiment_has_a_twin() -> None:
    assert {path.stem for path in FILES if "runs" not in yaml.safe_load(path.read_text())} == set(TWINS)


@lru_cache
def shipped(file: Path) -> Experiment | Suite:
    """What a file describes, checked once."""
    return load_any(file)


def experiments(found: Experiment | Suite) -> list[Experiment]:
    return list(found.runs.values()) if isinstance(found, Suite) else [found]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in TWINS])
def test_a_file_and_its_python_twin_are_the_same_experiment(name: str) -> None:
    assert shipped(EXPERIMENTS / f"{name}.yaml").describe() == TWINS[name]().describe()


def rebuilt(description: Any) -> Any:
    """The object that a description is of, made by calling constructors."""
    if isinstance(description, dict) and "class_path" in description:
        module, _, name = description["class_path"].rpartition(".")
        arguments = {key: rebuilt(value) for key, value in description["init_args"].items()}
        return getattr(importlib.import_module(module), name)(**arguments)
    if isinstance(description, dict):
        return {key: rebuilt(value) for key, value in description.items()}
    if isinstance(description, list):
        return [rebuilt(item) for item in description]
    return description


@pytest.mark.parametrize("file", SMALLER_FIRST)
def test_every_file_survives_a_dump_and_is_made_of_constructor_calls(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shipped(file)
    for experiment in experiments(found):
        assert rebuilt(experiment.describe()).describe() == experiment.describe()
    once = dump(found)
    monkeypatch.setattr("inference_marl.config.files.check", lambda experiment: None)  # it has just passed
    again = (build_suite if isinstance(found, Suite) else build)(yaml.safe_load(once))
    assert dump(again) == once
    assert again.describe() == found.describe()


def has_elbo(arm: Actor | list[Actor]) -> bool:
    """Whether some learner of an arm has one."""
    actors = arm if isinstance(arm, list) else [arm]
    return any(metric.name == "elbo" for actor in actors for metric in actor.metrics)


@pytest.mark.parametrize("file", SMALLER_FIRST)
def test_every_file_runs_a_few_steps(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shipped(file)
    monkeypatch.setattr("inference_marl.runs.run.check", lambda experiment: None)  # it has just passed
    known: set[str] = set()
    for experiment in experiments(found):
        if known >= set(experiment.arms):  # the same arms on another game
            continue
        known |= set(experiment.arms)
        short = experiment.replace(
            replicates=2, steps=2, collect=1, record_every=1, beliefs_every=1, draws=2, evaluation=None
        )
        metrics = xr.load_dataset(run(short, tmp_path, file.stem, progress=False) / "metrics.nc")
        assert metrics["learner"].values.tolist() == list(experiment.arms)
        assert np.isfinite(metrics["reward"]).all()
        elbo = metrics["elbo"] if "elbo" in metrics else metrics["reward"]
        assert not np.isinf(elbo).any()
        missing = elbo.isnull().mean(["replicate", "step", "agent"])
        for name, arm in experiment.arms.items():
            known_here = "elbo" not in metrics or has_elbo(arm)
            assert float(missing.sel(learner=name)) == (0.0 if known_here else 1.0)


@pytest.mark.slow
def test_files_whose_actors_are_of_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, where their leading comments say: in the folder `runs` of the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, arms in (("guard", None), ("guard_raiders", None), ("guard_learned", {"nobody", "specialist"})):
        found = load_any(EXPERIMENTS / f"{name}.yaml")
        assert isinstance(found, Suite)
        assert build_suite(yaml.safe_load(dump(found))).describe() == found.describe()
        for key, experiment in found.runs.items():
            kept = {arm: actors for arm, actors in experiment.arms.items() if arms is None or arm in arms}
            watched = experiment.evaluation if name == "guard_learned" else None
            if isinstance(watched, dict):
                watched = {which: replace(each, every=2, environments=2) for which, each in watched.items()}
            short = experiment.replace(
                arms=kept, replicates=2, environments=2, steps=2, collect=1, record_every=1, evaluation=watched
            )
            metrics = xr.load_dataset(run(short, Path("runs") / name, key, progress=False) / "metrics.nc")
            assert np.isfinite(metrics["reward"]).all()
            for which in watched or ():
                assert np.isfinite(metrics[f"return_after_5_{which}"].isel(step=-1)).all()
