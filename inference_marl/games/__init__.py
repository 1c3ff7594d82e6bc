"""Games: descriptions that implement `inference_marl.types.Game`.

`PettingZooGame`, which exposes any of them to other libraries as a PettingZoo parallel environment, is loaded on first
use, so that importing games imports neither gymnasium nor pettingzoo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_marl.games.actions import check_actions
from inference_marl.games.bayesian import BayesianGame
from inference_marl.games.bayesian_matrix import BayesianMatrixGame
from inference_marl.games.coins import CoinGame
from inference_marl.games.differential import (
    DifferentialGame,
    MatchingPenniesContinuous,
    MaxOfTwoQuadratics,
    Rotational,
    Trigonometric,
    TwoAgentGame,
    Wolf,
    ZeroSum,
)
from inference_marl.games.grid import MeetingGrid
from inference_marl.games.guard import Guard
from inference_marl.games.hidden_types import DirichletTypes, ListedTypes, MixedTypes, ShellTypes, Types, UniformTypes
from inference_marl.games.kuhn import KuhnPoker
from inference_marl.games.matrix import MatrixGame
from inference_marl.games.particles import (
    Adversary,
    Crypto,
    ParticleWorld,
    Push,
    Reference,
    SpeakerListener,
    Spread,
    Tag,
)
from inference_marl.games.payoffs import PAYOFFS, NamedPayoff
from inference_marl.games.rendezvous import Rendezvous
from inference_marl.games.scaled import Scaled
from inference_marl.games.stochastic import RiskyBridge, StochasticGame
from inference_marl.games.variants import Variants

if TYPE_CHECKING:
    from inference_marl.games.pettingzoo import PettingZooGame

__all__ = [
    "PAYOFFS",
    "Adversary",
    "BayesianGame",
    "BayesianMatrixGame",
    "CoinGame",
    "Crypto",
    "DifferentialGame",
    "DirichletTypes",
    "Guard",
    "KuhnPoker",
    "ListedTypes",
    "MatchingPenniesContinuous",
    "MatrixGame",
    "MaxOfTwoQuadratics",
    "MeetingGrid",
    "MixedTypes",
    "NamedPayoff",
    "ParticleWorld",
    "PettingZooGame",
    "Push",
    "Reference",
    "Rendezvous",
    "RiskyBridge",
    "Rotational",
    "Scaled",
    "ShellTypes",
    "SpeakerListener",
    "Spread",
    "StochasticGame",
    "Tag",
    "Trigonometric",
    "TwoAgentGame",
    "Types",
    "UniformTypes",
    "Variants",
    "Wolf",
    "ZeroSum",
    "check_actions",
]


def __getattr__(name: str) -> object:
    if name == "PettingZooGame":
        from inference_marl.games.pettingzoo import PettingZooGame

        return PettingZooGame
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
