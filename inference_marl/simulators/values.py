"""Actions as environments can take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.inference.failures import heeded
from inference_marl.spaces import Box, Space


def finite_actions(spaces: Sequence[Space], actions: Sequence[Tensor]) -> list[Tensor]:
    """These actions, with something in the place of those that are not finite: what a replicate that has failed plays.

    Its records do not count, but its environments are played on with the others, and raise at what is no number.

    Raises:
        NonFiniteError: if they are finite in no replicate.
        ValueError: if some are not finite and nobody heeds failures.
    """
    return [_finite(agent, space, action) for agent, (space, action) in enumerate(zip(spaces, actions, strict=True))]


def _finite(agent: int, space: Space, action: Tensor) -> Tensor:
    if not isinstance(space, Box) or bool(torch.isfinite(action.sum())) or bool(torch.isfinite(action).all()):
        return action
    failures = heeded()
    if failures is None:
        raise ValueError(f"agent {agent}: got an action that is not finite, expected finite numbers")
    failures.look("action", action, agent)
    centre, _ = space.scale(action.dtype, action.device)
    return torch.where(torch.isfinite(action), action, centre.expand_as(action))
