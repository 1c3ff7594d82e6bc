"""Jobs: the units of a run that can be played independently, on any machine that sees the run's folder.

A job continues from its checkpoint if it has one, so playing it again after an interruption gives the same result. Its
log says how far it is and, in the end, what it has recorded or why it failed.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from inference_marl.config.together import together
from inference_marl.experiment import Experiment
from inference_marl.runs import checkpoint, sources
from inference_marl.runs.errors import RunError
from inference_marl.runs.files import write_text
from inference_marl.runs.lease import Lease
from inference_marl.runs.versions import PACKAGES, versions
from inference_marl.types import ForeignGame

ASIDE = {"arms", "checkpoint_every", "device", "levels", "published", "source", "steps", "success_window", "threads"}
"""Keys of an experiment on which the play of an arm up to a checkpoint does not depend."""


@dataclass(frozen=True)
class Job:
    """One arm of a run, or several that are played as one.

    Attributes:
        experiment: the experiment with the arm.
        arm: name of the arm in it.
        folder: folder of the run.
        stands_for: names of the run's arms that it plays, each with an equal share of the replicates, in order.
        lease: the lease held on the folder; `None` if no other process can play the run.
        other_versions: whether it may be resumed under other versions of the packages on which its numbers depend.
    """

    experiment: Experiment
    arm: str
    folder: Path
    stands_for: tuple[str, ...]
    lease: Lease | None = None
    other_versions: bool = False

    @classmethod
    def of(
        cls, experiment: Experiment, arm: str, folder: Path, lease: Lease | None = None, other_versions: bool = False
    ) -> Job:
        """The job of a single arm."""
        return cls(experiment, arm, folder, (arm,), lease, other_versions)

    @property
    def name(self) -> str:
        """Name of its files: that of its arm, or of the first one and the number of others."""
        first, *others = self.stands_for
        return f"{first}+{len(others)}" if others else first

    @property
    def checkpoint(self) -> Path:
        """Path of its checkpoint."""
        return checkpoint.checkpoint_of(self.folder, self.name)

    @property
    def records(self) -> Path:
        """Folder of its records, until the run's results are written."""
        return self.folder / "records" / self.name

    @property
    def log(self) -> Path:
        """Path of its log, which says how far it is and how it ended."""
        return self.folder / "records" / f"{self.name}.json"

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that its results depend on except versions, as plain data."""
        described = self.experiment.describe()["init_args"]
        content = {key: value for key, value in described.items() if key not in ASIDE}
        if isinstance(game := self.experiment.game, ForeignGame):
            given = {key: value for key, value in described["game"]["init_args"].items() if key not in game.aside}
            content["game"] = described["game"] | {"init_args": given}
        content[f"arms.{self.arm}"] = described["arms"][self.arm]
        content["sources"] = sources.digests(self.folder)
        return {key: _normal(value) for key, value in content.items()}

    @cached_property
    def identity(self) -> str:
        """A hash of its content; jobs with other results have another."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()

    def saved(self) -> dict[str, Any] | None:
        """Its checkpoint; `None` if there is none.

        Raises:
            RunError: if what is in its place is none, or that of another job, with the keys that differ.
        """
        if not self.checkpoint.exists():
            return None
        saved = checkpoint.read(self.checkpoint)
        if saved.get("job") != self.identity:
            raise RunError(
                f"{self.checkpoint}: got a checkpoint of another experiment ({_differences(self.content, saved)}), "
                "expected one of this: leave that as it was, or start a new run"
            )
        if saved["step"] > self.experiment.steps:
            raise RunError(
                f"steps: got {self.experiment.steps}, expected at least {saved['step']}, which were played before "
                f"({self.checkpoint})"
            )
        return saved

    def check_resumable(self) -> None:
        """Raise the `RunError` that `execute` would raise, if any."""
        saved = self.saved()
        sources.check(self.experiment, self.folder)
        self.versions(saved)
        resolved(self.experiment.device, None if saved is None else saved["device"])

    def versions(self, saved: Mapping[str, Any] | None) -> list[dict[str, str]]:
        """The versions with which it was played so far and will be played on, one after another.

        Raises:
            RunError: if the installed ones differ from the last, unless the job accepts that.
        """
        now = {name: each for name, each in versions().items() if name in PACKAGES}
        before: list[dict[str, str]] = [] if saved is None else saved["versions"]
        if not before or before[-1] == now:
            return before or [now]
        if self.other_versions:
            return [*before, now]
        last = before[-1]
        differ = [f"{name} {each} instead of {last.get(name)}" for name, each in now.items() if each != last.get(name)]
        raise RunError(
            f"{self.checkpoint}: got {' and '.join(differ)}, expected the versions with which it was played before, "
            "without which numbers may differ: install those, start a new run, or go on nevertheless, as the results "
            f"will say: inference-marl resume {self.folder} --other-versions"
        )

    @property
    def is_to_be_restored(self) -> bool:
        """Whether its records are only in the results of the run, which was finished before."""
        return not self.records.exists() and (self.folder / "metrics.nc").exists()

    def check(self) -> None:
        """Raise `RunError` if another process has taken over the folder."""
        if self.lease is not None:
            self.lease.check()

    def has_ended(self) -> bool:
        """Whether it was played to its end."""
        return "index" in self.said()

    def said(self) -> dict[str, Any]:
        """The content of its log, see `execute`; empty if it is missing, damaged, or of another job."""
        try:
            content: dict[str, Any] = json.loads(self.log.read_text())
            said: dict[str, Any] = content["said"]
            whole = content["checksum"] == _checksum(said)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        return said if whole and (said["job"], said["steps"]) == (self.identity, self.experiment.steps) else {}

    def say(self, said: Mapping[str, Any]) -> None:
        """Write its log."""
        said = {"job": self.identity, "steps": self.experiment.steps, **said}
        write_text(self.log, json.dumps({"said": said, "checksum": _checksum(said)}))


