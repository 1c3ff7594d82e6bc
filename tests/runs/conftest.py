"""One finished run that many tests read."""

import shutil
from pathlib import Path

import pytest

from tests.runs.small_runs import climbing, run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `climbing()`, finished, to be read only."""
    return run(climbing(), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return shutil.copytree(whole, tmp_path / "test")
