"""The numpy loops that the benchmark times the tabular learners beside are the same rules."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from inference_marl.games import MatrixGame
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
STEPS = 60


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


loops = module("loops")
bench = module("bench")
CASES: dict[str, tuple[Learner, Callable[[], Any]]] = bench.tabular_learners()
NOISY = {"LenientQ", "RecursiveFMQ"}
"""They draw while they learn, and not the same way: rewards only rise, so that nothing is forgiven and nothing ties."""


@pytest.mark.parametrize("name", CASES)
def test_a_loop_is_the_learners_rule(name: str) -> None:
    learner, make = CASES[name]
    game = MatrixGame("climbing")
    bound = learner.bind(Seat(0, game.observations, game.action_spaces, 1, dtype=torch.float64, game=game))
    loop: Any = make()
    if hasattr(loop, "choice"):
        loop.choice = int(bound.choice[0, 0])
    if name == "Rommeo":
        loop.q = bound.critic.values[0, 0].numpy().copy()
        loop.initial = bound.opponent_prior.start[0, 0].numpy()
    if name in ("JointActionLearner", "FictitiousPlay"):
        bound.prior.start.fill_(1 / 3)
    zeros, done = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    rng = np.random.default_rng(1)
    policies = []
    for step in range(STEPS):
        a, b = rng.integers(3, size=2).tolist()
        r = 1.0 + step if name in NOISY else float(bench.CLIMBING[a, b])
        rewards = torch.full((1, 1, 2), r, dtype=torch.float64)
        actions = (torch.tensor([[a]]), torch.tensor([[b]]))
        teach(bound, Transition((zeros, zeros), actions, rewards, (zeros, zeros), done, done), [])
        loop.learn(a, b, r)
        policies.append(loop.policy())
        np.testing.assert_allclose(bound.policy(zeros, {})[0].probs[0, 0].numpy(), policies[-1], rtol=1e-9, atol=1e-12)
    assert np.ptp(policies, axis=0).max() > 0.01
