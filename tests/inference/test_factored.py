"""Distributions of what several opponents do, one site after the other."""

import itertools
import math
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO

from inference_marl.described import IncompatibleError
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Guide,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    Tabular,
)
from inference_marl.inference.factored import Factored, OfTable, Separate, as_factored, opponent_sites
from inference_marl.inference.objectives import optimal_value
from inference_marl.inference.opponents import bind_over_opponents
from inference_marl.models import (
    Amortised,
    ControlModel,
    EmpiricalFrequency,
    ExponentialOptimality,
    Fixed,
    TabularCritic,
    Uniform,
)
from inference_marl.spaces import Box, Discrete, Space, separate_actions
from inference_marl.types import Seat

DOUBLE = torch.float64
STATES, REPLICATES = 3, 2


def a_seat(*spaces: Space, replicates: int = REPLICATES) -> Seat:
    return Seat(0, (Discrete(STATES),) * len(spaces), spaces, replicates, dtype=DOUBLE)


def test_names_of_sites() -> None:
    assert opponent_sites(1) == ("opponent_action",)
    assert opponent_sites(1, 4) == ("opponent_action_4",)
    assert opponent_sites(3) == ("opponent_action_0", "opponent_action_1", "opponent_action_2")
    assert opponent_sites(2, 4) == ("opponent_action_0_4", "opponent_action_1_4")
    assert len({*opponent_sites(12), *opponent_sites(12, 0), *opponent_sites(1, 0)}) == 12 + 12 + 1 - 1


def test_outlooks_average_to_the_marginals() -> None:
    """Of a table; of a box that is drawn after a discrete variable it has draws."""
    spaces = (Discrete(2), Discrete(3))
    table = torch.randn(REPLICATES, 1, 6, dtype=DOUBLE).log_softmax(-1)
    first, second = OfTable(table, spaces).outlook((REPLICATES, 40_000))
    marginals = table.exp().unflatten(-1, (2, 3))
    torch.testing.assert_close(first, marginals.sum(-1).expand_as(first))  # nothing is drawn before it
    assert second.std(1).max() > 0.01
    torch.testing.assert_close(second.mean(1), marginals.sum(-2).squeeze(1), atol=0.01, rtol=0)

    class Mixed(Factored):
        order = (1, 0)

        def factor(self, number: int, *earlier: torch.Tensor) -> dist.TorchDistribution:
            if number == 1:
                return dist.Categorical(probs=torch.tensor([[[0.25, 0.75]]]))
            return dist.Normal(10.0 * earlier[0].unsqueeze(-1), 0.1).to_event(1)

    box, probs = Mixed((Box(-1, 20), Discrete(2))).outlook((REPLICATES, 1000))
    assert box.shape == (REPLICATES, 1000, 1)
    torch.testing.assert_close(probs, torch.tensor([0.25, 0.75]).expand_as(probs))
    assert float(box.mean()) == pytest.approx(7.5, abs=0.5)


@pytest.mark.parametrize("sizes", [(3,), (2, 3), (4, 2, 3)])
def test_factors_of_a_table_multiply_to_it(sizes: tuple[int, ...]) -> None:
    spaces = tuple(map(Discrete, sizes))
    table = torch.randn(REPLICATES, 5, math.prod(sizes), dtype=DOUBLE).log_softmax(-1)
    factored = OfTable(table, spaces)
    assert factored.table() is table
    torch.testing.assert_close(Factored.table(factored), table, msg="as for any other")
    for number, actions in enumerate(itertools.product(*map(range, sizes))):
        values = [torch.full((REPLICATES, 5), action) for action in actions]
        torch.testing.assert_close(factored.log_prob(values), table[..., number])


def test_enumerated_earlier_values_are_a_loop() -> None:
    spaces = (Discrete(2), Discrete(3))
    table = torch.randn(4, REPLICATES, 5, 6, dtype=DOUBLE).log_softmax(-1)  # of each of four own actions
    every = torch.arange(2).view(-1, 1, 1, 1)
    wide = OfTable(table, spaces).factor(1, every).logits
    assert wide.shape == (2, 4, REPLICATES, 5, 3)
    for value in range(2):
        alone = OfTable(table, spaces).factor(1, torch.full((4, REPLICATES, 5), value)).logits
        torch.testing.assert_close(wide[value], alone)


def test_given_what_is_impossible_a_factor_is_uniform() -> None:
    table = torch.tensor([[[-math.inf, -math.inf, math.log(0.25), math.log(0.75)]]], dtype=DOUBLE)
    factored = OfTable(table, (Discrete(2), Discrete(2)))
    assert factored.factor(0).probs.tolist() == [[[0.0, 1.0]]]
    assert factored.factor(1, torch.zeros(1, 1, dtype=torch.int64)).probs.tolist() == [[[0.5, 0.5]]]
    torch.testing.assert_close(factored.factor(1, torch.ones(1, 1, dtype=torch.int64)).probs, table[..., 2:].exp())


