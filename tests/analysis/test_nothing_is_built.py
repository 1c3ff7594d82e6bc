"""Who looks at a run imports none of the classes that it names."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import inference_marl
from inference_marl.cli import main
from inference_marl.runs.run import run

OWN = """
import pathlib
from inference_marl.games import MatrixGame
from inference_marl.models import {base}

pathlib.Path({mark!r}).touch()


class OwnGame(MatrixGame):
    pass


class OwnPrior({base}):
    pass
"""

SPEC = """
game: {class_path: somebodys_own.OwnGame, init_args: {payoff: stag_hunt, horizon: 3, memory: 1}}
replicates: 3
steps: 12
arms:
  a:
    class_path: Rommeo
    init_args:
      opponent_prior: DirichletMultinomial
      guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
      critic: TabularCritic
  b:
    like: a
    opponent_prior: somebodys_own.OwnPrior
"""


def looks(folder: Path) -> dict[str, Callable[[], Any]]:
    return {
        "inspect": lambda: main(["inspect", str(folder)]),
        "read": lambda: inference_marl.read(folder).frame(),
        "summary": lambda: inference_marl.summary(folder),
        "to_arviz": lambda: inference_marl.to_arviz(folder, "b"),
        "forecasts": lambda: inference_marl.forecasts(folder, "a"),
        "parameter_posterior": lambda: inference_marl.parameter_posterior(folder, "a", draws=10),
    }


@pytest.mark.slow
def test_no_class_of_a_run_is_imported_to_look_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "somebodys_own.py").write_text(OWN.format(base="EmpiricalFrequency", mark=str(mark)))
    (tmp_path / "own.yaml").write_text(SPEC)
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = run(inference_marl.load(tmp_path / "own.yaml"), tmp_path, progress=False)
    assert mark.exists()
    mark.unlink()
    monkeypatch.delitem(sys.modules, "somebodys_own")
    for what, look in looks(folder).items():
        look()
        assert "somebodys_own" not in sys.modules, what
        assert not mark.exists(), what
    # It would have been noticed.
    inference_marl.load(folder / "spec.yaml")
    assert mark.exists()
