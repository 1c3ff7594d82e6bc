from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from inference_marl.analysis.report.findings import believed, findings
from inference_marl.analysis.report.text import inspect_run, results_table
from inference_marl.described import InspectError
from tests import run_folder


def inspected(folder: Path) -> str:
    blocks: list[str] = []
    inspect_run(folder, print=blocks.append)
    return "\n".join(blocks)


def found(folder: Path, **run: xr.Dataset) -> str:
    """The findings as `inspect` prints them."""
    return "\n".join("\n" + section.text() for section in findings(run_folder.recorded(folder, **run)))


def test_inspect_tells_everything(tmp_path: Path) -> None:
    tells_everything(tmp_path, run_folder.discrete())


@pytest.mark.usefixtures("unrendered")
def test_inspect_tells_everything_of_continuous_actions(tmp_path: Path) -> None:
    tells_everything(tmp_path, run_folder.continuous())


def tells_everything(tmp_path: Path, run: dict[str, xr.Dataset]) -> None:
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
    assert text.endswith(
        "published: at the last step of the published experiment, which may not be this one's; a paper"
    )
    lines = text.splitlines()
    columns = {line.rindex("]") for line in lines if line.startswith("  ") and "]" in line}
    assert len(columns) == 1  # aligned


def test_what_was_not_reached_is_more_than_the_last_step(tmp_path: Path) -> None:
    run = run_folder.discrete(10, 12)
    run["metrics"]["success_rate"][:] = 0.0
    run["metrics"]["success_rate"][0, :7, 4:] = 1.0
    run["metrics"]["success_rate"][1, :3, 4:] = 1.0
    lines = results_table(run_folder.write(tmp_path / "run", **run)).splitlines()
    start = lines.index("steps to lasting success (median)")
    cells = [re.split(r"  +", line.strip()) for line in lines[start + 1 : start + 4]]
    assert cells[0][:3] == ["rommeo_q", "5.0", "[5.0, > 12]"]
    assert cells[1][:3] == ["rommeo_q_emp", "> 12", "[5.0, > 12]"]
    assert cells[2][:3] == ["jal", "> 12", "-"]


