"""Disks that are full: one line, nothing lost, and what is missing is played once there is room."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped, unused-ignore]
import pytest

from inference_marl.cli import main
from inference_marl.config.files import dump
from inference_marl.runs.folder import begun
from tests.runs.small_runs import ROOT, climbing, rommeo_q, run, without_partial_files

WRITING: dict[str, Callable[[Any], bool]] = {
    "write_text": lambda given: True,
    "write_bytes": lambda given: True,
    "replace": lambda given: True,
    "mkdir": lambda given: True,
    "open": lambda given: "r" not in (given[0] if given else "r"),
}
"""Methods of `Path` that write, given their arguments."""


@contextmanager
def full_from_call(number: int, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """There is no room at the `number`-th call that writes, nor later; yields what has been called."""
    calls: list[str] = []

    def count(what: str) -> None:
        calls.append(what)
        if len(calls) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)

    def counting(method: str, writes: Callable[[Any], bool]) -> Callable[..., Any]:
        original = getattr(Path, method)

        def call(self: Path, *given: Any, **more: Any) -> Any:
            if writes(given) and "pytest" in str(self.resolve()):
                count(f"{method} {self.name}")
            return original(self, *given, **more)

        return call

    create = h5py.h5f.create

    def created(*given: Any, **more: Any) -> Any:
        count("HDF5")
        return create(*given, **more)

    with patch.context() as inside:
        for method, writes in WRITING.items():
            inside.setattr(Path, method, counting(method, writes))
        inside.setattr(h5py.h5f, "create", created)
        yield calls


@pytest.mark.slow
@pytest.mark.parametrize("each", [48, pytest.param(1, marks=pytest.mark.slow)])
def test_at_calls_that_write(
    each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = climbing(arms={"a": rommeo_q()}, checkpoint_every=3)
    whole = run(experiment, tmp_path / "whole", "small")
    spec = tmp_path / "small.yaml"
    spec.write_text(dump(experiment))
    monkeypatch.chdir(tmp_path)
    with full_from_call(1000, monkeypatch) as calls:
        assert main(["run", "small.yaml", "--quiet"]) == 0
    assert len({call.split()[0] for call in calls}) == len(WRITING) + 1, "what writes is found"
    for number in range(1, len(calls) + 1, each):
        out = tmp_path / f"runs-{number}"
        with full_from_call(number, monkeypatch):
            status = main(["run", "small.yaml", "--quiet", "--out", str(out)])
        said = capsys.readouterr().err
        assert status == 2, calls[number - 1]
        assert said.count("\n") == 1, said
        assert "No space left on device" in said
        folder = begun(experiment, out, "small")
        again = ["run", "small.yaml", "--out", str(out)] if folder is None else ["resume", str(folder)]
        assert main([*again, "--quiet"]) == 0
        played = begun(experiment, out, "small")
        assert played is not None
        for name in ("posterior.nc", "actions.nc"):
            assert (played / name).read_bytes() == (whole / name).read_bytes(), calls[number - 1]
        assert without_partial_files(played)


LIMITED = """
import resource, sys
from inference_marl.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [300, 3000, 12_000, 40_000])
def test_files_of_a_limited_size(limit: int, tmp_path: Path) -> None:
    """The system's own limit, in a process of its own."""
    experiment = climbing(arms={"a": rommeo_q()}, replicates=200, checkpoint_every=3)
    (tmp_path / "small.yaml").write_text(dump(experiment))
    command = [sys.executable, "-c", LIMITED, str(limit), "run", "small.yaml", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("inference-marl: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr
    again = ["resume", "runs/small"] if begun(experiment, tmp_path / "runs", "small") else ["run", "small.yaml"]
    command = [sys.executable, "-m", "inference_marl", *again, "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
