"""Checkpoints that were written under other versions of what numbers depend on."""

import json
from pathlib import Path

import pytest

from inference_marl import read
from inference_marl.cli import main
from inference_marl.config.files import dump
from inference_marl.runs import job
from inference_marl.runs.errors import RunError
from inference_marl.runs.run import resume
from inference_marl.runs.versions import PACKAGES, versions
from tests.runs.small_runs import assert_same, climbing, cut_after, run


def older(patch: pytest.MonkeyPatch, **changes: str) -> None:
    before = versions() | changes
    patch.setattr(job, "versions", lambda: before)


@pytest.mark.parametrize(
    "package", [name if name == "torch" else pytest.param(name, marks=pytest.mark.slow) for name in PACKAGES]
)
def test_other_versions_are_refused_unless_asked_for(
    package: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        older(patch, **{package: "0.0.1"})
        cut_after(9, monkeypatch, climbing(checkpoint_every=2), folder)  # a is done, b is not
    now = versions()[package]
    with pytest.raises(RunError, match=rf"b\.pt: got {package} .* instead of 0\.0\.1, expected the versions with"):
        resume(folder, progress=False)
    assert main(["resume", str(folder), "--quiet", "--other-versions"]) == 0
    assert f"played under several versions: {package} 0.0.1 and then {now}" in capsys.readouterr().out
    assert_same(folder, whole)
    made = json.loads((folder / "summary.json").read_text())["made"]
    assert [each[package] for each in made["versions_before"]] == ["0.0.1"]
    assert made["versions"][package] == now


def test_pythons_own_version_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        older(patch, python="3.99")
        cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    resume(folder, progress=False)
    assert_same(folder, whole)


def test_a_finished_run_is_read_under_any_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        older(patch, torch="0.0.1")
        folder = run(climbing(), tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert resume(folder, progress=False) == folder, "it is finished"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert "several versions" not in read(folder).title
    with pytest.raises(RunError, match=r"a\.pt: got torch .* instead of 0\.0\.1"):
        resume(folder, progress=False, overrides=[("steps", 9)])
    assert dump(climbing(steps=9)) != (folder / "spec.yaml").read_text()
