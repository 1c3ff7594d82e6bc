"""Classes of a user's own."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_marl.config.catalogue import available
from inference_marl.config.files import build, dump
from inference_marl.config.overrides import override
from inference_marl.models import (
    Uniform,
)
from tests.config.small_files import described, name_of, refused, with_overrides

THIRD_PARTY = '''
"""A user's own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import hyperparameters
from inference_marl.inference.schedules import Schedule
from inference_marl.learners import Stationary
from inference_marl.models import OpponentPrior
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Bindable, Game, Learner, Observed, Step


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
        self.first, self.patience = first, patience

    def setup(self) -> None:
        zeros = torch.full((self.seat.replicates, self.seat.environments), self.first)
        self.register_buffer("last", zeros)

    def policy(self, obs: Tensor, memory, mask=None):
        played = torch.nn.functional.one_hot(self.last, self.seat.action.features).to(self.seat.dtype)
        return dist.Categorical(probs=played), memory

    def learn(self, newest, peers):
        self.last = newest.steps[-1].seen_by(self.seat).opponent_action.clone()
        return {}


@hyperparameters
class Patient(Copycat):
    """Made of its fields."""

    patience: float | Schedule = 1.0
    moods: Sequence[str] = ("calm",)
    first: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.patience, float) and self.patience < 0:
            raise ValueError(f"patience: got {self.patience}, expected a number that is not negative")


class Network(Actor):
    """Only a base."""


@hyperparameters
class Part(Bindable):
    width: int = 3


@hyperparameters
class Default(Stationary):
    """Has parts that files may leave out."""

    part: Part = Part()
    several: Sequence[Part] = (Part(), Part())
    network: Network | None = None


class Framed(Default):
    """Hands keywords to its base, and takes one out."""

    def __init__(self, frame: int = 2, **rest) -> None:
        self.colour = rest.pop("colour", "red")
        super().__init__(**rest)
        self.frame = frame


class Free(Stationary):
    """Takes any keyword."""

    def __init__(self, frame: int = 2, **rest: int) -> None:
        super().__init__()
        self.rest = rest


class Idle(Actor):
    """Without a constructor: plays the first action."""

    def policy(self, obs: Tensor, memory, mask=None):
        first = torch.zeros(*obs.shape[:2], self.seat.action.features)
        first[..., 0] = 1
        return dist.Categorical(probs=first), memory


class Tug(Game):
    """Two agents, two actions: both get what the first pulls."""

    def __init__(self, *, prize: float = 2.0) -> None:
        self.prize = prize
        self.observations = (Discrete(1),) * 2
        self.action_spaces = (Discrete(2),) * 2

    def reset(self, replicates, environments, device, dtype, task=None):
        return {"obs": torch.zeros(replicates, environments, dtype=torch.int64, device=device)}

    def observe(self, state):
        return Observed((state["obs"], state["obs"]))

    def step(self, state, actions):
        reward = self.prize * actions[0].to(torch.float32)
        return Step(state, torch.stack([reward, reward], -1), torch.zeros_like(state["obs"], dtype=torch.bool))


class Nothing(Game):
    """Without a constructor of its own, and abstract."""


def make() -> Stubborn:
    raise AssertionError("called")
'''


ANOTHER_FILE = '''
"""Another file, which knows nothing of the types of what it inherits."""

from __future__ import annotations

from inference_marl.described import hyperparameters
from users_own_rooms import Patient


@hyperparameters
class Restless(Patient):
    """Adds a field that must be given."""

    every: int
