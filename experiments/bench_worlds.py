"""Steps per CPU second of the particle worlds, compared with mpe2 (one environment) and VMAS (as many environments).

A step includes all rewards and observations, but no resets; random actions, float32, one torch thread. CPU time is that
of one thread, so that other work on the machine has little effect; compared functions are timed in turn. VMAS's tasks
of the same names have other rules (a fifth of the force, other rewards, walls in tag), but similar cost. The coin game
has no counterpart. Packages that are not installed are left out: `pip install mpe2 vmas`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from importlib.util import find_spec
from itertools import cycle

import torch
from timing import quick, seconds

from inference_marl.games import (
    Adversary,
    CoinGame,
    Crypto,
    ParticleWorld,
    Push,
    Reference,
    SpeakerListener,
    Spread,
    Tag,
)
from inference_marl.types import Game

WORLDS: dict[str, type[ParticleWorld]] = {
    "simple_spread_v3": Spread,
    "simple_speaker_listener_v4": SpeakerListener,
    "simple_adversary_v3": Adversary,
    "simple_tag_v3": Tag,
    "simple_push_v3": Push,
    "simple_crypto_v3": Crypto,
    "simple_reference_v3": Reference,
}
ENVIRONMENTS = (1, 32, 1024, 8192)
STEPS = 25
"""Number of different joint actions, played in turn."""
COINS = ("history", "relative")
"""Observations of the coin game: an index for tables, numbers for networks."""


def ours(game: Game, environments: int) -> Callable[[], None]:
    """A step of `environments` copies of a game of this package."""
    cpu = torch.device("cpu")
    uniform = [space.uniform(torch.float32, cpu) for space in game.action_spaces]
    actions = cycle([[each.sample((1, environments)) for each in uniform] for _ in range(STEPS)])
    state = game.reset(1, environments, cpu, torch.float32)

    def step() -> None:
        nonlocal state
        state = game.step(state, next(actions)).state
        game.observe(state)

    return step


def of_mpe2(name: str) -> Callable[[], None]:
    """A step of one environment of mpe2, through its parallel API."""
    env = importlib.import_module(f"mpe2.{name}").parallel_env(max_cycles=10**9)
    env.reset(seed=0)
    actions = cycle([{agent: int(env.action_space(agent).sample()) for agent in env.agents} for _ in range(STEPS)])
    return lambda: env.step(next(actions))


def of_vmas(name: str, environments: int) -> Callable[[], None]:
    """A step of `environments` copies of VMAS's world of this name."""
    make = importlib.import_module("vmas").make_env
    env = make(name.rpartition("_")[0], num_envs=environments, device="cpu", continuous_actions=False, seed=0)
    env.reset()
    actions = cycle([[env.get_random_action(agent) for agent in env.agents] for _ in range(STEPS)])
    return lambda: env.step(next(actions))


@torch.no_grad()
def main() -> None:
    """Print the table."""
    rounds, at_least = (3, 0.1) if quick(__doc__) else (8, 0.4)
    mpe2, vmas = (find_spec(name) is not None for name in ("mpe2", "vmas"))

    print("The coin game: steps per CPU second, with observations; and how many times those with one environment")
    for observation in COINS:
        works = [ours(CoinGame(observation=observation), environments) for environments in (1, 512)]
        one, many = seconds(works, rounds, at_least)
        print(f"{observation:<16} {1 / one:>12,.0f} {512 / many:>12,.0f} {512 * one / many:>8.0f}", flush=True)

    print("Particle worlds: steps per CPU second, one thread, float32; and how many times those of others")
    print(f"{'world':<16} {'environments':>12} {'steps/s':>12} {'x mpe2':>8} {'x VMAS':>8}")
    ratios: dict[str, list[float]] = {}
    for name, world in WORLDS.items():
        for environments in ENVIRONMENTS:
            works = {"ours": ours(world(), environments)}
            if mpe2 and environments == 1:
                works["mpe2"] = of_mpe2(name)
            if vmas:
                works["vmas"] = of_vmas(name, environments)
            took = dict(zip(works, seconds(list(works.values()), rounds, at_least), strict=True))
            cells = ""
            for other in ("mpe2", "vmas"):
                ratio = took[other] / took["ours"] if other in took else math.nan
                ratios.setdefault(f"{other}, {environments}", []).append(ratio)
                cells += f" {ratio:>8.2f}" if other in took else f" {'-':>8}"
            print(f"{world.__name__:<16} {environments:>12} {environments / took['ours']:>12,.0f}{cells}", flush=True)
    for name, values in ratios.items():
        if not math.isnan(mean := math.exp(sum(map(math.log, values)) / len(values))):
            print(f"geometric mean against {name} environments: {mean:.2f}, least {min(values):.2f}")


if __name__ == "__main__":
    main()
