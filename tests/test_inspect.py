from __future__ import annotations

import re
from pathlib import Path

import pytest

from inference_marl.inspect import InspectError, inspect_run, results_table
from tests import run_folder


def inspected(folder: Path) -> str:
    blocks: list[str] = []
    inspect_run(folder, print=blocks.append)
    return "\n".join(blocks)


@pytest.mark.parametrize("make", [run_folder.discrete, run_folder.continuous])
def test_inspect_tells_everything(tmp_path: Path, make: type) -> None:
    run = make()
    folder = run_folder.write(tmp_path / "run", **run)
    text = inspected(folder)
    game, last = run["metrics"].attrs["game"], int(run["metrics"]["step"][-1])
    count = run["metrics"].sizes["replicate"]
    assert text.startswith(f"synthetic: {game}, {count} replicates, at step {last}\n")
    for part in ("reward per step", "summarised by ArviZ", "think ahead", "KL(rho || P)", "log score", "Figures in"):
        assert part in text
    for learner in run["metrics"]["learner"].to_numpy():
        assert learner in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert not any(line != line.rstrip() for line in results_table(folder).splitlines())
    for path in re.findall(r"^  (\w+\.png)$", text, flags=re.MULTILINE):
        assert (folder / "figures" / path).is_file()


def test_results_are_those_of_the_summary_beside_the_published(tmp_path: Path) -> None:
    run = run_folder.discrete()
    text = results_table(run_folder.write(tmp_path / "run", **run))
    reward = float(run["metrics"]["reward"].sel(learner="rommeo_q").isel(step=-1).mean())
    row = next(line for line in text.splitlines() if line.startswith("  rommeo_q "))
    assert re.fullmatch(rf"  rommeo_q +{reward:.3f} +\[\S+, \S+\] +8 +11\.000", row)
    assert text.endswith("published: a paper")
    lines = text.splitlines()
    columns = {line.rindex("]") for line in lines if line.startswith("  ") and "]" in line}
    assert len(columns) == 1  # aligned


def test_what_was_not_reached_is_more_than_the_last_step(tmp_path: Path) -> None:
    run = run_folder.discrete(10, 12)
    run["metrics"]["success"][:] = 0.0
    run["metrics"]["success"][0, :7, 4:] = 1.0
    run["metrics"]["success"][1, :3, 4:] = 1.0
    lines = results_table(run_folder.write(tmp_path / "run", **run)).splitlines()
    start = lines.index("steps to lasting success (median)")
    cells = [re.split(r"  +", line.strip()) for line in lines[start + 1 : start + 4]]
    assert cells[0][:3] == ["rommeo_q", "5.0", "[5.0, > 12]"]
    assert cells[1][:3] == ["rommeo_q_emp", "> 12", "[5.0, > 12]"]
    assert cells[2][:3] == ["jal", "> 12", "-"]


def test_excluded_seeds_are_counted(tmp_path: Path) -> None:
    run = run_folder.discrete(9, 30)
    text = inspected(run_folder.write(tmp_path / "run", **run))
    final = run["posterior"]["opponent_policy"].sel(learner="rommeo_q_emp", opponent_action="A").isel(step=-1)
    failed = int((final < 0.5).any(["agent", "state"]).sum())
    section = text[text.index("think ahead") :]
    assert re.search(rf"^rommeo_q_emp .* {failed} of 9 ", section, flags=re.MULTILINE)


def test_runs_without_beliefs_or_optimum(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 6)
    bare = inspected(run_folder.write(tmp_path / "bare", metrics=run["metrics"]))
    assert "No learner of this run has an opponent model" in bare
    run["posterior"] = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    assert "needs a game with a known optimum" in inspected(run_folder.write(tmp_path / "no_optimum", **run))


def test_one_replicate_has_no_intervals(tmp_path: Path) -> None:
    text = inspected(run_folder.write(tmp_path / "run", **run_folder.continuous(1, 6)))
    assert "1 replicate, at step" in text
    assert "nan" not in text.lower()
    table = text[: text.index("Beliefs about")]
    # Wilson's are the only ones that one replicate allows.
    assert set(re.findall(r"\[.*?\]", table)) == {"[0.207, 1.000]", "[0.000, 0.793]"}


def test_errors_reach_the_user(tmp_path: Path) -> None:
    for look in (inspect_run, results_table):
        with pytest.raises(InspectError, match=r"without spec\.yaml"):
            look(tmp_path)
