"""The design of an ablation: levels of its cells, their differences, and groups of cells for figures."""

from __future__ import annotations

from math import prod

from inference_marl.experiment import Levels


def names_of(levels: Levels) -> tuple[list[str], list[list[str]]]:
    """Header and first cells of a table with a row per arm: its levels or, if the design is not a grid, its changes."""
    if _is_grid(levels):
        return list(next(iter(levels.values()))), [list(at.values()) for at in levels.values()]
    changed = [_changes(levels, arm) for arm in levels]
    rows = [[" + ".join(each) or "-", " + ".join(each.values()) or "reference"] for each in changed]
    return ["factor", "level"], rows


def groups(levels: Levels) -> dict[str, dict[str, str]]:
    """The arms of each panel and their labels there: `{title: {arm: label}}`.

    In a grid, a panel has the arms that differ in the last factor only. In other designs there is a panel per factor,
    with the first arm and those that differ from it in that factor alone, and one with the remaining arms.
    """
    found: dict[str, dict[str, str]] = {}
    if _is_grid(levels):
        for arm, at in levels.items():
            *others, last = at
            found.setdefault(", ".join(f"{factor}: {at[factor]}" for factor in others), {})[arm] = at[last]
        return found
    first, *rest = levels
    for arm in rest:
        changed = _changes(levels, arm)
        panel = next(iter(changed)) if len(changed) == 1 else "several changes"
        found.setdefault(panel, {first: "reference"})[arm] = " + ".join(changed.values())
    return found


def _changes(levels: Levels, arm: str) -> dict[str, str]:
    """The levels of an arm that differ from those of the first."""
    first = next(iter(levels.values()))
    return {factor: level for factor, level in levels[arm].items() if level != first[factor]}


def _is_grid(levels: Levels) -> bool:
    """Whether the arms are all combinations of levels."""
    columns = zip(*(at.values() for at in levels.values()), strict=True)
    return prod(len(set(column)) for column in columns) == len(levels)
