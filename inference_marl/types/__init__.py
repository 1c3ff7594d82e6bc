"""Data types that the subpackages exchange, and the interfaces that they implement; no algorithms.

Shapes are `[time x] replicates x environments x event` in play and `replicates x batch x event` in learning. Extra
dimensions (particles, enumerated sites) are added on the left only.
"""

from inference_marl.types.actor import Actor, Learner, most_probable
from inference_marl.types.beliefs import (
    LATENT_MEAN,
    LATENT_SD,
    OF_ALL_OPPONENTS,
    OF_LATENT,
    OF_OPPONENTS,
    about_all,
    about_each,
    check_belief_names,
    is_belief,
    numbered,
)
from inference_marl.types.binding import Bindable, Counting, Part, kept_streams, own_stream, seed_streams
from inference_marl.types.game import Dynamics, ForeignGame, Game, Observed, Outcome, Simulator, State, Step
from inference_marl.types.metric import POSITIVE, PROBABILITY, SEEDS, STEPS, UNBOUNDED, Metric, check_declared
from inference_marl.types.seat import Seat
from inference_marl.types.team import Member, Team
from inference_marl.types.transition import Decision, Experience, Memory, Start, Trajectory, Transition, choose, select

__all__ = [
    "LATENT_MEAN",
    "LATENT_SD",
    "OF_ALL_OPPONENTS",
    "OF_LATENT",
    "OF_OPPONENTS",
    "POSITIVE",
    "PROBABILITY",
    "SEEDS",
    "STEPS",
    "UNBOUNDED",
    "Actor",
    "Bindable",
    "Counting",
    "Decision",
    "Dynamics",
    "Experience",
    "ForeignGame",
    "Game",
    "Learner",
    "Member",
    "Memory",
    "Metric",
    "Observed",
    "Outcome",
    "Part",
    "Seat",
    "Simulator",
    "Start",
    "State",
    "Step",
    "Team",
    "Trajectory",
    "Transition",
    "about_all",
    "about_each",
    "check_belief_names",
    "check_declared",
    "choose",
    "is_belief",
    "kept_streams",
    "most_probable",
    "numbered",
    "own_stream",
    "seed_streams",
    "select",
]
