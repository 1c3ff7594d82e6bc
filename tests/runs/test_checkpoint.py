"""Checkpoints: what is refused in their place, and what is never executed."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_marl.runs.errors import RunError
from inference_marl.runs.job import resolved
from inference_marl.runs.run import resume
from inference_marl.runs.run import run as start
from tests.runs.small_runs import assert_same, climbing, cut_after


def damaged(checkpoint: Path, how: str) -> None:
    content = checkpoint.read_bytes()
    if how == "truncated":
        checkpoint.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        checkpoint.write_bytes(b"")
    elif how == "not a checkpoint":
        checkpoint.write_text("game: MatrixGame\n")
    elif how == "of something else":
        torch.save({"weights": torch.zeros(3)}, checkpoint)
    elif how == "of another size":
        saved = torch.load(checkpoint, weights_only=True)
        saved["actors"][0]["critic.values"] = saved["actors"][0]["critic.values"][:1]
        torch.save(saved, checkpoint)


@pytest.mark.parametrize("how", ["truncated", "empty", "not a checkpoint", "of something else", "of another size"])
def test_a_damaged_checkpoint_is_named_and_deleting_it_starts_the_arm_anew(
    how: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    checkpoint = folder / "checkpoints" / "a.pt"
    damaged(checkpoint, how)
    with pytest.raises(RunError) as caught:
        resume(folder, progress=False)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint}: got a file that is not a checkpoint of this experiment (")
    assert message.endswith("delete it to start the arm anew")
    assert "\n" not in message
    if how == "empty":
        checkpoint.unlink()
        resume(folder, progress=False)
        assert_same(folder, whole)


@pytest.mark.slow
def test_what_an_edited_spec_says_is_not_gone_on_with(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    spec = folder / "spec.yaml"
    before = spec.read_text()
    for edited in (before.replace("discount: 0.9", "discount: 0.8"),):
        assert edited != before
        spec.write_text(edited)
        with pytest.raises(
            RunError, match=r"a\.pt: got a checkpoint of another experiment \(arms\.a\.discount is 0\.8, "
        ):
            resume(folder, progress=False)
    # How numbers are written, how often is saved, and where an arm is played does not matter.
    spec.write_text(before.replace("temperature: 1.0", "temperature: 1").replace("threads: 1", "threads: 2"))
    resume(folder, progress=False)
    assert_same(folder, whole)


def test_a_checkpoint_is_gone_on_with_on_its_own_device_only() -> None:
    assert resolved("auto", "cpu").type == "cpu", "whatever else is there"
    with pytest.raises(RunError, match=r"^device: got cpu, expected cuda, on which the checkpoint was written"):
        resolved("cpu", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    for settings in ({"progress": False}, {"progress": False, "jobs": 2}):
        with pytest.raises(RunError, match=r"^device: got cuda, but torch sees none here; expected cpu or auto"):
            start(climbing(device="cuda"), tmp_path, **settings)
    assert not list(tmp_path.iterdir()), "nothing is begun"


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_loading_a_checkpoint_executes_no_code(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = tmp_path / "cut", tmp_path / "mark"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    with (folder / "checkpoints" / "a.pt").open("wb") as file:
        write({"step": 2, "actors": _Payload(mark)}, file)
    with pytest.raises(RunError, match=r"a\.pt: got a file that is not a checkpoint"):
        resume(folder, progress=False)
    assert not mark.exists()
