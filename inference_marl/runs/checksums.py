"""Checksums of a folder's files, so that damage and edits are noticed before a file is used.

The list has the format of `sha256sum` and can be checked by `sha256sum --check SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inference_marl.runs.errors import RunError
from inference_marl.runs.files import write_text

LIST = "SHA256SUMS"
"""Name of the list; folders written by versions before 0.2.0 have none."""


@contextmanager
def listing(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """List the checksums of files that are written inside the context; none is listed until all are written.

    Args:
        folder: the folder of the files.
        names: their paths in the folder. Files that do not exist on exit are not listed.
    """
    names = list(names)
    others = {name: digest for name, digest in _read(folder).items() if name not in names}
    if others or (folder / LIST).exists():
        _write(folder, others)
    yield
    written = {name: digest_of(folder / name) for name in names if (folder / name).is_file()}
    _write(folder, others | written)


def altered(folder: Path, names: Iterable[str]) -> list[str]:
    """The names of those files that are listed but have changed since they were written.

    Raises:
        RunError: if the list itself cannot be read.
    """
    known = _read(folder)
    return [name for name in names if name in known and _digest_or_none(folder / name) != known[name]]


def check(folder: Path, names: Iterable[str] | None = None) -> None:
    """Check that files have not changed since they were written.

    Args:
        folder: the folder of the files.
        names: the files to check; all that are listed if `None`.

    Raises:
        RunError: if a file has changed, or the list cannot be read; the message names it.
    """
    for name in altered(folder, _read(folder) if names is None else names):
        got = "another content than was written there" if (folder / name).exists() else "no file, where one was written"
        raise RunError(
            f"{folder / name}: got {got} ({LIST} has its checksum), expected it unchanged: put it back, or start a new "
            "run"
        )


def digest_of(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_or_none(path: Path) -> str | None:
    return digest_of(path) if path.is_file() else None


def _write(folder: Path, digests: Mapping[str, str]) -> None:
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    write_text(folder / LIST, f"{_head(lines)}\n{lines}")


def _read(folder: Path) -> dict[str, str]:
    """Digests by name; empty without a list.

    Raises:
        RunError: if the list is malformed or damaged.
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
    """The first line of the list, a comment to `sha256sum`, with a checksum of the list itself."""
    return f"# SHA-256 of the lines below: {hashlib.sha256(lines.encode()).hexdigest()}"
