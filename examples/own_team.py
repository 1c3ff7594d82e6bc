"""A custom team: one table of joint action values for several seats.

Run with `python examples/own_team.py`; in an experiment file it is named `own_team.CentralQ`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.described import IncompatibleError, Rate, hyperparameters
from inference_marl.games import MatrixGame
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Member, Memory, Metric, Team, Trajectory

ERROR = Metric("value_error", "error of the value", higher_is_better=False)


@hyperparameters  # its annotated fields become keyword arguments, in Python and in files
class CentralQ(Team):
    """Q-learning of joint actions with one table for all members; each plays its part of the best one, or explores.

    It is for common-payoff games of one state.

    Args:
        rate: step size.
        epsilon: probability of a uniformly random action, for each member independently.
    """

    metrics = (ERROR,)

    rate: Rate = 0.2
    epsilon: Rate = 0.3

    def setup(self) -> None:
        """Create the shared table, `replicates x ...`, now that the seats, `self.team`, are known."""
        spaces = [seat.action for seat in self.team]
        if not all(isinstance(space, Discrete) for space in spaces):
            raise IncompatibleError(f"CentralQ got actions {spaces}, expected Discrete")
        self.sizes = [space.features for space in spaces]
        shape = (self.seat.replicates, *self.sizes)
        self.register_buffer("values", torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device))

    def member_policy(
        self, member: Member, obs: Tensor, memory: Memory, mask: Tensor | None
    ) -> tuple[dist.Categorical, Memory]:
        """The member's part of the best joint action, or exploration, `replicates x environments`."""
        best = torch.unravel_index(self.values.flatten(1).argmax(1), self.sizes)[member.number]
        greedy = torch.nn.functional.one_hot(best, self.sizes[member.number]).to(self.values)
        mixed = (1 - self.epsilon) * greedy + self.epsilon / greedy.shape[-1]
        return dist.Categorical(probs=mixed.unsqueeze(1).expand(*obs.shape[:2], -1)), memory

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """Move the values of the joint actions played towards their rewards; every member reports the mean error."""
        rows, errors = self.seat.rows, []
        for step in newest.steps:
            played = (rows, *(step.actions[seat.index] for seat in self.team))
            error = step.rewards[..., self.seat.index] - self.values[played]
            self.values.index_put_(played, self.values[played] + self.rate * error)
            errors.append(error.abs().mean(1))
        return [{ERROR.name: torch.stack(errors).mean(0)} for _ in self.team]


def experiment(replicates: int = 200, steps: int = 400) -> Experiment:
    """The climbing game, which is hard for independent learners."""
    return Experiment(MatrixGame("climbing"), {"central": CentralQ()}, replicates=replicates, steps=steps)


if __name__ == "__main__":
    import own_team  # the run's spec.yaml then says own_team, not __main__

    folder = run(own_team.experiment(), name="own_team")
    optimum = read(folder).metrics["joint_optimum_probability"].isel(step=-1).mean()
    print(f"At the end the team plays the optimum with probability {optimum:.2f}; exploring leaves it at most 0.64.")
    print(f"Everything else is in {folder}.")
