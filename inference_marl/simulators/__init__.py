"""Third-party environments as games, which experiment files can name like any other game.

They are imported on first access, so that worker processes of environments need neither torch nor Pyro.
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
