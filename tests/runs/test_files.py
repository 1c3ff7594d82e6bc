"""Files that are never half written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inference_marl.runs.files import write_atomically


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"

    def half(content: str) -> Callable[[Path], None]:
        def write(to: Path) -> None:
            to.write_text(content)
            raise OSError("no space left on device")

        return write

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, half("ha"))
    assert list(path.parent.iterdir()) == []
    write_atomically(path, lambda to: to.write_text("whole"))
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, half("ha"))
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_never_seen_half_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def watched(to: Path) -> None:
        for content in ("n", "ne", "new"):
            to.write_text(content)
            assert path.read_text() == "old"

    with path.open() as held:
        write_atomically(path, watched)
        assert held.read() == "old"  # whoever reads at that moment reads on in the old file
    assert path.read_text() == "new"
