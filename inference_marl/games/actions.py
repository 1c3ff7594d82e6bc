"""Validation of joint actions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inference_marl.spaces import Space


def check_actions(spaces: Sequence[Space], actions: Sequence[Tensor], batch: Sequence[int]) -> None:
    """Refuse actions that are too few, too many or not shaped like the state.

    Args:
        spaces: one per agent.
        actions: one tensor per agent.
        batch: the state's `replicates x environments`.

    Raises:
        ValueError: if there is not one tensor of shape `replicates x environments x event` per agent.
    """
    shape = tuple(batch)
    fit = (action.shape == shape + space.event_shape for space, action in zip(spaces, actions, strict=False))
    if len(actions) != len(spaces) or not all(fit):
        got, expected = [tuple(action.shape) for action in actions], [shape + space.event_shape for space in spaces]
        raise ValueError(
            f"actions: got shapes {got}, expected {expected}: one tensor per agent, replicates x environments x event"
        )
