"""How an estimate is printed, by hand, and how tables are written."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from inference_marl.analysis.tables import Section, as_text, cell, ends, failures, number
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.metrics import REWARD, SUCCESS_RATE
from inference_marl.statistics.quantities import OF_BELIEFS
from inference_marl.statistics.summary import OPPONENT_MODEL_LEAD, STEPS_TO_98
from inference_marl.types import Metric

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("metric", "interval", "expected"),
    [
        (REWARD, (1.5, 1.0, 2.0), "1.500 ± 0.500"),
        (REWARD, (1.5, 1.0, NAN), "1.500"),
        (REWARD, (1.5, NAN, NAN), "1.500"),
        (REWARD, (NAN, NAN, NAN), "-"),
        (REWARD, (-1e-9, NAN, NAN), "0.000"),
        (REWARD, (1234.5678, 1000.0, 1469.1356), "1234.6 ± 234.6"),
        # Ends of what is bounded, or is no mean: they need not be as far from the estimate.
        (SUCCESS_RATE, (0.5, 0.25, 1.0), "0.500 [0.250, 1.000]"),
        (Metric("it", estimate="median"), (0.5, 0.25, 1.0), "0.500 [0.250, 1.000]"),
        (Metric("it", estimate="iqm"), (0.5, 0.25, 1.0), "0.500 [0.250, 1.000]"),
        # Of steps one decimal; what was not reached comes after the last one.
        (STEPS_TO_98, (20.0, 10.0, 30.0), "20.0 [10.0, 30.0]"),
        (STEPS_TO_98, (20.0, 10.0, INF), "20.0 [10.0, > 40]"),
        (STEPS_TO_98, (INF, NAN, NAN), "> 40"),
        (OF_BELIEFS["settled"], (INF, 10.0, INF), "> 40 [10.0, > 40]"),
        (OPPONENT_MODEL_LEAD, (1.817, 0.459, 3.174), "1.8 ± 1.4"),
        (OF_BELIEFS["excluded"], (7.0, NAN, NAN), "7"),
    ],
)
def test_an_estimate_as_printed(metric: Metric, interval: tuple[float, float, float], expected: str) -> None:
    assert cell(metric, Interval(*interval), last=40) == expected


def test_infinity_is_said_where_no_last_step_is_known() -> None:
    assert number(INF) == "inf"
    assert ends(Interval(1.0, 0.5, INF)) == "[0.500, inf]"


TABLE = pd.DataFrame({"x_1": ["1.500", "-"], "y & z": ["2.500", None]}, pd.Index(["a", "b_%"], name="arm"))


def test_a_section_as_text() -> None:
    long = "One word after another. " * 10
    section = Section("Title", long, TABLE, note=long)
    title, *lines = section.text().splitlines()
    assert title == "Title"
    assert max(map(len, lines)) <= 98
    assert " ".join(section.text().split()).count(long.strip()) == 2
    table = [line.split() for line in lines if line.startswith(("arm", "a ", "b_%")) or "y & z" in line]
    assert table == [["x_1", "y", "&", "z"], ["arm"], ["a", "1.500", "2.500"], ["b_%", "-"]]
    assert not any(line != line.rstrip() for line in lines)
    assert as_text([Section("One"), Section("", "Two")]) == "One\n\nTwo"


def test_a_table_that_is_too_wide_is_printed_in_parts() -> None:
    columns = [f"a_column_with_a_long_name_{i}" for i in range(9)]
    table = pd.DataFrame([[str(i) * 3 for i in range(9)]] * 2, ["first", "second"], columns)
    lines = Section("", "", table).text().splitlines()
    assert max(map(len, lines)) <= 120
    assert not any("\\" in line for line in lines)
    for column, name in enumerate(columns):
        (header,) = (i for i, line in enumerate(lines) if name in line)
        place = lines[header].index(name) + len(name)
        for row, name_of_row in enumerate(["first", "second"], 1):
            line = lines[header + row]
            assert line.startswith(name_of_row), "every part has the names of the rows"
            assert line[:place].endswith(str(column) * 3), "numbers stand below their headers"


def test_a_section_as_markdown() -> None:
    section = Section("Title", "Words.", TABLE, "A note.")
    lines = [line.replace(" ", "") for line in section.markdown().splitlines() if line and "--" not in line]
    assert lines == ["##Title", "Words.", "|arm|x_1|y&z|", "|a|1.500|2.500|", "|b_%|-||", "Anote."]


def test_several_names_of_a_row_are_columns_of_the_files() -> None:
    index = pd.MultiIndex.from_tuples([("5", "full"), ("5", "uniform")], names=["temperature", "variant"])
    text = Section("", "", TABLE.set_axis(index)).markdown()
    cells = [[each.strip() for each in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [cells[0][:2], cells[3][:2]] == [["temperature", "variant"], ["5", "uniform"]]


def test_a_section_as_latex() -> None:
    text = Section("my_run: 95 % of A & B", "Words.", TABLE).latex()
    assert r"\caption{my\_run: 95 \% of A \& B}" in text
    assert r"x\_1" in text
    assert r"b\_\% & - &  \\" in text
    for part in (r"\begin{tabular}", r"\toprule", r"\bottomrule", r"\end{table}"):
        assert part in text
    assert r"\caption" not in Section("", "", TABLE).latex()


def test_what_is_no_table_is_a_comment_of_latex() -> None:
    (section,) = failures({"a": "why", "b": "100 %"})
    assert section.text() == "failed  a: why\nfailed  b: 100 %"
    assert section.latex() == "% failed  a: why\n% failed  b: 100 %"
    assert failures({}) == []
