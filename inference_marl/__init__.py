"""Multi-agent control as probabilistic inference.

A game is a Pyro model, an agent a Pyro guide, learning is SVI on the ROMMEO ELBO (Tian et al. 2019).

Importing this package switches Pyro's setting `module_local_params` on: parameters then live in their modules and
not in Pyro's global store, where two learners, or two tests, would share them. Pyro reads the setting when a
`PyroModule` is made, so it cannot be limited to a block.
"""

from importlib.metadata import PackageNotFoundError, version

import pyro

pyro.settings.set(module_local_params=True)

try:
    __version__ = version("inference-marl")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
