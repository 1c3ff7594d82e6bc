"""What an arm has recorded, read from its files once it has been played."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inference_marl.runs.recorder import Values


class Records:
    """An arm's records.

    Args:
        folder: where the files are.
        index: what is in them, see `Recorder.index`.
        replicates: which replicates of what was recorded are the arm's, such as `slice(0, 10)`.

    Attributes:
        everywhere: whether beliefs are recorded in every state, and not where the agents are.
        counts: records made, by stream.
        columns: by stream and name, the record that a quantity began with, its shape and its dtype.
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
        """Records `start` to `stop` of a quantity, NaN before its first one."""
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
"""By name of the arm."""


def coordinates_of(recorded: RecordsOf, agents: int, stream: str, every: int) -> dict[str, Any]:
    """Labels of the dimensions `learner`, `step` and `agent` of what arms have recorded in a stream."""
    steps = np.arange(1, max(records.counts[stream] for records in recorded.values()) + 1) * every
    return {"learner": list(recorded), "step": steps, "agent": np.arange(agents)}


def remove(folder: Path) -> None:
    """Delete what the jobs of a run have recorded, once the results hold it."""
    shutil.rmtree(folder / "records", ignore_errors=True)
