"""What a folder's files held when they were written, so that damage and edits are noticed before anything is read.

The list is in the format of `sha256sum`, so anybody can go through it: `sha256sum --check SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inference_marl.runs.errors import RunError
from inference_marl.runs.files import write_text

LIST = "SHA256SUMS"
"""Name of the list; folders that versions before 0.2.0 wrote have none."""


@contextmanager
def listing(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Put files on the folder's list that are written inside; until all are, none of them is on it.

    Args:
        folder: where they are.
        names: their paths in it. Those that are not there in the end are not listed.
    """
    names = list(names)
    others = {name: digest for name, digest in _read(folder).items() if name not in names}
    if others or (folder / LIST).exists():
        _write(folder, others)
    yield
    written = {name: digest_of(folder / name) for name in names if (folder / name).is_file()}
    _write(folder, others | written)


def altered(folder: Path, names: Iterable[str]) -> list[str]:
    """Which of these files are listed, and not what they were when they were written.

    Raises:
        RunError: if the list itself cannot be read.
    """
    known = _read(folder)
    return [name for name in names if name in known and _digest_or_none(folder / name) != known[name]]


def check(folder: Path, names: Iterable[str] | None = None) -> None:
    """Refuse files that are not what they were when they were written.

    Args:
        folder: where they are.
        names: which of them; `None` for all on the list.

    Raises:
        RunError: naming one that is not, or the list if it cannot be read.
    """
    for name in altered(folder, _read(folder) if names is None else names):
        got = "another content than was written there" if (folder / name).exists() else "no file, where one was written"
        raise RunError(
            f"{folder / name}: got {got} ({LIST} has its checksum), expected it unchanged: put it back, or start a new "
            "run"
        )


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_or_none(path: Path) -> str | None:
    return digest_of(path) if path.is_file() else None


def _write(folder: Path, digests: Mapping[str, str]) -> None:
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    write_text(folder / LIST, f"{_head(lines)}\n{lines}")


def _read(folder: Path) -> dict[str, str]:
    """Digests by name; none where there is no list.

    Raises:
        RunError: if it is none, or not what was written.
    """
    path = folder / LIST
    try:
        head, _, lines = path.read_bytes().decode("ascii", "replace").partition("\n")
    except FileNotFoundError:
        return {}
    found = [line.partition("  ") for line in lines.splitlines()]
    if head != _head(lines):
        raise RunError(
            f"{path}: got a list of checksums that is damaged, expected it as it was written: put it back or, if you "
            "are sure that nothing else is damaged, delete it"
        )
    return {name: digest for digest, _, name in found}


def _head(lines: str) -> str:
    """The first line, a comment to `sha256sum`, by which the list itself is checked."""
    return f"# SHA-256 of the lines below: {hashlib.sha256(lines.encode()).hexdigest()}"
