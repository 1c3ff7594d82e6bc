"""Source files of users' own classes: a run keeps them, to be built again by, and is not gone on with by others."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from inference_marl.described import parts
from inference_marl.experiment import Experiment
from inference_marl.runs.checksums import digest_of
from inference_marl.runs.errors import RunError

PACKAGE = __name__.partition(".")[0]

FOLDER = "sources"
"""Where a run keeps them, each as its module is called."""

PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
"""Folders of Python's own modules."""


def own_sources(experiment: Experiment) -> dict[str, Path]:
    """The files that define an experiment's classes, and what these files import, unless it is installed.

    Args:
        experiment: its parts and their base classes are looked at, and not what they might import by a computed name.

    Returns:
        Files by the path under which a run keeps them, such as `my_priors.py`.
    """
    described = [experiment.game, *experiment.arms.values(), experiment.evaluation, experiment.tasks]
    todo = {cls.__module__ for _, part in parts(described) for cls in type(part).__mro__}
    found: dict[str, Path] = {}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or name.partition(".")[0] == PACKAGE:
            continue
        seen.add(name)
        if (path := _own_file(module)) is not None:
            place = name.replace(".", "/")
            found[f"{place}/__init__.py" if hasattr(module, "__path__") else f"{place}.py"] = path
            todo |= set(_imported(module, path))
    return found


def contents(experiment: Experiment) -> dict[str, bytes]:
    """What `own_sources` are, by the path under which a run keeps them in its folder."""
    return {f"{FOLDER}/{name}": path.read_bytes() for name, path in sorted(own_sources(experiment).items())}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a run keeps."""
    kept = folder / FOLDER
    return {str(path.relative_to(kept)): digest_of(path) for path in sorted(kept.rglob("*.py"))}


def check(experiment: Experiment, folder: Path) -> None:
    """Refuse to go on with classes that are not those with which the run was begun.

    Raises:
        RunError: naming a file that has changed.
    """
    kept = folder / FOLDER
    for name, changed in _differing(experiment, folder).items():
        raise RunError(
            f"{changed}: got another content than when the run in {folder} was begun, expected that of "
            f"{kept / name}: put it back, or start a new run"
        )


def are_those(experiment: Experiment, folder: Path) -> bool:
    """Whether a run was begun with these very classes."""
    return not _differing(experiment, folder)


def _differing(experiment: Experiment, folder: Path) -> Mapping[str, Path]:
    """Files that a run keeps in another form; none where it keeps none, as before version 0.2.0."""
    kept = folder / FOLDER
    if not kept.is_dir():
        return {}
    return {
        name: path
        for name, path in own_sources(experiment).items()
        if (kept / name).is_file() and digest_of(kept / name) != digest_of(path)
    }


def _own_file(module: ModuleType) -> Path | None:
    """The file of a module, unless it is installed or has none, as in a notebook."""
    found = getattr(module, "__file__", None)
    if found is None or not (path := Path(found).resolve()).is_file() or path.suffix != ".py":
        return None
    depth = module.__name__.count(".") + hasattr(module, "__path__")
    installed = any(path.is_relative_to(folder) for folder in PYTHON) or _has_installed(path.parents[depth])
    return None if installed else path


@cache
def _has_installed(folder: Path) -> bool:
    """Whether packages are installed in a folder, as in `site-packages`, wherever it is."""
    return any(folder.glob("*.dist-info"))


def _imported(module: ModuleType, path: Path) -> Iterator[str]:
    """Names of modules that a module's file may import; those that are no modules are nobody's."""
    package = getattr(module, "__package__", None) or ""
    yield from (package.rsplit(".", up)[0] for up in range(package.count(".") + 1))
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    words = name.split(".")
    yield from (".".join(words[:end]) for end in range(1, len(words) + 1))
