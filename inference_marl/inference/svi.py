"""Stochastic variational inference in the plain-torch idiom, for R replicates at once.

A critic is fitted to its targets, a prior to the opponents' actions, a guide to the ELBO: all three are Pyro's
ELBO of some model and guide, so all three go through `Fit`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn


class NonFiniteError(ArithmeticError):
    """A loss or its gradient stopped being a finite number; nothing was updated.

    Attributes:
        replicates: which seeds, as far as their gradients tell.
    """

    def __init__(self, what: str, replicates: list[int]) -> None:
        super().__init__(what, replicates)
        self.what = what
        self.replicates = replicates

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.replicates[:10])) + (", ..." if len(self.replicates) > 10 else "")
        return f"{self.what}: the loss or its gradient is not finite in replicate {listed or '(unknown)'}"


def no_guide(*args: Tensor) -> None:
    """The guide of a model without latent variables: its ELBO is the log-likelihood."""


def check_step_size(learning_rate: float, max_gradient_norm: float | None, name: str = "learning_rate") -> None:
    """Check the two numbers that say how far a gradient step goes.

    Raises:
        ValueError: if one of them is not positive.
    """
    if not learning_rate > 0:
        raise ValueError(f"{name}: got {learning_rate}, expected a positive number")
    if max_gradient_norm is not None and not max_gradient_norm > 0:
        raise ValueError(f"max_gradient_norm: got {max_gradient_norm}, expected a positive number, or null for none")


class Fit(nn.Module):
    """Adam on minus the ELBO, averaged over the batch and summed over replicates.

    The loss is divided by the batch and never by the replicates, and gradients are clipped per replicate, so a
    replicate's step does not depend on how many others share the plate. Adam itself is elementwise.

    Args:
        what: name for messages.
        elbo: Pyro's estimator, e.g. `Trace_ELBO()`.
        model, guide: the pair; not registered as submodules.
        trained: parameters to optimise, each leading with `replicates`.
        frozen: parameters that the loss reads and must not move.
        learning_rate: Adam's step size.
        max_gradient_norm: clip each replicate's gradient to this norm; `None` for no clipping.
    """

    def __init__(
        self,
        what: str,
        elbo: Trace_ELBO | TraceEnum_ELBO,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        trained: Iterable[nn.Parameter],
        frozen: Iterable[nn.Parameter] = (),
        *,
        learning_rate: float,
        max_gradient_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.what = what
        self.max_gradient_norm = max_gradient_norm
        # In a tuple, as Pyro's autoguides keep their model: owners hold these modules already.
        self._pair = (elbo, model, guide)
        self._trained = tuple(trained)
        ours = {id(parameter) for parameter in self._trained}
        self._frozen = tuple(parameter for parameter in frozen if id(parameter) not in ours)
        self.optimizer = torch.optim.Adam(self._trained, lr=learning_rate, fused=True)

    def step(self, batch: int, *args: Tensor) -> None:
        """One gradient step.

        Args:
            batch: how many data the batch plate holds per replicate.
            args: what model and guide are called with.

        Raises:
            NonFiniteError: if the loss or its gradient is not finite; parameters and optimiser are then unchanged.
        """
        elbo, model, guide = self._pair
        frozen = [parameter for parameter in self._frozen if parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            self.optimizer.zero_grad(set_to_none=True)
            loss = elbo.differentiable_loss(model, guide, *args) / batch  # type: ignore[no-untyped-call]
            loss.backward()
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
        # One number to look at, so that a GPU is waited for once.
        total = torch.stack([loss.detach(), *(gradient.sum() for gradient in self._gradients())]).sum()
        if not torch.isfinite(total):
            raise NonFiniteError(self.what, self._broken_replicates())
        self._clip()
        self.optimizer.step()

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._trained if parameter.grad is not None]

    def _broken_replicates(self) -> list[int]:
        broken = [~torch.isfinite(gradient.flatten(1)).all(1) for gradient in self._gradients()]
        if not broken:
            return []
        return [int(r) for r in torch.stack(broken).any(0).nonzero().flatten()]

    def _clip(self) -> None:
        if self.max_gradient_norm is None:
            return
        gradients = self._gradients()
        norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        scale = (self.max_gradient_norm / norm).clamp_max(1.0)  # a norm of 0 gives infinity, and so 1
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's state, for `state_dict`."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: Any) -> None:
        """Undo `get_extra_state`."""
        # Copied, because torch keeps the given tensors and changes them in place.
        self.optimizer.load_state_dict(copy.deepcopy(state))
