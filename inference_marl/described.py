"""Descriptions that can be written as data, and errors that locate what does not fit."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from types import MappingProxyType, NoneType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

Made = TypeVar("Made")


class Range(NamedTuple):
    """Which numbers something may be: of what kind, between which ends, and whether of any size that these allow."""

    kind: type
    fits: Callable[[Any], bool]
    any_size: bool = False


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "a finite number": Range(Real, lambda number: -math.inf < number < math.inf),
        "a finite number, or minus infinity": Range(Real, lambda number: number < math.inf),
        "a positive number": Range(Real, lambda number: 0 < number < math.inf),
        "a number that is not negative": Range(Real, lambda number: 0 <= number < math.inf),
        "a number in [0, 1]": Range(Real, lambda number: 0 <= number <= 1),
        "a number in [0, 1)": Range(Real, lambda number: 0 <= number < 1),
        "a number in (0, 1]": Range(Real, lambda number: 0 < number <= 1),
        "a number in (0, 1)": Range(Real, lambda number: 0 < number < 1),
        "an integer": Range(Integral, lambda number: True),
        "a positive integer": Range(Integral, lambda number: number >= 1),
        "an integer that is not negative": Range(Integral, lambda number: number >= 0),
        "an integer of at least 2": Range(Integral, lambda number: number >= 2),
        "an integer that is not negative and below 2**64": Range(Integral, lambda number: 0 <= number < 2**64, True),
    }
)
"""What `expect` and `In` know, in the words of messages. NaN is in no range, and infinity in those that say so."""


LARGEST = 1e30
"""The largest size of a number that `expect` knows, and the inverse of the smallest that must be positive."""
MOST = 10**12
"""The largest integer that `expect` knows: what is counted up to more than that never ends."""


def expect(what: str, also: str = "", /, **numbers: Any) -> None:
    """Check the range of numbers; the arguments of a description are checked by their annotations, see `In`.

    Args:
        what: a key of `RANGES`.
        also: what the message adds, such as a hint. If it says `or null`, `None` is accepted.
        numbers: arguments by name.

    Raises:
        ValueError: `name: got number, expected what also`.
    """
    allowed = RANGES[what]
    for name, number in numbers.items():
        if number is None and "or null" in also:
            continue
        if not isinstance(number, allowed.kind) or isinstance(number, bool) or not allowed.fits(number):
            got = _digits(number) if isinstance(number, int) else repr(number)
            raise ValueError(f"{name}: got {got}, expected {what}{also}")
        if not allowed.any_size:
            _check_size(name, number, f"{what}{also}")


def _check_size(name: str, number: Any, expected: str) -> None:
    """Refuse integers that nobody counts to, and numbers that single precision cannot work with (`ValueError`)."""
    if isinstance(number, Integral):
        if abs(int(number)) > MOST:
            raise ValueError(f"{name}: got {_digits(number)}, expected {expected}, of at most {MOST:,}")
    elif LARGEST < abs(number) < math.inf or (expected.startswith("a positive number") and number < 1 / LARGEST):
        size = f"of a size from {1 / LARGEST:g} to {LARGEST:g}, with which single precision can work"
        raise ValueError(f"{name}: got {number!r}, expected {expected}, {size}")


def _digits(number: Any) -> str:
    """An integer, shortened if it is very long."""
    text = str(number)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} digits)"


@dataclass(frozen=True)
class In:
    """In an annotation, the range of the numbers in it: `rate: Annotated[float, In("a number in (0, 1]")] = 0.1`.

    `Described` checks every argument that is annotated as a number, or as a container of some, when one is made: an
    `int` is `In("an integer")` and a `float` `In("a finite number")` unless something else is said. The aliases below
    say what is needed most. `rate: Rate | Schedule` is about every value that a schedule takes. An argument keeps the
    range that a base declares under the same name, unless it has one of its own.

    Args:
        what: a key of `RANGES`.
        also: what the message adds, such as a hint; if `None` may be given, `, or null` by default.
    """

    what: str
    also: str = ""

    def __post_init__(self) -> None:
        if self.what not in RANGES:
            raise ValueError(f"In: got {self.what!r}, expected one of {', '.join(RANGES)}")


Positive = Annotated[float, In("a positive number")]
NotNegative = Annotated[float, In("a number that is not negative")]
Probability = Annotated[float, In("a number in [0, 1]")]
BelowOne = Annotated[float, In("a number in [0, 1)")]
"""Not negative: discounts and the like."""
Rate = Annotated[float, In("a number in (0, 1]")]
Count = Annotated[int, In("a positive integer")]
Whole = Annotated[int, In("an integer that is not negative")]
Several = Annotated[int, In("an integer of at least 2")]
Horizon = Annotated[int | None, In("a positive integer", ", or null for a game without end")]
Discount = Annotated[float | None, In("a number in [0, 1)", ", or null for none")]
"""A game's."""
Clip = Annotated[float | None, In("a positive number", ", or null for none")]
"""A largest norm."""


