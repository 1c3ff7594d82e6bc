"""The skeletons in `examples/` run, files beside them find them, and the code in README.md and `docs/` runs."""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import inference_marl
from inference_marl import Experiment, dump, load, resume, run
from inference_marl.analysis.recorded import read
from inference_marl.analysis.report.text import report_of
from inference_marl.config.files import build

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))

ONE_AND_ALL = [path if path.stem == "own_prior" else pytest.param(path, marks=pytest.mark.slow) for path in FILES]


def test_there_is_one_of_each_kind() -> None:
    assert {path.stem for path in FILES} == {
        *(
            "own_prior",
            "own_guide",
            "own_learner",
            "own_network",
            "own_team",
            "own_actor",
            "own_game",
            "own_evaluation",
        ),
        "own_environment",
    }


def short(experiment: Experiment, **settings: Any) -> Path:
    """As `run`, but smaller."""
    return run(experiment.replace(replicates=4, steps=100, record_every=10), progress=False, **settings)


@pytest.mark.parametrize("path", ONE_AND_ALL, ids=lambda path: path.stem)
def test_what_they_describe_is_played_and_survives_a_dump(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module(path.stem)
    experiment = module.experiment(replicates=4, steps=100)
    folder = run(experiment, tmp_path, progress=False)
    rewards = torch.as_tensor(read(folder).metrics["reward"].values)
    assert rewards.shape[1] == 4
    assert rewards.isfinite().all(), path.stem
    (tmp_path / "twin.yaml").write_text(dump(experiment))
    assert f"{path.stem}." in dump(experiment)
    assert load(tmp_path / "twin.yaml").describe() == experiment.describe()


@pytest.mark.slow
@pytest.mark.parametrize("path", ONE_AND_ALL, ids=lambda path: path.stem)
def test_as_scripts_they_say_what_they_found(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, and smaller: see `test_as_scripts_they_run_anywhere`."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference_marl, "run", short)
    runpy.run_path(str(path), run_name="__main__")
    found, where = capsys.readouterr().out.splitlines()
    assert found.startswith("At the end ")
    assert "nan" not in found
    assert where == f"Everything else is in runs/{path.stem}."
    folder = tmp_path / "runs" / path.stem
    assert f"{path.stem}." in dump(load(folder / "spec.yaml"))
    assert resume(folder, progress=False) == folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    FILES,
    ids=lambda path: path.stem,
)
def test_as_scripts_they_run_anywhere(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert (tmp_path / "runs" / path.stem / "summary.json").is_file()


USERS = """
game: MatrixGame
replicates: 2
steps: 3
arms:
  regrets: my_learners.RegretMatching
  stubborn:
    class_path: Rommeo
    init_args:
      opponent_prior: my_priors.Stubborn
      guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
      critic: TabularCritic
  surprised: {like: stubborn, class_path: my_metrics.Surprised}
"""


def few_guards() -> None:
    """The run of a shipped suite whose beliefs docs/posteriors.md reads, with that arm alone, and smaller."""
    suite = yaml.safe_load((ROOT / "experiments" / "guard_calibration.yaml").read_text())
    for watched in suite["evaluation"].values():
        watched["init_args"] |= {"every": 40, "environments": 6}
    sizes = {"replicates": 2, "environments": 4, "updates": 1, "steps": 40}
    arms = {"context": suite["arms"]["context"]}
    arms["context"][0]["init_args"] |= {"hidden": [8], "batch": 4, "tasks_per_update": 2}
    settings = {name: value for name, value in suite.items() if name not in ("runs", "show")}
    few = build(settings | suite["runs"]["few"] | sizes | {"arms": arms})
    run(few, "runs/guard_calibration", "few", progress=False)


def blocks() -> Iterator[tuple[str, str]]:
    """The Python code of README.md and of the pages in `docs/`, each with its page."""
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            yield page.name, block


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # in ArviZ 0.23
def test_the_code_on_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(inference_marl, "run", short)
    short(load(ROOT / "experiments" / "climbing.yaml"), name="climbing")
    few_guards()
    played = []
    for page, block in blocks():
        if "self.opponent_prior" in block:  # in outline
            assert "# inference_marl.models" in block
        elif file := re.match(r"# (my_\w+\.py) ", block):
            (tmp_path / file.group(1)).write_text(block)
        else:
            code = block.replace("step=40", "step=20")
            names: dict[str, Any] = {}
            exec(compile(code, page, "exec"), names)
            played.append((page, names.get("folder")))
    assert played == [
        ("README.md", None),
        ("README.md", Path("runs/stag_hunt")),
        ("README.md", None),
        ("posteriors.md", None),
    ]
    (tmp_path / "users.yaml").write_text(USERS)
    assert run(load(tmp_path / "users.yaml"), name="users", progress=False) == Path("runs/users")
    report = report_of("runs/users")
    assert re.search(r"surprise at the reward +surprised +-?\d", report.text()), "a metric of one's own, by its label"
    csv, *_ = report.write()
    assert {"surprised,,,surprise,1", "surprised,0.0,,surprise,3"} <= {
        line.rsplit(",", 5)[0] for line in csv.read_text().splitlines()
    }
