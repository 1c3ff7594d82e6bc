"""What experiment files of version 0.1.0 say: its import paths and arguments still have their meaning."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from inference_marl.config.build import check_names, named
from inference_marl.config.moved import present, up_to_date
from inference_marl.described import Described, public_path
from inference_marl.models import TabularCritic
from tests.config.small_files import imported

CLASSES = yaml.safe_load((Path(__file__).parent / "data" / "classes_0_1_0.yaml").read_text())


@pytest.mark.parametrize("path", CLASSES)
def test_a_class_is_found_at_its_old_path_and_takes_its_old_arguments(path: str) -> None:
    cls = imported(present(path))
    assert issubclass(cls, Described)
    assert cls.__name__ == path.rpartition(".")[2]
    assert up_to_date({"class_path": path})["class_path"] == public_path(cls)
    required, defaults = CLASSES[path]["required"], CLASSES[path]["defaults"]
    hints = check_names(cls, dict.fromkeys([*required, *defaults]), "")
    for name, value in defaults.items():
        named(hints[name], value, name)  # refuses nothing where something is needed
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--it", type=hints[name])
        checked: Any = parser.parse_object({"it": value}).it
        assert checked == value or list(checked) == value


@pytest.mark.parametrize(
    "path", ["bayesian.BayesOracle", "bayesian.PlaysItsType", "coins.CoinTaker", "guard.Raiders", "kuhn.KuhnPlayer"]
)
def test_scripts_of_single_games_are_found_where_they_were(path: str) -> None:
    found = present(f"inference_marl.learners.{path}")
    assert found == f"inference_marl.learners.scripts.{path.partition('.')[2]}" == public_path(imported(found))


@pytest.mark.parametrize("path", ["inference_marl.models.NotYet", "inference_marl.not_yet.Thing"])
def test_a_class_of_another_version_keeps_its_name_and_the_content_is_left_alone(path: str) -> None:
    content = {"arms": [{"class_path": path, "init_args": {"critic": {"class_path": path}}}]}
    before = repr(content)
    assert up_to_date(content) == content
    assert repr(content) == before


def test_arguments_that_a_file_does_not_know_have_their_defaults() -> None:
    """Of classes of this package; others are as they are."""
    written = {"class_path": "inference_marl.models.TabularCritic", "init_args": {"rate": 0.5}}
    assert up_to_date(written) == TabularCritic(rate=0.5).describe()
    assert up_to_date({"class_path": "mine.Prior", "init_args": {}}) == {"class_path": "mine.Prior", "init_args": {}}
