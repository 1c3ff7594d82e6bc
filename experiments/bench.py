"""Benchmarks of speed, as ratios measured in one run: `make bench`.

1. ROMMEO-Q through the normal run path (play, learn, record, checkpoint, write): seed-steps per second.
2. The interaction loop with agents that cost nothing, compared with the game alone.
3. Every tabular learner, through the same path, compared with a plain NumPy loop of the same rule for one seed.
4. ROMMEO-AC: one SVI step of the guide, and one whole update, compared with the same arithmetic in plain torch, and as
   a share of the speed of a batched matrix product of the same shape on this machine.

One torch thread. Pairs are timed in turn (A B A B ...), and the median ratio is printed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import loops
import numpy as np
import pyro
import torch
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.guides import OpponentFirst, Optimal, TanhNormalNetwork
from inference_marl.inference.schedules import ExponentialDecay, InverseTime
from inference_marl.learners import Rommeo
from inference_marl.learners.tabular.distributed_q import DistributedQ
from inference_marl.learners.tabular.exploration import Boltzmann, EpsilonGreedy
from inference_marl.learners.tabular.fictitious_play import FictitiousPlay
from inference_marl.learners.tabular.fmq import FMQ
from inference_marl.learners.tabular.hill_climbing import PHC, WoLFPHC
from inference_marl.learners.tabular.hysteretic_q import HystereticQ
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.learners.tabular.joint_action import JointActionLearner
from inference_marl.learners.tabular.lenient_q import LenientQ
from inference_marl.learners.tabular.pr2_q import PR2Q
from inference_marl.learners.tabular.recursive_fmq import RecursiveFMQ
from inference_marl.models import Amortised, EmpiricalFrequency, NetworkCritic, TabularCritic
from inference_marl.play.learning import update
from inference_marl.runs.arm import Arm
from inference_marl.runs.execution import execute
from inference_marl.runs.job import Job
from inference_marl.types import Actor, Decision, Learner, Memory, Seat, Trajectory, Transition

WIDTH, BATCH, RATE, GAMMA, ALPHA, TAU = 100, 512, 1e-2, 0.95, 0.1, 0.01
LOG_STD = (-5.0, 1.0)
EDGE = 10.0
CLIMBING = MatrixGame("climbing").expected_payoff[0].numpy()


def rommeo_q() -> Rommeo:
    """The learner of the climbing experiment."""
    return Rommeo(
        opponent_prior=EmpiricalFrequency(window=50),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(rate=InverseTime()),
        temperature=ExponentialDecay(500, 0.1, 0.1),
    )


def run_rate(learner: Learner, replicates: int, steps: int, record_every: int = 1) -> float:
    """Seed-steps per second in self-play on the climbing game, everything included."""
    experiment = Experiment(
        MatrixGame("climbing"), {"learner": learner}, replicates, steps, record_every=record_every, device="cpu"
    )
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        run(experiment, Path(out), progress=False)
        return replicates * steps / (time.perf_counter() - start)


def recording(replicates: int, steps: int, pairs: int) -> float:
    """CPU time of an arm with metrics at every step and beliefs at every tenth, relative to one with few records.

    It includes play, learning, recording and checkpoints, but not the final tables. Median of ratios, timed in turn.
    """

    def seconds_of(record_every: int, beliefs_every: int, record_actions: bool) -> float:
        experiment = Experiment(
            *(MatrixGame("climbing"), {"learner": rommeo_q()}, replicates, steps),
            record_every=record_every,
            beliefs_every=beliefs_every,
            record_actions=record_actions,
            device="cpu",
        )
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            execute(Job.of(experiment, "learner", Path(folder)))
            return time.process_time() - start

    return statistics.median(seconds_of(1, 10, True) / seconds_of(steps, 0, False) for _ in range(pairs))


class Idle(Learner):
    """Always plays action 0 and never learns."""

    def setup(self) -> None:
        """Keep the actions that it plays."""
        self.actions = torch.zeros(self.seat.replicates, self.seat.environments, dtype=torch.int64)

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Action 0."""
        return Decision(self.actions, memory)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Do nothing."""
        return {}


def loop_overhead(steps: int, pairs: int) -> tuple[float, float, float]:
    """Microseconds per step of the repeated game at 8 replicates: the game alone, an arm, one that records actions."""
    device, game = torch.device("cpu"), MatrixGame("climbing", horizon=20)

    def played(folder: Path, record_actions: bool) -> Callable[[], object]:
        experiment = Experiment(
            *(game, {"learner": Idle()}, 8, 10**9), record_every=10**9, record_actions=record_actions, device="cpu"
        )
        return Arm.start(experiment, "learner", records=folder, device=device).advance

    state, actions = game.reset(8, 1, device, torch.float32), [torch.zeros(8, 1, dtype=torch.int64)] * 2
    with tempfile.TemporaryDirectory() as place, pyro.validation_enabled(False):
        few, all_actions = played(Path(place, "few"), False), played(Path(place, "all"), True)
        works = [lambda: game.step(state, actions), few, all_actions]
        times = [[1e6 * seconds(work, steps) for work in works] for _ in range(pairs)]
    alone, loop, recorded = (statistics.median(column) for column in zip(*times, strict=True))
    return alone, loop, recorded


def tabular_learners() -> dict[str, tuple[Learner, Callable[[], object]]]:
    """The learners and the loops, with the same rules and hyperparameters."""
    payoff, rng = CLIMBING, np.random.default_rng(0)
    return {
        "IndependentQ": (IndependentQ(exploration=Boltzmann()), loops.IndependentQ),
        "HystereticQ": (HystereticQ(exploration=Boltzmann()), loops.HystereticQ),
        "DistributedQ": (DistributedQ(exploration=EpsilonGreedy(0.1)), lambda: loops.DistributedQ(0)),
        "LenientQ": (LenientQ(), loops.LenientQ),
        "FMQ": (FMQ(exploration=Boltzmann()), loops.FMQ),
        "RecursiveFMQ": (RecursiveFMQ(), lambda: loops.RecursiveFMQ(0)),
        "PHC": (PHC(), loops.PHC),
        "WoLFPHC": (WoLFPHC(), loops.WoLFPHC),
        "JointActionLearner": (JointActionLearner(exploration=Boltzmann()), loops.JointActionLearner),
        "PR2Q": (PR2Q(exploration=Boltzmann()), loops.PR2Q),
        "FictitiousPlay": (FictitiousPlay(), lambda: loops.FictitiousPlay(payoff)),
        "Rommeo": (rommeo_q(), lambda: loops.RommeoQ(rng.random((3, 3)), rng.dirichlet(np.ones(3)))),
    }


def loop_rate(make: Callable[[], object], steps: int) -> float:
    """Seed-steps per second of two loops in self-play on the climbing game."""
    agents, rng = [make(), make()], np.random.default_rng(0)
    start = time.perf_counter()
    loops.play(agents, CLIMBING, steps, rng)
    return steps / (time.perf_counter() - start)


def rommeo_ac(replicates: int) -> Rommeo:
    """A learner of the paper's size with a full replay buffer."""
    network = TanhNormalNetwork((WIDTH, WIDTH), LOG_STD)
    game = MaxOfTwoQuadratics()
    learner = Rommeo(
        opponent_prior=Amortised(network, window=BATCH, batch_size=BATCH, learning_rate=RATE),
        guide=OpponentFirst(network, network),
        critic=NetworkCritic((WIDTH, WIDTH), RATE, TAU),
        temperature=ALPHA,
        discount=GAMMA,
        replay=BATCH,
        batch_size=BATCH,
        guide_learning_rate=RATE,
    ).bind(Seat(0, game.observations, game.action_spaces, replicates))
    for _ in range(3):
        update([learner], Trajectory([random_transition(replicates)]))
    return learner


