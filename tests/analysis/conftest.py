"""Figures that are made but not rendered, where a test looks at everything but pixels."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from inference_marl.analysis.plots import writing


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of figures hold the head of a PNG only; the figures themselves are drawn as ever."""

    def save(figure: Figure, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8) + (900).to_bytes(4, "big") + path.stem.encode())
        return path

    monkeypatch.setattr(writing, "_save", save)
