"""The tutorial runs, and shows what it would show if it were run now.

`make tutorial` runs this file as a script, which executes the notebook in place.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pyro
import pytest
from nbclient import NotebookClient

TUTORIAL = Path(__file__).resolve().parents[1] / "experiments" / "tutorial.ipynb"
MAX_SIZE = 600_000
"""Bytes, so that it opens at once where notebooks are shown on the web."""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SMALLER = {
    "range(600)": "range(5)",
    "replicates=200": "replicates=5",
    "replicates: 200": "replicates: 5",
    "replicates=300": "replicates=5",
    "steps=150": "steps=3",
    "steps: 150": "steps: 3",
    "steps=60": "steps=6",
    "[1, 10, 20, 30, 40, 50, 60, 100, 150]": "[1, 3]",
    "[1, 10, 20, 30, 40, 50, 75, 100, 150]": "[1, 3]",
}
"""What the cells say of sizes, and what they say instead where only whether they run is tested."""
NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?\b")


def execute(notebook: Any) -> Any:
    """The notebook as a fresh kernel of this environment leaves it, without what differs from run to run.

    Raises:
        CellExecutionError: if a cell fails.
    """
    executed = copy.deepcopy(notebook)
    # A local kernel needs no encryption, and says so at the level of warnings.
    quiet = ["--log-level=ERROR"]
    NotebookClient(executed, kernel_name="python3", timeout=300, record_timing=False, extra_arguments=quiet).execute()
    executed.metadata = copy.deepcopy(METADATA)
    return executed


def shown(cells: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    """Cell, kind and text of every output; of a figure that it is one."""
    for cell in cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield cell.id, output.name, output.text
            else:
                kind = "figure" if "image/png" in output.data else output.output_type
                yield cell.id, kind, output.data["text/plain"]


def same(first: str, second: str) -> bool:
    """Whether two texts are the same up to blanks and the last digits of numbers.

    Where processors round differently a draw may fall the other way, rarely, and the seed it belongs to changes: one in
    hundreds, so by far less than this.
    """
    words = [" ".join(NUMBER.sub(" # ", text).split()) for text in (first, second)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (first, second)]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02)


def run_here(cell: Any, names: dict[str, Any]) -> Iterator[str]:
    """Run a cell's code in this process, as far as it is Python, and say which kinds of output it would have."""
    code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
    for size, smaller in SMALLER.items():
        code = code.replace(size, smaller)
    parsed = ast.parse(code)
    last = parsed.body.pop() if parsed.body and isinstance(parsed.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(parsed, cell.id, "exec"), names)
        value = eval(compile(ast.Expression(last.value), cell.id, "eval"), names) if last else None
    if printed.getvalue():
        yield "stdout"
    if value is not None:
        yield "figure" if type(value).__module__.startswith("matplotlib") else "execute_result"


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(TUTORIAL, as_version=4)


@pytest.mark.slow
@pytest.mark.pyro_store
def test_runs_against_the_code_as_it_is(committed: Any) -> None:
    """Every cell, at small sizes and without a kernel: what it shows is of the kind that the notebook holds."""
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert not [size for size in SMALLER if not any(size in cell.source for cell in code)]
    names: dict[str, Any] = {"__name__": "__main__"}
    plt.switch_backend("agg")
    try:
        with warnings.catch_warnings():
            found = {cell.id: list(run_here(cell, names)) for cell in code}
    finally:
        pyro.clear_param_store()
        plt.close("all")
    assert found == {cell.id: [kind for _, kind, _ in shown([cell])] for cell in code}


@pytest.mark.slow
@pytest.mark.long
def test_shows_what_it_would_show_now(committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A user's own kernels and start-up files must not take part, and one thread is what is promised.
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    executed = execute(committed)
    before, now = list(shown(committed.cells)), list(shown(executed.cells))
    assert [each[:2] for each in now] == [each[:2] for each in before]
    stale = {cell: text for (cell, _, text), (*_, old) in zip(now, before, strict=True) if not same(text, old)}
    assert not stale, "run `make tutorial`, and read whether the text still says what the cells show"


def test_reads_well_where_it_is_not_run(committed: Any) -> None:
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.metadata == {} for cell in committed.cells)
    assert committed.metadata == METADATA
    assert TUTORIAL.stat().st_size <= MAX_SIZE
    outputs = list(shown(committed.cells))
    assert {kind for _, kind, _ in outputs} == {"stdout", "execute_result", "figure"}
    assert not [text for _, _, text in outputs if re.search(r"(?:^|\s)/\w|[A-Z]:\\|0x[0-9a-f]{6}|[Ww]arning", text)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("reward 10.92 [10.84, 11.00]", "reward  10.93 [10.84, 11.00]", True),
        ("reward 10.92 [10.84, 11.00]", "reward  9.92 [10.84, 11.00]", False),
        ("P(optimum) 0.98", "P(optimum) -0.98", False),
        ("P(optimum) 0.98", "P(optimum) 0.98 0.98", False),
        ("got an unknown key", "got a wrong key", False),
    ],
)
def test_a_stale_text_is_noticed(first: str, second: str, expected: bool) -> None:
    assert same(first, second) is expected


if __name__ == "__main__":
    nbformat.write(execute(nbformat.read(TUTORIAL, as_version=4)), TUTORIAL)
