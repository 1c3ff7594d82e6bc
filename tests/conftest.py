"""One seed, Pyro's validation and an empty parameter store for every test."""

from collections.abc import Iterator
from contextlib import nullcontext

import pyro
import pytest
import torch

from inference_marl.inference.conditional import local_parameters

# Tensors in tests are small: a second thread only waits, and on a busy machine it waits long.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _isolated(request: pytest.FixtureRequest) -> Iterator[None]:
    pyro.set_rng_seed(0)
    as_in_learning = nullcontext() if request.node.get_closest_marker("pyro_store") else local_parameters()
    with pyro.validation_enabled(True), as_in_learning:
        yield
    if request.node.get_closest_marker("pyro_store"):
        pyro.clear_param_store()
    leaked = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not leaked, f"left in Pyro's global parameter store: {leaked}"
