"""Experiments that come with the package, by name: run, list and copy."""

import re
from pathlib import Path

import pytest

from inference_marl.cli import main
from inference_marl.config import shipped
from inference_marl.config.files import dump, load
from inference_marl.experiment import Experiment
from tests.cli.files import ROOT, failure, printed_spec

SMALL = ("--steps", "2", "--replicates", "2", "--arms.rommeo_q_uniform_prior", "null", "--quiet")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_experiment_file_is_shipped() -> None:
    assert shipped.names() == sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
    assert "climbing" in shipped.names()


def test_a_shipped_experiment_runs_by_its_name(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "climbing").mkdir()  # a folder of that name is nothing to run
    assert main(["run", "climbing", *SMALL]) == 0
    assert "Results are in runs/climbing: " in capsys.readouterr().out
    assert (empty / "runs" / "climbing" / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words", "folder"),
    [
        ("ablate", ["climbing", *SMALL], "climbing"),
        ("tournament", ["climbing", *SMALL], "climbing_tournament"),
    ],
)
def test_other_commands_take_names_too(empty: Path, command: str, words: list[str], folder: str) -> None:
    assert main([command, *words, "--jobs", "1"]) == 0
    assert (empty / "runs" / folder / "summary.json").is_file()


def test_python_takes_names_too(empty: Path) -> None:
    assert isinstance(load("climbing"), Experiment)
    assert dump(load("climbing")) == dump(load(ROOT / "experiments" / "climbing.yaml"))


@pytest.mark.parametrize("name", ["climbing", "climbing.yaml"])
def test_a_file_comes_before_a_shipped_experiment(empty: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / name).write_text((ROOT / "experiments" / "risky_bridge.yaml").read_text())
    assert printed_spec(capsys, name)["game"]["class_path"].endswith("RiskyBridge")


def test_unknown_names_are_told_the_nearest_ones(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "got no such file, expected an experiment file or the name of a shipped one (did you mean climbing?)"
    for command in ("run", "ablate", "tournament"):
        assert failure(capsys, command, "climbin", "--steps", "3") == f"climbin: {expected}"
    (empty / "mine.yaml").write_text("{}")
    assert failure(capsys, "run", "mine").endswith("(did you mean mine.yaml?)")
    assert failure(capsys, "copy", "climbin").startswith(
        "climbin: got an unknown experiment, expected the name of a shipped one (did you mean climbing"
    )
    assert "lola_table" in failure(capsys, "copy", "lola")
    for command in ("run", "copy"):
        assert failure(capsys, command, "zzz").endswith(", ".join(shipped.names()))


def test_a_missing_file_that_is_shipped_is_said_to_be(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, "run", "experiments/climbing.yaml") == (
        "experiments/climbing.yaml: got no readable file (No such file or directory), expected an experiment file, or "
        "climbing, which is shipped"
    )


def test_list_describes_every_shipped_experiment_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    first, *lines = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert first.startswith("experiments")
    listed = {line.split()[0]: line.partition("  ")[2].split(None, 1)[1] for line in lines}
    assert list(listed) == shipped.names()
    for said in listed.values():
        assert 15 < len(said) < 150
        assert re.search(r" \[(run|ablate|tournament)\]$", said)
    assert listed["climbing"].endswith("iterated climbing game (Tian et al. 2019, Section 5.1 and Figure 1) [run]")
    assert listed["cross_play"].endswith("on three matrix games [tournament]")
    assert listed["forecast_ablation"].endswith("on the iterated climbing game [ablate]")


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ([], "climbing.yaml"),
        (["mine.yaml"], "mine.yaml"),
        (["."], "climbing.yaml"),
        (["there"], "there/climbing.yaml"),
        (["new/"], "new/climbing.yaml"),
        (["new/deep/mine.yaml"], "new/deep/mine.yaml"),
        (["my own.yaml"], "my own.yaml"),
    ],
)
def test_copy_writes_the_file_and_says_how_to_run_it(
    empty: Path, words: list[str], written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "there").mkdir()
    assert main(["copy", "climbing", *words]) == 0
    quoted = f"'{written}'" if " " in written else written
    said = f"Wrote {written}. Run it with: inference-marl run {quoted}\n"
    assert capsys.readouterr().out == said
    assert (empty / written).read_bytes() == (ROOT / "experiments" / "climbing.yaml").read_bytes()
    assert dump(load(empty / written)) == dump(load("climbing"))


def test_copy_says_what_a_file_is_made_for(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["copy", "cross_play"]) == 0
    assert capsys.readouterr().out.endswith("inference-marl tournament cross_play.yaml\n")


def test_copy_never_overwrites(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "climbing.yaml").write_text("mine")
    (empty / "link.yaml").symlink_to("nowhere")
    assert failure(capsys, "copy", "climbing") == (
        "climbing.yaml: got a file that is there already, expected a new one: name another place, as in "
        "inference-marl copy climbing my_climbing.yaml"
    )
    assert failure(capsys, "copy", "climbing", "link.yaml").startswith("link.yaml: got a file that is there already")
    assert failure(capsys, "copy", "climbing", "climbing.yaml/").startswith("climbing.yaml: got ")
    assert (empty / "climbing.yaml").read_text() == "mine"
    assert sorted(path.name for path in empty.iterdir()) == ["climbing.yaml", "link.yaml"]
