"""DDPG: independent deterministic actor-critics (Lillicrap et al. 2016)."""

from __future__ import annotations

from inference_marl.described import hyperparameters
from inference_marl.learners.deterministic.base import DeterministicActorCritic
from inference_marl.types import Seat


@hyperparameters
class Ddpg(DeterministicActorCritic):
    """DDPG: independent deterministic actor-critics, with the other agents as part of the environment::

        y_i = r_i + gamma Q_i'(o_i', mu_i'(o_i'))
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(o_i, a_i)],   a_i = mu_i(o_i)

    Actor and critic take only the agent's own observation and action. The environment changes as the others learn, so
    the replay buffer grows stale. With `twin_critics`, `target_noise: 0.2` and `actor_interval: 2` it is TD3 (Fujimoto
    et al. 2018).

    Args:
        hidden, learning_rate, discount, target_rate, replay, batch_size, warmup, warmup_actions, noise, estimator,
            regularisation, max_gradient_norm, shared, shared_critic, sub_policies, twin_critics, target_noise,
            actor_interval: see `DeterministicActorCritic`.
        seats: see `Team`.
    """

    def sees(self, seat: Seat) -> list[int]:
        """The agent's own observation and action."""
        return [seat.index, len(seat.observations) + seat.index]
