"""Runs of which everything is recorded, with discrete and with continuous actions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import run_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "discrete": run_folder.write(folder / "discrete", **run_folder.discrete()),
        "continuous": run_folder.write(folder / "continuous", **run_folder.continuous()),
    }


@pytest.fixture
def discrete(runs: dict[str, Path]) -> Path:
    return runs["discrete"]


@pytest.fixture
def continuous(runs: dict[str, Path]) -> Path:
    return runs["continuous"]
