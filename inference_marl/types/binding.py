"""Binding, which turns descriptions into working parts: one `bind` for actors, conditionals, critics and guides."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Self

import torch

from inference_marl.described import Described, differing, watch, within
from inference_marl.types.seat import Seat


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Use a separate random stream, split off torch's, on the CPU and on `device`.

    Torch's stream advances by one draw, regardless of how much is drawn inside. Every part of a learner is initialised
    from its own stream, so two arms that differ in one part initialise all others identically. (An additional part
    advances torch's stream by one more draw, which affects the parts made after it.)
    """
    seed = int(torch.randint(2**62, ()))
    with kept_streams(device):
        seed_streams(seed, device)
        yield


def kept_streams(device: torch.device) -> AbstractContextManager[None]:
    """Restore torch's random state, on the CPU and on `device`, on exit."""
    kept: AbstractContextManager[None] = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    return kept


def seed_streams(seed: int, device: torch.device) -> None:
    """Seed torch on the CPU and on `device`.

    The streams are those of `torch.manual_seed`, which records the call stack and so takes longer than a small step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class Counting:
    """Mixin that saves a module's counters in `state_dict`.

    Attributes:
        counters: names of the attributes that are counters.
        updates: number of updates made so far.
    """

    counters: ClassVar[tuple[str, ...]] = ("updates",)
    updates: int = 0

    def get_extra_state(self) -> dict[str, int]:
        """The counters, for `state_dict`."""
        return {name: getattr(self, name) for name in self.counters}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore from `get_extra_state`."""
        for name in self.counters:
            setattr(self, name, state[name])


class Bindable(Described):
    """A description that becomes a working part once shapes are known, bound to its `seat`.

    Constructors take hyperparameters only. `bind` copies the description, so that arms and seats can share it, and
    calls `setup` on the copy to create parameters and buffers. Before `setup`, hyperparameters that differ by replicate
    are bound to the seat, and schedules to the range of their values.

    Attributes:
        type_names: names of the opponents' types, if it has a posterior over them (the belief `opponent_type`).
    """

    seat: Seat

    @property
    def type_names(self) -> tuple[str, ...]:
        """See the class."""
        return ()

    def setup(self) -> None:
        """Create parameters and buffers, given `self.seat`; does nothing by default.

        Raises:
            IncompatibleError: if a part does not fit the seat or another part.
        """

    def _bound(self, **context: Any) -> Self:
        """A copy with these attributes, set up from its own random stream."""
        if "seat" in self.__dict__:
            raise ValueError(f"got a {type(self).__name__} that is bound already, expected its description")
        bound = copy.deepcopy(self)
        for name, value in context.items():
            setattr(bound, name, value)
        seat = bound.seat
        for key, number in differing(bound):
            with within(key):
                number.split(seat.replicates, seat.dtype, seat.device)
        watch(bound)
        with own_stream(seat.device):
            bound.setup()
        return bound


class Part(Bindable, torch.nn.Module):
    """A description that becomes a torch module once bound: a learner's network, or anything else with parameters.

    The owner binds it in its own `setup`: `self.network = self.network.bind(self.seat)`. Conditional distributions,
    which Pyro samples from, have another base class, `inference.conditional.Conditional`.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Initialise the module before the constructor, so that classes declared by fields can assign submodules."""
        made = super().__new__(cls, *args, **kwargs)
        torch.nn.Module.__init__(made)
        return made

    def bind(self, seat: Seat) -> Self:
        """Return a working copy in `seat`.

        Raises:
            IncompatibleError: if a part does not fit; the message names its key.
        """
        return self._bound(seat=seat)
