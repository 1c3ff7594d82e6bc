"""Copies of the source files of users' own classes, from which a run can be rebuilt, and which resuming checks."""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from inference_marl.described import parts
from inference_marl.experiment import Experiment
from inference_marl.runs.checksums import digest_of
from inference_marl.runs.errors import RunError
from inference_marl.types import ForeignGame

PACKAGE = __name__.partition(".")[0]

FOLDER = "sources"
"""The subfolder of a run that has the copies, named after their modules."""

OF_PYTHON = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
"""Folders of Python's standard library and installed packages."""


def own_sources(experiment: Experiment) -> dict[str, Path]:
    """The files that define an experiment's classes, and the modules that these import, unless they are installed.

    Args:
        experiment: the experiment. Its parts and their base classes are followed, with imports anywhere in their files,
            including in functions, but not by computed names.

    Returns:
        Files by the path of their copy in a run, such as `my_priors.py`.
    """
    described = [experiment.game, *experiment.arms.values(), experiment.evaluation, experiment.tasks]
    todo = {cls.__module__ for _, part in parts(described) for cls in type(part).__mro__}
    todo |= {module for _, part in parts(described) if isinstance(part, ForeignGame) for module in part.modules}
    found: dict[str, Path] = {}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen or name.partition(".")[0] == PACKAGE:
            continue
        seen.add(name)
        if (path := _own_file(name)) is not None:
            place, is_package = name.replace(".", "/"), path.name == "__init__.py"
            found[f"{place}/__init__.py" if is_package else f"{place}.py"] = path
            todo |= set(_imported(name if is_package else name.rpartition(".")[0], path))
    return found


def contents(experiment: Experiment) -> dict[str, bytes]:
    """The contents of `own_sources`, by the path of their copy in a run's folder."""
    return {f"{FOLDER}/{name}": path.read_bytes() for name, path in sorted(own_sources(experiment).items())}


def listed(folder: Path) -> list[str]:
    """The paths of a run's copies, relative to its folder."""
    return [str(path.relative_to(folder)) for path in sorted((folder / FOLDER).rglob("*.py"))]


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 digest of every copy in a run's folder."""
    kept = folder / FOLDER
    return {str(path.relative_to(kept)): digest_of(path) for path in sorted(kept.rglob("*.py"))}


def check(experiment: Experiment, folder: Path) -> None:
    """Check that the experiment's classes are those with which the run was begun.

    Raises:
        RunError: if a file has changed; the message names it.
    """
    kept = folder / FOLDER
    for name, changed in _differing(experiment, folder).items():
        raise RunError(
            f"{changed}: got another content than when the run in {folder} was begun, expected that of "
            f"{kept / name}: put it back, or start a new run"
        )


def are_those(experiment: Experiment, folder: Path) -> bool:
    """Whether a run was begun with the experiment's current classes."""
    return not _differing(experiment, folder)


def _differing(experiment: Experiment, folder: Path) -> Mapping[str, Path]:
    """Files that differ from the run's copies; empty for runs without copies, as before version 0.2.0."""
    kept = folder / FOLDER
    if not kept.is_dir():
        return {}
    return {
        name: path
        for name, path in own_sources(experiment).items()
        if not (kept / name).is_file() or digest_of(kept / name) != digest_of(path)
    }


def _own_file(name: str) -> Path | None:
    """The file of a module; `None` if it is installed or has no file, as in a notebook."""
    path = _file_of(name)
    if path is None or not path.is_file() or path.suffix != ".py":
        return None
    up = name.count(".") + (path.name == "__init__.py")
    folder = path.parents[min(up, len(path.parents) - 1)]  # a module's name need not match its path
    return None if _is_installed(folder) else path


def _file_of(name: str) -> Path | None:
    """The file of a module, found without importing it."""
    above, _, last = name.rpartition(".")
    if (module := sys.modules.get(name)) is not None:
        found = getattr(module, "__file__", None)
    elif not above:
        try:
            spec = importlib.util.find_spec(name) if name else None
        except (ImportError, ValueError):
            return None
        found = spec.origin if spec is not None and spec.has_location else None
    elif (package := _file_of(above)) is not None and package.name == "__init__.py":
        places = (package.with_name(f"{last}.py"), package.parent / last / "__init__.py")
        found = next((str(place) for place in places if place.is_file()), None)
    else:
        found = None
    return None if found is None else Path(found).resolve()


@cache
def _is_installed(folder: Path) -> bool:
    """Whether a folder of modules belongs to Python or to installed packages, rather than to the user.

    Packages are installed in the environment's folders, in those of other environments that this one includes, and in
    any target of `pip install --target`.
    """
    if any(folder.is_relative_to(known) for known in OF_PYTHON) or {"site-packages", "dist-packages"} & {*folder.parts}:
        return True
    return any(folder.glob("*.dist-info"))


def _imported(package: str, path: Path) -> Iterator[str]:
    """Names that a file of a package imports, which may be modules or not."""
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
