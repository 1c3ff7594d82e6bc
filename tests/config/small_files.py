"""A small experiment file, and ways to change and to read it."""

import importlib
from typing import Any

import pytest
import yaml

from inference_marl.config.build import SpecError
from inference_marl.config.files import build
from inference_marl.config.overrides import override
from inference_marl.experiment import Experiment

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


def imported(path: str) -> type:
    """The class at an import path."""
    module, _, name = path.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found
