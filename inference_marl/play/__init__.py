"""Play of any actors in any simulator, learning and evaluation."""

from inference_marl.play.collector import Collector
from inference_marl.play.evaluation import Evaluation
from inference_marl.play.functional import Functional
from inference_marl.play.learning import update
from inference_marl.play.population import Population
from inference_marl.play.simulator import GameSimulator, simulate
from inference_marl.play.stranger import Stranger
from inference_marl.play.tasks import Tasks
from inference_marl.play.trials import TrialEvaluation

__all__ = [
    "Collector",
    "Evaluation",
    "Functional",
    "GameSimulator",
    "Population",
    "Stranger",
    "Tasks",
    "TrialEvaluation",
    "simulate",
    "update",
]
