"""A working directory with experiment files, and a finished run in it."""

import base64
import contextlib
import io
import shutil
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from inference_marl.cli import main
from tests.cli.files import SPEC, SUITE

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path / "small.yaml"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run of `SPEC`, to be read only, and what the command printed."""
    home, output = tmp_path_factory.mktemp("finished"), io.StringIO()
    (home / "small.yaml").write_text(SPEC)
    with contextlib.chdir(home), contextlib.redirect_stdout(output):
        assert main(["run", "small.yaml", "--quiet"]) == 0
    return home / "runs" / "small", output.getvalue()


@pytest.fixture
def recorded(file: Path, finished: tuple[Path, str]) -> Path:
    """A copy of it under the working directory, which may be changed."""
    return shutil.copytree(finished[0], file.parent / "runs" / "small")


@pytest.fixture
def drawn() -> None:
    """See `blank_figures`."""


@pytest.fixture(autouse=True)
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not drawn, which takes most of the time, except where a test asks for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.write_bytes(PIXEL))


@pytest.fixture
def several(file: Path) -> Path:
    """The file of a suite, in the working directory."""
    (file.parent / "several.yaml").write_text(SPEC + SUITE)
    return file.parent / "several.yaml"
