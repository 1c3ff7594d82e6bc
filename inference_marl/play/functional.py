"""Policies as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl.types import Actor, Memory, Seat


class Functional(Actor):
    """A policy module evaluated at explicit parameters, through which gradients flow.

    Learners with differentiable policies return it as their snapshot, so that others can look ahead through their
    updates: `Functional(policy.module, {name: theta + eta * gradient, ...})` is the policy after a gradient step.

    Args:
        module: maps observations and memory to a distribution and the next memory, as `Actor.policy`; it also receives
            masks if it sets `heeds_masks`.
        seat: the seat in which it plays.
        parameters: the module's parameters by name, `replicates x ...`.
        slow: parameters of its target network, if it has one.
        constants: the module's buffers by name.
        initial_memory: as `Actor.initial_memory`, for modules with a memory.
    """

    module: nn.Module
    parameters_by_name: dict[str, Tensor]
    slow_parameters: Mapping[str, Tensor] | None
    constants: dict[str, Tensor]
    _initial: Callable[[int, int], Memory] | None

    def __init__(
        self,
        module: nn.Module,
        seat: Seat,
        parameters: Mapping[str, Tensor],
        slow: Mapping[str, Tensor] | None = None,
        constants: Mapping[str, Tensor] | None = None,
        initial_memory: Callable[[int, int], Memory] | None = None,
    ) -> None:
        self.seat = seat
        # Not registered as a submodule: it belongs to its learner, and is evaluated at these parameters only.
        self.__dict__ |= {"module": module, "parameters_by_name": dict(parameters), "slow_parameters": slow}
        self.__dict__ |= {"constants": dict(constants or {}), "_initial": initial_memory}
        self.__dict__["heeds_masks"] = getattr(module, "heeds_masks", False)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        seat: Seat,
        slow: nn.Module | None = None,
        initial_memory: Callable[[int, int], Memory] | None = None,
    ) -> Functional:
        """A module at its current, detached parameters; `slow` is its target network, if it has one."""

        def current(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
            return {name: value.detach().clone() for name, value in tensors}

        target = None if slow is None else current(slow.named_parameters())
        constants = current(module.named_buffers())
        return cls(module, seat, current(module.named_parameters()), target, constants, initial_memory)

    def at(self, parameters: Mapping[str, Tensor]) -> Functional:
        """The same policy at other parameters."""
        return Functional(self.module, self.seat, parameters, self.slow_parameters, self.constants, self._initial)

    def slow(self) -> Functional:
        """The target policy, or this policy if there is none."""
        return self if self.slow_parameters is None else self.at(self.slow_parameters)

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The module's initial memory."""
        return self._initial(replicates, environments) if self._initial else {}

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The module's distribution at the given parameters."""
        found: tuple[dist.TorchDistribution | None, Memory] = torch.func.functional_call(
            self.module,
            self.constants | self.parameters_by_name,
            (obs, memory) if mask is None else (obs, memory, mask),
        )
        return found
