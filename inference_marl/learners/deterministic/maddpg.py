"""MADDPG: decentralised actors with centralised critics (Lowe et al., NeurIPS 2017)."""

from __future__ import annotations

from inference_marl.described import hyperparameters
from inference_marl.learners.deterministic.modelling import ModellingOthers
from inference_marl.learners.deterministic.opponents import InferredPolicies
from inference_marl.types import Seat


@hyperparameters
class Maddpg(ModellingOthers):
    """Every agent has an actor that sees its own observation and a critic that sees everything::

        y_i = r_i + gamma Q_i'(x', a_1', ..., a_N'),         a_j' = mu_j'(o_j')                             (Eq. 6)
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(x, a_1, ..., a_N)],   a_i = mu_i(o_i), others from replay (Eq. 5)

    with `x` all observations. Discrete actions are drawn by Gumbel-softmax, one-hot with straight-through gradients,
    where the authors' code passes soft ones on (`GumbelSoftmax(hard=False)`); their policies are categorical.
    `ScoreFunction()` is the paper's gradient for stochastic policies (Eq. 4); `sub_policies`, its policy ensembles
    (Section 4.3).

    Args:
        inferred: models of the others' policies, which targets use in place of their actors (Eq. 7 and 8); `None` to
            know the actors.
        hidden, learning_rate, discount, target_rate, replay, batch_size, warmup, warmup_actions, noise, estimator,
            regularisation, max_gradient_norm, shared, sub_policies, twin_critics, target_noise, actor_interval: see
            `DeterministicActorCritic`.
        seats: see `Team`.
    """

    described_by = "inferred"

    inferred: InferredPolicies | None = None

    def sees(self, seat: Seat) -> list[int]:
        """Everything."""
        return list(range(2 * len(seat.observations)))
