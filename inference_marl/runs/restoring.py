"""Records of a finished run, made again from its results, so that it can be played on.

The inverse of `inference_marl.runs.datasets.write_results`, for what results hold.
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
"""Where each stream's records are, once a run is finished; those of others are in a file of their name."""


def restore(folder: Path, arms: Sequence[str], records: Path, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write the files of an arm's records, or of several arms' that are played as one.

    Args:
        folder: the run's, with its results.
        arms: their names, in the order of their replicates.
        records: the folder of the files, which appears when they are complete.
        state: of the recorder, as the checkpoint has it.

    Returns:
        `state`, without quantities that no result holds.

    Raises:
        RunError: if the results are damaged, or not those that the checkpoint belongs to.
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
    """What the results hold of a quantity, with the dimension of agents only if it is everybody's."""
    stem, _, agent = name.rpartition(".")
    of_all = stream == "metrics" or not stem
    found: xr.DataArray | None = results.get(name if of_all else "actions" if stream == "actions" else stem)
    return found if of_all or found is None else found.isel(agent=int(agent))


def _write(
    path: Path, values: xr.DataArray, arms: Sequence[str], count: int, first: int, shape: Sequence[int], dtype: str
) -> int:
    """Write records from the `first` one; returns their CRC-32."""
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
    """Some records at a time, as the recorder had them: `records x shape`."""
    values = values.sel(learner=list(arms)).transpose("step", "learner", "replicate", ...)
    several = max(1, BLOCK // max(1, 8 * math.prod(shape)))
    own = (slice(None), slice(None), *map(slice, shape[1:]))
    for start in range(first, count, several):
        block = values.isel(step=slice(start, min(start + several, count))).to_numpy()
        yield block.reshape(block.shape[0], shape[0], *block.shape[3:])[own]
