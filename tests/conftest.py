"""One seed, Pyro's validation and an empty parameter store for every test."""

from collections.abc import Iterator

import pyro
import pytest
import torch

import inference_marl  # noqa: F401  (switches module_local_params on before any module is made)

# Tensors in tests are small: a second thread only waits, and on a busy machine it waits long.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    pyro.set_rng_seed(0)
    with pyro.validation_enabled(True):
        yield
    leaked = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not leaked, f"left in Pyro's global parameter store: {leaked}"
