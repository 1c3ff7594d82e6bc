"""Other people's environments as games: descriptions that an experiment file may name in the place of a game.

They are imported when they are first asked for, so that a process that plays environments needs neither torch nor Pyro.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_marl.simulators.pettingzoo import PettingZoo
    from inference_marl.simulators.vmas import Vmas

__all__ = ["PettingZoo", "Vmas"]


def __getattr__(name: str) -> Any:
    if name == "PettingZoo":
        from inference_marl.simulators.pettingzoo import PettingZoo

        return PettingZoo
    if name == "Vmas":
        from inference_marl.simulators.vmas import Vmas

        return Vmas
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
