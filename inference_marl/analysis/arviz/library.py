"""Common code of exports to ArviZ: the only module that imports ArviZ, when a function needs it.

Written for ArviZ 1.x; 0.23 is supported as long as Python 3.11, which has no later version, is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
import yaml

from inference_marl.analysis.recorded import Recorded
from inference_marl.described import InspectError


@contextmanager
def quiet_arviz() -> Iterator[Any]:
    """Context with ArviZ, without its message at import and its warnings about beliefs that do not vary."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        import arviz as az

        yield az


def tree(recorded: Recorded, groups: dict[str, xr.Dataset], **attributes: Any) -> Any:
    """ArviZ's tree of the groups that are not empty, with attributes of the run."""
    version = recorded.made.get("versions", {}).get("inference_marl", "unknown")
    library = {"inference_library": "inference_marl", "inference_library_version": version}
    attributes = {**recorded.metrics.attrs, **attributes, **library}
    attributes["spec"] = yaml.safe_dump(recorded.spec, sort_keys=False)
    groups = {name: group.assign_attrs(library) for name, group in groups.items() if group}
    groups["/"] = xr.Dataset(attrs=attributes)
    with quiet_arviz() as az:
        if int(az.__version__.split(".")[0]) >= 1:
            return xr.DataTree.from_dict(groups)
        chained = {name: _chained(group) for name, group in groups.items()}
        return az.InferenceData.from_datatree(xr.DataTree.from_dict(chained))


def _chained(group: xr.Dataset) -> xr.Dataset:
    """Convert a group for ArviZ 0.23: one chain, with all sample dimensions as its draws."""
    if "sample_dims" not in group.attrs:
        return group
    flat = group.stack(sample=group.attrs["sample_dims"], create_index=False).drop_vars("draw", errors="ignore")
    chained = flat.rename(sample="draw").expand_dims(chain=[0]).transpose("chain", "draw", ...)
    return chained.assign_attrs(sample_dims=["chain", "draw"])


def elpd(pointwise: xr.DataArray) -> Any:
    """ArviZ's container for an expected log predictive density, given pointwise values, `replicate`."""
    count = pointwise.sizes["replicate"]
    total, error = float(pointwise.sum(skipna=False)), float(np.sqrt(count) * pointwise.std(skipna=False))
    with quiet_arviz() as az:
        if int(az.__version__.split(".")[0]) >= 1:
            from arviz_stats.utils import ELPDDataLFO  # type: ignore[import-not-found, unused-ignore]

            numbers = {"elpd": total, "se": error, "p": np.nan, "n_samples": 1, "n_data_points": count}
            how = {
                "scale": "log",
                "warning": False,
                "good_k": None,
                "elpd_i": pointwise,
            }  # refitted at every record
            return ELPDDataLFO(
                **numbers, **how, forecast_horizon=1, min_observations=1, refits=np.array([]), n_refits=0
            )
        names = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "scale"]
        return az.stats.ELPDData([total, error, np.nan, 1, count, False, pointwise, "log"], names)


def known(dataset: xr.Dataset, dim: str, value: Any) -> Any:
    """Return `value` if it is a label of the dimension, and the last label for `None`."""
    labels = dataset[dim].to_numpy().tolist()
    if value is None:
        return labels[-1]
    if value not in labels:
        shown = ", ".join(map(str, labels if len(labels) <= 12 else [*labels[:3], "...", *labels[-3:]]))
        raise InspectError(f"{dim}: got {value!r}, which was not recorded, expected one of {shown}")
    return value