def test_independent_variables_multiply() -> None:
    first, second = (dist.Categorical(logits=torch.randn(REPLICATES, 5, size, dtype=DOUBLE)) for size in (2, 3))
    factored = Separate([first, second], (Discrete(2), Discrete(3)))
    torch.testing.assert_close(factored.table(), Factored.table(factored))
    table = factored.table().exp().unflatten(-1, (2, 3))
    torch.testing.assert_close(table, first.probs.unsqueeze(-1) * second.probs.unsqueeze(-2))


def test_draws_follow_the_table() -> None:
    spaces = (Discrete(2), Discrete(3))
    table = torch.randn(1, 1, 6, dtype=DOUBLE).log_softmax(-1)
    first, second = OfTable(table, spaces).sample((1, 40_000))
    counts = (3 * first + second).flatten().bincount(minlength=6) / 40_000
    torch.testing.assert_close(counts.double(), table.exp().flatten(), rtol=0, atol=0.015)


def test_boxes_have_no_table() -> None:
    spaces = (Discrete(2), Box(0, 1, 1))
    factored = Separate([space.uniform(DOUBLE, torch.device("cpu")) for space in spaces], spaces)
    with pytest.raises(IncompatibleError, match="got Box"):
        factored.table()
    with pytest.raises(IncompatibleError, match="got Box"):
        as_factored(dist.Categorical(logits=torch.zeros(4)), spaces)


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("sizes", [(3,), (2, 3), (4, 2, 3)])
@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
def test_the_elbo_of_the_sites_is_the_exact_value(order: type[Guide], sizes: tuple[int, ...], beta: float) -> None:
    """Of the optimal guide, whose sites Pyro sums out one by one: Eq. 9 (Tian et al. 2019), to 1e-10."""
    seat = a_seat(Discrete(3), *map(Discrete, sizes))
    prior = bind_over_opponents(Fixed(torch.rand(math.prod(sizes)).add(0.05).tolist()), seat, [seat.observation])
    critic = TabularCritic(initial=(-3.0, 3.0)).bind(seat)
    model = ControlModel(seat, prior, critic, ExponentialOptimality(), 0.7, beta)
    guide = partial(order(Optimal(), Optimal()).bind(seat), model=model)
    obs = torch.arange(STATES).expand(REPLICATES, -1)
    value = optimal_value(model.q_table(obs), model.opponent_prior(obs).table(), 0.7, beta, order is PolicyFirst)
    elbo = -TraceEnum_ELBO(max_plate_nesting=2).loss(model, guide, obs)
    assert abs(elbo - float((value - 0.7 * math.log(3)).sum())) < 1e-10
    trace = poutine.trace(guide).get_trace(obs)
    assert set(trace.stochastic_nodes) - {"replicate", "batch"} == {"action", *opponent_sites(len(sizes))}


def test_a_network_is_a_template_and_a_table_is_over_the_joint_action() -> None:
    seat = a_seat(Discrete(2), Discrete(3), Discrete(4))
    network = OpponentFirst(CategoricalNetwork((4,)), Tabular()).bind(seat)
    assert isinstance(network.opponent_model, Autoregressive)
    assert [factor.target for factor in network.opponent_model.factors] == [Discrete(3), Discrete(4)]
    assert network.policy.parents == (Discrete(STATES), Discrete(3), Discrete(4))
    table = OpponentFirst(Tabular(), Tabular()).bind(seat)
    assert table.opponent_model.target == Discrete(12)


@pytest.mark.parametrize(
    "described",
    [EmpiricalFrequency(smoothing=1.0), Amortised(CategoricalNetwork((8,)), batch_size=4, learning_rate=0.05)],
)
def test_priors_see_every_opponent(described: EmpiricalFrequency | Amortised) -> None:
    seat = a_seat(Discrete(2), Discrete(3), Discrete(2))
    prior = bind_over_opponents(described, seat, [seat.observation])
    model = ControlModel(seat, prior, TabularCritic().bind(seat), ExponentialOptimality())
    obs = torch.zeros(REPLICATES, 50, dtype=torch.int64)
    joint = torch.full_like(obs, 4)  # the first does 2, the second 0
    for _ in range(60):
        prior.observe_given(model, obs, *separate_actions(seat.opponent_actions, joint))
        prior.fit()
    assert (model.opponent_prior(obs[:, :1]).table().exp()[..., 4] > 0.6).all()


def test_too_many_joint_actions_for_a_table_are_refused_by_name() -> None:
    many = a_seat(*[Discrete(5)] * 6)
    with pytest.raises(IncompatibleError, match="at most 4096 joint actions"):
        bind_over_opponents(EmpiricalFrequency(), many, [many.observation])
    with pytest.raises(IncompatibleError, match=r"opponent_model: .* at most 4096 joint actions"):
        OpponentFirst(Optimal(), Optimal()).bind(many)
    with pytest.raises(IncompatibleError, match="at most 4096 joint actions"):
        TabularCritic().bind(many)
    bind_over_opponents(Uniform(), many, [many.observation])
    OpponentFirst(CategoricalNetwork((4,)), CategoricalNetwork((4,))).bind(many)
