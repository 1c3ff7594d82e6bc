"""Cross tables: how an entry is printed, by hand, and how tables are written."""

from __future__ import annotations

from typing import Any

import pytest

from inference_marl.analysis.cross_table import CrossTable, entry_text
from inference_marl.analysis.tables import as_csv, as_markdown, fitted

USUAL: dict[str, Any] = {"mean": 1.5, "low": 1.0, "high": 3.0, "step": 40}


@pytest.mark.parametrize(
    ("entry", "metric", "form", "expected"),
    [
        (None, "reward", "half", "-"),
        ({"failed": "why"}, "reward", "half", "failed"),
        (USUAL, "reward", "half", "1.500 ± 1.000"),
        (USUAL, "reward", "half only", "1.000"),
        (USUAL, "reward", "ends", "1.500 [1.000, 3.000]"),
        (USUAL, "reward", "alone", "1.500"),
        (USUAL | {"published": 2.0}, "reward", "half", "1.500 ± 1.000 (2.000)"),
        (USUAL | {"published": 2.0}, "reward", "ends", "1.500 [1.000, 3.000] (2.000)"),
        (USUAL | {"published": 0.0}, "reward", "alone", "1.500 (0.000)"),
        (USUAL | {"published": None}, "reward", "alone", "1.500"),
        (USUAL | {"low": None, "high": None}, "reward", "half", "1.500"),
        (USUAL | {"low": None, "high": None}, "reward", "half only", "-"),
        (USUAL | {"mean": None, "low": None, "high": None}, "reward", "half", "-"),
        (USUAL | {"mean": None, "low": None, "high": None}, "steps_to_98", "ends", "> 40"),
        (USUAL | {"mean": 20.0, "low": 10.0, "high": None}, "steps_to_98", "ends", "20.000 [10.000, > 40]"),
        (USUAL | {"high": None}, "reward", "ends", "1.500"),
    ],
)
def test_an_entry_as_printed(entry: Any, metric: str, form: str, expected: str) -> None:
    assert entry_text(entry, metric, form, 3) == expected


def test_metrics_have_forms_of_their_own() -> None:
    def text(metric: str) -> str:
        return CrossTable(metric, "", "", "arm", "run", ["a"], ["x"], {("a", "x"): USUAL}).text("a", "x")

    assert text("return") == "1.500 ± 1.000"
    assert text("success_rate") == "1.500 [1.000, 3.000]"
    assert text("steps_to_98") == "2 [1, 3]"


def test_rows_and_columns_are_not_mixed_up() -> None:
    entries = {("a", "x"): USUAL, ("b", "y"): {**USUAL, "mean": 2.5, "replicates": 7}, ("b", "z"): {"failed": "why"}}
    table = CrossTable("reward", "Title", "Words.", "arm", "run", ["a", "b"], ["x", "y", "z"], entries)
    assert table.means()[0, 0] == 1.5
    assert table.means()[1, 1] == 2.5
    assert table.section("alone").rows == [["a", "1.500", "-", "-"], ["b", "-", "2.500", "failed"]]
    assert as_csv(table.records()).splitlines() == [
        "arm,run,metric,step,mean,low,high,replicates,published,failed",
        "a,x,reward,40,1.5,1.0,3.0,,,",
        "b,y,reward,40,2.5,1.0,3.0,7,,",
        "b,z,reward,,,,,,,why",
    ]
    assert as_markdown([table.section("alone")]) == (
        "## Title\n\nWords.\n\n| arm | x | y | z |\n| :-- | --: | --: | --: |\n"
        "| a | 1.500 | - | - |\n| b | - | 2.500 | failed |\n"
    )


def test_a_table_that_is_too_wide_is_cut_between_columns() -> None:
    columns = [f"c{i}" for i in range(5)]
    table = CrossTable("reward", "", "", "arm", "run", ["a"], columns, {("a", each): USUAL for each in columns})
    # "arm" and "1.500" take 3 and 5 letters, and two spaces go between columns: one has 10, two have 17.
    for width, sizes in [(16, [1] * 5), (17, [2, 2, 1]), (23, [2, 2, 1]), (24, [3, 2]), (38, [5]), (5, [1] * 5)]:
        parts = fitted(table.section("alone"), width)
        assert [len(part.header) - 1 for part in parts] == sizes
        assert [name for part in parts for name in part.header[1:]] == columns
        assert all(part.header[0] == "arm" and part.rows[0][0] == "a" for part in parts)
