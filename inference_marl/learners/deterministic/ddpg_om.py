"""DDPG-OM: DDPG with an opponent module and a critic of joint actions (baseline of Tian et al. 2019)."""

from __future__ import annotations

from inference_marl.described import hyperparameters
from inference_marl.learners.deterministic.modelling import ModellingOthers
from inference_marl.learners.deterministic.opponents import PredictedActions
from inference_marl.types import Seat


@hyperparameters
class DdpgOm(ModellingOthers):
    """DDPG-OM: DDPG whose critic also takes the others' actions, which an opponent module predicts::

        y_i = r_i + gamma Q_i'(o_i', a'),   a_i' = mu_i'(o_i'),   others' a_j' = f_i^j(o_i')
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(o_i, a)],   a_i = mu_i(o_i), others from replay

    with `f` trained by supervision on the others' recent actions. The others' observations and policies are unknown.
    This follows the public code of PR2 and ROMMEO (github.com/ml3705454/mapr2), since neither paper describes it; there
    losses are halved.

    Args:
        predicted: the model that predicts the others' actions.
        hidden, learning_rate, discount, target_rate, replay, batch_size, warmup, warmup_actions, noise, estimator,
            regularisation, max_gradient_norm, shared, shared_critic, sub_policies, twin_critics, target_noise,
            actor_interval: see `DeterministicActorCritic`.
        seats: see `Team`.
    """

    described_by = "predicted"

    predicted: PredictedActions = PredictedActions()

    def sees(self, seat: Seat) -> list[int]:
        """The agent's own observation and all agents' actions."""
        agents = len(seat.observations)
        return [seat.index, *range(agents, 2 * agents)]