def random_transition(replicates: int) -> Transition:
    """One step of uniformly random play."""
    obs = torch.zeros(replicates, 1, dtype=torch.int64)
    actions = tuple(torch.rand(replicates, 1, 1) * 2 * EDGE - EDGE for _ in range(2))
    return Transition(
        (obs, obs),
        actions,
        torch.randn(replicates, 1, 2),
        (obs, obs),
        torch.zeros_like(obs).bool(),
        torch.zeros_like(obs).bool(),
    )


class ByHand:
    """The same update without Pyro and modules, written for this game only."""

    def __init__(self, replicates: int) -> None:
        def network(inputs: int, outputs: int) -> list[Tensor]:
            parts = []
            for narrow, wide in [(inputs, WIDTH), (WIDTH, WIDTH), (WIDTH, outputs)]:
                weight = torch.randn(replicates, narrow, wide) * math.sqrt(2 / (narrow + wide))
                parts += [weight.requires_grad_(), torch.zeros(replicates, 1, wide, requires_grad=True)]
            return parts

        self.replicates = replicates
        self.critic, self.policy, self.opponent_model, self.prior = (
            network(3, 1),
            network(2, 2),
            network(1, 2),
            network(1, 2),
        )
        self.target = [part.detach().clone() for part in self.critic]
        self.optimizers = [
            torch.optim.Adam(parts, lr=RATE, fused=True)
            for parts in (self.critic, self.policy + self.opponent_model, self.prior)
        ]
        self.data = torch.rand(3, replicates, BATCH, 1) * 2 * EDGE - EDGE
        self.one = torch.ones(replicates, BATCH, 1)

    @staticmethod
    def apply(parts: list[Tensor], x: Tensor) -> Tensor:
        """Evaluate a network, `replicates x batch x features`."""
        x = torch.relu_(torch.baddbmm(parts[1], x, parts[0]))
        x = torch.relu_(torch.baddbmm(parts[3], x, parts[2]))
        return torch.baddbmm(parts[5], x, parts[4])

    def head(self, parts: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before squashing."""
        mean, log_std = self.apply(parts, x).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD)

    @staticmethod
    def log_density(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """Log-density of the squashed normal at `EDGE tanh(u)`."""
        normal = -0.5 * ((u - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
        jacobian = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u)) + math.log(EDGE)
        return normal - jacobian

    def draw(self, parts: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A reparameterised sample before and after squashing, and its log-density."""
        mean, log_std = self.head(parts, x)
        u = mean + log_std.exp() * torch.randn_like(mean)
        return u, torch.tanh(u), self.log_density(u, mean, log_std)

    def elbo(self, critic: list[Tensor]) -> Tensor:
        """Eq. 15 (Tian et al. 2019), one sample per transition."""
        u, b, log_rho = self.draw(self.opponent_model, self.one)
        _, a, log_pi = self.draw(self.policy, torch.cat([self.one, b], -1))
        log_prior = self.log_density(u, *self.head(self.prior, self.one))
        return self.apply(critic, torch.cat([self.one, a, b], -1)) - ALPHA * log_pi - log_rho + log_prior

    def guide_step(self) -> None:
        """One Adam step on Eq. 18 + 19."""
        frozen = self.critic + self.prior
        for part in frozen:
            part.requires_grad_(False)
        self.optimizers[1].zero_grad(set_to_none=True)
        (-self.elbo(self.critic).sum() / BATCH).backward()
        self.optimizers[1].step()
        for part in frozen:
            part.requires_grad_(True)

    def update(self) -> None:
        """Update prior, critic, target and guide, in the order of `Rommeo.learn`."""
        rows = torch.arange(self.replicates).view(-1, 1)
        reward, a, b = self.data[:, rows, torch.randint(BATCH, (self.replicates, BATCH))]
        inverse = torch.atanh((b / EDGE).clamp(-1 + 1e-7, 1 - 1e-7))
        self.optimizers[2].zero_grad(set_to_none=True)
        (-self.log_density(inverse, *self.head(self.prior, self.one)).sum() / BATCH).backward()
        self.optimizers[2].step()
        with torch.no_grad():
            target = reward + GAMMA * self.elbo(self.target)
        value = self.apply(self.critic, torch.cat([self.one, a / EDGE, b / EDGE], -1))
        self.optimizers[0].zero_grad(set_to_none=True)
        (0.5 * ((value - target) ** 2).sum() / BATCH).backward()
        self.optimizers[0].step()
        with torch.no_grad():
            for slow, fast in zip(self.target, self.critic, strict=True):
                slow.lerp_(fast, TAU)
        self.guide_step()


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Mean seconds per call."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def paired(
    one: Callable[[], object], other: Callable[[], object], repeats: int, pairs: int
) -> tuple[float, float, float]:
    """Median seconds of each, and the median of their ratio, timed in turn."""
    for work in (one, other):
        seconds(work, 2)
    times = [(seconds(one, repeats), seconds(other, repeats)) for _ in range(pairs)]
    columns = [statistics.median(column) for column in zip(*times, strict=True)]
    return columns[0], columns[1], statistics.median(a / b for a, b in times)