class Varying:
    """Mixin of descriptions that stand for a number which changes or differs, such as a schedule."""

    def check(self, name: str, allowed: In, declared: type) -> None:
        """Refuse values out of range, as far as they are known.

        Args:
            name: the argument that it is given for.
            allowed: the range of its values.
            declared: the class that the argument may be of.

        Raises:
            ValueError: `name: got value, expected ...`.
        """
        raise NotImplementedError(f"{type(self).__name__}.check is not defined")

    def watch(self, name: str, allowed: In) -> None:
        """From now on, refuse values that are known only once they are taken; part of binding its owner."""


def interval(name: str, ends: float | Sequence[float], *, strictly: bool = True) -> tuple[float, float]:
    """The ends of `[low, high]`, or twice the number if `ends` is one.

    Raises:
        ValueError: unless they are finite and in order, `strictly` or not.
    """
    pair: tuple[Any, ...] = tuple(ends) if isinstance(ends, Sequence) else (ends, ends)
    finite = len(pair) == 2 and all(isinstance(end, Real) and math.isfinite(end) for end in pair)
    if not finite or pair[0] > pair[1] or (strictly and pair[0] == pair[1]):
        raise ValueError(f"{name}: got {ends}, expected [low, high] with low {'<' if strictly else '<='} high")
    return float(pair[0]), float(pair[1])


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def hyperparameters(cls: type[Made]) -> type[Made]:
    """Turn the annotated fields of a described class into keyword-only arguments, which subclasses inherit.

    A subclass adds fields without repeating those of its base; `__post_init__` validates them. Fields that `setup`
    creates are declared with `field(init=False)`. The types of the others must be defined when the class is created,
    since the contents of files are checked against them.
    """
    made = dataclass(kw_only=True, eq=False, repr=False)(cls)
    init: Any = vars(made)["__init__"]
    # Names are resolved in the module of their class, so a subclass elsewhere need not import them.
    init.__annotations__ = hints = get_type_hints(init, include_extras=True)
    for each in fields(made):  # type: ignore[arg-type]
        each.type = hints.get(each.name, each.type)
        # A default left on the class would hide the submodule that torch registers under its name.
        if each.init and each.name in vars(made):
            delattr(made, each.name)
    return made


def _check_fields(cls: type, given: dict[str, Any]) -> None:
    """Check constructor arguments that are fields against their declared classes.

    Raises:
        TypeError: if a subclass hides a field and is not decorated, so that its value would be ignored.
        ValueError: if an argument is of another class.
    """
    every = fields(cls) if is_dataclass(cls) else ()
    declared = {each.name: each for each in every if each.init and each.name in given}
    for base in cls.__mro__:
        hidden = [name for name in getattr(base, "__dataclass_fields__", ()) if name in declared and name in vars(base)]
        if hidden:
            raise TypeError(f"{base.__name__}.{hidden[0]}: got a field of its base, expected @hyperparameters above it")
    for name, each in declared.items():
        kinds = [kind for kind, _ in _members(each.type)]
        if not all(isinstance(kind, type) for kind in kinds):
            continue  # containers, which their class checks, and one of several words
        accepted = tuple({float: Real, int: Integral}.get(kind, kind) for kind in kinds)
        if not isinstance(given[name], accepted):
            names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{name}: got {given[name]!r}, expected {names}")


