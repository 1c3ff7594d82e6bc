"""The folder of a run: how it is begun and found again."""

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
"""Name of the file that says what a run is: the resolved experiment."""

ADDED = {"record_actions": True, "collect": 1, "updates": 1}
"""Keys that files of older versions lack, with what they then mean; others that they lack mean null."""


def begin(experiment: Experiment, out: str | Path, name: str) -> Path:
    """A new run's folder, with `spec.yaml` in it and nothing played yet; a number is added to `name` if it exists.

    Raises:
        RunError: if there is no folder to write to.
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
    """Let a run's `spec.yaml` say what it is from now on."""
    with checksums.listing(folder, [SPEC]):
        write_text(folder / SPEC, dump(experiment))


def _is_of_a_script(cls: type) -> bool:
    """Whether a class is defined in the file that was started; what notebooks define nobody expects to resume."""
    program = sys.modules["__main__"]
    named = cls.__module__ == "__main__" and getattr(program, cls.__qualname__, None) is cls
    return named and hasattr(program, "__file__")


def begun(experiment: Experiment, out: str | Path, name: str) -> Path | None:
    """The newest folder of that name, with or without a number, in which this very experiment was begun, if any.

    What the folders' `spec.yaml` mean is compared, not how they are written: older versions named classes otherwise.
    Neither is where it is played: on which device, and with how many threads. One that was edited by hand is nobody's.
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
    """What a `spec.yaml` means: classes by their present names, and arms in their order, as tables have them."""
    content = _without_nulls(up_to_date(yaml.safe_load(text)))
    if isinstance(content, dict):
        content = {key: value for key, value in (ADDED | content).items() if key not in ("device", "threads")}
    if isinstance(content, dict) and isinstance(content.get("arms"), dict):
        content["arms"] = list(content["arms"].items())
    return content


def _without_nulls(value: Any) -> Any:
    """Plain data without the arguments that are null, which older versions of their classes may not have had."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _folders(out: Path, name: str) -> list[Path]:
    """The folders that runs of one name have, oldest first."""
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
    """Whether a run's folder has the results of every arm, after so many steps.

    Raises:
        RunError: if its summary cannot be read, or is not what was written.
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
    """What to say of a run's replicates that have failed, a line for each arm that has some."""
    summary = json.loads((folder / "summary.json").read_text()) if (folder / "summary.json").is_file() else {}
    lost: dict[str, dict[str, str]] = summary.get("failed_replicates", {})
    return [f"{folder}: {of_replicates(arm, why, summary['replicates'])}" for arm, why in lost.items()]


def of_replicates(arm: str, why: Mapping[str, str], count: int) -> str:
    """What to say of an arm's replicates that have failed, of so many."""
    first, reason = next(iter(why.items()))
    return f"{len(why)} of {count} replicates of {arm} failed, the first: replicate {first}, {reason}"