def matmul_peak(replicates: int) -> float:
    """Floating-point operations per second of the largest matrix product in the networks above."""
    x, weight = torch.randn(replicates, BATCH, WIDTH), torch.randn(replicates, WIDTH, WIDTH)
    best = min(seconds(lambda: torch.bmm(x, weight), 5) for _ in range(10))
    return 2 * replicates * BATCH * WIDTH * WIDTH / best


def guide_step_operations(replicates: int) -> float:
    """Matrix-product operations of one SVI step: four networks forward, two fully and two half backward."""
    sizes = {"rho": (1, 2), "pi": (2, 2), "prior": (1, 2), "critic": (3, 1)}
    one_way = {name: 2 * BATCH * WIDTH * (i + WIDTH + o) for name, (i, o) in sizes.items()}
    passes = {"rho": 3, "pi": 3, "prior": 2, "critic": 2}
    return replicates * sum(passes[name] * one_way[name] for name in sizes)


def print_runs(quick: bool) -> None:
    """Rates of ROMMEO-Q through `run`, and the cost of recording."""
    print("ROMMEO-Q on the climbing game, through run (one thread, everything included)")
    print(f"{'replicates':>10} {'steps':>6} {'seed-steps/s':>13} {'microseconds per seed-step':>27}")
    for replicates, steps in [(1, 300), (100, 300), (1000, 300), (10_000, 100 if quick else 300)]:
        rate = max(run_rate(rommeo_q(), replicates, steps) for _ in range(1 if quick else 2))
        print(f"{replicates:>10,} {steps:>6} {rate:>13,.0f} {1e6 / rate:>27.2f}")
    ratio = recording(1000, 300, 1 if quick else 5)
    print(f"\nMetrics at every step, beliefs at every tenth: {ratio:.2f} times the processor time of hardly any record")


