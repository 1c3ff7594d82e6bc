"""Names of actors' beliefs, one for each opponent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from inference_marl.spaces import Space

OF_OPPONENTS = ("opponent_model", "opponent_prior")
"""Beliefs about one opponent's actions."""

OF_ALL_OPPONENTS = {name: f"joint_{name}" for name in OF_OPPONENTS}
"""Beliefs about the joint action of several opponents, if it is discrete."""

LATENT_MEAN, LATENT_SD = OF_LATENT = ("latent_mean", "latent_sd")
"""Belief about the opponents as a latent variable z: its mean and, unless it is a point, its standard deviation."""

BELIEFS = ("policy", "opponent_type", *OF_OPPONENTS, *OF_ALL_OPPONENTS.values(), *OF_LATENT)
"""Names that `Actor.beliefs` returns beside metrics; with several opponents, numbered (`numbered`)."""


def numbered(name: str, count: int) -> tuple[str, ...]:
    """One name per opponent, in the order of `Seat.opponents`; `name` itself if there is only one."""
    return (name,) if count == 1 else tuple(f"{name}_{number}" for number in range(count))


def is_belief(name: str) -> bool:
    """Whether this is the name of a belief, rather than of a metric."""
    stem, _, number = name.rpartition("_")
    return name in BELIEFS or (stem in OF_OPPONENTS and number.isdecimal())


def check_belief_names(found: Iterable[str], opponents: int) -> None:
    """Check that the names of beliefs about opponents fit the number of opponents.

    Raises:
        ValueError: if they do not; the message says which names are expected.
    """
    for name in OF_OPPONENTS:
        expected = numbered(name, opponents)
        about = [each for each in found if each == name or each.rpartition("_")[0] == name]
        if about and set(about) != set(expected):
            raise ValueError(
                f"beliefs: got {', '.join(about)} of {opponents} opponents, expected {', '.join(expected)}"
            )


def about_each(name: str, beliefs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Beliefs about every opponent, by name.

    Args:
        name: one of `OF_OPPONENTS`.
        beliefs: in the order of `Seat.opponents`, probabilities `... x actions` or samples `... x draws x dim`.
    """
    return dict(zip(numbered(name, len(beliefs)), beliefs, strict=True))


def about_all(name: str, joint: Tensor, spaces: Sequence[Space]) -> dict[str, Tensor]:
    """The belief about the opponents' joint action, and its marginal for every opponent, by name.

    Args:
        name: one of `OF_OPPONENTS`.
        joint: probabilities of joint actions, `... x joint`; the last opponent's action varies fastest.
        spaces: the opponents' action spaces, all `Discrete`.
    """
    if len(spaces) == 1:
        return {name: joint}
    table, first = joint.unflatten(-1, [space.features for space in spaces]), joint.dim() - 1
    every = range(first, table.dim())
    each = [table.sum([dim for dim in every if dim != kept]) for kept in every]
    return {**about_each(name, each), OF_ALL_OPPONENTS[name]: joint}