def blocks(folder: Path) -> dict[str, list[list[str]]]:
    """The rows of the results table under their headings, as cells."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in results_table(folder).splitlines()[3:]:
        if line.startswith("  "):
            found[heading].append(re.findall(r"\[.*?\]|\S(?:\S| (?! ))*", line))
        else:
            heading = line
            found[heading] = []
    return found


def worth(replicates: int = 3) -> dict[str, xr.Dataset]:
    """A zero-sum game of one learner, with a score of its own."""
    records = np.arange(1, 3)
    returns = np.broadcast_to([1.0, -1.0], (1, replicates, 2, 2)) * np.linspace(0, 1, replicates)[:, None, None]
    shares = np.broadcast_to(np.linspace(0.1, 0.3, replicates)[:, None], (1, replicates, 2))
    data = {"reward": 2 * returns, "return": returns, "nash_conv": shares, "tit_for_tat": shares, "odd_play": shares}
    return {"metrics": run_folder.metrics_dataset(data, records)}


def test_worth_is_told_in_order_and_agents_of_zero_sum_games_one_by_one(tmp_path: Path) -> None:
    found = blocks(run_folder.write(tmp_path / "run", **worth()))
    assert [heading for heading in found if not heading.startswith(("A dash", "published"))] == [
        "reward per step",
        "exact return of the joint policy",
        "standard deviation of an agent's return",
        "NashConv: what best responses would gain, summed",
        "share of states with tit-for-tat",
        "odd play",
    ]
    reward = found["reward per step"]
    assert [row[:2] for row in reward] == [["rommeo_q, agent 0", "1.000"], ["rommeo_q, agent 1", "-1.000"]]
    assert reward[0][-1] == "11.000", "published of the reward: of a mean it can be no number but 0"
    assert [row[1] for row in found["exact return of the joint policy"]] == ["0.500", "-0.500"]
    assert found["standard deviation of an agent's return"][0][:2] == ["rommeo_q", "0.500"]
    assert found["odd play"][0][1] == "0.200"


def test_agents_are_told_one_by_one_where_their_learners_differ(tmp_path: Path) -> None:
    run = worth()
    run["metrics"]["reward"] += 1.0  # no longer zero-sum
    twice = [run["metrics"], run["metrics"].assign_coords(learner=["alike"])]
    folder = run_folder.write(tmp_path / "run", metrics=xr.concat(twice, dim="learner", data_vars="minimal"))
    (folder / "spec.yaml").write_text("arms: {rommeo_q: [{class_path: A}, {class_path: B}], alike: {class_path: A}}")
    summary = json.loads((folder / "summary.json").read_text())
    told = [f"rommeo_q{which}" for which in ("", ", agent 0", ", agent 1")]

    def published(numbers: dict[str, float]) -> list[tuple[str, str]]:
        summary["published"] = dict.fromkeys(("rommeo_q", "alike"), numbers)
        (folder / "summary.json").write_text(json.dumps(summary))
        return [(row[0], row[-1]) for row in blocks(folder)["exact return of the joint policy"]]

    nothing = "3"  # the column before: replicates
    rows = published({"return": 0.1, "return_1": -0.4})
    assert rows == list(zip([*told, "alike"], ["0.100", nothing, "-0.400", "0.100"], strict=True))
    rows = published({"return_0": 0.3, "return_1": -0.4})
    assert rows == list(zip([*told, "alike"], [nothing, "0.300", "-0.400", "-0.050"], strict=True))
    assert len(blocks(folder)["standard deviation of an agent's return"]) == 2


def test_excluded_seeds_are_counted(tmp_path: Path) -> None:
    run = run_folder.discrete(9, 30)
    text = found(tmp_path, **run)
    final = run["posterior"]["opponent_policy"].sel(learner="rommeo_q_emp", opponent_action="A").isel(step=-1)
    failed = int((final < 0.5).any(["agent", "state"]).sum())
    section = text[text.index("think ahead") :]
    assert re.search(rf"^rommeo_q_emp .* {failed} of 9 ", section, flags=re.MULTILINE)


@pytest.mark.usefixtures("unrendered")
def test_runs_without_beliefs_or_optimum(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 6)
    bare = inspected(run_folder.write(tmp_path / "bare", metrics=run["metrics"]))
    assert "No learner of this run has an opponent model" in bare
    run["posterior"] = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    assert "needs a game with a known optimum" in inspected(run_folder.write(tmp_path / "no_optimum", **run))


@pytest.mark.usefixtures("unrendered")
def test_one_replicate_has_no_intervals(tmp_path: Path) -> None:
    text = inspected(run_folder.write(tmp_path / "run", **run_folder.continuous(1, 6)))
    assert "1 replicate, at step" in text
    assert "nan" not in text.lower()
    table = text[: text.index("What do the agents believe")]
    # Wilson's are the only ones that one replicate allows.
    assert set(re.findall(r"\[.*?\]", table)) == {"[0.207, 1.000]", "[0.000, 0.793]"}


def test_errors_reach_the_user(tmp_path: Path) -> None:
    for look in (inspect_run, results_table):
        with pytest.raises(InspectError, match=r"without spec\.yaml"):
            look(tmp_path)


def cells(text: str, title: str, name: str) -> list[str]:
    """The cells of a row under a title: numbers, and intervals in brackets."""
    section = text[text.index(title) :]
    row = next(line for line in section.splitlines() if line.startswith(name))
    return re.findall(r"\[.*?\]|\S+", row.removeprefix(name))


def test_planted_answers_are_found(tmp_path: Path) -> None:
    run = run_folder.discrete(4, 10)
    rho = run["posterior"]["opponent_model"]
    rho[0, :, :6] = [0.2, 0.2, 0.6]
    rho[0, :, 6:] = [0.8, 0.1, 0.1]
    run["posterior"]["opponent_policy"][0, :, -1] = [0.5, 0.25, 0.25]
    rho[0, 0, -1] = [0.1, 0.8, 0.1]
    text = found(tmp_path, **run)
    share, chance, *_ = cells(text, "Do the seeds agree?", "rommeo_q ")
    assert share == "0.750"
    # The most common favourite of four seeds, out of three actions at random: (4 * 3 + 3 * 24 + 2 * 54) / 81 / 4.
    assert float(chance) == pytest.approx(192 / 81 / 4, abs=0.01)
    # Three seeds turn at record 7, the first at the last one; the size of the jump is 0.6 in three, 0.7 in one.
    changed = cells(text, "When did the belief change?", "rommeo_q ")
    assert (changed[0], changed[2]) == ("7.0", "0.625")
    # Favourite 0.8 is played with 0.5 by three, with 0.25 by the first.
    section = text[text.index("Are the beliefs calibrated?") :]
    excess = float(cells(section, "rommeo_q\n", "  last record")[2])
    assert excess == pytest.approx((3 * 0.3 + 0.55) / 4, abs=1e-3)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    sure = cells(text, "How sure are they?", "  agent 0")
    assert (sure[0], sure[2], sure[4]) == (f"{entropy:.3f}", "0.800", f"{1.5 * np.log(2):.3f}")


def test_each_opponent_has_rows_of_its_own(tmp_path: Path) -> None:
    metrics = run_folder.discrete(2, 3)["metrics"].isel(learner=[0], agent=[0, 0, 1]).assign_coords(agent=[0, 1, 2])
    shape = (1, 2, 3, 3, 1)
    first, second = np.array([0.9, 0.1]), np.array([0.2, 0.3, 0.5])
    third = np.array([0.6, 0.4])
    nan = np.full(6, np.nan)
    joint = {0: np.outer(second, third), 1: np.outer(first, third), 2: np.outer(first, second)}
    model = np.stack([np.concatenate([joint[i].ravel(), nan])[:6] for i in range(3)])
    policy = np.stack([np.concatenate([each, nan])[:3] for each in (first, second, third)])
    dims = ("learner", "replicate", "step", "agent", "state")
    posterior = xr.Dataset(
        {
            "opponent_model": ((*dims, "opponent_action"), np.broadcast_to(model[:, None], (*shape, 6)).copy()),
            "opponent_policy": ((*dims, "opponent_action"), np.broadcast_to(model[:, None], (*shape, 6)).copy()),
            "policy": ((*dims, "action"), np.broadcast_to(policy[:, None], (*shape, 3)).copy()),
        },
        {"learner": ["rommeo_q"], "step": [1, 2, 3], "action": list("ABC")},
        {"kind": "discrete"},
    )
    rows = believed(run_folder.recorded(tmp_path, metrics=metrics, posterior=posterior)).rows
    shown = {tuple(cell.strip() for cell in row[:3]): row[3] for row in rows if len(row) > 1}
    expected = {"0": first, "1": second, "2": third}
    assert shown == {
        (agent, opponent, "ABC"[i]): f"{probability:.3f}"
        for agent in "012"
        for opponent, beliefs in expected.items()
        if opponent != agent
        for i, probability in enumerate(beliefs)
    }


def test_the_surest_states_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 4)
    posterior = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    run["posterior"] = xr.concat([posterior] * 30, dim="state")
    run["posterior"]["opponent_model"][:3, :, -1] = 1 / 3
    run["posterior"]["opponent_model"][:3, :, -1, :, 17] = [0.0, 0.0, 1.0]
    section = believed(run_folder.recorded(tmp_path, **run))
    assert {row[1] for row in section.rows if len(row) > 1} >= {"17"}
    shown = sum(len(row) > 1 for row in section.rows)
    assert 0 < shown <= 40
    assert f"and {3 * 2 * 30 * 3 - shown} more rows: inference_marl.analysis.arviz.summary(" in section.note


@pytest.mark.usefixtures("unrendered")
def test_opponent_types_are_told(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    rho = run["posterior"]["opponent_model"].rename(opponent_action="type").drop_vars("type")
    rho[0, :, -1] = [0.25, 0.25, 0.5]
    run["posterior"]["opponent_type"] = rho
    text = inspected(run_folder.write(tmp_path / "run", **run))
    assert cells(text, "Which type are the opponents?", "rommeo_q, agent 0 ") == ["0", "0.250", "-"]
    assert "opponent_types.png" in text
