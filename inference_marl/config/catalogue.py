"""The catalogue of classes that experiment files can name, and of metrics."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from inference_marl.games import Types
from inference_marl.guides import Guide, TrajectoryGuide
from inference_marl.inference.action_gradients import ActionGradient
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.estimators import ElboEstimator
from inference_marl.inference.noise import ActionNoise
from inference_marl.inference.reward_range import OfRange
from inference_marl.inference.schedules import Schedule
from inference_marl.inference.stein import Stein
from inference_marl.learners.deterministic.opponents import OpponentModule
from inference_marl.learners.latent.contexts import Context as OpponentContext
from inference_marl.learners.lola import LearningRule
from inference_marl.learners.tabular.exploration import Exploration
from inference_marl.models import Critic, InitialState, OpponentLogits, OpponentPrior, Optimality, TransitionModel
from inference_marl.play import Functional
from inference_marl.simulators import pettingzoo, vmas  # noqa: F401 (classes to be listed)
from inference_marl.statistics.summary import PUBLISHABLE
from inference_marl.types import Actor, ForeignGame, Game, Learner, Member, Metric, Part, Team

KINDS: Mapping[str, tuple[type, ...]] = {
    "games": (Game,),
    "simulators": (ForeignGame,),
    "types of opponents": (Types,),
    "learners": (Actor,),
    "opponent priors": (OpponentPrior,),
    "transitions": (TransitionModel,),
    "critics": (Critic,),
    "optimality": (Optimality,),
    "guides": (Guide, TrajectoryGuide),
    "conditionals": (Conditional,),
    "objectives": (Stein,),
    "ELBO estimators": (ElboEstimator,),
    "explorations": (Exploration,),
    "learning rules": (LearningRule,),
    "beliefs about logits": (OpponentLogits,),
    "noise": (ActionNoise,),
    "action gradients": (ActionGradient,),
    "opponent modules": (OpponentModule,),
    "contexts": (OpponentContext,),
    "schedules": (Schedule, OfRange),
}
"""Kinds of classes, with their bases."""
ELSEWHERE = (OpponentPrior, TransitionModel, InitialState, ForeignGame)
"""Bases of conditionals and games that are listed under their purpose instead."""


def available() -> dict[str, dict[str, str]]:
    """The classes that experiment files can name by a short name, by kind: name and first line of the docstring.

    Those of rooms above this one, such as `runs.frozen.Frozen`, are there once they are imported.
    """
    listed: dict[str, dict[str, str]] = {}
    for kind, bases in KINDS.items():
        listed[kind] = {
            cls.__name__: (inspect.getdoc(cls) or "").partition("\n")[0].removesuffix("::")
            for cls in sorted(_ours(*bases), key=lambda cls: cls.__name__)
            if not (kind in ("conditionals", "games") and issubclass(cls, ELSEWHERE))
        }
    return listed


def measured() -> dict[str, Metric]:
    """The metrics of any run, and those that games and learners of this package declare, by name."""
    of_steps = [metric for cls in _ours(Game, Actor) for metric in cls.metrics]
    of_episodes = [metric for cls in _ours(Game) for metric in cls.episode_metrics]
    return {metric.name: metric for metric in (*PUBLISHABLE, *of_steps, *of_episodes)}


def _ours(*bases: type) -> list[Any]:
    """All subclasses of these bases in this package that can be instantiated."""
    found = [cls for base in bases for cls in subclasses(base)]
    return [cls for cls in found if cls.__module__.startswith("inference_marl.")]


def subclasses(base: type, called: Any = None) -> list[type]:
    """The classes that can be instantiated, `base` and its subclasses, optionally by name; this package's come last."""
    wanted = called in (None, base.__name__) and not base.__name__.startswith("_")
    found = [base] if wanted and lacking(base) is None else []
    below: type
    for below in base.__subclasses__():
        found += subclasses(below, called)
    return sorted(found, key=lambda cls: cls.__module__.startswith("inference_marl."))


def lacking(cls: type) -> str | None:
    """The methods that a class needs but lacks: abstract ones, and those inherited from a base where they only raise.

    Returns:
        Their names; `""` if its constructor needs objects that no file can describe; `None` if it lacks nothing.
    """
    if issubclass(cls, Functional | Member):
        return ""
    # `inspect.isabstract` works only for classes of the metaclass `ABCMeta`, which torch modules do not have.
    abstract = [name for name in dir(cls) if getattr(getattr(cls, name, None), "__isabstractmethod__", False)]
    if abstract:
        return ", ".join(abstract)
    if issubclass(cls, Team):
        needed = {"learn_all": cls.learn_all is not Team.learn_all}
    elif issubclass(cls, Actor):
        needed = {"policy (or act)": cls.act is not Actor.act or cls.policy is not Actor.policy}
        needed |= {"learn": cls.learn is not Learner.learn} if issubclass(cls, Learner) else {}
    elif issubclass(cls, Part):
        needed = {"setup": cls is not Part}
    elif issubclass(cls, Guide):
        needed = {"order": hasattr(cls, "order")}
    else:
        bases = (torch.nn.Module, Critic, Optimality)
        needed = {"forward": getattr(cls, "forward", None) not in [base.forward for base in bases]}
    return ", ".join(name for name, defined in needed.items() if not defined) or None
