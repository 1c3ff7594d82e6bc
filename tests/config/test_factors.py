"""Factors and designs, in files and in Python."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_marl.config.factors import ablation
from inference_marl.config.files import build, dump, load
from inference_marl.guides import (
    Empirical,
    OpponentFirst,
    Optimal,
)
from inference_marl.models import (
    Uniform,
)
from tests.config.small_files import base, described, name_of, refused, with_overrides


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


@pytest.mark.slow
def test_a_file_with_factors_and_its_python_twin_are_the_same_experiment() -> None:
    plain_arms = build(base())
    objects = {
        "full": {},
        "empirical": {"guide.opponent_model": Empirical()},
        "uniform": {"opponent_prior": Uniform()},
    }
    for design in ("grid", "one_at_a_time"):
        twin = ablation(plain_arms, {"variant": objects, "kl_weight": [1.0, 0.5]}, design)  # type: ignore[arg-type]
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