def print_loop(quick: bool) -> None:
    """The cost of the interaction loop."""
    alone, loop, recorded = loop_overhead(2000, 3 if quick else 9)
    print(
        f"The loop with agents that cost nothing: {loop:.0f} microseconds per step, {recorded:.0f} if actions are "
        f"recorded, of which {alone:.0f} are the game's"
    )


def print_tabular(quick: bool) -> None:
    """Rates of the tabular learners, compared with plain loops."""
    steps = 200 if quick else 1000
    print(f"\nTabular learners on the climbing game: seed-steps/s of a loop in numpy, and of runs of {steps} steps")
    print(f"{'learner':>20} {'numpy loop':>11} {'1 seed':>8} {'1000 seeds':>11} {'1000 seeds : loop':>18}")
    for name, (learner, loop) in tabular_learners().items():
        rates = [(loop_rate(loop, 5 * steps), run_rate(learner, 1000, steps, steps)) for _ in range(1 if quick else 3)]
        ratio = statistics.median(batched / by_loop for by_loop, batched in rates)
        alone = run_rate(learner, 1, steps, steps)
        by_loop, batched = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"{name:>20} {by_loop:>11,.0f} {alone:>8,.0f} {batched:>11,.0f} {ratio:>17.1f}x")


def print_networks(quick: bool) -> None:
    """Times of ROMMEO-AC's SVI step and update, compared with the same by hand."""
    print("\nROMMEO-AC, batch 512, two hidden layers of 100 (one thread)")
    print(
        f"{'replicates':>10} {'SVI step ms':>12} {'by hand ms':>11} {'ratio':>6} {'of matmul peak':>15}"
        f" {'update ms':>10} {'by hand ms':>11} {'ratio':>6} {'ms per seed':>12}"
    )
    for replicates, repeats in [(1, 20), (8, 6), (64, 1)]:
        pairs = 3 if quick else 9
        learner, hand = rommeo_ac(replicates), ByHand(replicates)
        obs = torch.zeros(replicates, BATCH, dtype=torch.int64)
        newest = Trajectory([random_transition(replicates)])
        svi = paired(lambda le=learner, o=obs: le.fit_guide(o), hand.guide_step, repeats, pairs)
        whole = paired(lambda le=learner, n=newest: update([le], n), hand.update, repeats, pairs)
        share = guide_step_operations(replicates) / svi[0] / matmul_peak(replicates)
        per_seed = 1e3 * whole[0] / replicates
        print(
            f"{replicates:>10} {1e3 * svi[0]:>12.2f} {1e3 * svi[1]:>11.2f} {svi[2]:>6.2f} {share:>15.0%}"
            f" {1e3 * whole[0]:>10.2f} {1e3 * whole[1]:>11.2f} {whole[2]:>6.2f} {per_seed:>12.2f}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps and pairs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print_runs(quick)
    print_loop(quick)
    print_tabular(quick)
    with pyro.validation_enabled(False):
        print_networks(quick)


if __name__ == "__main__":
    main()
