"""Gradients against central finite differences."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

STEP = 1e-6


def assert_gradients(
    parameters: Iterable[Tensor], gradients: Iterable[Tensor], objective: Callable[[], Tensor], every: int
) -> None:
    """Those of an objective by its parameters, float64, which are changed in place; only every so manyth entry."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for index in list(torch.cartesian_prod(*map(torch.arange, parameter.shape)))[::every]:
            at = tuple(index.tolist())
            with torch.no_grad():
                parameter[at] += STEP
                above = objective()
                parameter[at] -= 2 * STEP
                below = objective()
                parameter[at] += STEP
            assert float(gradient[at]) == pytest.approx(float((above - below) / (2 * STEP)), rel=1e-4, abs=1e-7)
