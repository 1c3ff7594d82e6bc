"""Run folders of which a part is damaged: nothing wrong is shown or gone on with, and nothing is executed."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_marl import read, summary
from inference_marl.analysis.report.text import report_of
from inference_marl.config.build import SpecError
from inference_marl.described import InspectError
from inference_marl.experiment import Experiment
from inference_marl.games import MaxOfTwoQuadratics
from inference_marl.runs import checksums
from inference_marl.runs.errors import RunError
from inference_marl.runs.run import resume
from tests.runs.small_runs import climbing, cut_after, results, rommeo_ac, run

SAID = (RunError, InspectError, SpecError)
"""How a user is told; anything else would be a traceback."""

FEW_AND_MANY = pytest.mark.parametrize("damages", [1, pytest.param(14, marks=pytest.mark.slow)])
"""To every file; of many, more than 300 in all."""


def everything(folder: Path) -> Any:
    """All numbers of a finished run."""
    metrics, posterior, said = results(folder)
    return metrics, posterior, read(folder).actions, said


def same(one: Any, other: Any) -> bool:
    return all(a.identical(b) if hasattr(a, "identical") else a == b for a, b in zip(one, other, strict=True))


def damage(path: Path, random_numbers: random.Random) -> str:
    """Flip a bit, overwrite, cut off or zero a region, anywhere in a file; returns which."""
    content = bytearray(path.read_bytes())
    at, how = random_numbers.randrange(len(content)), random_numbers.choice(["flip", "flip", "noise", "zeros", "cut"])
    end = min(len(content), at + random_numbers.choice([1, 8, 64]))
    if how == "flip":
        content[at] ^= 1 << random_numbers.randrange(8)
    elif how == "cut":
        del content[at:]
    else:
        content[at:end] = bytes(end - at) if how == "zeros" else random_numbers.randbytes(end - at)
    path.write_bytes(content)
    return f"{path.name}: {how} at {at} to {end}"


def refusal(act: Callable[[], Any]) -> str:
    """The line in which a user is told; empty if nothing is wrong."""
    try:
        act()
    except SAID as error:
        said = str(error)
    else:
        return ""
    assert said
    assert "\n" not in said
    return said


def small() -> Experiment:
    return climbing(checkpoint_every=2, published={"a": {"reward": 5.0}})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small(), tmp_path_factory.mktemp("undisturbed"))


def names(folder: Path) -> list[str]:
    """Of all files; of records, of which there are many that are alike, of one agent's only."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return [name for name in found if not name.endswith((".1", "return", "elbo_kl", "elbo_gap", "elbo_reward"))]


@pytest.mark.slow
@FEW_AND_MANY
def test_damage_to_any_file_of_a_finished_run_is_noticed_before_anything_is_shown(
    damages: int, undisturbed: Path, tmp_path: Path
) -> None:
    whole, numbers, tried = everything(undisturbed), random.Random(1), 0
    for name in names(undisturbed):
        for _ in range(damages):
            shutil.rmtree(tmp_path / "test", ignore_errors=True)
            folder = shutil.copytree(undisturbed, tmp_path / "test")
            how, tried = damage(folder / name, numbers), tried + 1
            complaint = refusal(lambda folder=folder: report_of(read(folder)).text() + str(read(folder).actions))
            assert complaint or same(everything(folder), whole), how
    assert tried >= 8 * damages


@pytest.mark.slow
@FEW_AND_MANY
def test_damage_to_any_file_of_an_unfinished_run_is_noticed_or_mended(
    damages: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on ends as the undisturbed run."""
    cut = tmp_path / "cut" / "test"
    cut_after(9, monkeypatch, small(), cut)  # in the middle of the second arm
    with checksums.listing(cut, ["spec.yaml"]):
        pass  # as `begin` does
    whole, numbers, refused, tried = everything(undisturbed), random.Random(2), 0, 0
    for name in names(cut):
        for _ in range(damages):
            shutil.rmtree(tmp_path / "test", ignore_errors=True)
            folder = shutil.copytree(cut, tmp_path / "test")
            how, tried = damage(folder / name, numbers), tried + 1
            complaint = refusal(lambda folder=folder: resume(folder, progress=False))
            refused += bool(complaint)
            assert complaint or same(everything(folder), whole), how
    assert tried >= 10 * damages
    assert refused >= damages


@FEW_AND_MANY
def test_damage_to_a_checkpoint_of_a_finished_run_is_noticed_when_it_is_extended(
    damages: int, undisturbed: Path, tmp_path: Path
) -> None:
    longer = everything(run(small().replace(steps=8), tmp_path / "longer"))
    numbers, refused = random.Random(3), 0
    for _ in range(4 * damages):
        shutil.rmtree(tmp_path / "test", ignore_errors=True)
        folder = shutil.copytree(undisturbed, tmp_path / "test")
        how = damage(folder / "checkpoints" / "a.pt", numbers)
        complaint = refusal(lambda folder=folder: resume(folder, progress=False, overrides=[("steps", 8)]))
        refused += bool(complaint)
        assert complaint or same(everything(folder), longer), how
    assert refused >= 3 * damages


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_damage_to_checkpoints_of_networks(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(
        MaxOfTwoQuadratics(horizon=4), {"a": rommeo_ac()}, replicates=2, steps=12, draws=2, checkpoint_every=5
    )
    whole = everything(run(experiment, tmp_path / "whole"))
    cut = tmp_path / "cut" / "test"
    cut_after(8, monkeypatch, experiment, cut)
    numbers = random.Random(seed)
    for _ in range(100):
        shutil.rmtree(tmp_path / "test", ignore_errors=True)
        folder = shutil.copytree(cut, tmp_path / "test")
        how = damage(folder / "checkpoints" / "a.pt", numbers)
        complaint = refusal(lambda folder=folder: resume(folder, progress=False))
        assert complaint or same(everything(folder), whole), how


def test_the_list_is_that_of_sha256sum(undisturbed: Path) -> None:
    head, *lines = (undisturbed / "SHA256SUMS").read_text().splitlines()
    assert head.startswith("# ")
    listed = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    assert set(listed) == {"spec.yaml", "metrics.nc", "posterior.nc", "actions.nc", "solution.nc", "summary.json"}
    assert all(checksums.digest_of(undisturbed / name) == digest for name, digest in listed.items())


@pytest.mark.parametrize(
    "act",
    [read, summary, lambda folder: resume(folder, progress=False)],
)
def test_who_has_edited_a_result_is_told(act: Callable[[Path], Any], finished: Path) -> None:
    content = (finished / "summary.json").read_text()
    (finished / "summary.json").write_text(content.replace('"replicates": 3', '"replicates": 4', 1))
    with pytest.raises(SAID, match=r"summary.json: got another content than was written there \(SHA256SUMS has its"):
        act(finished)
