"""The mixture's pathwise gradients against quadrature and score functions; densities; two modes."""

import math
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import integrate
from torch import Tensor, nn

from inference_marl.guides import SplineFlow, TanhNormalMixture, TanhNormalNetwork
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.distributions import MixtureOfNormals
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.svi import elbo_loss
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

DOUBLE = torch.float64
R = 2


def bound(conditional: Conditional, box: Box, replicates: int = R) -> Any:
    seat = Seat(0, (Discrete(4),) * 2, (box, box), replicates, dtype=DOUBLE)
    return conditional.bind(seat, box, [seat.observation])


def parameters(components: int, dim: int) -> list[Tensor]:
    """Logits, means and scales that differ much between components."""
    return [
        torch.randn(components, dtype=DOUBLE),
        1.5 * torch.randn(components, dim, dtype=DOUBLE),
        torch.rand(components, dim, dtype=DOUBLE) + 0.2,
    ]


def smooth(z: Tensor) -> Tensor:
    return (torch.sin(z) + 0.3 * z).prod(-1) + 0.2 * z.square().sum(-1)


def exact_expectation(logits: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """`E[smooth(z)]` by Gauss-Hermite quadrature over each component."""
    nodes, weights = (torch.tensor(part, dtype=DOUBLE) for part in np.polynomial.hermite_e.hermegauss(40))
    dim = mean.shape[-1]
    grid = torch.cartesian_prod(*[nodes] * dim).view(-1, dim)
    weight = torch.cartesian_prod(*[weights / math.sqrt(2 * math.pi)] * dim).view(-1, dim).prod(-1)
    per_component = (weight * smooth(mean.unsqueeze(-2) + scale.unsqueeze(-2) * grid)).sum(-1)
    return (logits.softmax(-1) * per_component).sum()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_pathwise_gradients_are_unbiased(dim: int) -> None:
    """Each of the mean gradients of 50 000 draws is within 5 standard errors of the exact one.

    At most 21 numbers per case: fails by chance for fewer than one seed in 70 000.
    """
    draws = 50_000
    leaves = [part.requires_grad_() for part in parameters(3, dim)]
    exact = torch.autograd.grad(exact_expectation(*leaves), leaves)
    wide = [leaf.detach().expand(draws, *leaf.shape).clone().requires_grad_() for leaf in leaves]
    sampled = torch.autograd.grad(smooth(MixtureOfNormals.of(*wide).rsample()).sum(), wide)
    for one, each in zip(exact, sampled, strict=True):
        error = (each.mean(0) - one) / (each.std(0) / math.sqrt(draws))
        assert (error.abs() < 5).all()


def test_pathwise_and_score_function_gradients_agree_after_squashing() -> None:
    """For the network's own parameters, to 5 standard errors of the difference of 40 batches."""
    conditional = bound(TanhNormalMixture(3, (4,)), Box(-2, 3, 2), replicates=1)
    bias = conditional.network.layers[-1].bias
    with torch.no_grad():
        bias.copy_(0.5 * torch.randn_like(bias))
    obs = torch.zeros(1, 500, dtype=torch.int64)

    def difference() -> Tensor:
        distribution = conditional(obs)
        pathwise = torch.autograd.grad(smooth(distribution.rsample()).mean(), bias)[0]
        fixed = distribution.sample().detach()
        reward = smooth(fixed) - smooth(distribution.sample()).mean()  # a baseline from other draws
        score = torch.autograd.grad((conditional(obs).log_prob(fixed) * reward).mean(), bias)[0]
        return (pathwise - score).flatten()

    differences = torch.stack([difference() for _ in range(40)])
    assert (differences.mean(0).abs() <= 5 * differences.std(0) / math.sqrt(40)).all()


def test_draws_do_not_depend_on_the_gradient() -> None:
    """`rsample` and `sample` give the same values for the same seed."""
    mixture = MixtureOfNormals.of(*parameters(3, 2))
    values = []
    for draw in (mixture.sample, mixture.rsample):
        pyro.set_rng_seed(1)
        values.append(draw((5,)))
    assert torch.equal(*values)


def test_one_component_is_a_normal() -> None:
    logits, mean, scale = (part.requires_grad_() for part in parameters(1, 2))
    pyro.set_rng_seed(1)
    z = MixtureOfNormals.of(logits, mean, scale).rsample((7,))
    given = torch.randn(7, 2, dtype=DOUBLE)
    got = torch.autograd.grad((z * given).sum(), [mean, scale])
    noise = ((z - mean) / scale).detach()
    torch.testing.assert_close(got[0], given.sum(0, keepdim=True))
    torch.testing.assert_close(got[1], (given * noise).sum(0, keepdim=True))


def test_the_density_integrates_to_one_over_the_box() -> None:
    conditional = bound(TanhNormalMixture(3, (6,), log_std=(-2.0, 0.0)), Box(-2, 3, 1))
    points = torch.linspace(-2, 3, 20_001, dtype=DOUBLE)[1:-1].view(-1, 1, 1, 1)
    obs = torch.randint(4, (R, 5))
    density = conditional(obs).log_prob(points.expand(-1, R, 5, 1)).exp().detach()
    mass = integrate.simpson(density.numpy(), x=points.flatten().numpy(), axis=0)
    np.testing.assert_allclose(mass, 1, atol=1e-4)


def test_dimensions_are_correlated_through_the_component() -> None:
    """By hand: components at (-1, -1) and (1, 1) before squashing."""
    conditional = bound(TanhNormalMixture(2, (4,)), Box(-1, 1, 2), replicates=1)
    with torch.no_grad():
        conditional.network.layers[-1].weight.zero_()
        conditional.network.layers[-1].bias.copy_(torch.tensor([0, 0, -1, -1, 1, 1, -1, -1, -1, -1.0]).view(1, 1, -1))
    obs = torch.zeros(1, 4000, dtype=torch.int64)
    value = conditional(obs).sample()
    same = ((value > 0).all(-1) | (value < 0).all(-1)).double().mean().item()
    assert same > 0.98  # each coordinate strays across 0 with probability Phi(-e) = 0.003
    point = torch.tensor([0.5, 0.2], dtype=DOUBLE)
    u, scale = torch.atanh(point), math.exp(-1)
    each = [
        torch.distributions.Normal(sign * torch.ones(2, dtype=DOUBLE), scale).log_prob(u).sum().exp()
        for sign in (-1, 1)
    ]
    expected = (0.5 * each[0] + 0.5 * each[1]) / (1 - point.square()).prod()
    torch.testing.assert_close(conditional(obs[:, :1]).log_prob(point.view(1, 1, 2)).exp().squeeze(), expected)


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_log_probabilities_and_gradients_are_finite_at_the_edges(dim: int, dtype: torch.dtype) -> None:
    box = Box(-2, 3, dim)
    seat = Seat(0, (Discrete(4),) * 2, (box, box), R, dtype=dtype)
    conditional: Any = TanhNormalMixture(3, (6,)).bind(seat, box, [seat.observation])
    obs = torch.randint(4, (R, 5))
    for edge in (box.low, box.high):
        log_prob = conditional(obs).log_prob(torch.full((R, 5, dim), edge, dtype=dtype))
        assert torch.isfinite(log_prob).all()
        log_prob.sum().backward()
    with torch.no_grad():
        conditional.network.layers[-1].bias.mul_(0).add_(20.0)  # all mass at an edge
    distribution = conditional(obs)
    value = distribution.rsample()
    (distribution.log_prob(value).sum() + value.sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in conditional.parameters())


def test_scales_stay_within_their_bounds() -> None:
    conditional = bound(TanhNormalMixture(3, (), log_std=(-2.0, 0.5)), Box(-2, 3, 2))
    with torch.no_grad():
        last = conditional.network.layers[-1]
        last.weight.zero_()
        last.bias[..., -6:] = torch.tensor([-50.0, -2.0, -1.0, 0.5, 50.0, 0.0], dtype=DOUBLE)
    scale = conditional(torch.zeros(R, 1, dtype=torch.int64)).base_dist.component_distribution.base_dist.scale
    expected = torch.tensor([[-2.0, -2.0], [-1.0, 0.5], [0.5, 0.0]], dtype=DOUBLE).exp()
    torch.testing.assert_close(scale, expected.expand(R, 1, 3, 2))


def test_extra_dimensions_are_a_loop() -> None:
    conditional = bound(TanhNormalMixture(3, (6,)), Box(-2, 3, 2))
    obs = torch.randint(4, (7, R, 5))
    value = conditional(obs).expand((7, R, 5)).rsample()
    assert value.shape == (7, R, 5, 2)
    looped = torch.stack([conditional(obs[i]).log_prob(value[i]) for i in range(7)])
    torch.testing.assert_close(conditional(obs).log_prob(value), looped)
    expanded = conditional(obs[0]).expand((7, R, 5))
    assert expanded.rsample().shape == (7, R, 5, 2)
    torch.testing.assert_close(expanded.log_prob(value)[3], conditional(obs[0]).log_prob(value[3]))


def test_every_dimension_is_squashed_between_its_own_edges() -> None:
    """As a box of one pair of edges at a time, for independent dimensions: the same draws, the densities' product."""
    low, high = (-2.0, 0.0, 10.0), (3.0, 0.1, 30.0)
    conditional: Any = bound(TanhNormalNetwork((6,)), Box(low, high, 3))
    obs = torch.randint(4, (R, 5))
    pyro.set_rng_seed(1)
    value = conditional(obs).sample()
    total = torch.zeros(R, 5, dtype=DOUBLE)
    for i, edges in enumerate(zip(low, high, strict=True)):
        alone: Any = bound(TanhNormalNetwork((6,)), Box(*edges, 3))
        alone.load_state_dict(conditional.state_dict())
        pyro.set_rng_seed(1)
        its = alone(obs).sample()[..., i]
        torch.testing.assert_close(value[..., i], its)
        total += alone(obs).base_dist.log_prob(value)[..., i]
    torch.testing.assert_close(conditional(obs).log_prob(value), total)
    assert conditional.target.misfit(value) is None


@pytest.mark.parametrize("make", [TanhNormalMixture, TanhNormalNetwork, SplineFlow])
def test_draws_stay_between_edges_that_differ_by_dimension(make: Any) -> None:
    box = Box((-2.0, 10.0), (3.0, 30.0), 2)
    conditional = bound(make(hidden=(6,)), box)
    obs = torch.randint(4, (R, 500))
    value = conditional(obs).sample()
    middle = torch.tensor([0.5, 20.0], dtype=DOUBLE)
    assert ((value > middle).any(1) & (value < middle).any(1)).all()
    with torch.no_grad():
        conditional.network.last.weight.mul_(30)  # so that draws crowd at the edges
    crowded = conditional(obs).sample()
    for each in (value, crowded):
        assert box.misfit(each) is None
        assert torch.isfinite(conditional(obs).log_prob(each.clone())).all()


@pytest.mark.parametrize("make", [TanhNormalMixture, TanhNormalNetwork, SplineFlow])
@pytest.mark.parametrize("box", [Box(), Box(0.0), Box([0.0, -math.inf], 1.0, 2)])
def test_a_box_without_an_edge_is_refused(make: Any, box: Box) -> None:
    with pytest.raises(ValueError, match=r" got Box\(.*\), expected a box with finite edges"):
        bound(make(hidden=(4,)), box)(torch.zeros(R, 1, dtype=torch.int64))


class Hills(nn.Module):
    """A target density over the box `[-1, 1]` with two hills, at -0.6 and 0.6."""

    def forward(self, obs: Tensor) -> None:
        with ONE_STEP.open(obs.shape).within():
            value = pyro.sample("action", Box(-1, 1).uniform(DOUBLE, obs.device))
            pyro.factor("hills", self.log_density(value.squeeze(-1)))

    @staticmethod
    def log_density(x: Tensor) -> Tensor:
        hills = [torch.distributions.Normal(at, 0.15).log_prob(x) for at in (-0.6, 0.6)]
        return torch.logsumexp(torch.stack(hills), 0) - math.log(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "two_modes"), [(TanhNormalMixture, True), pytest.param(TanhNormalNetwork, False, marks=pytest.mark.slow)]
)
def test_it_fits_two_modes_where_a_normal_cannot(make: Any, two_modes: bool) -> None:
    conditional = bound(make(hidden=(8,)), Box(-1, 1), replicates=8)
    model = Hills()

    def guide(obs: Tensor) -> None:
        with ONE_STEP.open(obs.shape).within():
            pyro.sample("action", conditional(obs))

    obs = torch.zeros(8, 64, dtype=torch.int64)
    optimiser = Optimiser("guide", conditional.parameters(), learning_rate=0.01)
    for _ in range(500):
        optimiser.step(elbo_loss(Trace_ELBO(), model, guide, 64, obs))
    with torch.no_grad():
        distribution = conditional(torch.zeros(8, 4000, dtype=torch.int64))
        value = distribution.sample()
        gap = (distribution.log_prob(value) - model.log_density(value.squeeze(-1))).mean(1)  # KL(guide || target)
    if two_modes:
        left = (value.squeeze(-1) < 0).double().mean(1)
        assert ((gap < 0.2) & (left > 0.2) & (left < 0.8)).sum() >= 7  # a start may put all components on one hill
    else:
        assert (gap > 0.6).all()  # one hill costs log 2, and one wide normal over both costs more


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"components": 0}, "^components: got 0, expected a positive integer"),
        ({"hidden": [0]}, r"^hidden\[0\]: got 0, expected a positive integer"),
        ({"log_std": (1.0, 1.0)}, r"^log_std: got \(1.0, 1.0\), expected \[low, high\]"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TanhNormalMixture(**wrong)
