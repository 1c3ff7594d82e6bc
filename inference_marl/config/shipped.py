"""The experiment files that are shipped with the package, by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from inference_marl.config.build import SpecError

FOLDER = Path(__file__).resolve().parents[1] / "experiments"


def names() -> list[str]:
    """Names of the shipped experiments: their files without the suffix."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a shipped experiment.

    Raises:
        SpecError: if there is none of that name; the message suggests similar names.
    """
    if name not in names():
        raise SpecError(f"{name}: got an unknown experiment, expected {_expected(_nearest(name, names()))}")
    return FOLDER / f"{name}.yaml"


def located(spec: str | Path) -> Path:
    """The path of an experiment file, given its path or the name of a shipped experiment.

    A name has no suffix and no folder. A file of that name takes precedence.

    Raises:
        SpecError: if a name is neither a file nor a shipped experiment; the message suggests similar names, including
            files in the working directory.
    """
    path = Path(spec)
    if path.is_file() or path.suffix or len(path.parts) != 1:
        return path
    if path.name not in names():
        expected = _expected(meant_by(path.name))
        raise SpecError(f"{spec}: got no such file, expected an experiment file or {expected}")
    return path_of(path.name)


def meant_by(spec: str) -> list[str]:
    """Names similar to `spec`, of files in the working directory and shipped experiments, the most similar first."""
    here = {path.stem: str(path) for path in sorted(Path().glob("*.y*ml")) if path.suffix in (".yaml", ".yml")}
    return [here.get(name, name) for name in _nearest(spec, [*names(), *here])]


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    parts = [each for each in known if len(name) > 2 and name.lower() in each]
    return list(dict.fromkeys([*difflib.get_close_matches(name, known, n=3), *parts]))[:3]


def _expected(near: Sequence[str]) -> str:
    """The expected value, for an error message: a shipped experiment, with suggestions if there are any."""
    if near:
        return f"the name of a shipped one (did you mean {' or '.join(near)}?)"
    return f"the name of a shipped one: {', '.join(names())}"


def is_shipped(path: Path) -> bool:
    """Whether a file is that of a shipped experiment."""
    return path.parent == FOLDER


def summary(name: str) -> str:
    """A one-line summary of an experiment: the first sentence of its file's leading comment, up to a colon."""
    return re.split(r":\s|\.(?:\s+(?=[A-Z])|$)", _comment(name), maxsplit=1)[0]


def command(name: str) -> str:
    """The command that a file is meant for, from its leading comment: `run` unless it names another."""
    found = re.search(r"inference-marl (run|ablate|tournament)\b", _comment(name))
    return found[1] if found else "run"


def _comment(name: str) -> str:
    """The leading comment of a shipped experiment's file, in one line."""
    lines = path_of(name).read_text(encoding="utf-8").splitlines()
    until = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.removeprefix("#").strip() for line in lines[:until])
