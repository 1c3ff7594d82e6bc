"""A custom learner with networks: REINFORCE with a baseline, and a part that holds its network.

Run with `python examples/own_network.py`; in an experiment file it is named `own_network.Reinforce`. Its part is set by
`network: {class_path: own_network.ActorCritic, init_args: {hidden: [8]}}`, or replaced by a subclass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.described import Count, IncompatibleError, Positive, hyperparameters
from inference_marl.games import MatrixGame
from inference_marl.inference.networks import MLP
from inference_marl.inference.optimise import Optimiser
from inference_marl.spaces import Discrete
from inference_marl.types import POSITIVE, Actor, Learner, Memory, Metric, Part, Trajectory

BASELINE_ERROR = Metric(
    "baseline_error", bounds=POSITIVE, higher_is_better=False, meaning="Mean squared error of the baseline."
)


@hyperparameters  # its annotated fields become keyword arguments, in Python and in files
class ActorCritic(Part):
    """A network per replicate that outputs the logits of all actions and a value.

    Args:
        hidden: widths of the hidden layers.
    """

    hidden: Sequence[Count] = (16,)

    def setup(self) -> None:
        """Create the network, with weights `replicates x ...`, now that the seat is known."""
        self.mlp = MLP(self.seat, self.seat.observation.features, self.seat.action.features + 1, self.hidden)

    def forward(self, obs: Tensor) -> tuple[dist.Categorical, Tensor]:
        """The policy and the value at observations, `replicates x batch`."""
        outputs = self.mlp(self.seat.observation.encode(obs, self.seat.dtype))
        return dist.Categorical(logits=outputs[..., 1:]), outputs[..., 0]


@hyperparameters
class Reinforce(Learner):
    """On-policy REINFORCE with a learned baseline (Williams 1992), for games of one step.

    Args:
        network: the network of policy and baseline.
        learning_rate: learning rate of Adam.
    """

    metrics = (BASELINE_ERROR,)

    network: ActorCritic = ActorCritic()
    learning_rate: Positive = 0.02

    def setup(self) -> None:
        """Bind the part; everything that checkpoints must contain is a submodule, including the optimiser."""
        if not isinstance(self.seat.action, Discrete):
            raise IncompatibleError(f"Reinforce got actions {self.seat.action}, expected Discrete")
        self.network = self.network.bind(self.seat)
        self.optimiser = Optimiser("policy and baseline", self.network.parameters(), self.learning_rate)

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        """The network's policy, and the unchanged memory."""
        return self.network(obs)[0], memory

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Make one gradient step for all replicates at once; the loss is `replicates`."""
        seen = newest.flat.seen_by(self.seat)  # replicates x (time environments)
        policy, value = self.network(seen.obs)
        error = seen.reward - value
        gain = policy.log_prob(seen.action) * error.detach()
        self.optimiser.step((error.square() - gain).mean(1))
        return {BASELINE_ERROR.name: error.detach().square().mean(1)}


def experiment(replicates: int = 100, steps: int = 1000) -> Experiment:
    """Self-play in the penalty game."""
    game, arms = MatrixGame("penalty", k=-2.0), {"reinforce": Reinforce()}
    return Experiment(game, arms, replicates=replicates, steps=steps, environments=8, record_every=10)


if __name__ == "__main__":
    import own_network  # the run's spec.yaml then says own_network, not __main__

    folder = run(own_network.experiment(), name="own_network")
    reward = read(folder).metrics["reward"].isel(step=-1).mean()
    print(f"At the end the reward per step is {reward:.2f}; the optimum is 10.")
    print(f"Everything else is in {folder}.")