'''


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that the package has never heard of."""
    (tmp_path / "users_own_rooms.py").write_text(THIRD_PARTY)
    (tmp_path / "users_other_rooms.py").write_text(ANOTHER_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_own_rooms"
    for name in ("users_own_rooms", "users_other_rooms"):
        sys.modules.pop(name, None)


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
    assert message.startswith(f"game: got {third_party}.Nothing, which does not define reset, step, expected one of")
    message = refused(
        with_overrides(
            ("game", "MaxOfTwoQuadratics"), ("arms.a.opponent_prior", path), ("arms.a.opponent_prior.action", 0)
        )
    )
    assert message.startswith("arms.a.opponent_prior: Stubborn got Box(")


def test_learners_made_of_fields_are_checked_by_their_fields(third_party: str) -> None:
    path = "users_other_rooms.Restless"
    experiment = build(with_overrides(("arms.a", {"class_path": path, "init_args": {"every": 2, "patience": 2}})))
    arm: Any = experiment.arms["a"]
    assert (arm.every, arm.patience, arm.first) == (2, 2.0, 0)
    assert described(experiment, "arms", "a") == {
        "class_path": path,
        "init_args": {"patience": 2.0, "moods": ["calm"], "every": 2},
    }
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    schedule = {"class_path": "Linear", "init_args": {"start": 1.0, "end": 0.0, "steps": 4}}
    experiment = build(with_overrides(("arms.a", path), ("arms.a.every", 3), ("arms.a.patience", schedule)))
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    for key, value, message in [
        ("patience", "x", "patience: got 'x', expected float or one of ByReplicate"),
        ("patience", -1, "patience: got -1.0, expected a number that is not negative"),
        ("patience", None, "patience: got nothing, expected float or one of ByReplicate"),
        ("moods", 3, "moods: got 3, expected list"),
        ("moods", [3], "moods"),
        ("every", 1.5, "every: got 1.5, expected int"),
        ("pace", 1, "pace: got an unknown key, expected one of patience, moods, every"),
        ("first", 1, "first: got an unknown key, expected one of patience, moods, every"),
    ]:
        config = with_overrides(("arms.a", path), ("arms.a.every", 3), (f"arms.a.{key}", value))
        assert refused(config).startswith(f"arms.a.{message}")
    assert refused(with_overrides(("arms.a", path))) == "arms.a.every: got nothing, expected int"


def test_actors_without_a_constructor_take_nothing(third_party: str) -> None:
    path = f"{third_party}.Idle"
    experiment = build(with_overrides(("arms.a", [path, "Stationary"])))
    assert described(experiment, "arms", "a")[0] == {"class_path": path, "init_args": {}}
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    message = refused(with_overrides(("arms.a", {"class_path": path, "init_args": {"pace": 1}})))
    assert message == "arms.a.pace: got an unknown key, expected none"


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
        ("schedules.1", "Uniform", "schedules[1]: got 'Uniform', expected float or one of ByReplicate"),
        ("schedules.1.valu", 1, "schedules[1].valu: got an unknown key, expected one of value (did you mean value?)"),
        ("schedules.0", "x", "schedules[0]: got 'x', expected float or one of ByReplicate"),
        ("strenth", 1, "strenth: got an unknown key, expected one of schedules, named, action, strength (did you mean"),
        ("named.slow", "os.system", "named.slow: got os.system, which is something else, expected one of ByReplicate"),
    ]:
        config = with_overrides(("arms.a.opponent_prior", prior), (f"arms.a.opponent_prior.{key}", value))
        assert refused(config).startswith(f"arms.a.opponent_prior.{message}")


@pytest.mark.parametrize("name", ["Default", "Framed"])
def test_parts_that_a_file_leaves_out_are_the_classs_own(third_party: str, name: str) -> None:
    config = with_overrides(("arms.b", f"{third_party}.{name}"))
    b = described(build(config), "arms", "b")["init_args"]
    assert b["part"] == {"class_path": f"{third_party}.Part", "init_args": {"width": 3}}
    assert build(yaml.safe_load(dump(build(config)))).describe() == build(config).describe()
    override(config, "arms.b.part.width", 5)
    override(config, "arms.b.init_args.several.1.init_args.width", 7)
    changed = described(build(config), "arms", "b")["init_args"]
    assert changed["part"]["init_args"] == {"width": 5}
    assert [part["init_args"]["width"] for part in changed["several"]] == [3, 7]
    assert b | {name: changed[name] for name in ("part", "several")} == changed


def test_a_misspelt_argument_of_a_class_that_takes_any_keyword(third_party: str) -> None:
    config = with_overrides(("arms.b", [f"{third_party}.Framed", "Stationary"]))
    assert described(build(config), "arms", "b")[0]["init_args"]["colour"] == "red"
    override(config, "arms.b.0.actoin", 1)
    message = refused(config)
    assert message.startswith("arms.b[0].actoin: got an unknown key, expected one of frame, colour, ")
    assert message.endswith(" (did you mean action?)")
    config = with_overrides(("arms.b", f"{third_party}.Free"), ("arms.b.fram", 1))
    assert refused(config) == "arms.b.fram: got an unknown key, expected one that Free declares"


def test_a_base_without_classes_asks_for_an_import_path(third_party: str) -> None:
    path = f"{third_party}.Network"
    message = refused(with_overrides(("arms.b", f"{third_party}.Default"), ("arms.b.network", path)))
    lacks = f"arms.b.network: got {path}, which does not define policy (or act)"
    assert message == f"{lacks}, expected null or the import path of a subclass of Network"


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
