"""Writes datasets block by block, from records that need not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5netcdf  # type: ignore[import-untyped, unused-ignore]
import h5py  # type: ignore[import-untyped, unused-ignore]
import numpy as np
import xarray as xr
from xarray.backends import H5NetCDFStore

from inference_marl.runs.files import write_atomically
from inference_marl.runs.recorder import Values
from inference_marl.runs.records import Records

BLOCK = 2**20
"""Size of a block in bytes; blocks are compressed separately."""

IN_MEMORY = 2**27
"""Size in bytes below which a dataset is also kept in memory, rather than read from its file to be summarised."""

COMPRESSED = {"zlib": True, "complevel": 1, "shuffle": True}


@dataclass(frozen=True)
class Part:
    """The records of one arm, of one of its agents, or of one agent's belief about another.

    Attributes:
        learner: index of the arm.
        records: number of records.
        shape: shape of a record.
        dtype: dtype of a record.
        read: reads records from a start to a stop, `records x shape`.
        at: indices in dimensions that the records lack, such as the agent's.
    """

    learner: int
    records: int
    shape: Sequence[int]
    dtype: np.dtype[Any]
    read: Callable[[int, int], Values]
    at: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Records, learner: int, stream: str, name: str, **at: int) -> Part:
        """A recorded quantity, without changes."""
        _, shape, dtype = records.columns[stream][name]
        return cls(learner, records.counts[stream], shape, np.dtype(dtype), partial(records.rows, stream, name), at)


@dataclass(frozen=True)
class Variable:
    """A variable of a dataset, assembled from parts.

    Attributes:
        dims: its dimensions: `learner`, `step`, those in which its parts have an index, and those of their records.
        parts: its values; NaN elsewhere.
        attributes: attributes of the stored variable.
    """

    dims: tuple[str, ...]
    parts: Sequence[Part]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_records(self) -> tuple[str, ...]:
        """The dimensions of a part's record."""
        taken = ("learner", "step", *self.parts[0].at)
        return tuple(dim for dim in self.dims if dim not in taken)

    @property
    def sizes(self) -> dict[str, int]:
        """The largest size of each dimension of the records."""
        shapes = zip(*(part.shape for part in self.parts), strict=True)
        return dict(zip(self.of_records, map(max, shapes), strict=True))

    @property
    def block(self) -> int:
        """Number of records in a block."""
        return max(1, BLOCK // (math.prod(self.sizes.values()) * self.parts[0].dtype.itemsize))

    def create(self, file: h5netcdf.File, name: str, sizes: Mapping[str, int]) -> None:
        """Create it, without values, in a file that has its dimensions with these sizes."""
        dtype = self.parts[0].dtype
        chunks = {"learner": 1, "step": min(self.block, sizes["step"])}
        chunks |= dict.fromkeys(self.parts[0].at, 1)
        variable = file.create_variable(
            name,
            self.dims,
            np.int8 if dtype.kind == "b" else dtype,
            fillvalue=np.nan if dtype.kind == "f" else None,
            chunks=tuple(chunks.get(dim, sizes[dim]) for dim in self.dims),
            compression="gzip",
            compression_opts=COMPRESSED["complevel"],
            shuffle=COMPRESSED["shuffle"],
        )
        attributes = variable.attrs
        for key, value in self.attributes.items():
            attributes[key] = value

    def bytes(self, sizes: Mapping[str, int]) -> int:
        """Its size in bytes in memory."""
        return math.prod(sizes[dim] for dim in self.dims) * self.parts[0].dtype.itemsize

    def fill(self, stored: Any) -> None:
        """Write its values to an array in a file or in memory."""
        for part in self.parts:
            for start in range(0, part.records, self.block):
                self._write_block(stored, part, start, min(start + self.block, part.records))

    def held(self, sizes: Mapping[str, int]) -> xr.Variable:
        """Build the variable in memory."""
        dtype = self.parts[0].dtype
        values = np.full([sizes[dim] for dim in self.dims], np.nan if dtype.kind == "f" else 0, dtype)
        self.fill(values)
        return xr.Variable(self.dims, values, self.attributes)

    def _write_block(self, stored: Any, part: Part, start: int, stop: int) -> None:
        ends = dict(zip(self.of_records, part.shape, strict=True))
        at: dict[str, Any] = {dim: slice(end) for dim, end in ends.items()}
        at |= {"learner": part.learner, "step": slice(start, stop), **part.at}
        stored[tuple(at[dim] for dim in self.dims)] = np.moveaxis(
            part.read(start, stop), 0, self.dims.index("step") - 1
        )


def write_variables(path: Path, skeleton: xr.Dataset, variables: Mapping[str, Variable]) -> xr.Dataset | None:
    """Write a dataset: attributes, coordinates and small variables of `skeleton`, and `variables` block by block.

    Returns:
        The dataset, unless it takes `IN_MEMORY` bytes or more.
    """
    sizes = {str(dim): size for dim, size in skeleton.sizes.items()}
    for variable in variables.values():
        for dim, size in variable.sizes.items():
            sizes[dim] = max(size, sizes.get(dim, 0))
    held = None
    if skeleton.nbytes + sum(variable.bytes(sizes) for variable in variables.values()) < IN_MEMORY:
        held = skeleton.assign({name: variable.held(sizes) for name, variable in variables.items()})

    def write(beside: Path) -> None:
        # h5netcdf creates the netCDF structure; plain HDF5 is enough for the numbers.
        with h5py.File(beside, "w", track_order=True) as hdf5:  # netCDF requires the creation order
            with h5netcdf.File(hdf5, "w") as file:
                skeleton.dump_to_store(H5NetCDFStore(file))
                for dim, size in sizes.items():
                    if dim not in skeleton.sizes:
                        file.dimensions[dim] = size
                for name, variable in variables.items():
                    variable.create(file, name, sizes)
            for name, variable in variables.items():
                if held is None:
                    variable.fill(hdf5[name])
                else:
                    hdf5[name][...] = held.variables[name].to_numpy()

    write_atomically(path, write)
    return held
