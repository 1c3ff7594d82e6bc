"""What a file builds, by which names, and its dump."""

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from inference_marl.config.build import construct
from inference_marl.config.catalogue import available, measured
from inference_marl.config.files import build, dump, load
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import (
    OpponentFirst,
    Optimal,
    Tabular,
)
from inference_marl.inference.schedules import Constant
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import (
    BernoulliOptimality,
    EmpiricalFrequency,
    TabularCritic,
    Uniform,
)
from inference_marl.runs.run import run
from inference_marl.types import Actor, Game
from tests.config.small_files import BASE, base, described, name_of, with_overrides


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
    for kind, elsewhere in (("conditionals", ["opponent priors", "transitions"]), ("games", ["simulators"])):
        for other in elsewhere:
            assert not listed[kind].keys() & listed[other].keys(), "a class is listed under its purpose alone"


MUST_BE_TOLD_HOW_TO_EXPLORE = ("DistributedQ", "FMQ", "HystereticQ", "IndependentQ", "JointActionLearner", "PR2Q")


def test_what_runs_measure_is_known_from_the_declarations() -> None:
    found = measured()
    assert {"reward", "success_rate", "elbo", "opponent_model_lead"} <= set(found)
    assert [name for name, metric in found.items() if not metric.meaning] == []


# Of Rommeo and Planner the shipped files say what they are made of, and Frozen needs a run (tests/runs/test_frozen.py).
@pytest.mark.parametrize("name", sorted(available()["learners"].keys() - {"Rommeo", "Planner", "Frozen"}))
def test_learners_have_defaults_that_survive_a_dump(name: str) -> None:
    given: dict[str, Any] = {"exploration": "Boltzmann"} if name in MUST_BE_TOLD_HOW_TO_EXPLORE else {}
    given |= {"members": ["Stationary", "Stationary"]} if name == "Population" else {}
    given |= {"probabilities": [[1, 0]]} if name == "Scripted" else {}
    learner = construct(Actor, {"class_path": name, "init_args": given}, "a")
    arguments = learner.describe()["init_args"]
    accepted = list(inspect.signature(type(learner)).parameters)
    assert list(arguments) == accepted
    assert construct(Actor, yaml.safe_load(yaml.safe_dump(learner.describe())), "a").describe() == learner.describe()
    assert all(getattr(learner, key) is not None or arguments[key] is None for key in accepted)


def test_other_parsers_of_the_program_do_not_matter() -> None:
    """What jsonargparse remembers of them once made it take our default instances apart."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--game", type=Game)
    parser.parse_args(["--game=MatrixGame", "--game.horizon=null"])
    described = construct(Actor, {"class_path": "DdpgOm"}, "a").describe()
    assert construct(Actor, described, "a").describe() == described


def test_python_experiments_are_checked_when_they_run(tmp_path: Path) -> None:
    """The same refusal without a file, and nothing is written."""
    experiment = Experiment(MatrixGame(), arms={"a": [Stationary(), Stationary(probabilities=[1, 2])]})
    with pytest.raises(ValueError, match=r"^arms\.a\[1\]\.probabilities: got 2 numbers, expected .*: 3"):
        run(experiment, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_descriptions_keep_what_the_constructor_was_given() -> None:
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(),
        optimality=BernoulliOptimality(30.0),
        temperature=Constant(2.0),
    )
    arguments = learner.describe()["init_args"]
    assert arguments["optimality"]["init_args"] == {"upper": 30.0}
    assert name_of(arguments["temperature"]) == "Constant"
    assert arguments["kl_weight"] == 1.0
