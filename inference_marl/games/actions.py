"""Checks of joint actions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inference_marl.spaces import Space


def check_actions(spaces: Sequence[Space], actions: Sequence[Tensor], batch: Sequence[int]) -> None:
    """Check the number of actions and their shapes.

    Args:
        spaces: action space of each agent.
        actions: actions of each agent.
        batch: the state's `replicates x environments`.

    Raises:
        ValueError: if there is not one tensor of shape `replicates x environments x event` per agent.
    """
    got = [action.shape for action in actions]
    expected = [(*batch, *space.event_shape) for space in spaces]
    if got != expected:
        raise ValueError(
            f"actions: got shapes {[*map(tuple, got)]}, expected {expected}: one tensor per agent, "
            "replicates x environments x event"
        )
