"""Values put in the place of others by dotted key, and arms that are `like` another."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_marl.config.build import SpecError
from inference_marl.config.files import build, load
from inference_marl.config.overrides import override
from inference_marl.guides import (
    Empirical,
    Optimal,
    PolicyFirst,
    Tabular,
)
from tests.config.small_files import base, described, name_of, refused, with_overrides


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
    assert first["init_args"] == {"probabilities": None, "action": None, "concentration": None}
    assert second["init_args"] == {"probabilities": [0.0, 0.0, 1.0], "action": None, "concentration": None}


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


@pytest.mark.parametrize("key", ["noise.scale", "init_args.noise.scale", "noise.init_args.scale"])
def test_an_override_reaches_into_what_is_there_by_default(key: str) -> None:
    """Also where an arm is like another, and at a factor's level."""
    config = with_overrides(("arms", {"a": "Maddpg"}), (f"arms.a.{key}", 0.5), ("arms.a.hidden.1", 8))
    a = described(build(config), "arms", "a")["init_args"]
    assert (a["noise"]["init_args"], a["hidden"]) == ({"scale": 0.5}, [64, 8])
    like = with_overrides(("arms", {"a": "Maddpg", "b": {"like": "a", key: 0.5}}))
    assert described(build(like), "arms", "b", "noise")["init_args"] == {"scale": 0.5}
    varied = with_overrides(("arms", {"a": "Maddpg"}), ("factors", {"noise": {"none": {}, "some": {key: 0.5}}}))
    assert described(build(varied), "arms", "some", "noise")["init_args"] == {"scale": 0.5}


def test_another_class_takes_the_place_of_a_default_whole() -> None:
    config = with_overrides(("arms", {"a": "Maddpg"}), ("arms.a.noise.class_path", "OrnsteinUhlenbeckNoise"))
    assert name_of(described(build(config), "arms", "a", "noise")) == "OrnsteinUhlenbeckNoise"


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
        ("arms.a.discount.x", "arms.a.discount.x: got a path through arms.a.discount, which has no keys"),
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
