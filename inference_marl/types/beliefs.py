"""Names of what actors believe, one for each opponent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from inference_marl.spaces import Space

OF_OPPONENTS = ("opponent_model", "opponent_prior")
"""Beliefs about what opponents do."""

OF_ALL_OPPONENTS = {name: f"joint_{name}" for name in OF_OPPONENTS}
"""Beliefs about what several opponents do at once, if their actions are discrete."""

LATENT_MEAN, LATENT_SD = OF_LATENT = ("latent_mean", "latent_sd")
"""Beliefs about who the opponents are, as a latent z: its mean and, unless it is a point, its standard deviation."""

BELIEFS = ("policy", "opponent_type", *OF_OPPONENTS, *OF_ALL_OPPONENTS.values(), *OF_LATENT)
"""What `Actor.beliefs` returns beside metrics; of several opponents, with their numbers (`numbered`)."""


def numbered(name: str, count: int) -> tuple[str, ...]:
    """Names of what there is of each opponent, in the order of `Seat.opponents`: of the only one, `name` itself."""
    return (name,) if count == 1 else tuple(f"{name}_{number}" for number in range(count))


def is_belief(name: str) -> bool:
    """Whether this is the name of a belief, and not of a metric."""
    stem, _, number = name.rpartition("_")
    return name in BELIEFS or (stem in OF_OPPONENTS and number.isdecimal())


def check_belief_names(found: Iterable[str], opponents: int) -> None:
    """Refuse beliefs about opponents under names that so many opponents do not have.

    Raises:
        ValueError: naming the belief and what is expected.
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
        beliefs: in the order of `Seat.opponents`, probabilities `... x actions` or draws `... x draws x dim`.
    """
    return dict(zip(numbered(name, len(beliefs)), beliefs, strict=True))


def about_all(name: str, joint: Tensor, spaces: Sequence[Space]) -> dict[str, Tensor]:
    """Beliefs about every opponent, by name, and about all of them.

    Args:
        name: one of `OF_OPPONENTS`.
        joint: probabilities of joint actions, the last opponent's running fastest, `... x joint`.
        spaces: of the opponents' actions, `Discrete`.
    """
    if len(spaces) == 1:
        return {name: joint}
    table, first = joint.unflatten(-1, [space.features for space in spaces]), joint.dim() - 1
    every = range(first, table.dim())
    each = [table.sum([dim for dim in every if dim != kept]) for kept in every]
    return {**about_each(name, each), OF_ALL_OPPONENTS[name]: joint}
