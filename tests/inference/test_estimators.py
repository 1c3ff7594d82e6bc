"""Estimators of the ELBO of several opponents: which are unbiased, by how much they differ, and what they cost."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Guide,
    Independent,
    OpponentFirst,
    PolicyFirst,
    Shared,
    TanhNormalNetwork,
)
from inference_marl.inference.conditional import Conditional, local_parameters
from inference_marl.inference.estimators import ElboEstimator, Enumerate, Local, Relax, Sample
from inference_marl.inference.objectives import one_step, soft_value
from inference_marl.inference.opponents import bind_over_opponents
from inference_marl.inference.svi import estimator
from inference_marl.models import Amortised, ControlModel, ExponentialOptimality, NetworkCritic, Uniform
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Seat

ORDERS = [OpponentFirst, PolicyFirst]
OPPONENTS = [(Discrete(3), Discrete(2)), (Discrete(2), Discrete(3), Discrete(2))]
STATES, REPLICATES = 3, 2


class Pair:
    """A model and a guide with networks, in float64."""

    def __init__(self, own: Space, opponents: tuple[Space, ...], order: type[Guide], rho: Conditional) -> None:
        spaces = (own, *opponents)
        self.seat = Seat(0, (Discrete(STATES),) * len(spaces), spaces, REPLICATES, dtype=torch.float64)
        discrete = all(isinstance(space, Discrete) for space in opponents)
        described = Amortised(CategoricalNetwork((6,))) if discrete else Uniform()
        prior = bind_over_opponents(described, self.seat, [self.seat.observation])
        critic = NetworkCritic((12,)).bind(self.seat)
        with torch.no_grad():
            for weight in critic.parameters():
                weight.mul_(3)
        policy = CategoricalNetwork((6,)) if isinstance(own, Discrete) else NORMAL
        self.bound = order(rho, policy).bind(self.seat)
        self.model = ControlModel(self.seat, prior, critic, ExponentialOptimality(), 0.7, 0.5)
        self.guide: Callable[[Tensor], Any] = partial(self.bound, model=self.model)
        self.obs = torch.arange(STATES).expand(REPLICATES, -1)

    def gradients(self, how: ElboEstimator, times: int = 1, particles: int = 1) -> Tensor:
        """Estimates of the gradient, `times x parameters`."""
        elbo, parameters, found = estimator(TraceEnum_ELBO, particles), list(self.bound.parameters()), []
        for _ in range(times):
            loss = how.loss(elbo, self.model, self.guide, self.seat, self.obs)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            zeros = [torch.zeros_like(parameter) for parameter in parameters]
            found.append(
                torch.cat(
                    [(zero if each is None else each).flatten() for zero, each in zip(zeros, gradients, strict=True)]
                )
            )
        return torch.stack(found)


NORMAL = TanhNormalNetwork((6,), log_std=(-1.5, -0.5))  # without mass at the edges, which grids would miss


def rho(kind: str, opponents: tuple[Space, ...]) -> Conditional:
    factors = [CategoricalNetwork((6,)) if isinstance(space, Discrete) else NORMAL for space in opponents]
    return {"autoregressive": Autoregressive, "independent": Independent}[kind](factors)


def standard_errors(estimates: Tensor, exact: Tensor) -> Tensor:
    """How many standard errors the mean is off, per parameter; a thousandth of the largest gradient is not seen."""
    error = estimates.std(0) / math.sqrt(len(estimates))
    return (estimates.mean(0) - exact) / (error + 1e-3 * exact.abs().max())


CASES = list(itertools.product(ORDERS, OPPONENTS, ("autoregressive", "independent")))
QUICK = [(OpponentFirst, OPPONENTS[0], "autoregressive")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "opponents", "kind"),
    [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES],
)
def test_local_and_sampled_gradients_are_unbiased(order: type[Guide], opponents: tuple[Space, ...], kind: str) -> None:
    pair = Pair(Discrete(3), opponents, order, rho(kind, opponents))
    (exact,) = pair.gradients(Enumerate())
    local, sampled = pair.gradients(Local(), 120), pair.gradients(Sample(), 60)
    for estimates in (local, sampled):
        off = standard_errors(estimates, exact)
        # Of some hundred parameters one may be further off than 4; what is biased is so almost everywhere.
        assert off.square().mean().sqrt() < 1.5
    assert (local - exact).norm(dim=1).mean() < 0.5 * (sampled - exact).norm(dim=1).mean()


@pytest.mark.slow
def test_a_continuous_action_that_comes_first_needs_samples() -> None:
    """What several opponents are drawn to do follows it, which `Local` does not: it says so, and is off."""
    torch.manual_seed(0)
    pair = Pair(Box(-1.0, 1.0, 1), OPPONENTS[0], PolicyFirst, rho("independent", OPPONENTS[0]))
    with torch.no_grad():
        for weight in pair.bound.opponent_model.parameters():
            weight.mul_(3)  # so that opponents follow the action closely
    assert not Local().suits(pair.seat, policy_first=True)
    assert Local().suits(pair.seat, policy_first=False)
    assert Sample().suits(pair.seat, policy_first=True)
    sizes = [weight.numel() for weight in pair.bound.parameters()]
    of_policy = ["policy" in name for name, _ in pair.bound.named_parameters()]
    found = []
    for how in (Enumerate(), Local(), Sample()):
        parts = pair.gradients(how, 100, particles=8).split(sizes, -1)
        found.append(torch.cat([each for each, is_its in zip(parts, of_policy, strict=True) if is_its], -1))
    exact, *others = found
    off = []
    for estimates in others:
        error = ((exact.var(0) + estimates.var(0)) / 100).sqrt() + 1e-3 * exact.mean(0).abs().max()
        off.append(float(((exact.mean(0) - estimates.mean(0)) / error).square().mean().sqrt()))
    assert off[0] > 2 > off[1]


@pytest.mark.slow
def test_relaxed_gradients_know_the_prior() -> None:
    """With values that are all alike what is left is the KL, whose slope is exact where factors are independent."""
    opponents = (Discrete(3), Discrete(4))
    pair = Pair(Discrete(2), opponents, OpponentFirst, rho("independent", opponents))
    with torch.no_grad():
        for weight in pair.model.critic.parameters():
            weight.zero_()
    (exact,) = pair.gradients(Enumerate())
    mean = pair.gradients(Relax(), 150, particles=8).mean(0)
    cosine = torch.nn.functional.cosine_similarity(mean, exact, dim=0)
    assert cosine > 0.97


def test_relaxed_gradients_are_biased() -> None:
    """So the check above would notice."""
    opponents = OPPONENTS[0]
    pair = Pair(Discrete(3), opponents, OpponentFirst, rho("autoregressive", opponents))
    off = standard_errors(pair.gradients(Relax(), 60), pair.gradients(Enumerate())[0])
    assert off.square().mean().sqrt() > 2


@pytest.mark.slow
def test_shared_weights_get_the_gradient_of_every_opponent() -> None:
    opponents = (Discrete(3), Discrete(3))
    pair = Pair(Discrete(2), opponents, OpponentFirst, Shared(CategoricalNetwork((6,))))
    (exact,) = pair.gradients(Enumerate())
    assert standard_errors(pair.gradients(Local(), 120), exact).square().mean().sqrt() < 1.5


@pytest.mark.parametrize("order", ORDERS)
def test_with_one_opponent_local_is_enumeration(order: type[Guide]) -> None:
    pair = Pair(Discrete(3), (Discrete(4),), order, CategoricalNetwork((6,)))
    assert torch.equal(pair.gradients(Local()), pair.gradients(Enumerate()))


@pytest.mark.parametrize("how", [Local(), Sample()])
@pytest.mark.parametrize("order", ORDERS)
def test_drawn_soft_values_are_unbiased(order: type[Guide], how: ElboEstimator) -> None:
    """The bootstrap with the opponents' actions drawn, own actions summed out."""
    opponents = OPPONENTS[0]
    pair = Pair(Discrete(3), opponents, order, rho("autoregressive", opponents))
    with torch.no_grad(), local_parameters():
        exact = soft_value(pair.model, pair.guide, pair.obs, 0.7, math.log(3))
        wide = pair.obs.repeat_interleave(2000, 1)
        drawn = soft_value(pair.model, how.drawn(pair.guide, pair.seat), wide, 0.7, math.log(3)).view(
            REPLICATES, -1, 2000
        )
    off = (drawn.mean(-1) - exact) / (drawn.std(-1) / math.sqrt(2000))
    assert drawn.std() > 0
    assert off.abs().max() < 4.5


