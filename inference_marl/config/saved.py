"""Checks that checkpoints contain the whole state of users' own actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inference_marl.described import IncompatibleError
from inference_marl.types import Actor, Counting

OF_TORCH = frozenset(vars(nn.Module()))


def unsaved(actor: Actor) -> dict[str, Any]:
    """Numbers and tensors in an actor's attributes that its `state_dict` does not contain, by dotted path.

    Only classes outside this package are examined, since its own are covered by tests.

    Raises:
        IncompatibleError: if there is one of torch's optimisers, whose state no checkpoint would contain.
    """
    found: dict[str, Any] = {}
    for path, module in actor.named_modules():
        cls = type(module)
        if cls.__module__.startswith(("inference_marl.", "torch.")):
            continue
        saved = {*OF_TORCH, *getattr(cls, "transient", ()), *(cls.counters if isinstance(module, Counting) else ())}
        for name, value in vars(module).items():
            where = f"{path}.{name}" if path else name
            if isinstance(value, torch.optim.Optimizer):
                raise IncompatibleError(
                    f"{cls.__name__} got {type(value).__name__} of torch's in its attribute {where}, which no "
                    "checkpoint holds, so that a resumed run would end otherwise; expected "
                    "inference_marl.inference.optimise.Optimiser, which is a module"
                )
            if name not in saved and isinstance(value, int | float | Tensor):
                found[where] = value.clone() if isinstance(value, Tensor) else value
    return found


def check_saved(actors: Sequence[Actor], before: Sequence[Mapping[str, Any]]) -> None:
    """Check that no attribute has changed that checkpoints do not contain.

    Args:
        actors: the bound actors.
        before: the result of `unsaved` for each, before they played and learned.

    Raises:
        IncompatibleError: if one has; the message names the attribute.
    """
    for actor, known in zip(actors, before, strict=True):
        for where, value in unsaved(actor).items():
            if where in known and not _same(value, known[where]):
                raise IncompatibleError(
                    f"{type(actor).__name__} has changed its attribute {where}, which no checkpoint holds, so that a "
                    "resumed run would end otherwise; expected a buffer (`register_buffer`), a counter (`Counting`), "
                    "an actor's memory, or a name in `transient` if it does not matter"
                )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
