"""Checks of actions for environments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.inference.failures import heeded
from inference_marl.spaces import Box, Space


def finite_actions(spaces: Sequence[Space], actions: Sequence[Tensor]) -> list[Tensor]:
    """Replace actions that are not finite, for replicates that have failed.

    Their records do not count, but their environments continue to be played with the others, and would raise on NaN.

    Raises:
        NonFiniteError: if no replicate has finite actions.
        ValueError: if some actions are not finite and failures are not handled.
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
