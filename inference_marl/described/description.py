"""Descriptions: objects that remember their constructor arguments, and can be written as data."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform, get_type_hints

from inference_marl.described.declared import checked, ranges_of
from inference_marl.described.ranges import Varying

Made = TypeVar("Made")

_signature = cache(inspect.signature)


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def hyperparameters(cls: type[Made]) -> type[Made]:
    """Turn the annotated fields of a described class into keyword-only arguments, which subclasses inherit.

    A subclass adds fields without repeating those of its base; `__post_init__` validates them. Fields that `setup`
    creates are declared with `field(init=False)`. The types of the others must be defined when the class is created,
    since the contents of files are checked against them.
    """
    made = dataclass(kw_only=True, eq=False, repr=False)(cls)
    init: Any = vars(made)["__init__"]
    # Names are resolved in the module of their class, so subclasses elsewhere need not import them.
    init.__annotations__ = hints = get_type_hints(init, include_extras=True)
    for each in fields(made):  # type: ignore[arg-type]
        each.type = hints.get(each.name, each.type)
        # A default left on the class would hide the submodule that torch registers under its name.
        if each.init and each.name in vars(made):
            delattr(made, each.name)
    return made


def _check_alike(cls: type[Described], given: Mapping[str, Any]) -> None:
    """Check that only arguments in `by_replicate` differ by replicate, themselves or in a container.

    Raises:
        ValueError: if another one does; the message names it, and those that may differ.
    """
    for name in given.keys() - cls.by_replicate:
        value = given[name]
        within_it = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
        for each in within_it:
            if isinstance(each, PerReplicate):
                may = f"; what may differ: {', '.join(sorted(cls.by_replicate))}" if cls.by_replicate else ""
                raise ValueError(
                    f"{name}: got {type(each).__name__}, expected the same for all replicates of {cls.__name__}{may}"
                )


def watch(value: Any) -> None:
    """Bind all varying values, in a description or in containers of descriptions, to the range of their argument."""
    for key, part in parts(value):
        for name, allowed in ranges_of(type(part)).items():
            if isinstance(number := arguments(part).get(name), Varying):
                number.watch(f"{key}.{name}" if key else name, allowed)


class PerReplicate:
    """Mixin for descriptions of a number that differs by replicate, for arguments in `Described.by_replicate`.

    Attributes:
        groups: number of groups, of equal size and in order, into which it splits the replicates.
    """

    groups: int

    def split(self, replicates: int, dtype: Any, device: Any) -> None:
        """Prepare values for this number of replicates, dtype and device; called when its owner is bound.

        Raises:
            IncompatibleError: if the number of replicates is not a multiple of `groups`.
        """
        raise NotImplementedError(f"{type(self).__name__}.split is not defined")


class Described:
    """Remembers its constructor arguments, so that experiments built in Python can be written as data.

    `describe` returns `{"class_path": ..., "init_args": {...}}`, the format of experiment files. Only subclasses of
    this class are ever instantiated from files.

    Attributes:
        by_replicate: names of the numeric arguments that may differ by replicate: once bound, the class supports one
            value per replicate, `replicates x 1`. Subclasses inherit it; those without that support override it.
        alone: whether arms that contain it are never played as one with others, because its behaviour depends on the
            number of replicates.

    Raises:
        ValueError: from any constructor, if an argument is out of its documented range, is none of the allowed words,
            or differs by replicate where it may not; the message begins with its name.
    """

    by_replicate: ClassVar[frozenset[str]] = frozenset()
    alone: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments that `__init__` is about to receive."""
        made = super().__new__(cls)
        try:
            bound = _signature(cls.__init__).bind(made, *args, **kwargs)
        except TypeError:  # copies are made without arguments; __init__ itself reports a wrong call
            return made
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name)
            elif parameter.kind is parameter.VAR_POSITIONAL and not given[name]:
                del given[name]
        _check_alike(cls, given)
        object.__setattr__(made, "_given", checked(cls, given))
        return made

    def describe(self) -> dict[str, Any]:
        """Import path and constructor arguments, as plain data."""
        cls = type(self)
        given = {name: plain(value) for name, value in arguments(self).items()}
        return {"class_path": public_path(cls), "init_args": given}


def arguments(described: Described) -> Mapping[str, Any]:
    """The arguments of the constructor by name, including defaults."""
    given: Mapping[str, Any] = vars(described)["_given"]
    return given


def brief(value: Any) -> str:
    """A one-line description for labels: the class, with arguments that differ from the defaults."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(brief, value))}]"
    if not isinstance(value, Described):
        return str(value)
    usual = _signature(type(value).__init__).parameters
    changed = [
        f"{name}={brief(given)}"
        for name, given in arguments(value).items()
        if name not in usual or (given is not (default := usual[name].default) and given != default)
    ]
    return type(value).__name__ + (f"({', '.join(changed)})" if changed else "")


def settle(described: Described, **values: Any) -> None:
    """Set arguments that were left open to values derived from the others, including in the result of `describe`."""
    for name, value in values.items():
        setattr(described, name, value)
        vars(described)["_given"][name] = value


def parts(value: Any, key: str = "") -> Iterator[tuple[str, Described]]:
    """Iterate over all descriptions in a value, including itself, or in containers of them, with dotted keys."""
    if isinstance(value, Described):
        yield key, value
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from parts(item, f"{key}[{i}]")
    elif isinstance(value, Described | dict):
        for name, item in (arguments(value) if isinstance(value, Described) else value).items():
            yield from parts(item, f"{key}.{name}" if key else str(name))


def differing(value: Any) -> Iterator[tuple[str, PerReplicate]]:
    """Iterate over all values that differ by replicate in a description or a container, with dotted keys."""
    return ((key, part) for key, part in parts(value) if isinstance(part, PerReplicate))


def public_path(cls: type) -> str:
    """The import path of a class: the outermost package above its module that exports it, or its module."""
    parts = cls.__module__.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), cls.__qualname__, None) is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def plain(value: Any) -> Any:
    """Convert described objects, tensors and containers of them to plain data."""
    if isinstance(value, Described):
        return value.describe()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value  # NumPy arrays and tensors
