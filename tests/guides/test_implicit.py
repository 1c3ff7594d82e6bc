"""Conditionals that can only be sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from inference_marl.described import Described, IncompatibleError
from inference_marl.games import MaxOfTwoQuadratics, Rendezvous
from inference_marl.guides import (
    Autoregressive,
    OpponentFirst,
    PolicyFirst,
    SamplerNetwork,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.learners import Planner, Rommeo
from inference_marl.models import Amortised, NetworkCritic, Uniform
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

R = 3
OBS, BOX = Discrete(4), Box((-2, 0), (3, 1), 2)
SEAT = Seat(0, (OBS,) * 2, (BOX, BOX), R, dtype=torch.float64)


def bound(*parents: Discrete | Box, noise: int | None = None) -> SamplerNetwork:
    torch.manual_seed(0)
    return SamplerNetwork((6,), noise).bind(SEAT, BOX, parents or (OBS,))


def test_draws_differ_and_lie_in_the_box() -> None:
    obs = torch.zeros(R, 5, dtype=torch.int64)
    drawn = bound(noise=3).particles(obs, count=100)
    assert drawn.shape == (100, R, 5, 2)
    assert BOX.misfit(drawn) is None
    assert (drawn.std(0) > 0).all()
    assert bound().network.inputs == 4 + 2
    assert bound(noise=3).network.inputs == 4 + 3


def test_first_draws_are_spread_over_the_box() -> None:
    obs = torch.zeros(R, 1, dtype=torch.int64)
    seat = replace(SEAT, replicates=20)
    for spread, wide in ((4.0, True), (1.0, False)):
        torch.manual_seed(0)
        sampler = SamplerNetwork(spread=spread).bind(seat, BOX, [OBS])
        half = BOX.encode(sampler.particles(obs[:1].expand(20, 1), count=500), torch.float64).std(0).mean()
        assert (half > 0.25) == wide


def test_gradients_go_through_draws_to_parameters_and_parents() -> None:
    sampler, obs = bound(OBS, BOX), torch.zeros(R, 5, dtype=torch.int64)
    action = torch.zeros(R, 5, 2, dtype=torch.float64, requires_grad=True)
    drawn = sampler(obs, action).expand((7, R, 5)).rsample((2,))
    assert drawn.shape == (2, 7, R, 5, 2)
    drawn.sum().backward()
    assert action.grad is not None
    assert (action.grad != 0).all()
    assert all(parameter.grad is not None for parameter in sampler.parameters())


def test_replicates_have_networks_of_their_own() -> None:
    sampler, obs = bound(), torch.zeros(R, 5, dtype=torch.int64)
    torch.manual_seed(1)
    before = sampler.particles(obs, count=3)
    with torch.no_grad():
        sampler.network.last.bias[1] += 1
    torch.manual_seed(1)
    after = sampler.particles(obs, count=3)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert (after[:, 1] != before[:, 1]).all()


def test_it_is_a_pyro_distribution_that_cannot_be_scored() -> None:
    sampler, obs = bound(), torch.zeros(R, 5, dtype=torch.int64)
    distribution = sampler(obs)
    assert distribution.has_rsample
    assert distribution.batch_shape == (R, 5)
    assert distribution.event_shape == (2,)
    assert distribution.support.check(distribution.sample()).all()

    def program() -> None:
        with pyro.plate("replicate", R, dim=-2), pyro.plate("batch", 5, dim=-1):
            assert pyro.sample("action", sampler(obs)).shape == (R, 5, 2)

    program()
    with pytest.raises(NotImplementedError, match="SamplerNetwork has no density: it can be sampled"):
        Trace_ELBO().loss(program, program)


def rommeo(**changes: object) -> Rommeo:
    parts = {
        "opponent_prior": Uniform(),
        "critic": NetworkCritic((4,)),
        "guide": OpponentFirst(*[TanhNormalNetwork()] * 2),
    }
    return Rommeo(**parts | changes)  # type: ignore[arg-type]


IMPLICIT, NORMAL = SamplerNetwork((4,)), TanhNormalNetwork((4,))
REFUSED: dict[str, Callable[[], Described]] = {
    "guide.opponent_model": lambda: rommeo(guide=OpponentFirst(IMPLICIT, NORMAL)),
    "guide.policy": lambda: rommeo(guide=PolicyFirst(NORMAL, IMPLICIT)),
    "guide.opponent_model.factor": lambda: rommeo(guide=OpponentFirst(Autoregressive(IMPLICIT), NORMAL)),
    "opponent_prior.conditional": lambda: rommeo(opponent_prior=Amortised(IMPLICIT)),
    "guide.policy ": lambda: Planner(
        opponent_prior=Uniform(), reward=NetworkCritic((4,)), guide=TrajectoryGuide(NORMAL, IMPLICIT)
    ),
}


@pytest.mark.parametrize("key", REFUSED)
def test_who_needs_a_density_refuses_it_by_name(key: str) -> None:
    for game in (MaxOfTwoQuadratics(), Rendezvous()):
        seat = Seat(0, game.observations, game.action_spaces, R, game=game)
        with pytest.raises(IncompatibleError, match="got SamplerNetwork, which can only be sampled") as refused:
            REFUSED[key]().bind(seat)  # type: ignore[attr-defined]
        assert refused.value.key == key.strip()