def _check_alike(cls: type[Described], given: Mapping[str, Any]) -> None:
    """Refuse what differs by replicate, itself or in a container, where the class expects the same for all.

    Raises:
        ValueError: naming the argument, and those that may differ.
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


def _members(hint: Any, allowed: In | None = None) -> Iterator[tuple[Any, In | None]]:
    """The members of a union, or the one type, each with the range that is declared for it, if any."""
    if get_origin(hint) is Annotated:
        kind, *stated = get_args(hint)
        ranges = [each for each in stated if isinstance(each, In)]
        yield from _members(kind, ranges[-1] if ranges else allowed)
    elif get_origin(hint) in (Union, UnionType):
        for each in get_args(hint):
            yield from _members(each, allowed)
    else:
        yield hint, allowed


_HINTS: dict[type, dict[str, Any]] = {}


def checked_hints(cls: type) -> Mapping[str, Any]:
    """What the constructors of a class and of its bases declare as numbers, containers of some, or words, by name.

    Types whose names are there for type checkers only are left out.
    """
    if cls in _HINTS:
        return _HINTS[cls]
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        init: Any = vars(base).get("__init__")
        for name, said in getattr(init, "__annotations__", {}).items():
            with suppress(AttributeError, NameError, TypeError):
                one = SimpleNamespace(__annotations__={name: said})
                hint = get_type_hints(one, getattr(init, "__globals__", None), include_extras=True)[name]
                ranges = [allowed for _, allowed in _members(found.get(name)) if allowed]
                unsaid = not any(allowed for _, allowed in _members(hint))
                found[name] = Annotated[hint, ranges[-1]] if ranges and unsaid else hint
    _HINTS[cls] = {name: hint for name, hint in found.items() if _has_numbers(hint) or get_origin(hint) is Literal}
    return _HINTS[cls]


def _range(hint: Any) -> In | None:
    """The range of what is declared as a number, alone or beside others; `None` if nothing is."""
    default = {int: In("an integer"), float: In("a finite number")}
    return next((allowed or default[kind] for kind, allowed in _members(hint) if kind in (int, float)), None)


def _has_numbers(hint: Any) -> bool:
    """Whether a declared type is a number, or a container of some."""
    return any(kind in (int, float) or any(map(_has_numbers, _elements(kind))) for kind, _ in _members(hint))


def _elements(kind: Any) -> tuple[Any, ...]:
    """The types of what a container holds, keys included; none for other types."""
    origin = get_origin(kind)
    return get_args(kind) if isinstance(origin, type) and issubclass(origin, Sequence | Mapping) else ()


def _check_numbers(name: str, hint: Any, value: Any) -> None:
    """Check a value, and what it contains, against a declared type, as far as that is about numbers.

    Raises:
        ValueError: `name: got value, expected ...`, where the name ends in the item's number or key.
    """
    kinds = [kind for kind, _ in _members(hint)]
    if not _has_numbers(hint) or (value is None and NoneType in kinds):
        return  # the former of what a mapping or a tuple holds beside numbers
    allowed = _range(hint)
    others = [kind for kind in kinds if isinstance(kind, type) and kind not in (int, float)]
    declared = next((kind for kind in others if isinstance(value, kind)), None)
    if declared is not None:
        if allowed and isinstance(value, Varying):
            value.check(name, allowed, declared)
        return
    items = value.tolist() if hasattr(value, "tolist") and not isinstance(value, Real) else value
    for kind in kinds:
        origin, inner = get_origin(kind), _elements(kind)
        if inner and issubclass(origin, Mapping) and isinstance(items, Mapping):
            for key, item in items.items():
                _check_numbers(name, inner[0], key)
                _check_numbers(f"{name}.{key}", inner[1], item)
            return
        if inner and issubclass(origin, Sequence) and isinstance(items, Sequence) and not isinstance(items, str):
            fixed = issubclass(origin, tuple) and inner[-1] is not Ellipsis
            for number, item in enumerate(items):
                if number < len(inner) or not fixed:
                    _check_numbers(f"{name}[{number}]", inner[number if fixed else 0], item)
            return
        if kind is Any or (get_origin(kind) is Literal and value in get_args(kind)):
            return
    also = ", or null" if NoneType in kinds else ""
    if allowed is not None:
        expect(allowed.what, allowed.also or also, **{name: value})
    else:
        mapping = any(issubclass(get_origin(kind), Mapping) for kind in kinds if _elements(kind))
        what = "a mapping" if mapping else "a list"
        raise ValueError(f"{name}: got {value!r}, expected {what}{also}")


def watch(value: Any) -> None:
    """Tell everything that varies, in a description or in containers of some, which range it is to stay in."""
    for key, part in parts(value):
        for name, hint in checked_hints(type(part)).items():
            number = arguments(part).get(name)
            if isinstance(number, Varying) and (allowed := _range(hint)):
                number.watch(f"{key}.{name}" if key else name, allowed)


def _word(name: str, hint: Any, value: Any) -> Any:
    """A value that is declared as one of several words; of torch's own, such as `torch.float32`, their word.

    Raises:
        ValueError: if it is none of them.
    """
    if get_origin(hint) is not Literal:
        return value
    known = get_args(hint)
    word = str(value).removeprefix("torch.") if type(value).__module__ == "torch" else value
    if word not in known:
        raise ValueError(f"{name}: got {value!r}, expected {' or '.join(map(str, known))}")
    return word


class PerReplicate:
    """Mixin of descriptions of a number that differs by replicate; `Described.by_replicate` says who takes one.

    Attributes:
        groups: into how many groups of equal size, in order, it splits the replicates.
    """

    groups: int

    def split(self, replicates: int, dtype: Any, device: Any) -> None:
        """Prepare for that many replicates, and numbers of that type on that device; part of binding its owner.

        Raises:
            IncompatibleError: if replicates cannot be split so.
        """
        raise NotImplementedError(f"{type(self).__name__}.split is not defined")


class Described:
    """Remembers its constructor arguments, so that experiments built in Python can be written as data.

    `describe` returns `{"class_path": ..., "init_args": {...}}`, the format of experiment files. Only subclasses of
    this class are ever instantiated from one.

    Attributes:
        by_replicate: the arguments, all of them numbers, that may differ by replicate: once bound, the class copes with
            one per replicate, `replicates x 1`. Subclasses inherit it; one that does not cope restates it.
        alone: whether arms with it are played one by one, also if they differ in numbers only: for what depends on how
            many replicates there are.

    Raises:
        ValueError: from any constructor, if an argument is out of the range that is documented for it, none of the
            words that its type allows, or differs by replicate where it may not; the message begins with its name.
    """

    by_replicate: ClassVar[frozenset[str]] = frozenset()
    alone: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments that `__init__` is about to receive."""
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)
        except TypeError:  # copies are made without arguments; a wrong call is reported by __init__ itself
            return made
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name)
            elif parameter.kind is parameter.VAR_POSITIONAL and not given[name]:
                del given[name]
        _check_alike(cls, given)
        _check_fields(cls, given)
        for name, hint in checked_hints(cls).items():
            if name in given:
                _check_numbers(name, hint, given[name])
                given[name] = _word(name, hint, given[name])
        object.__setattr__(made, "_given", given)
        return made

    def describe(self) -> dict[str, Any]:
        """Import path and constructor arguments, as plain data."""
        cls = type(self)
        given = {name: plain(value) for name, value in arguments(self).items()}
        return {"class_path": public_path(cls), "init_args": given}


