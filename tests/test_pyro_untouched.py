"""Importing the package changes nothing outside it, and its models and guides are Pyro's own kind."""

import json
import subprocess
import sys
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn

from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, RiskyBridge
from inference_marl.guides import OpponentFirst, PolicyFirst, Tabular, TanhNormalNetwork, TrajectoryGuide
from inference_marl.learners import Planner, Rommeo
from inference_marl.learners.variational import VariationalLearner
from inference_marl.models import (
    Amortised,
    DirichletMultinomial,
    KnownReward,
    KnownTransition,
    NetworkCritic,
    TabularCritic,
)
from inference_marl.types import Game, Seat

pytestmark = pytest.mark.pyro_store

IMPORTS = """
import json, pyro, torch
before = {**pyro.settings.get(), "threads": torch.get_num_threads(), "type": str(torch.get_default_dtype())}
import inference_marl, inference_marl.cli, inference_marl.models, inference_marl.guides, inference_marl.learners
import inference_marl.games, inference_marl.config.files, inference_marl.play
after = {**pyro.settings.get(), "threads": torch.get_num_threads(), "type": str(torch.get_default_dtype())}
print(json.dumps([str(before), str(after), list(pyro.get_param_store())]))
"""


def test_settings_are_as_before() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    before, after, store = json.loads(done.stdout)
    assert before == after
    assert store == []


class Mean(PyroModule):
    """A user's own model, with a parameter of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.scale = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)
        self.linear = nn.Linear(1, 1)

    def forward(self, data: torch.Tensor) -> None:
        with pyro.plate("data", len(data)):
            mean = self.loc + self.linear(torch.ones(1))
            pyro.sample("x", dist.Normal(mean, self.scale), obs=data)


def test_svi_trains_a_users_own_module() -> None:
    torch.manual_seed(0)
    data = 3 + torch.randn(200)
    model = Mean()
    svi = SVI(model, lambda data: None, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    losses = [svi.step(data) for _ in range(150)]
    assert losses[-1] < losses[0] / 2
    assert float((model.loc + model.linear(torch.ones(1))).detach()) == pytest.approx(3, abs=0.3)
    assert float(model.scale.detach()) == pytest.approx(1, abs=0.2)


def continuous() -> tuple[Game, VariationalLearner]:
    def net() -> TanhNormalNetwork:
        return TanhNormalNetwork((8,))

    return MaxOfTwoQuadratics(), Rommeo(
        opponent_prior=Amortised(net(), window=10, batch_size=4),
        guide=OpponentFirst(net(), net()),
        critic=NetworkCritic((8,)),
        temperature=0.5,
        particles=64,
    )


def discrete() -> tuple[Game, VariationalLearner]:
    return MatrixGame("climbing"), Rommeo(
        opponent_prior=DirichletMultinomial(),
        guide=PolicyFirst(Tabular(), Tabular()),
        critic=TabularCritic(),
        kl_weight=0.5,
    )


def planned() -> tuple[Game, VariationalLearner]:
    return RiskyBridge(), Planner(
        opponent_prior=DirichletMultinomial(),
        reward=KnownReward(),
        guide=TrajectoryGuide(Tabular(), Tabular()),
        transition=KnownTransition(),
        horizon=2,
    )


@pytest.mark.parametrize("make", [continuous, discrete, planned])
def test_svi_trains_the_packages_own_pairs_to_the_elbo_that_it_reports(make: Any) -> None:
    game, description = make()
    learner = description.bind(Seat(0, game.observations, game.action_spaces, 3, dtype=torch.float64, game=game))
    obs = torch.zeros(3, 4, dtype=torch.int64)
    model, guide = learner.pair()
    state = {name: value for name, value in learner.state_dict().items() if isinstance(value, torch.Tensor)}
    others = {name: value.clone() for name, value in state.items() if not name.startswith("guide.")}
    loss = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), learner.elbo)
    first = loss.evaluate_loss(obs)
    with torch.random.fork_rng(), torch.no_grad():
        reported = learner.beliefs(obs, {}, draws=4000)["elbo"].sum()
    assert first == pytest.approx(-float(reported), rel=0.1 if make is continuous else 1e-9)
    last = [loss.step(obs) for _ in range(60)][-1]
    assert last < first
    now = learner.state_dict()
    assert all(torch.equal(now[name], value) for name, value in others.items())
    names = set(pyro.get_param_store())
    trained = {name for name, _ in learner.guide.named_parameters()}
    assert {name.replace("$$$", ".") for name in names} == trained


def test_a_site_of_a_users_handler_is_seen_outside_and_not_inside_of_learning() -> None:
    """`poutine.trace` of a guide sees its parameters, as of any Pyro module."""
    game, description = discrete()
    learner = description.bind(Seat(0, game.observations, game.action_spaces, 3, game=game))
    _, guide = learner.pair()
    trace = poutine.trace(guide).get_trace(torch.zeros(3, 4, dtype=torch.int64))
    assert {name for name, node in trace.nodes.items() if node["type"] == "param"} == {
        "policy.logits",
        "opponent_model.logits",
    }
