"""Folders of finished runs, and folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_marl.analysis.recorded import read
from inference_marl.described import InspectError
from tests import run_folder


def test_what_has_been_read_is_not_read_again(tmp_path: Path) -> None:
    recorded = read(run_folder.write(tmp_path / "run", metrics=run_folder.discrete(2, 3)["metrics"]))
    assert read(recorded) is recorded
    assert recorded.title == "synthetic: MatrixGame(climbing), 2 replicates, at step 3"
    with pytest.raises(InspectError, match=r"run: got a run without posterior\.nc"):
        _ = recorded.beliefs


def test_unfinished_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(InspectError, match="got no such folder"):
        read(tmp_path / "nothing")
    with pytest.raises(InspectError, match=r"without spec\.yaml, expected the folder of a run"):
        read(tmp_path)
    (tmp_path / "spec.yaml").write_text("steps: 1")
    with pytest.raises(InspectError, match=r"not finished.*inference-marl resume"):
        read(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "metrics.nc").write_text("rubbish")
    with pytest.raises(InspectError, match=r"metrics\.nc: got a file that cannot be read"):
        read(tmp_path)