def jobs_of(
    experiment: Experiment, folder: Path, lease: Lease | None = None, other_versions: bool = False
) -> list[Job]:
    """The jobs of a run; arms that differ in numbers only may share one."""
    return [
        Job(group.experiment, group.arms[0], folder, group.arms, lease, other_versions)
        for group in together(experiment)
    ]


def resolved(device: str, before: str | None = None) -> torch.device:
    """Resolve `auto`, `cpu` or `cuda` on this machine.

    Args:
        device: what an experiment says.
        before: the device of the checkpoint that is resumed, which `auto` then means.

    Raises:
        RunError: if it is not there, or is another than before, on which the result would be another.
    """
    there = torch.cuda.is_available()
    kind = device if device != "auto" else before or ("cuda" if there else "cpu")
    if before not in (None, kind):
        raise RunError(f"device: got {kind}, expected {before}, on which the checkpoint was written")
    if kind == "cuda" and not there:
        raise RunError("device: got cuda, but torch sees none here; expected cpu or auto")
    return torch.device(kind)


def _differences(content: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """Describe how the experiment of a checkpoint differs, key by key."""
    here, there = _flat(content), _flat(json.loads(saved.get("content", "{}")))
    keys = [key for key in sorted(here.keys() | there.keys()) if here.get(key) != there.get(key)]
    shown = [f"{key} is {here.get(key, 'not there')}, and was {there.get(key, 'not there')}" for key in keys[:3]]
    return "; ".join([*shown, *([f"and {len(keys) - 3} more"] if len(keys) > 3 else [])])


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Flatten plain data to dotted keys, as in overrides."""
    if isinstance(value, Mapping):
        items = [(name if name != "init_args" else "", each) for name, each in value.items()]
    elif isinstance(value, list):
        items = [(str(number), each) for number, each in enumerate(value)]
    else:
        return {key: value}
    return {at: each for name, item in items for at, each in _flat(item, f"{key}.{name}".strip(".")).items()}


def _checksum(said: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(said).encode())


def _normal(value: Any) -> Any:
    """Normalise numbers in plain data: files may say 1 where Python says 1.0."""
    if isinstance(value, Mapping):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
