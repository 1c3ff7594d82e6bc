"""The folder of a run: creates it, and finds it again."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from inference_marl.config.files import dump
from inference_marl.config.moved import up_to_date
from inference_marl.described import first_line, parts
from inference_marl.experiment import Experiment
from inference_marl.runs import checksums, sources
from inference_marl.runs.errors import RunError
from inference_marl.runs.files import write_bytes, write_text
from inference_marl.types import ForeignGame

SPEC = "spec.yaml"
"""Name of the file with a run's resolved experiment."""

ADDED = {"record_actions": True, "collect": 1, "updates": 1}
"""Keys that files of older versions lack, with their values for those; other missing keys mean null."""


def begin(experiment: Experiment, out: str | Path, name: str) -> Path:
    """Create the folder of a new run, with its `spec.yaml`; a number is added to `name` if the folder exists.

    Raises:
        RunError: if the folder cannot be created.
    """
    described = dump(experiment)
    for _, part in parts([experiment.game, *experiment.arms.values()]):
        if _is_of_a_script(type(part)):
            warnings.warn(
                f"{type(part).__name__} is defined in the program that was started: spec.yaml can only call it "
                "__main__, so nobody can build it again to resume the run; define it in a module and import that",
                stacklevel=2,
            )
    if isinstance(game := experiment.game, ForeignGame) and not game.resumable:
        warnings.warn(
            f"game: got {type(game).__name__} with environments whose seed does not say all that happens in them: if "
            "this run is stopped and resumed, new episodes begin, and numbers may differ from those of an unbroken run",
            stacklevel=2,
        )
    kept = sources.contents(experiment)
    folder = _new_folder(Path(out), name)
    with checksums.listing(folder, [SPEC, *kept]):
        write_text(folder / SPEC, described)
        for place, content in kept.items():
            write_bytes(folder / place, content)
    return folder


def revise(folder: Path, experiment: Experiment) -> None:
    """Rewrite a run's `spec.yaml` with a revised experiment."""
    with checksums.listing(folder, [SPEC]):
        write_text(folder / SPEC, dump(experiment))


def _is_of_a_script(cls: type) -> bool:
    """Whether a class is defined in the script being run, not in a notebook, whose runs no one expects to resume."""
    program = sys.modules["__main__"]
    named = cls.__module__ == "__main__" and getattr(program, cls.__qualname__, None) is cls
    return named and hasattr(program, "__file__")


def begun(experiment: Experiment, out: str | Path, name: str) -> Path | None:
    """The newest folder of that name, with or without a number, in which this very experiment was begun, if any.

    The content of each `spec.yaml` is compared, regardless of how it is written, since older versions used other names
    of classes, and except for device and threads. Files edited by hand do not match.
    """
    described = _content(dump(experiment))
    for folder in reversed(_folders(Path(out), name)):
        try:
            same = _content((folder / SPEC).read_text(encoding="utf-8")) == described
            if same and not checksums.altered(folder, [SPEC]) and sources.are_those(experiment, folder):
                return folder
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RunError):
            continue
    return None


def _content(text: str) -> Any:
    """The content of a `spec.yaml`, with present names of classes, and arms as a list, since their order matters."""
    content = _without_nulls(up_to_date(yaml.safe_load(text)))
    if isinstance(content, dict):
        content = {key: value for key, value in (ADDED | content).items() if key not in ("device", "threads")}
    if isinstance(content, dict) and isinstance(content.get("arms"), dict):
        content["arms"] = list(content["arms"].items())
    return content


def _without_nulls(value: Any) -> Any:
    """Plain data without null arguments, which older versions of their classes may have lacked."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _folders(out: Path, name: str) -> list[Path]:
    """The folders of all runs of a name, oldest first."""
    numbered = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    found = [(int(match.group(1) or 1), path) for path in out.glob("*") if (match := numbered.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _new_folder(out: Path, name: str) -> Path:
    for number in range(1, 1_000_000):
        folder = out / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{out}: got no folder to write to ({error.strerror}), expected one for runs") from error
        return folder
    raise RunError(f"{out}: got too many runs called {name}, expected room for one more")


def is_finished(folder: Path, steps: int) -> bool:
    """Whether a run's folder has the results of all arms after `steps` steps.

    Raises:
        RunError: if its summary cannot be read, or has changed since it was written.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        return False
    checksums.check(folder, [summary.name])
    try:
        content = json.loads(summary.read_text())
        return not content["failed"] and content.get("steps", steps) == steps
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{summary}: got a file that cannot be read ({first_line(error)}), expected the summary of a run: put it "
            "back, or start a new run"
        ) from error


def failed_replicates_of(folder: Path) -> list[str]:
    """Messages about a run's failed replicates, one for each arm that has any."""
    summary = json.loads((folder / "summary.json").read_text()) if (folder / "summary.json").is_file() else {}
    lost: dict[str, dict[str, str]] = summary.get("failed_replicates", {})
    return [f"{folder}: {of_replicates(arm, why, summary['replicates'])}" for arm, why in lost.items()]


def of_replicates(arm: str, why: Mapping[str, str], count: int) -> str:
    """The message about an arm's failed replicates, out of `count`."""
    first, reason = next(iter(why.items()))
    return f"{len(why)} of {count} replicates of {arm} failed, the first: replicate {first}, {reason}"
