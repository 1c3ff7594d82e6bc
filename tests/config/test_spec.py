"""Experiment files: what they build, their Python twins, what is refused and in which words, and what is never run."""

import copy
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from inference_marl.config.files import SpecError, available, build, build_suite, dump, load, load_any, override
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, RiskyBridge
from inference_marl.guides import (
    Empirical,
    ExactTrajectory,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    Tabular,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.schedules import Constant, ExponentialDecay, InverseTime
from inference_marl.learners import Planner, Rommeo, Stationary
from inference_marl.models import (
    Amortised,
    BernoulliOptimality,
    DirichletMultinomial,
    DirichletTransition,
    EmpiricalFrequency,
    KnownReward,
    KnownTransition,
    NetworkCritic,
    TabularCritic,
    Uniform,
)
from inference_marl.runs.run import Experiment
from inference_marl.runs.suite import Suite
from inference_marl.types import Conditional

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(EXPERIMENTS.glob("*.yaml"))

BASE = """
game: {class_path: MatrixGame, init_args: {payoff: climbing}}
steps: 3
arms:
  a:
    class_path: Rommeo
    init_args:
      opponent_prior: {class_path: EmpiricalFrequency, init_args: {window: 50}}
      guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
      critic:
        class_path: TabularCritic
        init_args: {initial: [0.0, 1.0], rate: {class_path: InverseTime, init_args: {start: 1.0, scale: 1.0e+4}}}
      temperature: {class_path: ExponentialDecay, init_args: {start: 500.0, rate: 0.1, floor: 0.1}}
"""


def base() -> Any:
    return yaml.safe_load(BASE)


def with_overrides(*overrides: tuple[str, Any]) -> Any:
    config = base()
    for key, value in overrides:
        override(config, key, value)
    return config


def described(experiment: Experiment, *path: str) -> Any:
    """What an experiment says of itself at a path, `init_args` left out."""
    found = experiment.describe()["init_args"]
    for key in path:
        found = found["init_args"] if isinstance(found, dict) and "init_args" in found else found
        found = found[key]
    return found


def name_of(described_object: Any) -> str:
    return str(described_object["class_path"]).rpartition(".")[2]


def refused(config: Any) -> str:
    """The message, which must be one line, of a file with this content."""
    with pytest.raises(SpecError) as caught:
        build(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------------- files and twins


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
    return experiment.ablation(
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
        }
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


TWINS = {
    "climbing": climbing_twin,
    "max_of_two_quadratics": quadratics_twin,
    "risky_bridge": risky_bridge_twin,
    "rommeo_ac_ablation": rommeo_ac_ablation_twin,
    "rommeo_q_ablation": rommeo_q_ablation_twin,
}


def test_every_file_of_one_experiment_has_a_twin() -> None:
    assert {path.stem for path in FILES if "runs" not in yaml.safe_load(path.read_text())} == set(TWINS)


@pytest.mark.parametrize("name", TWINS)
def test_a_file_and_its_python_twin_are_the_same_experiment(name: str) -> None:
    assert load(EXPERIMENTS / f"{name}.yaml").describe() == TWINS[name]().describe()


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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_survives_a_dump_and_is_made_of_constructor_calls(file: Path) -> None:
    found = load_any(file)
    for experiment in found.runs.values() if isinstance(found, Suite) else [found]:
        assert rebuilt(experiment.describe()).describe() == experiment.describe()
    once = dump(found)
    again = (build_suite if isinstance(found, Suite) else build)(yaml.safe_load(once))
    assert dump(again) == once
    assert again.describe() == found.describe()


def test_a_dump_can_be_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(BASE)
    experiment = load(tmp_path / "first.yaml")
    (tmp_path / "second.yaml").write_text(dump(experiment))
    assert load(tmp_path / "second.yaml").describe() == experiment.describe()


def test_what_is_built_is_what_the_file_says() -> None:
    arm = build(base()).arms["a"]
    assert isinstance(arm, Rommeo)
    assert isinstance(arm.opponent_prior, EmpiricalFrequency)
    assert arm.opponent_prior.window == 50
    assert isinstance(arm.guide, OpponentFirst)
    assert isinstance(arm.guide.policy, Optimal)
    assert isinstance(arm.critic, TabularCritic)
    assert arm.critic.initial == (0.0, 1.0)
    assert arm.critic.rate(10_000) == 0.5
    assert arm.temperature(0) == 500.1


def test_building_changes_neither_its_argument_nor_the_random_state() -> None:
    config = with_overrides(
        (
            "arms.b",
            {
                "like": "a",
                "opponent_prior": {"class_path": "Uniform"},
                "opponent_prior.class_path": "Fixed",
                "opponent_prior.probabilities": [1, 2, 3],
                "temperature": "1e-1",
            },
        ),
        ("arms.c", [{"class_path": "Stationary"}] * 2),
    )
    before, state = copy.deepcopy(config), torch.get_rng_state()
    build(config)
    assert config == before
    assert torch.equal(torch.get_rng_state(), state)


def test_parts_shared_through_yaml_aliases_are_built_each_on_its_own() -> None:
    config = yaml.safe_load(
        BASE + "  b: &b\n    class_path: Stationary\n    init_args: {probabilities: [1, 1, 2]}\n  c: [*b, *b]\n"
    )
    arms = build(config).arms
    assert isinstance(arms["c"], list)
    assert arms["c"][0] is not arms["c"][1]
    assert arms["c"][0].describe() == arms["c"][1].describe()


# --------------------------------------------------------------------------------------------------- names and paths


@pytest.mark.parametrize(
    "policy",
    [
        "Tabular",
        "inference_marl.guides.Tabular",
        "inference_marl.guides.conditionals.Tabular",
        {"class_path": "Tabular"},
        {"class_path": "Tabular", "init_args": None},
        {"class_path": "Tabular", "init_args": {"scale": 0.0}},
    ],
)
def test_a_class_has_a_short_name_and_import_paths(policy: Any) -> None:
    prior = {"class_path": "DirichletMultinomial"}
    experiment = build(with_overrides(("arms.a.guide.policy", policy), ("arms.a.opponent_prior", prior)))
    assert described(experiment, "arms", "a", "guide", "policy") == Tabular().describe()


THIRD_PARTY = '''
"""A user's own file."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.models import EmpiricalFrequency, OpponentPrior
from inference_marl.inference.schedules import Schedule, as_schedule
from inference_marl.spaces import Discrete
from inference_marl.types import Conditional, Game, Learner, Posterior


class Stubborn(OpponentPrior):
    """Believes that the opponents repeat one action."""

    targets = (Discrete,)

    def __init__(self, action: int, strength: float = 3.0) -> None:
        super().__init__()
        self.action, self.strength = action, strength

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        logits = torch.zeros(self.target.features, dtype=self.seat.dtype)
        logits[self.action] = self.strength
        return dist.Categorical(logits=logits)


class Chorus(Stubborn):
    """Holds classes in a list and in a mapping, and hands the rest to its base."""

    def __init__(self, schedules: list[float | Schedule], named: dict[str, Schedule] | None = None, **rest) -> None:
        super().__init__(**rest)
        self.schedules, self.named = schedules, named or {}


class Uniform(OpponentPrior):
    """Has the name of one of the package's own."""

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        return self.target.uniform(self.seat.dtype, self.seat.device)


class Copycat(Learner):
    """Plays what its opponent played last."""

    def __init__(self, first: int = 0, patience: float | Schedule = 1.0) -> None:
        super().__init__()
        self.first, self.patience = first, as_schedule(patience)

    def setup(self) -> None:
        zeros = torch.full((self.seat.replicates, self.seat.environments), self.first)
        self.register_buffer("last", zeros)

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        return self.last.clone()

    def update(self, batch, peers) -> None:
        self.last = batch.seen_by(self.seat).opponent_action.clone()

    def posterior(self, obs: Tensor, draws: int) -> Posterior:
        here = self.last[:, :1].expand(-1, obs.shape[1])
        return Posterior(torch.nn.functional.one_hot(here, self.seat.action.features).to(self.seat.dtype))


class Tug(Game):
    """Two agents, two actions: both get what the first pulls."""

    def __init__(self, *, prize: float = 2.0) -> None:
        self.prize = prize
        self.observations = (Discrete(1),) * 2
        self.action_spaces = (Discrete(2),) * 2

    def reset(self, replicates, environments, device, dtype):
        return {"obs": torch.zeros(replicates, environments, dtype=torch.int64, device=device)}

    def observe(self, state):
        return (state["obs"], state["obs"])

    def step(self, state, actions):
        reward = self.prize * actions[0].to(torch.float32)
        return state, torch.stack([reward, reward], -1), torch.zeros_like(state["obs"], dtype=torch.bool)


class Nothing(Game):
    """Without a constructor of its own, and abstract."""


def make() -> Stubborn:
    raise AssertionError("called")
'''


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that the package has never heard of."""
    (tmp_path / "users_own_rooms.py").write_text(THIRD_PARTY)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_own_rooms"
    sys.modules.pop("users_own_rooms", None)


def test_third_party_classes_are_named_by_their_import_path(third_party: str) -> None:
    prior = {"class_path": f"{third_party}.Stubborn", "init_args": {"action": 1}}
    config = with_overrides(
        ("game", {"class_path": f"{third_party}.Tug", "init_args": {"prize": 3}}),
        ("arms.a.opponent_prior", prior),
        ("arms.b", [{"class_path": f"{third_party}.Copycat", "init_args": {"patience": "Linear"}}, "Stationary"]),
        ("arms.b.0.patience", {"class_path": "Linear", "init_args": {"start": 1.0, "end": 0.0, "steps": 4}}),
    )
    experiment = build(config)
    assert described(experiment, "game") == {"class_path": f"{third_party}.Tug", "init_args": {"prize": 3.0}}
    assert described(experiment, "arms", "a", "opponent_prior")["init_args"] == {"action": 1, "strength": 3.0}
    assert name_of(described(experiment, "arms", "b")[0]) == "Copycat"
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()


def test_third_party_classes_are_checked_like_the_packages_own(third_party: str) -> None:
    path = f"{third_party}.Stubborn"
    message = refused(with_overrides(("arms.a.opponent_prior", path)))
    assert message == "arms.a.opponent_prior.action: got nothing, expected int"
    message = refused(with_overrides(("arms.a.opponent_prior", path), ("arms.a.opponent_prior.actoin", 1)))
    assert message.startswith("arms.a.opponent_prior.actoin: got an unknown key, expected one of action, strength")
    message = refused(with_overrides(("arms.a.opponent_prior", path), ("arms.a.opponent_prior.action", "x")))
    assert message == "arms.a.opponent_prior.action: got x, expected int"
    message = refused(with_overrides(("game", f"{third_party}.Nothing")))
    assert message.startswith(f"game: got {third_party}.Nothing, which is only a base of others, expected one of")
    message = refused(
        with_overrides(
            ("game", "MaxOfTwoQuadratics"), ("arms.a.opponent_prior", path), ("arms.a.opponent_prior.action", 0)
        )
    )
    assert message.startswith("arms.a.opponent_prior: Stubborn got Box(")


def test_classes_in_lists_and_mappings_and_arguments_for_a_base(third_party: str) -> None:
    prior = {
        "class_path": f"{third_party}.Chorus",
        "init_args": {
            "action": 2,
            "schedules": [0.5, {"class_path": "Constant", "init_args": {"value": 2}}],
            "named": {"slow": {"class_path": "InverseTime"}},
        },
    }
    experiment = build(with_overrides(("arms.a.opponent_prior", prior)))
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    chorus: Any = experiment.arms["a"]
    assert chorus.opponent_prior.action == 2
    assert chorus.opponent_prior.schedules[0] == 0.5
    assert chorus.opponent_prior.schedules[1](0) == 2
    assert chorus.opponent_prior.named["slow"](10_000) == 0.5
    for key, value, message in [
        ("schedules.1", "Uniform", "schedules[1]: got 'Uniform', expected float or one of Constant"),
        ("schedules.1.valu", 1, "schedules[1].valu: got an unknown key, expected one of value (did you mean value?)"),
        ("schedules.0", "x", "schedules[0]: got 'x', expected float or one of Constant"),
        ("named.slow", "os.system", "named.slow: got os.system, which is something else, expected one of Constant"),
    ]:
        config = with_overrides(("arms.a.opponent_prior", prior), (f"arms.a.opponent_prior.{key}", value))
        assert refused(config).startswith(f"arms.a.opponent_prior.{message}")
    unknown = refused(with_overrides(("arms.a.opponent_prior", prior), ("arms.a.opponent_prior.strenth", 1)))
    assert unknown.startswith("arms.a.opponent_prior")
    assert "strenth" in unknown


def test_a_short_name_is_the_packages_own_even_if_a_user_has_the_same(third_party: str) -> None:
    importlib.import_module(third_party)
    experiment = build(with_overrides(("arms.a.opponent_prior", "Uniform")))
    assert described(experiment, "arms", "a", "opponent_prior") == Uniform().describe()
    experiment = build(with_overrides(("arms.a.opponent_prior", f"{third_party}.Uniform")))
    assert described(experiment, "arms", "a", "opponent_prior")["class_path"] == f"{third_party}.Uniform"
    assert "Stubborn" not in available()["opponent priors"]


def test_a_module_that_fails_is_reported_with_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_broken_rooms.py").write_text("import torch\nraise RuntimeError('half\\nfinished')\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = refused(with_overrides(("arms.a.opponent_prior", "users_broken_rooms.Stubborn")))
    reason = "which cannot be imported (RuntimeError: half), expected one of"
    assert message.startswith(f"arms.a.opponent_prior: got users_broken_rooms.Stubborn, {reason}")


# ------------------------------------------------------------------------------------------------ like and overrides


def test_an_arm_like_another_states_what_differs() -> None:
    differs = {
        "like": "a",
        "guide.opponent_model": "Empirical",
        "opponent_prior.smoothing": 0.5,
        "init_args.discount": 0.5,
        "critic": "NetworkCritic",
        "temperature": 2,
    }
    experiment = build(with_overrides(("arms.b", differs)))
    a, b = described(experiment, "arms", "a")["init_args"], described(experiment, "arms", "b")["init_args"]
    assert name_of(b["guide"]["init_args"]["opponent_model"]) == "Empirical"
    assert name_of(b["guide"]["init_args"]["policy"]) == "Optimal"
    assert b["opponent_prior"]["init_args"] == {"window": 50, "smoothing": 0.5, "initial": "dirichlet", "exponent": 1.0}
    assert name_of(b["critic"]) == "NetworkCritic"
    assert b["temperature"] == 2.0
    assert b["discount"] == 0.5
    assert a == described(build(base()), "arms", "a")["init_args"]


def test_a_chain_of_likes_in_any_order() -> None:
    config = base()
    config["arms"] = {
        "c": {"like": "b", "guide.policy": "Tabular"},
        "b": {"like": "a", "opponent_prior.smoothing": 0.1},
        **config["arms"],
    }
    experiment = build(config)
    assert list(experiment.arms) == ["c", "b", "a"]
    assert [described(experiment, "arms", name, "opponent_prior")["init_args"]["smoothing"] for name in "abc"] == [
        0.0,
        0.1,
        0.1,
    ]
    assert [name_of(described(experiment, "arms", name, "guide", "policy")) for name in "abc"] == [
        "Optimal",
        "Optimal",
        "Tabular",
    ]


def test_an_arm_like_a_list_of_seats() -> None:
    config = with_overrides(
        ("arms.b", ["Stationary", "Stationary"]), ("arms.c", {"like": "b", "1.probabilities": [0, 0, 1]})
    )
    first, second = described(build(config), "arms", "c")
    assert first["init_args"] == {"probabilities": None, "concentration": None}
    assert second["init_args"] == {"probabilities": [0.0, 0.0, 1.0], "concentration": None}


@pytest.mark.parametrize(
    ("likes", "message"),
    [
        ({"b": {"like": "nobody"}}, "arms.b.like: got 'nobody', expected another arm: a, b"),
        ({"b": {"like": ["a"]}}, "arms.b.like: got ['a'], expected another arm: a, b"),
        ({"b": {"like": None}}, "arms.b.like: got None, expected another arm: a, b"),
        ({"b": {"like": "b"}}, "arms.b.like: got a circle, b -> b, expected an arm that starts from none"),
        ({"b": {"like": "c"}, "c": {"like": "d"}, "d": {"like": "b"}}, "arms.d.like: got a circle, b -> c -> d -> b"),
        (
            {"b": {"like": "a", "temperature.floor.x": 1}},
            "arms.b.temperature.floor.x: got a path through arms.b.temperature.floor, which has no keys, expected",
        ),
        ({"b": {"like": "a", "temperature.flor": 1}}, "arms.b.temperature.flor: got an unknown key, expected one of"),
    ],
)
def test_likes_that_lead_nowhere(likes: Any, message: str) -> None:
    config = base()
    config["arms"] |= likes
    assert refused(config).startswith(message)


@pytest.mark.parametrize(
    "key",
    ["arms.a.temperature.floor", "arms.a.init_args.temperature.floor", "arms.a.init_args.temperature.init_args.floor"],
)
def test_init_args_may_be_left_out_of_an_override(key: str) -> None:
    assert described(build(with_overrides((key, 0.7))), "arms", "a", "temperature")["init_args"]["floor"] == 0.7


def test_an_override_reaches_through_a_class_given_by_name() -> None:
    config = with_overrides(("arms.a.opponent_prior", "EmpiricalFrequency"), ("arms.a.opponent_prior.window", 7))
    assert described(build(config), "arms", "a", "opponent_prior")["init_args"]["window"] == 7


def test_an_override_of_a_list_item() -> None:
    config = with_overrides(
        ("arms.b", ["Stationary", "Stationary"]),
        ("arms.b.0", base()["arms"]["a"]),
        ("arms.b.0.discount", 0.1),
        ("arms.b.1.probabilities", [1, 2, 3]),
        ("arms.b.1.probabilities.2", 5),
    )
    first, second = described(build(config), "arms", "b")
    assert first["init_args"]["discount"] == 0.1
    assert second["init_args"]["probabilities"] == [1.0, 2.0, 5.0]


def test_an_override_can_add_what_is_not_there() -> None:
    config = with_overrides(("arms.b.like", "a"), ("arms.b.discount", 0.3), ("replicates", 4))
    experiment = build(config)
    assert described(experiment, "arms", "b")["init_args"]["discount"] == 0.3
    assert experiment.replicates == 4


def test_overriding_an_arm_changes_those_that_are_like_it(tmp_path: Path) -> None:
    config = with_overrides(
        ("arms.b", {"like": "a", "discount": 0.5}), ("arms.c", {"like": "a", "opponent_prior": "Uniform"})
    )
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(config))
    experiment = load(tmp_path / "file.yaml", [("arms.a.discount", 0.1), ("arms.a.temperature.floor", 0.4)])
    assert [described(experiment, "arms", name)["init_args"]["discount"] for name in "abc"] == [0.1, 0.5, 0.1]
    assert [described(experiment, "arms", name, "temperature")["init_args"]["floor"] for name in "abc"] == [0.4] * 3


def test_an_override_of_an_arm_like_another_adds_to_its_differences() -> None:
    """It neither hides what the file says differs, nor forgets what the other arm says beside the key."""
    differs = {"like": "a", "guide.opponent_model": "Empirical", "opponent_prior": "DirichletMultinomial"}
    config = with_overrides(
        ("arms.b", differs),
        ("arms.b.guide.policy", "Tabular"),
        ("arms.b.guide.policy.scale", 0.5),
        ("arms.b.opponent_prior.concentration", 3),
        ("arms.b.temperature.floor", 0.3),
    )
    b = described(build(config), "arms", "b")["init_args"]
    assert name_of(b["guide"]["init_args"]["opponent_model"]) == "Empirical"
    assert b["guide"]["init_args"]["policy"] == Tabular(scale=0.5).describe()
    assert b["opponent_prior"]["init_args"] == {"concentration": 3.0, "window": None}
    assert b["temperature"]["init_args"] == {"start": 500.0, "rate": 0.1, "floor": 0.3, "delay": 0}


def test_the_last_override_of_an_arm_like_another_wins() -> None:
    config = with_overrides(
        ("arms.b", {"like": "a", "guide.opponent_model": "Tabular", "guide.policy": "Tabular"}),
        (
            "arms.b.guide",
            {"class_path": "PolicyFirst", "init_args": {"opponent_model": "Optimal", "policy": "Optimal"}},
        ),
        ("arms.b.guide.opponent_model", "Empirical"),
    )
    assert described(build(config), "arms", "b", "guide") == PolicyFirst(Empirical(), Optimal()).describe()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("steps.x", "steps.x: got a path through steps, which has no keys"),
        ("arms.a.temperature.floor.x", "arms.a.temperature.floor.x: got a path through arms.a.temperature.floor"),
        ("arms.seats.2", "arms.seats.2: got item 2 of arms.seats, expected a number below 2"),
        (
            "arms.seats.2.probabilities",
            "arms.seats.2.probabilities: got item 2 of arms.seats, expected a number below 2",
        ),
        ("arms.seats.first", "arms.seats.first: got item first of arms.seats, expected a number below 2"),
        ("arms.seats.-1", "arms.seats.-1: got item -1 of arms.seats, expected a number below 2"),
    ],
)
def test_overrides_that_lead_nowhere(key: str, message: str) -> None:
    config = with_overrides(("arms.seats", ["Stationary", "Stationary"]))
    with pytest.raises(SpecError, match=f"^{re.escape(message)}"):
        override(config, key, 1)


def test_numbers_as_yaml_1_1_reads_them() -> None:
    """`1e-3` is a string to PyYAML; where a number is declared it is one."""
    experiment = build(with_overrides(("arms.a.temperature", "1e-3"), ("arms.a.discount", "5e-1")))
    arguments = described(experiment, "arms", "a")["init_args"]
    assert (arguments["temperature"], arguments["discount"]) == (1e-3, 0.5)


# -------------------------------------------------------------------------------------------------------- factors


def with_factors(factors: Any, **settings: Any) -> Any:
    return base() | {"factors": factors} | settings


VARIANTS = {"full": {}, "empirical": {"guide.opponent_model": "Empirical"}, "uniform": {"opponent_prior": "Uniform"}}


def test_a_grid_has_an_arm_for_every_combination_of_levels() -> None:
    experiment = build(with_factors({"kl_weight": [1.0, 0.1], "variant": VARIANTS}))
    assert list(experiment.arms) == [
        f"kl_weight_{weight}-{variant}" for weight in ("1", "0p1") for variant in ("full", "empirical", "uniform")
    ]
    assert experiment.levels["kl_weight_0p1-uniform"] == {"kl_weight": "0.1", "variant": "uniform"}
    a = described(build(base()), "arms", "a")["init_args"]
    for name, levels in experiment.levels.items():
        cell = described(experiment, "arms", name)["init_args"]
        expected = a | {"kl_weight": float(levels["kl_weight"])}
        if levels["variant"] == "uniform":
            expected["opponent_prior"] = Uniform().describe()
        if levels["variant"] == "empirical":
            expected["guide"] = OpponentFirst(Empirical(), Optimal()).describe()
        assert cell == expected, name


def test_factors_apply_in_their_order() -> None:
    """What a later factor puts in the place of a part is not what an earlier one changed in it."""
    short = {"long": {}, "short": {"opponent_prior.window": 3}}
    experiment = build(with_factors({"memory": short, "variant": VARIANTS}))
    assert described(experiment, "arms", "short-full", "opponent_prior", "window") == 3
    assert described(experiment, "arms", "short-uniform", "opponent_prior") == Uniform().describe()
    message = refused(with_factors({"variant": VARIANTS, "memory": short}))
    assert message == "factors.memory.short.opponent_prior.window: got an unknown key, expected none"


def test_one_at_a_time_changes_one_factor_of_the_reference() -> None:
    factors = {
        "variant": VARIANTS,
        "kl_weight": [1.0, 0.1],
        "temperature": {"annealed": {}, "low": {"temperature": 0.1}},
    }
    experiment = build(with_factors(factors, design="one_at_a_time"))
    reference = {"variant": "full", "kl_weight": "1", "temperature": "annealed"}
    assert experiment.levels == {
        "reference": reference,
        "empirical": reference | {"variant": "empirical"},
        "uniform": reference | {"variant": "uniform"},
        "kl_weight_0p1": reference | {"kl_weight": "0.1"},
        "low": reference | {"temperature": "low"},
    }
    assert list(experiment.arms) == list(experiment.levels)
    low = described(experiment, "arms", "low")["init_args"]
    assert low == described(experiment, "arms", "reference")["init_args"] | {"temperature": 0.1}


def test_the_reference_keeps_what_its_first_levels_say() -> None:
    experiment = build(with_factors({"kl_weight": [0.5, 0.1], "variant": VARIANTS}, design="one_at_a_time"))
    weights = {name: described(experiment, "arms", name)["init_args"]["kl_weight"] for name in experiment.arms}
    assert weights == {"reference": 0.5, "kl_weight_0p1": 0.1, "empirical": 0.5, "uniform": 0.5}


def test_what_the_arm_says_wrongly_is_not_put_on_a_level_with_a_similar_key() -> None:
    config = with_factors({"variant": {"x": {"guide": base()["arms"]["a"]["init_args"]["guide"]}}})
    config["arms"]["a"]["init_args"]["guide_learning_rate"] = -1.0
    assert refused(config).startswith("arms.a.guide_learning_rate: got -1.0")


def test_several_arms_are_a_factor_of_their_own() -> None:
    config = with_factors({"kl_weight": [1.0, 0.1]})
    config["arms"]["b"] = {"like": "a", "guide.opponent_model": "Empirical"}
    experiment = build(config)
    assert list(experiment.arms) == ["a-kl_weight_1", "a-kl_weight_0p1", "b-kl_weight_1", "b-kl_weight_0p1"]
    assert experiment.levels["b-kl_weight_0p1"] == {"arm": "b", "kl_weight": "0.1"}
    assert name_of(described(experiment, "arms", "b-kl_weight_0p1", "guide", "opponent_model")) == "Empirical"


@pytest.mark.parametrize(
    ("factor", "values", "labels", "names"),
    [
        ("kl_weight", [1, 0.001, "1e-4"], ["1", "0.001", "1e-4"], ["kl_weight_1", "kl_weight_0p001", "kl_weight_1em4"]),
        ("opponent_prior.window", [None, 9], ["null", "9"], ["window_null", "window_9"]),
        ("opponent_prior.initial", ["dirichlet", "uniform"], ["dirichlet", "uniform"], ["dirichlet", "uniform"]),
        ("critic.initial", [[0, 1], -2.5], ["[0, 1]", "-2.5"], ["initial_0_1", "initial_m2p5"]),
        ("opponent_prior", ["Uniform", "EmpiricalFrequency"], ["Uniform", "EmpiricalFrequency"], None),
        ("guide.policy", ["inference_marl.guides.Tabular", {"class_path": "Optimal"}], ["Tabular", "Optimal"], None),
    ],
)
def test_a_list_is_short_for_levels(factor: str, values: Any, labels: list[str], names: list[str] | None) -> None:
    config = with_overrides(("arms.a.opponent_prior.smoothing", 0.1))
    experiment = build(config | {"factors": {factor: values}})
    assert [levels[factor] for levels in experiment.levels.values()] == labels
    assert list(experiment.arms) == (names or labels)
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()


def test_a_dump_holds_the_arms_that_factors_stand_for() -> None:
    experiment = build(with_factors({"variant": VARIANTS, "kl_weight": [1.0, 0.1]}, design="one_at_a_time"))
    written = yaml.safe_load(dump(experiment))
    assert not {"factors", "design"} & set(written)
    assert written["levels"] == experiment.levels
    assert build(written).describe() == experiment.describe()


def test_a_file_with_factors_and_its_python_twin_are_the_same_experiment() -> None:
    plain_arms = build(base())
    objects = {
        "full": {},
        "empirical": {"guide.opponent_model": Empirical()},
        "uniform": {"opponent_prior": Uniform()},
    }
    for design in ("grid", "one_at_a_time"):
        twin = plain_arms.ablation({"variant": objects, "kl_weight": [1.0, 0.5]}, design)  # type: ignore[arg-type]
        file = build(with_factors({"variant": VARIANTS, "kl_weight": [1.0, 0.5]}, design=design))
        assert twin.describe() == file.describe()
    assert plain_arms.describe() == build(base()).describe()


def test_overrides_reach_the_arm_and_the_levels_that_factors_start_from(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(
        yaml.safe_dump(with_factors({"variant": VARIANTS, "kl_weight": [1, 2]}), sort_keys=False)
    )
    overrides = [
        ("arms.a.discount", 0.5),
        ("factors.kl_weight", [2.0]),
        ("factors.variant.uniform.discount", 0.25),
        ("factors.variant.full.guide.policy", "Tabular"),
        ("factors.variant.full.opponent_prior.smoothing", 0.5),
    ]
    experiment = load(tmp_path / "file.yaml", overrides)
    assert list(experiment.arms) == ["full-kl_weight_2", "empirical-kl_weight_2", "uniform-kl_weight_2"]
    cells = {name: described(experiment, "arms", name)["init_args"] for name in experiment.arms}
    assert [cell["discount"] for cell in cells.values()] == [0.5, 0.5, 0.25]
    assert name_of(cells["full-kl_weight_2"]["guide"]["init_args"]["policy"]) == "Tabular"
    assert name_of(cells["full-kl_weight_2"]["guide"]["init_args"]["opponent_model"]) == "Optimal"
    assert name_of(cells["empirical-kl_weight_2"]["guide"]["init_args"]["policy"]) == "Optimal"


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (
            {"variant": {"full": {}, "no_kl": {"kl_wieght": 1}}},
            "factors.variant.no_kl.kl_wieght: got an unknown key, expected one of .*did you mean kl_weight",
        ),
        (
            {"variant": {"full": {}, "x": {"temperature": "y"}}},
            "factors.variant.x.temperature: got 'y', expected float",
        ),
        (
            {"variant": {"x": {"opponent_prior": {"class_path": "Fixed"}}}},
            r"factors.variant.x.opponent_prior.probabilities: got nothing, expected list\[float\]",
        ),
        (
            {"variant": {"x": {"opponent_prior.window": -3}}},
            "factors.variant.x.opponent_prior.window: got -3, expected a positive integer",
        ),
        ({"variant": {"x": {"steps.y": 1}}}, "factors.variant.x.steps: got an unknown key"),
        ({"variant": {"x": {"temperature.floor.y": 1}}}, "factors.variant.x.temperature.floor.y: got a path through"),
        ({"kl_weight": [1.0, "x"]}, "factors.kl_weight: got 'x', expected float"),
        ({"discount": [0.5, 2.0]}, r"factors.discount: got 2.0, expected a number in \[0, 1\)"),
        ({"variant": {"full": 3}}, "factors.variant.full: got 3, expected a mapping from dotted keys to values"),
        (
            {"variant": {}},
            r"factors.variant: got {}, expected a mapping from levels to differences, or a list of value",
        ),
        ({"variant": []}, r"factors.variant: got \[\], expected a mapping from levels to differences, or a list"),
        ({"variant": 3}, "factors.variant: got 3, expected a mapping from levels to differences, or a list of values"),
        ({"variant": {"a b": {}}}, "factors.variant: got a level called 'a b', expected letters, digits, _ and - only"),
        ({"variant": {1: {}}}, "factors.variant: got a level called 1, expected letters, digits, _ and - only"),
        (
            {"kl_weight": [1, 1.0]},
            "factors.kl_weight: got 2 values called 1, expected names: give the factor a mapping",
        ),
        ({"x": {"a-b": {}, "a": {}}, "y": {"c": {}, "b-c": {}}}, "factors: got two arms called a-b-c, expected names"),
        ({}, r"factors: got {}, expected a mapping from names to levels"),
        ([1], r"factors: got \[1\], expected a mapping from names to levels"),
    ],
)
def test_factors_that_are_refused(factors: Any, message: str) -> None:
    assert re.match(message, refused(with_factors(factors)))


def test_designs_that_are_refused() -> None:
    factors = {"x": {"one": {}, "two": {}}, "y": {"one": {}, "two": {}}}
    assert refused(with_factors(factors, design="random")) == "design: got 'random', expected grid or one_at_a_time"
    assert refused(with_factors(factors, design="one_at_a_time")).startswith(
        "factors: got two arms called two, expected"
    )
    assert refused(with_factors(factors, levels={})).startswith(
        "levels: got levels beside factors, expected one of them"
    )
    assert refused(base() | {"factorz": {}}).endswith("(did you mean factors?)")


def test_a_cell_that_does_not_fit_the_game_is_named() -> None:
    message = refused(with_factors({"variant": {"full": {}, "net": {"guide.policy": "TanhNormalNetwork"}}}))
    assert message.startswith("arms.net.guide.policy: TanhNormalNetwork got Discrete(")


@pytest.mark.parametrize("levels", [{"b": {"x": "y"}}, {"a": {"x": "y"}, "b": {"x": "y"}}])
def test_levels_are_of_the_arms(levels: Any) -> None:
    assert refused(base() | {"levels": levels}).startswith("levels: got {")


def test_levels_have_the_same_factors() -> None:
    config = with_overrides(("arms.b.like", "a"), ("levels", {"a": {"x": "1"}, "b": {"y": "1"}}))
    assert refused(config).endswith("expected the same factors for every one of the arms: a, b")


# ------------------------------------------------------------------------------------------------- what is refused

REFUSED: list[tuple[Sequence[tuple[str, Any]], str, str, str]] = [
    # unknown keys, at each level
    ([("stepz", 1)], "stepz", "an unknown key", "one of game, arms, .*did you mean steps"),
    ([("game.payof", "x")], "game.payof", "an unknown key", "one of payoff, .*did you mean payoff"),
    ([("arms.a.temprature", 1)], "arms.a.temprature", "an unknown key", "one of .*did you mean temperature"),
    ([("arms.a.critic.rat", 1)], "arms.a.critic.rat", "an unknown key", "one of initial, rate, .*did you mean rate"),
    ([("arms.a.critic.rate.scal", 3)], "arms.a.critic.rate.scal", "an unknown key", "one of start, scale"),
    ([("arms.a.guide.policy.hidden", [3])], "arms.a.guide.policy.hidden", "an unknown key", "none"),
    ([("arms.a.foo.bar", 1)], "arms.a.foo", "an unknown key", "one of opponent_prior"),
    ([("arms.a", {"class_path": "Rommeo", "inits": {}})], "arms.a.inits", "an unknown key", "class_path or init_args"),
    ([("arms.a", ["Stationary", {"like": "a"}])], "arms.a[1].like", "an unknown key", "class_path or init_args"),
    # missing keys
    ([("arms.a", "Rommeo")], "arms.a.opponent_prior", "nothing", r"one of Amortised.*\(guide, critic missing too\)"),
    ([("arms.a.temperature", "ExponentialDecay")], "arms.a.temperature.start", "nothing", r"float \(rate missing"),
    ([("arms.a.opponent_prior", "Fixed")], "arms.a.opponent_prior.probabilities", "nothing", r"list\[float\]"),
    ([("arms.a", {"init_args": {}})], "arms.a.class_path", "nothing", ".*Rommeo, .*Stationary"),
    ([("arms.a", None)], "arms.a", "nothing", ".*Rommeo, .*Stationary"),
    ([("game", None)], "game", "nothing", "one of .*MatrixGame"),
    ([("replicates", None)], "replicates", "nothing", "int"),
    ([("arms.a.discount", None)], "arms.a.discount", "nothing", "float"),
    ([("arms.a.guide", None)], "arms.a.guide", "nothing", "one of OpponentFirst, PolicyFirst"),
    ([("game.payoff", None)], "game.payoff", "nothing", r"str or list"),
    # wrong types
    ([("replicates", "x")], "replicates", "x", "int"),
    ([("replicates", 1.5)], "replicates", "1.5", "int"),
    ([("replicates", True)], "replicates", "True", "int"),
    ([("device", "gpu")], "device", "gpu", "one of 'auto', 'cpu', 'cuda'"),
    ([("dtype", "float16")], "dtype", "float16", "one of 'float32', 'float64'"),
    ([("game", 3)], "game", "3", "one of .*MatrixGame"),
    ([("game", [])], "game", r"\[\]", "one of .*MatrixGame"),
    ([("game.payoff", 3)], "game.payoff", "3", "str or list"),
    ([("game.horizon", "z")], "game.horizon", "z", "int or null"),
    ([("arms", ["a"])], "arms", r"\['a'\]", "a mapping from names to learners"),
    ([("arms", {})], "arms", r"\{\}", "a mapping from names to learners"),
    ([("arms.a", 3)], "arms.a", "3", ".*Rommeo, .*Stationary"),
    ([("arms.a.init_args", [1])], "arms.a.init_args", r"\[1\]", "a mapping from arguments to values"),
    ([("arms.a.class_path", ["Rommeo"])], "arms.a", r"\['Rommeo'\]", ".*Rommeo, .*Stationary"),
    ([("arms.a.discount", "x")], "arms.a.discount", "x", "float"),
    ([("arms.a.temperature", "x")], "arms.a.temperature", "'x'", "float or one of Constant, .*ExponentialDecay"),
    ([("arms.a.temperature", [1])], "arms.a.temperature", r"\[1\]", "float"),
    ([("arms.a.critic.rate.scale", "q")], "arms.a.critic.rate.scale", "q", "float"),
    ([("arms.a.critic.initial", [1, 0, 2])], "arms.a.critic.initial", r"\[1, 0, 2\]", "float or list with 2 elements"),
    ([("arms.a.opponent_prior.window", "x")], "arms.a.opponent_prior.window", "x", "int or null"),
    ([("arms.a.opponent_prior.initial", "x")], "arms.a.opponent_prior.initial", "x", "one of 'dirichlet', 'uniform'"),
    (
        [("arms.a.guide.policy", {"class_path": "CategoricalNetwork", "init_args": {"hidden": ["x"]}})],
        "arms.a.guide.policy.hidden",
        "x",
        "int",
    ),
    ([("arms.l", ["Stationary", {"class_path": "Stationary", "init_args": {"probabilities": "x"}}])],
     "arms.l[1].probabilities", "x", "list"),
    # unknown and wrong classes
    ([("game", "MatrixGam")], "game", "'MatrixGam'", "one of .*or an import path .did you mean MatrixGame"),
    ([("arms.a.guide.policy", "Optmal")], "arms.a.guide.policy", "'Optmal'", "one of .*did you mean Optimal"),
    ([("arms.a.guide.policy", "Rommeo")], "arms.a.guide.policy", "'Rommeo'", "one of Amortised"),
    ([("arms.a.guide", "Optimal")], "arms.a.guide", "'Optimal'", "one of OpponentFirst, PolicyFirst"),
    ([("arms.a.opponent_prior", "Tabular")], "arms.a.opponent_prior", "'Tabular'", ".*DirichletM"),
    ([("arms.a.opponent_prior", "no_such.Prior")], "arms.a.opponent_prior", "no_such.Prior, .*cannot", "one of Am"),
    ([("arms.a.critic", "inference_marl.models.Crtic")], "arms.a.critic", ".*Crtic, .*cannot be", "one of .*Netw"),
    ([("arms.a.critic", "torch.nn.Linear")], "arms.a.critic", "torch.nn.Linear, which is something", "one of .*Netw"),
    # numbers out of range
    ([("replicates", 0)], "replicates", "0", "a positive integer"),
    ([("seed", -1)], "seed", "-1", "an integer that is not negative"),
    ([("record_every", 10)], "record_every", "10", "at most steps = 3"),
    ([("arms.a.discount", 1.0)], "arms.a.discount", "1.0", r"a number in \[0, 1\)"),
    ([("arms.a.temperature", 0)], "arms.a.temperature", "0.0", "a .*positive"),
    ([("arms.a.critic.rate.scale", 0)], "arms.a.critic.rate.scale", "0.0", "a positive number"),
    ([("arms.a.opponent_prior.window", -3)], "arms.a.opponent_prior.window", "-3", "a positive integer"),
    ([("game.payoff", "climing")], "game.payoff", "'climing'", "nested lists of numbers, or one of climbing"),
    ([("game.horizon", 0)], "game.horizon", "0", "a positive integer"),
    # names that are file names and parts of keys
    ([("arms", {"a/b": "Stationary"})], "arms", "an arm called 'a/b'", "letters, digits, _ and - only"),
    ([("arms", {"..": "Stationary"})], "arms", r"an arm called '\.\.'", "letters, digits"),
    ([("arms", {1: "Stationary"})], "arms", "an arm called 1", "letters, digits"),
    # impossible combinations
    ([("game", "MaxOfTwoQuadratics")], "arms.a.opponent_prior", r"Box\(", "Discrete"),
    ([("game", "MaxOfTwoQuadratics"), ("arms.a.opponent_prior", "Uniform")], "arms.a.critic", "states Discrete.*Box",
     "Discrete spaces; use NetworkCritic"),
    (
        [("game", "MaxOfTwoQuadratics"), ("arms.a.opponent_prior", "Uniform"), ("arms.a.critic", "NetworkCritic")],
        "arms.a.guide.opponent_model",
        r"Box\(",
        "Discrete",
    ),
    ([("arms.a.guide.policy", "TanhNormalNetwork")], "arms.a.guide.policy", r"Discrete\(n=3\)", "Box"),
    ([("arms.a.guide.policy", "Tabular")], "arms.a.opponent_prior", "EmpiricalFrequency with actions of probability 0",
     "smoothing > 0"),
    ([("arms.a.guide.policy", "Empirical")], "arms.a.guide.policy", "the policy's place", "the opponent model's"),
    ([("arms.a", ["Stationary"])], "arms.a", "1 learners", "one per seat: 2"),
    ([("arms.a", ["Stationary"] * 3)], "arms.a", "3 learners", "one per seat: 2"),
    ([("arms.a", [])], "arms.a", "0 learners", "one per seat: 2"),
    (
        [("arms.a", ["Stationary", {"class_path": "Stationary", "init_args": {"probabilities": [1]}}])],
        "arms.a[1].probabilities",
        "1 numbers",
        ".*: 3",
    ),
    (
        [("arms.a.opponent_prior", {"class_path": "Amortised", "init_args": {"conditional": "Uniform"}})],
        "arms.a.opponent_prior.conditional",
        "Uniform, which has no parameters",
        "one that has",
    ),
    (
        [("arms.a.optimality", {"class_path": "BernoulliOptimality", "init_args": {"upper": -5.0}})],
        "arms.a",
        "-5.0, but Q reaches",
        "an upper bound of Q",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "key", "got", "expected"), REFUSED, ids=[f"{i}-{case[1]}" for i, case in enumerate(REFUSED)]
)
def test_what_is_refused_is_named_with_what_was_got_and_expected(
    overrides: Sequence[tuple[str, Any]], key: str, got: str, expected: str
) -> None:
    message = refused(with_overrides(*overrides))
    assert re.match(rf"{re.escape(key)}: .*got {got}.*expected {expected}", message), message


@pytest.mark.parametrize("key", ["game", "arms"])
def test_a_file_needs_a_game_and_arms(key: str) -> None:
    config = base()
    del config[key]
    assert refused(config).startswith(f"{key}: got nothing, expected")


def test_a_key_that_is_not_text_is_unknown() -> None:
    assert refused(base() | {1: 2}).startswith("1: got an unknown key, expected one of game")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_is_refused_where_there_is_none() -> None:
    assert refused(with_overrides(("device", "cuda"))).startswith(
        "device: got cuda, but torch sees none here; expected"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got NoneType, expected a mapping with the keys game and arms"),
        ("- 1\n", "got list, expected a mapping"),
        ("game: [1\n", "got malformed YAML, .*line 2"),
        ("steps: 3\ngame: MatrixGame\nsteps: 4\n", "got malformed YAML, found the key steps twice .*line 3"),
        ("arms:\n  a: Stationary\n  b: Stationary\n  a: Stationary\n", "got malformed YAML, found the key a twice"),
    ],
)
def test_files_that_are_no_experiments(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load(file)
    assert re.match(f"{re.escape(str(file))}: {message}", str(caught.value))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00game")
    for path, reason in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "directory"), (binary, "not UTF-8 text")]:
        with pytest.raises(
            SpecError, match=rf"^{re.escape(str(path))}: got no readable file \(.*{reason}.*\), expected"
        ):
            load(path)


def test_merge_keys_may_repeat_what_they_merge(tmp_path: Path) -> None:
    arm = "&a {class_path: Stationary}"
    file = tmp_path / "merged.yaml"
    file.write_text(f"game: MatrixGame\nsteps: 1\narms:\n  a: {arm}\n  b:\n    <<: *a\n    class_path: Stationary\n")
    assert list(load(file).arms) == ["a", "b"]


# ------------------------------------------------------------------------------------------------ what is never run


class _Marked(Rommeo):
    """Of no declared type where it is asked for; says so if it is ever made."""

    made = False

    def __init__(self) -> None:
        type(self).made = True


DANGEROUS = [
    ("os.system", {"command": "touch {mark}"}),
    ("subprocess.Popen", {"args": ["touch", "{mark}"]}),
    ("builtins.eval", {"source": "open('{mark}', 'w')"}),
    ("pathlib.Path.touch", {"self": "{mark}"}),
    ("io.FileIO", {"file": "{mark}", "mode": "w"}),
    ("tests.test_spec._Marked", {}),
]
PLACES = [
    "game",
    "arms.a",
    "arms.a.opponent_prior",
    "arms.a.guide.policy",
    "arms.a.critic.rate",
    "arms.a.temperature",
    "arms.seats.1",
    "game.payoff",
    "game.payoff.0",
    "game.payoff.0.0",
    "arms.a.critic.initial",
    "arms.a.critic.initial.0",
    "arms.seats.0.probabilities",
    "arms.seats.0.probabilities.0",
    "steps",
]
# A process, and a class of the package's own kind in the wrong place, everywhere; the others at four places.
MALICE = [
    pytest.param(place, path, arguments, id=f"{place}-{path}")
    for path, arguments in DANGEROUS
    for place in (PLACES if path in ("subprocess.Popen", "tests.test_spec._Marked") else PLACES[:4:3] + PLACES[7:9])
]


@pytest.mark.parametrize(("place", "path", "arguments"), MALICE)
def test_what_is_not_of_the_declared_type_is_refused_and_never_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, path: str, arguments: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "tests.test_spec", sys.modules[__name__])
    mark = tmp_path / "mark"

    def filled(value: Any) -> Any:
        return [filled(item) for item in value] if isinstance(value, list) else value.replace("{mark}", str(mark))

    config = with_overrides(
        ("game.payoff", [[1, 2], [3, 4]]),
        ("arms.seats", [{"class_path": "Stationary", "init_args": {"probabilities": [1, 1]}}, "Stationary"]),
    )
    malice = {"class_path": path, "init_args": {name: filled(value) for name, value in arguments.items()}}
    override(config, place, malice)
    if path == "tests.test_spec._Marked" and place in ("arms.a", "arms.seats.1"):
        return  # there it is of the declared type
    message = refused(config)
    assert message.startswith(re.sub(r"\.(\d)", r"[\1]", place).partition("[")[0]), message
    assert not mark.exists()
    assert not _Marked.made


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("game", "inference_marl.types.Game"),
        ("arms.a", "inference_marl.types.Learner"),
        ("arms.a.opponent_prior", "inference_marl.models.OpponentPrior"),
        ("arms.a.opponent_prior", "inference_marl.models.TabularCounts"),
        ("arms.a.guide", "inference_marl.guides.Guide"),
        ("arms.a.guide.policy", "inference_marl.types.Conditional"),
        ("arms.a.guide.policy", "inference_marl.guides.ClosedForm"),
        ("arms.a.critic", "inference_marl.models.Critic"),
        ("arms.a.optimality", "inference_marl.models.Optimality"),
        ("arms.a.temperature", "inference_marl.inference.schedules.Schedule"),
    ],
)
def test_bases_cannot_be_made(place: str, path: str) -> None:
    message = refused(with_overrides((place, path)))
    assert re.match(rf"{place}: got {re.escape(path)}, which is only a base of others, expected ", message), message


@pytest.mark.parametrize(
    "text",
    [
        "game: !!python/object/apply:os.system ['touch {mark}']\narms: {a: Stationary}\n",
        "game: MatrixGame\narms: !!python/object/apply:subprocess.Popen [[touch, '{mark}']]\n",
        "game: !!python/name:os.system\narms: {a: Stationary}\n",
        "game: !!python/module:os\narms: {a: Stationary}\n",
        "game: MatrixGame\narms: {a: !!python/object/new:os.system ['touch {mark}']}\n",
    ],
)
def test_tags_that_make_python_objects_are_refused(tmp_path: Path, text: str) -> None:
    mark, file = tmp_path / "mark", tmp_path / "file.yaml"
    file.write_text(text.replace("{mark}", str(mark)))
    with pytest.raises(SpecError, match="got malformed YAML, could not determine a constructor for the tag"):
        load(file)
    assert not mark.exists()


# --------------------------------------------------------------------------------------------------- list and checks


def test_available_lists_short_names_with_one_line_each() -> None:
    listed = available()
    assert {"games", "opponent priors", "guides", "learners", "critics", "schedules"} <= set(listed)
    assert "MatrixGame" in listed["games"]
    assert "Rommeo" in listed["learners"]
    assert "OpponentPrior" not in listed["opponent priors"]
    for classes in listed.values():
        assert classes
        assert list(classes) == sorted(classes)
        assert all(line and "\n" not in line for line in classes.values())


def test_python_experiments_are_checked_when_they_run(tmp_path: Path) -> None:
    """The same refusal without a file, and nothing is written."""
    experiment = Experiment(MatrixGame(), arms={"a": [Stationary(), Stationary([1, 2])]})
    with pytest.raises(ValueError, match=r"^arms\.a\[1\]\.probabilities: got 2 numbers, expected .*: 3"):
        experiment.run(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_descriptions_keep_what_the_constructor_was_given() -> None:
    learner = Rommeo(
        Uniform(),
        OpponentFirst(Optimal(), Optimal()),
        TabularCritic(),
        BernoulliOptimality(30.0),
        temperature=Constant(2.0),
    )
    arguments = learner.describe()["init_args"]
    assert arguments["optimality"]["init_args"] == {"upper": 30.0}
    assert name_of(arguments["temperature"]) == "Constant"
    assert arguments["kl_weight"] == 1.0
