"""What a run's beliefs tell: planted answers, rows that stand for agents, opponents, states and types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from inference_marl.analysis.recorded import read
from inference_marl.analysis.report.findings import HEADLINE, believed, evidence, findings, overview, played, types
from inference_marl.analysis.tables import Section
from inference_marl.statistics.quantities import OF_BELIEFS
from tests import run_folder


def table(section: Section | None) -> pd.DataFrame:
    assert section is not None
    assert section.table is not None
    return section.table


def answers(folder: Path, **run: xr.Dataset) -> dict[str, pd.DataFrame]:
    """The tables of all findings by their titles."""
    return {each.title: table(each) for each in findings(run_folder.recorded(folder, **run)) if each.table is not None}


def planted() -> dict[str, xr.Dataset]:
    """Four seeds of `rommeo_q` whose beliefs are known at every record."""
    run = run_folder.discrete(4, 10)
    rho = run["posterior"]["opponent_model"]
    rho[0, :, :6] = [0.2, 0.2, 0.6]
    rho[0, :, 6:] = [0.8, 0.1, 0.1]
    run["posterior"]["opponent_policy"][0, :, -1] = [0.5, 0.25, 0.25]
    rho[0, 0, -1] = [0.1, 0.8, 0.1]
    return run


def test_planted_answers_are_found(tmp_path: Path) -> None:
    found = answers(tmp_path, **planted())
    agreement = found["Do the seeds agree?"].loc["rommeo_q"]
    assert agreement["same favourite"] == "0.750"
    # The most common favourite of four seeds, out of three actions at random: (4 * 3 + 3 * 24 + 2 * 54) / 81 / 4.
    assert float(agreement["by chance"]) == pytest.approx(192 / 81 / 4, abs=0.01)
    # Three seeds turn at record 7, the first at the last one; the size of the jump is 0.6 in three, 0.7 in one.
    change = found["When did the belief change?"].loc["rommeo_q"]
    assert change["largest change at step"] == "7.0"
    assert change["size of largest change"].startswith("0.625 [")
    # Favourite 0.8 is played with 0.5 by three, with 0.25 by the first.
    excess = float(found["Are the beliefs calibrated?"].loc["rommeo_q", "overconfidence at end"].split()[0])
    assert excess == pytest.approx((3 * 0.3 + 0.55) / 4, abs=1e-3)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    assert found["How sure are they?"].loc["rommeo_q, agent 0"].tolist() == [
        *(f"{entropy:.3f}", "0.800", f"{1.5 * np.log(2):.3f}", "0.500")
    ]


def test_the_overview_has_the_estimates_of_the_answers(tmp_path: Path) -> None:
    """Averaged over agents, without intervals."""
    run = planted()
    shown, full = table(overview(run_folder.recorded(tmp_path, **run))[0]), answers(tmp_path, **run)
    assert shown.index.tolist() == ["rommeo_q", "rommeo_q_emp", "jal"]
    assert shown.columns.tolist() == [OF_BELIEFS[name].label for name in HEADLINE]
    for title in ("Are the beliefs calibrated?", "Does the opponent model think ahead?"):
        for label in shown.columns.intersection(full[title].columns):
            assert shown[label].tolist() == [text.split()[0] for text in full[title][label]]
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    assert shown.loc["rommeo_q", "entropy of rho"] == f"{entropy:.3f}"


def test_seeds_without_a_lead_are_counted(tmp_path: Path) -> None:
    run = run_folder.discrete(9, 30)
    final = run["posterior"]["opponent_policy"].sel(learner="rommeo_q_emp", opponent_action="A").isel(step=-1)
    failed = int((final < 0.5).any(["agent", "state"]).sum())
    shown = answers(tmp_path, **run)["Does the opponent model think ahead?"]
    assert shown.loc["rommeo_q_emp", "seeds without lead"] == str(failed)


def test_without_a_known_optimum_nothing_is_said_of_leads(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 6)
    run["posterior"] = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    assert "Does the opponent model think ahead?" not in answers(tmp_path, **run)
    assert "lead of rho" not in table(overview(run_folder.recorded(tmp_path, **run))[0])


def test_many_agents_are_averaged(tmp_path: Path) -> None:
    run = planted()
    seven = ["rommeo_q"] * 7
    run = {name: data.sel(learner=seven).assign_coords(learner=list("abcdefg")) for name, data in run.items()}
    assert answers(tmp_path, **run)["How sure are they?"].index.tolist() == list("abcdefg")


def test_agents_without_a_model_have_no_row(tmp_path: Path) -> None:
    run = planted()
    run["posterior"]["opponent_model"][0, :, :, 1] = np.nan
    found = answers(tmp_path, **run)
    assert found["How sure are they?"].index.tolist()[:2] == ["rommeo_q, agent 0", "rommeo_q_emp, agent 0"]


def test_the_evidence_is_the_elbo_and_its_gap(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 4)
    assert evidence(run_folder.recorded(tmp_path, **run)) is None
    shape = (4, 3, 4, 2)
    spread = np.array([0.0, 1.0, 2.0])[:, None, None]
    data = {"reward": np.zeros(shape), "elbo": np.ones(shape) + spread, "elbo_gap": np.full(shape, 0.5)}
    data["elbo_gap"][1:] = np.nan
    shown = table(evidence(run_folder.recorded(tmp_path, metrics=run_folder.metrics_dataset(data, np.arange(4)))))
    half = 4.302653 / 3**0.5  # t_{2, .975}, sd 1
    assert shown.T.to_dict() == {
        "rommeo_q": {"evidence": f"2.500 ± {half:.3f}", "ELBO": f"2.000 ± {half:.3f}", "ELBO gap": "0.500"}
    }


def test_each_opponent_has_rows_of_its_own_also_in_runs_of_joint_actions(tmp_path: Path) -> None:
    """0.1.0 recorded beliefs about several opponents' joint action, the last one's running fastest."""
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
    shown = table(believed(read(run_folder.write(tmp_path / "run", metrics=metrics, posterior=posterior))))
    expected = {0: first, 1: second, 2: third}
    assert shown["mean"].to_dict() == {
        ("rommeo_q", agent, opponent, "ABC"[i]): f"{probability:.3f}"
        for agent in (0, 1, 2)
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
    shown = table(section)
    assert 17 in shown.index.unique("state")
    assert 0 < len(shown) <= 40
    assert shown.index.unique("learner").tolist() == ["rommeo_q", "rommeo_q_emp", "jal"]
    assert f"and {3 * 2 * 30 * 3 - len(shown)} more rows: inference_marl.analysis.arviz.summary(" in section.note


def test_what_beliefs_are_averaged_over_is_told(tmp_path: Path) -> None:
    """Environments, where beliefs were recorded where the agents are; older files do not say."""
    run = run_folder.discrete(3, 4)
    posterior = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    run["posterior"] = xr.concat([posterior] * 30, dim="state")
    run["posterior"]["opponent_type"] = run["posterior"]["opponent_model"].rename(opponent_action="type")
    for where, name in {"states": "state", "environments": "environment"}.items():
        recorded = run_folder.recorded(tmp_path, **run)
        for section in (types(recorded.beliefs), played(recorded.beliefs)):
            assert section is not None
            assert f"averaged over {where}" in section.explanation
        found = believed(recorded)
        assert f"{where.capitalize()} with the surest beliefs" in found.explanation
        assert table(found).index.names == ["learner", "agent", name, "opponent_action"]
        run["posterior"].attrs["state_counts"] = "environments"


def test_opponent_types_are_told(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    rho = run["posterior"]["opponent_model"].rename(opponent_action="type").drop_vars("type")
    rho[0, :, -1] = [0.25, 0.25, 0.5]
    run["posterior"]["opponent_type"] = rho
    section = types(run["posterior"])
    shown = table(section)
    assert shown.loc["rommeo_q, agent 0", "probability"].to_dict() == {"0": "0.250", "1": "0.250", "2": "0.500"}
    assert section is not None
    assert section.figures == ("opponent_types",)
    assert types(run_folder.discrete(2, 3)["posterior"]) is None


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_what_agents_play_is_shown_where_nobody_has_an_opponent_model(kind: str, tmp_path: Path) -> None:
    """Planted policies: means over states at the last record, with the interval over replicates."""
    run = getattr(run_folder, kind)(4, 10)
    posterior = run["posterior"].drop_vars([name for name in run["posterior"] if str(name).startswith("opponent_")])
    own = "action" if kind == "discrete" else "action_dim"
    policy = posterior["policy"].transpose("learner", "agent", "replicate", "step", "state", ..., own)
    size = policy.sizes[own]
    policy[0, 1] = 1 / size
    policy[0, 1, :, -1, :, ..., 0] = xr.DataArray([0.1, 0.2, 0.3, 0.4], dims="replicate")
    policy[1:] = np.nan
    posterior["policy"] = policy
    found = answers(tmp_path, **run | {"posterior": posterior})
    shown = found["What do they play?"]
    assert {learner for learner, _ in shown.index} == {str(posterior["learner"].values[0])}
    half = 3.182 * np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2
    cell = shown.loc[(str(posterior["learner"].values[0]), 1)].iloc[0]
    expected = f"0.250 [{0.25 - half:.3f}, {0.25 + half:.3f}]" if kind == "discrete" else f"0.250 ± {half:.3f}"
    assert cell == expected
