"""Reads the records of an arm that has been played."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inference_marl.runs.recorder import Values


class Records:
    """The records of an arm.

    Args:
        folder: the folder of the files.
        index: the content of the files, see `Recorder.index`.
        replicates: the arm's replicates among those in the files, such as `slice(0, 10)`.

    Attributes:
        everywhere: whether beliefs are recorded in every state, rather than in the current states.
        counts: number of records, by stream.
        columns: by stream and name, the first record of a quantity, its shape and its dtype.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any], replicates: slice) -> None:
        self.folder, self._replicates = folder, replicates
        self.everywhere: bool = index["everywhere"]
        none = ("metrics", "beliefs", "actions")
        self.counts: dict[str, int] = dict.fromkeys(none, 0) | index["counts"]
        self._recorded = {stream: {} for stream in none} | index["columns"]
        here = replicates.stop - replicates.start
        self.columns = {
            stream: {name: (first, [here, *shape[1:]], dtype) for name, (first, shape, dtype) in columns.items()}
            for stream, columns in self._recorded.items()
        }

    def rows(self, stream: str, name: str, start: int, stop: int) -> Values:
        """Records `start` to `stop` of a quantity; NaN before its first one."""
        first, shape, dtype = self._recorded[stream][name]
        missing, size = min(max(first - start, 0), stop - start), math.prod(shape)
        found: Values = np.fromfile(
            self.folder / stream / name,
            dtype,
            (stop - start - missing) * size,
            offset=(start + missing - first) * size * np.dtype(dtype).itemsize if missing < stop - start else 0,
        ).reshape(-1, *shape)[:, self._replicates]
        before = np.full((missing, *self.columns[stream][name][1]), math.nan, dtype)
        return np.concatenate([before, found]) if missing else found


RecordsOf = Mapping[str, Records]
"""Records by name of the arm."""


def coordinates_of(recorded: RecordsOf, agents: int, stream: str, every: int) -> dict[str, Any]:
    """Coordinates of the dimensions `learner`, `step` and `agent` for the records of a stream."""
    steps = np.arange(1, max(records.counts[stream] for records in recorded.values()) + 1) * every
    return {"learner": list(recorded), "step": steps, "agent": np.arange(agents)}


def remove(folder: Path) -> None:
    """Delete the records of a run's jobs, once the results have been written."""
    shutil.rmtree(folder / "records", ignore_errors=True)
