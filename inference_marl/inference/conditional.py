"""Conditional distributions, the common base of priors, policies, opponent models and transitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from typing import Any, ClassVar, Literal, Protocol, Self

import pyro
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn

from inference_marl.described import IncompatibleError
from inference_marl.inference.factored import Factored
from inference_marl.inference.schedules import Number
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Bindable, Seat

Over = Literal["one", "joint", "each"]
"""See `Conditional.over`."""


class local_parameters(ContextDecorator):  # noqa: N801 (a context manager, called like a function)
    """Context in which parameters belong to their modules, and reading one is not a Pyro statement.

    By default Pyro registers every parameter that a module reads in a global store under its name, where those of two
    agents would collide. Learners optimise their own parameters, so they work inside this context. Outside of it,
    models and guides are ordinary Pyro modules and can be trained by `pyro.infer.SVI`. Nesting it, or using it as a
    decorator, is cheap.
    """

    depth: ClassVar[int] = 0
    """Number of nested contexts."""

    def __enter__(self) -> None:
        if local_parameters.depth == 0:
            self._setting = pyro.settings.context(module_local_params=True)
            self._setting.__enter__()
        local_parameters.depth += 1

    def __exit__(self, *error: Any) -> None:
        local_parameters.depth -= 1
        if local_parameters.depth == 0:
            self._setting.__exit__(*error)


class Reads(Protocol):
    """The part of a model that its guide, or its opponent prior, may read."""

    @property
    def temperature(self) -> Number:
        """Alpha > 0, the weight of the entropy of the agent's own action."""

    @property
    def kl_weight(self) -> Number:
        """Beta > 0, the weight of the opponents' action."""

    def opponent_prior(self, obs: Tensor) -> Factored:
        """`P(b | s)`."""

    def q_table(self, obs: Tensor) -> Tensor:
        """`Q(s, ., .)`, `replicates x batch x actions x (opponents' joint actions)`; discrete spaces only."""


class PyroPart(Bindable, PyroModule):
    """Base: a description that becomes a Pyro module once bound."""

    _is_plain: bool | None
    """Whether no attribute is sampled or constrained, so that Pyro need not intervene in calls and attribute reads."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Initialise the module before any constructor runs, so that subclasses may be dataclasses."""
        made = super().__new__(cls, *args, **kwargs)
        PyroPart.__init__(made)
        return made

    def __init__(self) -> None:
        with pyro.settings.context(module_local_params=True):  # works in this mode and in Pyro's own
            super().__init__()
        self.__dict__["_is_plain"] = None

    def _bound(self, **context: Any) -> Self:
        bound = super()._bound(**context)
        bound.__dict__["_is_plain"] = None
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As in Pyro, but skips Pyro's context inside `local_parameters` where it would have no effect."""
        if local_parameters.depth:
            if self.__dict__["_is_plain"] is None:
                self.__dict__["_is_plain"] = not any(_is_of_pyro(module) for module in self.modules())
            if self.__dict__["_is_plain"]:
                return nn.Module.__call__(self, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """As in Pyro, but skips Pyro's statements inside `local_parameters`, too."""
        if local_parameters.depth and self.__dict__.get("_is_plain"):
            return nn.Module.__getattr__(self, name)
        return super().__getattr__(name)


def _is_of_pyro(module: nn.Module) -> bool:
    """Whether a module has parameters constrained, or attributes sampled, by Pyro."""
    declared = (value for base in type(module).__mro__ for value in vars(base).values())
    own = (getattr(module, "_pyro_params", None), getattr(module, "_pyro_samples", None))
    return any(own) or any(isinstance(value, PyroParam | PyroSample) for value in declared)


class Conditional(PyroPart):
    """Base: a conditional distribution `p(target | parents)`: a prior, policy, opponent model or transition.

    A subclass defines `forward(*parents)`, which takes the parents' values, `[extra x] replicates x batch x event`, and
    returns a Pyro distribution over `self.target` whose batch shape broadcasts with theirs. It may define `setup` to
    create parameters, all with `replicates` as first dimension.

    The class attributes `targets` and `conditions` list the kinds of space accepted for the target and for every
    parent, and `bounded` says whether a box must have finite edges, so that invalid combinations raise before anything
    runs. So do uses that need a density which a class does not have, see `need_density`.

    Attributes:
        has_density: whether the distributions have a `log_prob`; otherwise they can only be sampled.
        reads_model: whether `forward` also takes the model, from which the distribution is computed.
        over: the variable it describes where there are several opponents: the action of `one` of them, so that each
            gets its own conditional; their `joint` action, one variable with a table; or the action of `each` of them,
            see `Factored`.
    """

    has_density: ClassVar[bool] = True
    reads_model: ClassVar[bool] = False
    over: ClassVar[Over] = "one"
    bounded: ClassVar[bool] = False
    targets: ClassVar[tuple[type, ...]] = (Discrete, Box)
    conditions: ClassVar[tuple[type, ...]] = (Discrete, Box)

    target: Space  # a tuple of spaces for a conditional over each of several opponents
    parents: tuple[Space, ...]
    forward: Callable[..., Any]  # returns a distribution or, over each opponent, a `Factored`

    def bind(self, seat: Seat, target: Space | tuple[Space, ...], parents: Sequence[Space]) -> Self:
        """Return a working copy over `target` given `parents`, in `seat`.

        Raises:
            IncompatibleError: if the class does not support these spaces.
        """
        targets = target if isinstance(target, tuple) else (target,)
        for role, space, accepted in [
            *(("the variable it describes", each, self.targets) for each in targets),
            *(("what it conditions on", parent, self.conditions) for parent in parents),
        ]:
            if not isinstance(space, accepted):
                names = " or ".join(kind.__name__ for kind in accepted)
                raise IncompatibleError(
                    f"{type(self).__name__} got {space} for {role}, expected {names}; "
                    "choose another class for this game, or another game"
                )
        for each in targets:
            if self.bounded and isinstance(each, Box) and not each.bounded:
                raise IncompatibleError(f"{type(self).__name__} got {each}, expected a box with finite edges")
        return self._bound(seat=seat, target=target, parents=tuple(parents))

    def observe(self, obs: Tensor, *values: Any, **named: Any) -> None:
        """Observe realised values of the target, or of each target, `replicates x environments x event`.

        For conditionals that learn directly from play, such as an empirical prior. Draws no random numbers. Nothing by
        default.
        """

    @property
    def learns_from_play(self) -> bool:
        """Whether the class defines `observe`."""
        return type(self).observe is not Conditional.observe

    @property
    def full_support(self) -> bool:
        """Whether every value has positive probability, so that any fitted guide has a finite ELBO."""
        return True


def need_density(conditional: Conditional) -> None:
    """Raise for a conditional that has no density and would be fitted by it.

    Raises:
        IncompatibleError: if the conditional can only be sampled.
    """
    if not conditional.has_density:
        raise IncompatibleError(
            f"got {type(conditional).__name__}, which can only be sampled, expected a conditional with a density, such "
            "as TanhNormalNetwork, since it is fitted by its density"
        )
