"""Restores the records of a finished run from its results, so that it can be continued.

This inverts `inference_marl.runs.datasets.write_results`, for quantities that results contain.
"""

from __future__ import annotations

import math
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import xarray as xr

from inference_marl.runs import checksums
from inference_marl.runs.errors import RunError
from inference_marl.runs.netcdf import BLOCK
from inference_marl.runs.recorder import Values

FILES = {"metrics": "metrics.nc", "beliefs": "posterior.nc", "actions": "actions.nc"}
"""The result file of each stream of records; other streams have a file of their name."""


def restore(folder: Path, arms: Sequence[str], records: Path, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Restore the record files of an arm, or of several arms that are played as one.

    Args:
        folder: the folder of the run, with its results.
        arms: names of the arms, in the order of their replicates.
        records: the folder of the files, which is created when they are complete.
        state: the recorder's state in the checkpoint.

    Returns:
        `state`, without quantities that no result contains.

    Raises:
        RunError: if the results are damaged, or do not belong to the checkpoint.
    """
    checksums.check(folder, {*FILES.values(), *map(_file, state["columns"])})
    beside = records.with_name(f".{records.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    columns: dict[str, dict[str, Any]] = {}
    with ExitStack() as opened:
        for stream, known in state["columns"].items():
            path = folder / _file(stream)
            there = path.exists()
            results = opened.enter_context(xr.open_dataset(path, engine="h5netcdf", cache=False)) if there else {}
            columns[stream] = {}
            for name, column in known.items():
                variable = _variable(results, stream, name)
                if variable is not None:
                    columns[stream][name] = column
                    checksum = _write(beside / stream / name, variable, arms, state["counts"][stream], *column)
                    if checksum != state["checksums"].get(stream, {}).get(name, 0):
                        raise RunError(
                            f"{path}: got other results than those of the checkpoint, expected them unchanged: put "
                            "back the file, or start a new run"
                        )
    beside.mkdir(parents=True, exist_ok=True)
    beside.replace(records)
    checksums_of = {
        stream: {name: known for name, known in each.items() if name in columns.get(stream, {})}
        for stream, each in state["checksums"].items()
    }
    return {**state, "columns": columns, "checksums": checksums_of}


def _file(stream: str) -> str:
    return FILES.get(stream, f"{stream}.nc")


def _variable(results: Any, stream: str, name: str) -> xr.DataArray | None:
    """A quantity in the results, with the dimension `agent` only if it is one quantity of all agents."""
    stem, _, agent = name.rpartition(".")
    of_all = stream == "metrics" or not stem
    found: xr.DataArray | None = results.get(name if of_all else "actions" if stream == "actions" else stem)
    return found if of_all or found is None else found.isel(agent=int(agent))


def _write(
    path: Path, values: xr.DataArray, arms: Sequence[str], count: int, first: int, shape: Sequence[int], dtype: str
) -> int:
    """Write records from the `first` one, and return their CRC-32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checksum = 0
    with path.open("wb") as file:
        for block in _blocks(values, arms, count, first, shape):
            content = block.astype(dtype).tobytes()
            file.write(content)
            checksum = zlib.crc32(content, checksum)
    return checksum


def _blocks(
    values: xr.DataArray, arms: Sequence[str], count: int, first: int, shape: Sequence[int]
) -> Iterator[Values]:
    """Iterate over blocks of records in the recorder's format, `records x shape`."""
    values = values.sel(learner=list(arms)).transpose("step", "learner", "replicate", ...)
    several = max(1, BLOCK // max(1, 8 * math.prod(shape)))
    own = (slice(None), slice(None), *map(slice, shape[1:]))
    for start in range(first, count, several):
        block = values.isel(step=slice(start, min(start + several, count))).to_numpy()
        yield block.reshape(block.shape[0], shape[0], *block.shape[3:])[own]
