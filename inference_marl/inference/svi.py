"""Stochastic variational inference with Pyro's ELBO, for independent replicates in parallel.

Critics are fitted to their targets, priors to the opponents' actions and guides to the ELBO; all three maximise Pyro's
ELBO of some model and guide, so all three use `elbo_loss` and an `Optimiser`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.plates import ONE_STEP, Plates


def no_guide(*args: Any) -> None:
    """The guide of a model without latent variables: its ELBO is the log-likelihood."""


def estimator(kind: Callable[..., Any], particles: int, plates: Plates = ONE_STEP) -> Any:
    """Create Pyro's estimator of an ELBO from `particles` vectorised draws, in extra dimensions left of the plates.

    Pyro's warning that nothing is enumerated is off, since that depends on the estimator for several opponents.
    """
    how = {"vectorize_particles": True, "max_plate_nesting": len(plates), "strict_enumeration_warning": False}
    return kind(num_particles=particles, **how)


def elbo_loss(
    elbo: Trace_ELBO | TraceEnum_ELBO, model: Callable[..., Any], guide: Callable[..., Any], batch: int, *args: Any
) -> Tensor:
    """Minus the ELBO, averaged over the batch and summed over replicates; differentiable.

    It is divided by the batch size and not by the number of replicates, so a replicate's gradient does not depend on
    how many others share the plate.

    Args:
        elbo: Pyro's estimator, such as `Trace_ELBO()`.
        model: the model.
        guide: its variational approximation.
        batch: size of the batch plate.
        args: arguments of model and guide.
    """
    with local_parameters():
        loss: Tensor = elbo.differentiable_loss(model, guide, *args) / batch  # type: ignore[no-untyped-call]
    return loss
