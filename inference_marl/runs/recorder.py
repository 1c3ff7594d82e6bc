"""Recording of one arm, in files that are appended to; memory and checkpoints do not grow with the run.

A file holds one quantity, record after record, as plain numbers. After an interruption it may hold more than the last
checkpoint counts; resuming truncates it. The files are deleted once a run's results are written.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference_marl.runs.errors import RunError
from inference_marl.spaces import Box, Space
from inference_marl.types import Metric, check_declared

CHUNK = 2**22
"""Bytes of records held in memory before they are written."""

TOGETHER = 128
"""Records whose tensors are converted to bytes at once; a GPU is synchronised only then."""

Values = npt.NDArray[Any]


class Recorder:
    """Accumulates an arm's metrics between records, and appends records to the arm's files, a chunk at a time.

    There are several streams of records, each made at its own steps: `metrics`, `beliefs`, `actions` and those of
    evaluations. A record may lack quantities of its stream; floating-point ones are then NaN.

    Args:
        folder: folder of the files; `None` to record nothing.
        declared: the metrics that may be noted, by name.
        replicates: number of replicates.
        agents: number of agents.
        chunk: bytes held before they are written.
        before_writing: called before each write; raises if the files belong to another process.

    Attributes:
        everywhere: whether beliefs are recorded in every state, rather than where the agents are.
        failed: failed replicates, whose records are NaN.
        counts: number of records, by stream.
        columns: first record, shape and dtype of every quantity, by stream and name.
        checksums: CRC-32 of each file, by stream and name.
        sums: sums of the values noted since the last record, by metric and, after `/`, agent.
        times: number of values noted since the last record, likewise.
    """

    def __init__(
        self,
        folder: Path | None,
        declared: Mapping[str, Metric],
        replicates: int,
        agents: int,
        chunk: int = CHUNK,
        before_writing: Callable[[], object] | None = None,
    ) -> None:
        self.folder, self.declared, self.chunk, self.before_writing = folder, declared, chunk, before_writing
        self.replicates, self.agents = replicates, agents
        self.everywhere = False
        self.failed: Sequence[int] = ()
        self.counts: dict[str, int] = {}
        self.columns: dict[str, dict[str, tuple[int, tuple[int, ...], str]]] = {}
        self.checksums: dict[str, dict[str, int]] = {}
        self.sums: dict[str, Tensor] = {}
        self.times: dict[str, int] = {}
        self._shapes: dict[str, torch.Size] = {}  # of what was noted
        self._held: dict[tuple[str, str], list[bytes | Tensor]] = {}
        self._size = 0

    def note(self, name: str, value: Tensor, agent: int | None = None) -> None:
        """Note the value of a metric at this step; the next record has the mean or the last value, see `Metric.over`.

        Args:
            name: name of a declared metric.
            value: `replicates [x environments]`, followed by `agents` for metrics of agents.
            agent: the agent, if the value, `replicates`, is of one agent only.

        Raises:
            ValueError: if the metric is not declared, or the value has another shape.
        """
        key = name if agent is None else f"{name}/{agent}"
        if self._shapes.get(key) != value.shape:
            self._check_noted(name, value.shape, agent)
            self._shapes[key] = value.shape
        value = value.detach() if value.is_floating_point() else value.detach().float()
        if key in self.sums and self.declared[name].over == "mean":
            self.sums[key] = self.sums[key] + value
            self.times[key] += 1
        else:
            self.sums[key], self.times[key] = value.clone(), 1

    def _check_noted(self, name: str, shape: torch.Size, agent: int | None) -> None:
        if name not in self.declared:
            check_declared([name], self.declared)
        last = (self.agents,) if self.declared[name].dims and agent is None else ()
        expected = (self.replicates, *last)
        if shape[:1] + shape[2:] != expected and shape != expected:
            raise ValueError(f"metrics: got {name} of shape {tuple(shape)}, expected {expected}")

    def commit(self) -> None:
        """Record the metrics noted since the last record."""
        record: dict[str, Values] = {}
        for key, total in self.sums.items():
            name, _, agent = key.partition("/")
            dims = 2 if self.declared[name].dims and not agent else 1
            if total.dim() > dims:
                total = total.mean(1) if total.shape[1] > 1 else total[:, 0]
            value = as_numbers(total if self.times[key] == 1 else total / self.times[key])
            if agent:
                columns = record.setdefault(name, np.full((self.replicates, self.agents), math.nan, np.float32))
                columns[:, int(agent)] = value
            else:
                record[name] = value
        self.append("metrics", record)
        self.sums, self.times = {}, {}

    def append(
        self, stream: str, record: Mapping[str, Values | Tensor], dtypes: Mapping[str, np.dtype[Any]] = {}
    ) -> None:
        """Append a record to a stream.

        Args:
            stream: name of the stream.
            record: quantities by name, each always of the same shape. Tensors are copied now, and converted later, many
                at once.
            dtypes: dtypes in which tensors are recorded, by name.

        Raises:
            ValueError: if one has another shape than before.
        """
        made, columns = self.counts.get(stream, 0), self.columns.setdefault(stream, {})
        for name, value in record.items():
            if name not in columns:
                dtype = np.dtype(dtypes[name] if isinstance(value, Tensor) else value.dtype)
                columns[name] = (made, tuple(value.shape), dtype.str)
            _, shape, known = columns[name]
            if value.shape != shape:
                raise ValueError(f"{stream}: got {name} of shape {tuple(value.shape)}, expected {shape} as before")
            self._hold(stream, name, value if isinstance(value, Tensor) else value.astype(known, copy=False))
        if len(record) < len(columns):
            for name in columns.keys() - record.keys():
                _, shape, known = columns[name]
                self._hold(stream, name, np.full(shape, math.nan, known))
        self.counts[stream] = made + 1
        if self.counts[stream] % TOGETHER == 0:
            for name in columns:
                self._convert(stream, name)
        if self._size >= self.chunk:
            self.flush()

    def _hold(self, stream: str, name: str, value: Values | Tensor) -> None:
        if isinstance(value, Tensor):
            value = (value.detach() if value.requires_grad else value).clone()  # its owner may use it again
            if self.failed and np.dtype(self.columns[stream][name][2]).kind == "f":
                value = value if value.is_floating_point() else value.float()  # as numbers of some agents' actions
                value = value.index_fill(0, torch.tensor(self.failed, device=value.device), math.nan)
        elif self.failed and value.dtype.kind == "f":
            value = value.copy()
            value[list(self.failed)] = math.nan
        self._held.setdefault((stream, name), []).append(value if isinstance(value, Tensor) else value.tobytes())
        self._size += value.nbytes

    def _convert(self, stream: str, name: str) -> bytes:
        """Convert the records of a quantity that are held in memory to bytes, all tensors at once."""
        parts = self._held[stream, name]
        tensors = [part for part in parts if isinstance(part, Tensor)]
        values = iter(torch.stack(tensors).cpu().numpy().astype(self.columns[stream][name][2]) if tensors else ())
        content = b"".join(part if isinstance(part, bytes) else next(values).tobytes() for part in parts)
        self._held[stream, name] = [content]
        return content

    def flush(self) -> None:
        """Write the records that are held in memory."""
        if self.folder is not None and self._held:
            if self.before_writing is not None:
                self.before_writing()
            for stream, name in self._held:
                path, content = self.folder / stream / name, self._convert(stream, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(content)
                known = self.checksums.setdefault(stream, {})
                known[name] = zlib.crc32(content, known.get(name, 0))
        self._held, self._size = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """The content of the files, which are up to date then, and the values noted since the last record."""
        return {**self.index(), "sums": dict(self.sums), "times": dict(self.times)}

    def index(self) -> dict[str, Any]:
        """The content of the files, which are up to date then, as `Records` reads it."""
        self.flush()
        columns = {stream: dict(columns) for stream, columns in self.columns.items()}
        checksums = {stream: dict(each) for stream, each in self.checksums.items()}
        return {
            "everywhere": self.everywhere,
            "counts": dict(self.counts),
            "columns": columns,
            "checksums": checksums,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: Any = None) -> None:
        """Restore from `state_dict`, and truncate the files accordingly.

        Raises:
            RunError: if records are missing or damaged.
        """
        self.everywhere, self.counts, self.times = state["everywhere"], dict(state["counts"]), dict(state["times"])
        self.columns = {
            stream: {name: (first, tuple(shape), dtype) for name, (first, shape, dtype) in columns.items()}
            for stream, columns in state["columns"].items()
        }
        self.checksums = {stream: dict(each) for stream, each in state["checksums"].items()}
        self.sums = {key: value.to(device) for key, value in state["sums"].items()}
        self.cut()

    def cut(self) -> None:
        """Truncate the files to the records counted.

        Raises:
            RunError: if records are missing or damaged.
        """
        if self.folder is None:
            return
        files = files_of(self.folder, self.index())
        for path in [path for path in self.folder.rglob("*") if path.is_file()]:
            if path not in files:
                path.unlink()
        check_files(self.folder, self.index())
        for path, (size, _) in files.items():
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)


def files_of(folder: Path, index: Mapping[str, Any]) -> dict[Path, tuple[int, int]]:
    """The files of records, with the number of bytes and the CRC-32 given by `Recorder.index`."""
    return {
        folder / stream / name: (
            (index["counts"][stream] - first) * math.prod(shape) * np.dtype(dtype).itemsize,
            index["checksums"].get(stream, {}).get(name, 0),
        )
        for stream, columns in index["columns"].items()
        for name, (first, shape, dtype) in columns.items()
    }


def check_files(folder: Path, index: Mapping[str, Any]) -> None:
    """Check that no records are missing or damaged.

    Raises:
        RunError: naming the file.
    """
    for path, (size, checksum) in files_of(folder, index).items():
        found, left, counted = 0, size, 0
        if path.exists():
            with path.open("rb") as file:
                while left and (block := file.read(min(left, CHUNK))):
                    found, left, counted = zlib.crc32(block, found), left - len(block), counted + len(block)
        if left or found != checksum:
            what = f"{counted} bytes of records, expected {size}" if left else "records that are damaged, expected them"
            raise RunError(
                f"{path}: got {what} as its checkpoint says; if the run had finished, put its summary.json back, else "
                "delete the arm's checkpoint to start it anew"
            )


def as_numbers(value: Tensor) -> Values:
    """Convert a tensor to a single-precision array on the CPU."""
    return value.detach().cpu().float().numpy()


def compact(spaces: Sequence[Space]) -> np.dtype[Any]:
    """The dtype in which actions of these spaces are recorded: the smallest integer, or single precision for boxes."""
    if any(isinstance(space, Box) for space in spaces):
        return np.dtype(np.float32)
    return np.min_scalar_type(max(space.features for space in spaces) - 1)
