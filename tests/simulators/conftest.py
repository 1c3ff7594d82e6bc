"""Processes that play environments find them as any program does: on the path."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:
        monkeypatch.syspath_prepend(root)
