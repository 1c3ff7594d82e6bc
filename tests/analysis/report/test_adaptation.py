"""Who adapts: returns by episodes before, and their paired differences from the first arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.report.adaptation import adaptation
from inference_marl.analysis.report.findings import findings, overview
from inference_marl.analysis.report.page import report
from inference_marl.analysis.report.text import inspect_run
from inference_marl.analysis.tables import Section
from inference_marl.statistics.adaptation import forecasts_after
from tests import run_folder

METRICS = run_folder.of_trials()


def recorded(folder: Path, metrics: xr.Dataset = METRICS, **summary: object) -> Recorded:
    return replace(run_folder.recorded(folder, metrics=metrics), summary=summary)


def table(section: Section) -> pd.DataFrame:
    assert section.table is not None
    return section.table


def interval(values: np.ndarray) -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {half:.3f}"


def returns(arm: str, number: int, evaluation: str = "new") -> np.ndarray:
    last = METRICS[f"return_after_{number}_{evaluation}"].sel(learner=arm).isel(step=-1)
    return last.to_numpy().astype(np.float64)


def test_returns_and_what_is_gained(tmp_path: Path) -> None:
    shown = table(adaptation(recorded(tmp_path))[0])
    assert shown.columns.tolist() == ["after 0", "after 1", "after 2", "after 5", "gained"]
    arms = ["nobody", "told", "learner_0", "learner_1"]
    assert shown.index.tolist() == [(each, arm) for each in ("known", "new") for arm in arms]
    expected = [interval(returns("learner_1", number)) for number in (0, 1, 2, 5)]
    gained = interval(returns("learner_1", 5) - returns("learner_1", 0))
    assert shown.loc[("new", "learner_1")].tolist() == [*expected, gained]


def test_differences_are_paired_and_from_the_first_arm(tmp_path: Path) -> None:
    section = adaptation(recorded(tmp_path))[1]
    assert section.title == "Who does better than nobody?"
    assert "nobody, the first arm of the experiment" in section.explanation
    shown = table(section)
    assert "nobody" not in shown.index.get_level_values(1)
    for number in (0, 1, 2, 5):
        gap = returns("told", number, "known") - returns("nobody", number, "known")
        assert shown.loc[("known", "told"), f"after {number}"] == interval(gap)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    assert adaptation(recorded(tmp_path, METRICS.isel(step=slice(-1)))) == []
    silent = METRICS.where(METRICS["learner"] != "told")
    adapts, better = adaptation(recorded(tmp_path, silent))
    for section in (adapts, better):
        assert ("new", "told") not in table(section).index
        assert ("new", "learner_0") in table(section).index
    told = recorded(tmp_path, METRICS.sel(learner=["told", "learner_0"]), failed={"nobody": "NaN"})
    told = replace(told, spec={"arms": {"nobody": [], "told": [], "learner_0": []}})
    adapts, better = adaptation(told)
    assert better.table is None
    assert "nobody, the first arm of the experiment, failed" in better.explanation
    alone = recorded(tmp_path, METRICS.sel(learner=["told"]))
    assert [section.title for section in adaptation(alone)] == ["Who adapts?"]


def test_a_failed_replicate_and_a_single_one(tmp_path: Path) -> None:
    lost = METRICS.where((METRICS["learner"] != "told") | (METRICS["replicate"] != 2))
    adapts, better = adaptation(recorded(tmp_path, lost))
    assert set(table(adapts).loc[("new", "told")]) == set(table(better).loc[("new", "told")]) == {"-"}
    single = table(adaptation(recorded(tmp_path, METRICS.isel(replicate=[0])))[0])
    assert single.loc[("new", "told"), "after 0"] == f"{returns('told', 0)[0]:.3f}"


def test_evaluations_without_a_name_or_with_other_numbers(tmp_path: Path) -> None:
    plain = table(adaptation(recorded(tmp_path, run_folder.of_trials(evaluations=[""])))[0])
    assert plain.index.tolist() == ["nobody", "told", "learner_0", "learner_1"]
    more = METRICS.rename(return_after_5_new="return_after_10_new")
    shown = table(adaptation(recorded(tmp_path, more))[0])
    assert shown.columns.tolist() == ["after 0", "after 1", "after 2", "after 5", "after 10", "gained"]
    assert shown.loc[("new", "told"), "after 5"] == shown.loc[("known", "told"), "after 10"] == "-"
    text = adaptation(recorded(tmp_path))[0].text()
    assert max(map(len, text.splitlines())) <= 120


def with_forecasts(discrete: bool = False, **coverage: float) -> xr.Dataset:
    """The returns, and forecasts of some arms after 0 and 5 episodes, which last have some coverage of `new`."""
    found = METRICS.copy()
    for evaluation in ("known", "new"):
        for number in (0, 5):
            for metric in forecasts_after(number, discrete):
                values = xr.full_like(found["return_after_0_new"], np.nan)
                for arm, covered in coverage.items():
                    wrong = evaluation == "new" and number == 5
                    values.loc[arm, :, 400] = np.linspace(-0.01, 0.01, 6) + (covered if wrong else 0.9)
                attributes = replace(metric, name=f"{metric.name}_{evaluation}").attributes()
                found[f"{metric.name}_{evaluation}"] = values.assign_attrs(attributes)
    return found


def test_it_says_who_is_confident_and_wrong(tmp_path: Path) -> None:
    sections = {each.title: each for each in adaptation(recorded(tmp_path, with_forecasts(told=0.61, learner_0=0.5)))}
    covered = sections["Are the predictions calibrated?"]
    assert covered.note == (
        "learner_0 is confident and wrong about new opponents: after 5 episodes with them, its 90 % intervals contain "
        "50 % of their actions."
    )
    shown = table(covered)
    assert shown.index.tolist() == [(each, arm) for each in ("known", "new") for arm in ("told", "learner_0")]
    assert shown.columns.tolist() == ["after 0", "after 5"]
    assert shown.loc[("new", "learner_0"), "after 5"].startswith("0.500 [0.49")
    score = sections["Who predicts the opponents best?"]
    assert score.explanation.startswith("Continuous ranked probability score")
    assert table(score).loc[("known", "told"), "after 0"].startswith("0.900 ± 0.0")
    assert "How wide are their beliefs?" in sections


def test_log_scores_have_no_coverage(tmp_path: Path) -> None:
    sections = {each.title: each for each in adaptation(recorded(tmp_path, with_forecasts(True, told=0.1)))}
    assert "Are the predictions calibrated?" not in sections
    assert sections["Who predicts the opponents best?"].explanation.startswith("Log-probability, in nats")


def test_findings_have_it_with_and_without_beliefs(tmp_path: Path) -> None:
    bare = recorded(tmp_path)
    believing = replace(bare, posterior=run_folder.recorded(tmp_path, **run_folder.discrete(2, 3)).posterior)
    for each in (bare, believing):
        for sections in (findings(each), overview(each)):
            assert {"Who adapts?", "Who does better than nobody?"} <= {section.title for section in sections}


@pytest.mark.usefixtures("unrendered")
def test_inspect_and_report_show_it(tmp_path: Path) -> None:
    folder = run_folder.write(tmp_path / "run", metrics=METRICS)
    blocks: list[str] = []
    inspect_run(folder, print=blocks.append)
    text = "\n".join(blocks)
    assert "\nWho adapts?\n" in text
    assert "adaptation.png" in text
    page = report([folder]).read_text()
    heading, picture = page.index("Who adapts?</h2>"), page.index("Chart: Returns by the number of earlier episodes")
    assert heading < picture < page.index("Who does better than nobody?</h2>")
