"""Speed of MADDPG compared with BenchMARL's: frames per CPU second on VMAS's navigation, for collection and learning.

Both play 100 steps of 60 environments and then make 120 updates of 512 transitions, with two hidden layers of 256
units, as `navigation.yaml` does; one torch thread, float32. A frame is a joint action in one environment of one
replicate. The first round, which allocates memory, is not counted; the fastest of the others is reported.

BenchMARL has one actor and one critic for all agents, and tanh between layers where this package has ReLU. `make
bench-peer` installs it in a separate environment.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benchmarl.algorithms import MaddpgConfig
from benchmarl.environments import VmasTask
from benchmarl.experiment import Callback, ExperimentConfig
from benchmarl.experiment import Experiment as Theirs
from benchmarl.models.mlp import MlpConfig
from torch.distributions import Distribution

from inference_marl import Experiment
from inference_marl.inference.noise import NormalNoise
from inference_marl.inference.schedules import Linear
from inference_marl.learners import Maddpg
from inference_marl.play import update
from inference_marl.runs.arm import Arm
from inference_marl.simulators import Vmas

ENVIRONMENTS, STEPS, UPDATES = 60, 100, 120
FRAMES = ENVIRONMENTS * STEPS
HIDDEN, BATCH, RATE, DISCOUNT, TARGET_RATE, REPLAY = (256, 256), 512, 3e-4, 0.95, 0.01, 300_000
TASK = {
    "n_agents": 3,
    "collisions": True,
    "agents_with_same_goal": 1,
    "split_goals": False,
    "observe_all_goals": False,
    "shared_rew": False,
    "lidar_range": 0.35,
    "agent_radius": 0.1,
}
"""BenchMARL's arguments of the scenario."""
Spent = tuple[float, float]
"""CPU seconds of a round, for collection and for learning."""


def ours(shared: bool, replicates: int) -> Iterator[Spent]:
    """Rounds of this package's MADDPG."""
    learner = Maddpg(
        hidden=HIDDEN,
        batch_size=BATCH,
        learning_rate=RATE,
        discount=DISCOUNT,
        target_rate=TARGET_RATE,
        replay=REPLAY,
        warmup=0,
        noise=NormalNoise(Linear(0.8, 0.01, 3000)),
        regularisation=0.0,
        max_gradient_norm=5.0,
        shared=shared,
        shared_critic=shared,
        others="policies" if shared else "replay",
    )
    game = Vmas("navigation", TASK, horizon=STEPS)
    arm = Arm.start(Experiment(game, {"it": learner}, replicates=replicates, environments=ENVIRONMENTS), "it")
    while True:
        start = time.process_time()
        newest = arm.collector.collect(STEPS)
        collected = time.process_time()
        update(arm.actors, newest, UPDATES)
        yield collected - start, time.process_time() - collected


class Clock(Callback):
    """Records the CPU time at the start, and after each collection and each round of learning of BenchMARL's."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = [time.process_time()]

    def on_batch_collected(self, batch: Any) -> None:
        """Called between collection and learning."""
        self.marks.append(time.process_time())

    def on_train_end(self, training_td: Any, group: str) -> None:
        """Called after learning."""
        self.marks.append(time.process_time())


@contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Disable torch's validation of distributions, which some of torchrl's fail, as it is until Pyro is imported."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


class Returns(Callback):
    """Records mean returns per agent of the first episodes of each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def on_evaluation_end(self, rollouts: list[Any]) -> None:
        """Called with one rollout per environment."""
        returns = []
        for rollout in rollouts:
            over = rollout["next", "done"].flatten().long()
            first = over.cumsum(0) - over == 0
            returns.append(rollout["next", "agents", "reward"].flatten(1).mean(1)[first].sum())
        self.found.append(float(torch.stack(returns).mean()))


def benchmarl(rounds: int, callback: Callback, seed: int = 0, evaluated: bool = False) -> None:
    """Run rounds of BenchMARL's MADDPG, if `evaluated` with evaluations of 60 episodes after every tenth round."""
    config = ExperimentConfig.get_from_yaml()
    config.off_policy_collected_frames_per_batch = FRAMES
    config.off_policy_n_envs_per_worker = ENVIRONMENTS
    config.off_policy_n_optimizer_steps = UPDATES
    config.off_policy_train_batch_size = BATCH
    config.off_policy_memory_size = REPLAY
    config.gamma, config.lr, config.polyak_tau = DISCOUNT, RATE, TARGET_RATE
    config.max_n_frames = rounds * FRAMES
    config.exploration_anneal_frames = 150_000
    config.evaluation, config.evaluation_interval, config.evaluation_episodes = evaluated, 10 * FRAMES, ENVIRONMENTS
    config.render, config.loggers, config.create_json = False, [], evaluated
    with tempfile.TemporaryDirectory() as folder, unchecked_distributions():
        config.save_folder = str(Path(folder))
        Theirs(
            task=VmasTask.NAVIGATION.get_task(TASK | {"max_steps": STEPS}),
            algorithm_config=MaddpgConfig.get_from_yaml(),
            model_config=MlpConfig.get_from_yaml(),
            critic_model_config=MlpConfig.get_from_yaml(),
            seed=seed,
            config=config,
            callbacks=[callback],
        ).run()


def learning_curves(seeds: int) -> None:
    """Print the returns of BenchMARL's MADDPG after every 60,000 frames, up to 300,000."""
    print("BenchMARL's MADDPG on navigation: return per agent of greedy evaluations, 60 episodes each")
    every = [f"{10 * FRAMES * count:>9,}" for count in range(1, 6)]
    print(f"{'seed':<5}", *every)
    for seed in range(seeds):
        returns = Returns()
        benchmarl(50, returns, seed, evaluated=True)
        _, *found = returns.found  # the first is before learning
        print(f"{seed:<5}", *(f"{value:>9.2f}" for value in found), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each, the first of which is not counted")
    parser.add_argument("--learn", type=int, metavar="SEEDS", help="print BenchMARL's learning curves instead")
    arguments = parser.parse_args()
    rounds: int = arguments.rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    if arguments.learn:
        learning_curves(arguments.learn)
        return

    print(f"MADDPG on navigation: frames per CPU second, of all replicates together; {rounds - 1} rounds")
    print(f"{'learner':<34} {'replicates':>10} {'frames/s':>9} {'collecting':>11} {'learning':>9} {'x BenchMARL':>12}")
    peer = 0.0
    for name, replicates, shared in (
        ("BenchMARL, one actor and critic", 1, None),
        ("Maddpg, one actor and critic", 1, True),
        ("Maddpg, one actor and critic", 5, True),
        ("Maddpg, an actor and critic each", 1, False),
        ("Maddpg, an actor and critic each", 5, False),
    ):
        if shared is None:
            clock = Clock()
            benchmarl(rounds, clock)
            times = [late - early for early, late in pairwise(clock.marks)]
            spent = list(zip(times[::2], times[1::2], strict=True))
        else:
            playing = ours(shared, replicates)
            spent = [next(playing) for _ in range(rounds)]
        collecting, learning = min(spent[1:], key=sum)
        frames = replicates * FRAMES
        speed = frames / (collecting + learning)
        peer = peer or speed
        print(
            f"{name:<34} {replicates:>10} {speed:>9,.0f} {frames / collecting:>11,.0f} {frames / learning:>9,.0f} "
            f"{speed / peer:>12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