def arguments(described: Described) -> Mapping[str, Any]:
    """What the constructor was given, defaults included, by name."""
    given: Mapping[str, Any] = vars(described)["_given"]
    return given


def brief(value: Any) -> str:
    """A description in one line, for labels: its class, with the arguments that are not the default ones."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(brief, value))}]"
    if not isinstance(value, Described):
        return str(value)
    usual = inspect.signature(type(value).__init__).parameters
    changed = [
        f"{name}={brief(given)}"
        for name, given in arguments(value).items()
        if name not in usual or (given is not (default := usual[name].default) and given != default)
    ]
    return type(value).__name__ + (f"({', '.join(changed)})" if changed else "")


def settle(described: Described, **values: Any) -> None:
    """Set arguments that were left open to what follows from the others, also in what `describe` returns."""
    for name, value in values.items():
        setattr(described, name, value)
        vars(described)["_given"][name] = value


def parts(value: Any, key: str = "") -> Iterator[tuple[str, Described]]:
    """Every description in a value, itself included, or in containers of them, by dotted key."""
    if isinstance(value, Described):
        yield key, value
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from parts(item, f"{key}[{i}]")
    elif isinstance(value, Described | dict):
        for name, item in (arguments(value) if isinstance(value, Described) else value).items():
            yield from parts(item, f"{key}.{name}" if key else str(name))


def differing(value: Any) -> Iterator[tuple[str, PerReplicate]]:
    """What differs by replicate in a description, or in containers of them, by dotted key."""
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
    return value.tolist() if hasattr(value, "tolist") else value  # numpy and torch


class IncompatibleError(ValueError):
    """Two parts of an experiment do not fit together; `key` locates the mismatch as a dotted path."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class InspectError(ValueError):
    """A folder cannot be inspected: it is not a run, is unfinished, or lacks what was requested."""


@contextmanager
def within(key: str) -> Iterator[None]:
    """Prefix the key of any `IncompatibleError` raised inside, so that the user sees the full path.

    A plain `ValueError` from a constructor or a `bind` becomes an `IncompatibleError` at this key, or at the argument
    that the message begins with (`window: got -3, expected ...`).
    """
    try:
        yield
    except ValueError as error:
        message, inner = (error.message, error.key) if isinstance(error, IncompatibleError) else (str(error), "")
        argument, separator, rest = message.partition(": got ")
        if not inner and separator and re.fullmatch(r"\w+(\.\w+|\[\d+\])*", argument):
            message, inner = f"got {rest}", argument
        raise IncompatibleError(message, f"{key}.{inner}" if inner else key) from error


def first_line(error: BaseException) -> str:
    """The message without the details that Pyro and torch append (shapes, values)."""
    return (str(error).splitlines() or [""])[0]
