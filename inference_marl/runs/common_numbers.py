"""Common random numbers: arms that are played as one draw the same numbers as each of them alone.

Replicate `r` of every arm then draws the same numbers, so that arms can be compared in pairs, and an arm's results do
not depend on the arms that it is played with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from inference_marl.inference.networks import rows_of_each

BATCH = "_batch_before_reshape"
"""Attribute of a tensor that was reshaped to `rows x columns`: the batch shape of the rows before."""


class CommonNumbers(TorchFunctionMode):
    """Makes all groups of replicates draw the same random numbers: those that one group would draw alone.

    The dimension of replicates is recognised by its size: the first dimension, or the only one, of that size, or a
    multiple of it for flattened `rows`. Without such a dimension, numbers are drawn once for all replicates anyway.

    Args:
        groups: number of groups, of equal size and in order, into which replicates are divided.
        replicates: number of replicates of all groups.

    Raises:
        RuntimeError: inside, if the dimension of replicates is ambiguous, or groups with different parameters consume
            different amounts of random numbers. Such arms cannot be played as one.
    """

    def __init__(self, groups: int, replicates: int) -> None:
        super().__init__()
        self.groups, self.replicates = groups, replicates

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, for one group or for each, if it draws random numbers."""
        draw = _DRAWS.get(func)
        if draw is not None:
            return draw(self, func, args, kwargs or {})
        return func(*args, **kwargs) if kwargs else func(*args)

    def _sized(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        before = args[:-1] if func is torch.randint and "size" not in kwargs else args if "size" in kwargs else ()
        given = kwargs["size"] if "size" in kwargs else args[len(before) :]
        size = torch.Size(given[0] if len(given) == 1 and not isinstance(given[0], int) else given)
        others = {key: value for key, value in kwargs.items() if key != "size"}
        return self._once(size, lambda few: func(*before, size=few, **others))

    def _like(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        return self._once(args[0].shape, lambda few: func(args[0].new_empty(few), *args[1:], **kwargs))

    def _fill(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        filled: Tensor = args[0].copy_(self._like(func, args, kwargs))
        return filled

    def _reshape(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """`Categorical.sample` flattens its batch just before it draws."""
        made = func(*args, **kwargs)
        if len(args) == 3 and args[1] == -1:
            setattr(made, BATCH, args[0].shape[:-1])
        return made

    def _once(self, size: torch.Size, draw: Callable[[list[int]], Tensor]) -> Tensor:
        """Draw for one group, and repeat the result for the others."""
        dim = self._dim(size)
        if dim is None:
            return draw(list(size))
        few = list(size)
        few[dim] //= self.groups
        drawn = draw(few)
        return drawn.repeat([self.groups if each == dim else 1 for each in range(len(size))])

    def _of_parameters(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """Draw elementwise, once for each group."""
        if not args or not isinstance(args[0], Tensor):
            raise RuntimeError(f"{func.__name__}: got no tensor first, expected one, which shows the replicates")
        size = np.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
        if (dim := self._dim(size)) is None:
            return func(*args, **kwargs)
        parts = (arg.expand(size).chunk(self.groups, dim) if isinstance(arg, Tensor) else repeat(arg) for arg in args)
        return torch.cat(self._each(func, zip(*parts, strict=False), kwargs), dim)

    def _multinomial(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """Draw row by row, once for each group."""
        probs, *others = args
        batch = getattr(probs, BATCH, probs.shape[:-1])
        if (dim := self._dim(batch)) is None:
            return func(*args, **kwargs)
        rows = torch.arange(len(probs), device=probs.device).view(batch).chunk(self.groups, dim)
        parts = [part.flatten() for part in rows]
        drawn = torch.cat(self._each(func, [(probs[part], *others) for part in parts], kwargs))
        return torch.empty_like(drawn).index_copy_(0, torch.cat(parts), drawn)

    def _each(
        self, func: Callable[..., Tensor], groups: Iterable[Sequence[Any]], kwargs: Mapping[str, Any]
    ) -> list[Tensor]:
        """Draw for each group with its arguments, from the same state of the generator."""
        before, after, drawn = None, None, []
        for args in groups:
            device = args[0].device
            before = _state(device) if before is None else before
            _set_state(before, device)
            drawn.append(func(*args, **kwargs))
            now = _state(device)
            if after is not None and not torch.equal(now, after):
                raise RuntimeError(f"{func.__name__}: got other amounts of random numbers for other parameters")
            after = now
        return drawn

    def _dim(self, size: Sequence[int]) -> int | None:
        """The dimension of replicates, if any."""
        replicates = self.replicates * rows_of_each()
        found = [dim for dim, length in enumerate(size) if length == replicates]
        if found[:1] == [0] or len(found) == 1:
            return found[0]
        if found or any(length and length % self.replicates == 0 for length in size):
            raise RuntimeError(
                f"random numbers: got {tuple(size)} of them, expected one dimension of {replicates} replicates"
            )
        return None


Draw = Callable[[CommonNumbers, Callable[..., Tensor], Sequence[Any], Mapping[str, Any]], Tensor]

_DRAWS: dict[Callable[..., Any], Draw] = {
    **dict.fromkeys([torch.rand, torch.randn, torch.randint], CommonNumbers._sized),
    **dict.fromkeys([torch.rand_like, torch.randn_like, torch.randint_like], CommonNumbers._like),
    **dict.fromkeys([Tensor.uniform_, Tensor.normal_, Tensor.exponential_, Tensor.random_], CommonNumbers._fill),
    **dict.fromkeys([Tensor.geometric_, Tensor.cauchy_, Tensor.log_normal_, Tensor.bernoulli_], CommonNumbers._fill),
    **dict.fromkeys([torch.normal, torch.bernoulli, torch.poisson], CommonNumbers._of_parameters),
    **dict.fromkeys([torch.binomial, torch._standard_gamma, torch._sample_dirichlet], CommonNumbers._of_parameters),
    torch.multinomial: CommonNumbers._multinomial,
    Tensor.multinomial: CommonNumbers._multinomial,
    Tensor.bernoulli: CommonNumbers._of_parameters,
    # Written in Python: the numbers that they draw inside are not intercepted.
    **dict.fromkeys([functional.gumbel_softmax, functional.dropout], CommonNumbers._of_parameters),
    **dict.fromkeys([functional.alpha_dropout, functional.feature_alpha_dropout], CommonNumbers._of_parameters),
    Tensor.reshape: CommonNumbers._reshape,
}
"""Functions that draw random numbers, and the methods that call them for groups."""


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(state: Tensor, device: torch.device) -> None:
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)