MIXED = (Box(-2.0, 1.0, 1), Discrete(2), Discrete(3))


@pytest.mark.parametrize("own", [Discrete(2), Box(-1.0, 1.0, 1)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["autoregressive", "independent"])
def test_mixed_spaces_against_quadrature(kind: str, order: type[Guide], own: Space) -> None:
    """The ELBO of discrete and continuous opponents; the estimate's mean against a sum and integrals on a grid."""
    opponents = MIXED[:2]
    pair = Pair(own, opponents, order, rho(kind, opponents))
    with torch.no_grad(), local_parameters():
        wide = pair.obs.repeat_interleave(4000, 1)
        drawn = one_step(pair.model, pair.guide, wide).elbo.view(REPLICATES, STATES, -1)
        exact = by_quadrature(pair)
    off = (drawn.mean(-1) - exact) / (drawn.std(-1) / math.sqrt(4000))
    assert off.abs().max() < 4.5


def by_quadrature(pair: Pair, points: int = 400) -> Tensor:
    """The ELBO, `replicates x states`: the sites of the guide, one after the other, over all their values."""
    seat, model, guide = pair.seat, pair.model, pair.bound

    def values(space: Space) -> tuple[Tensor, float]:
        if isinstance(space, Discrete):
            return torch.arange(space.n), 1.0
        low, high = float(space.edges(torch.float64, torch.device("cpu"))[0]), 1.0
        width = (high - low) / points
        return (low + width * (torch.arange(points, dtype=torch.float64) + 0.5)).unsqueeze(-1), width

    spaces = [seat.action, *seat.opponent_actions]
    grids = [values(space) for space in spaces]
    if isinstance(seat.action, Box):  # a coarser grid of two dimensions
        points = 200
        grids = [values(space) for space in spaces]
    cells = torch.meshgrid(*(torch.arange(len(grid)) for grid, _ in grids), indexing="ij")
    every = [grid[cell.flatten()] for (grid, _), cell in zip(grids, cells, strict=True)]
    action, *others = (each.view(-1, 1, 1, *each.shape[1:]) for each in every)
    volume = math.prod(width for _, width in grids)
    if guide.order[0] == "action":
        log_pi = guide.factor("action", model, pair.obs).log_prob([action])
    else:
        log_pi = guide.factor("action", model, pair.obs, *others).log_prob([action])
    log_rho = guide.believed(model, pair.obs, action).log_prob(others)
    reward = model.q(pair.obs, action, *others)
    entropy = -0.7 * (log_pi + seat.action.log_size)
    kl = 0.5 * (log_rho - model.opponent_prior(pair.obs).log_prob(others))
    weight = (log_pi + log_rho).exp() * volume
    assert torch.allclose(weight.sum(0), torch.ones((), dtype=torch.float64), atol=1e-3), "the grid is too coarse"
    return (weight * (reward + entropy - kl)).sum(0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [Enumerate(), pytest.param(Local(), marks=pytest.mark.slow), Sample()])
@pytest.mark.parametrize("order", ORDERS)
def test_mixed_gradients_against_quadrature(order: type[Guide], how: ElboEstimator) -> None:
    """Pathwise gradients of continuous opponents, sums or scores of discrete ones.

    Were the box drawn before the discrete actions, `Local` would miss how these follow it: 5 standard errors and more.
    """
    pair = Pair(Discrete(2), MIXED, order, rho("autoregressive", MIXED))
    with local_parameters():
        loss = -by_quadrature(pair).sum() / STATES
    exact = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(pair.bound.parameters()))])
    off = standard_errors(pair.gradients(how, 240 if isinstance(how, Local) else 60, particles=4), exact)
    weights = off.split([weight.numel() for weight in pair.bound.parameters()])
    assert max(float(each.square().mean().sqrt()) for each in weights) < 3
