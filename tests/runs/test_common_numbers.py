"""Groups of replicates that are played as one draw what each would draw alone."""

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from inference_marl.inference.networks import rows
from inference_marl.runs.common_numbers import CommonNumbers

ALONE, GROUPS = 10, 3
TOGETHER = ALONE * GROUPS


def number(replicates: int) -> Tensor:
    """One per replicate, another for each group."""
    return 1 + torch.arange(replicates) // ALONE


DRAWS: dict[str, Callable[[int], Tensor]] = {
    "rand": lambda r: torch.rand(r, 7),
    "rand of a tuple": lambda r: torch.rand((r, 2), dtype=torch.float64),
    "rand of a size": lambda r: torch.rand(size=(r, 2)),
    "randn": lambda r: torch.randn(r, 33),
    "randint": lambda r: torch.randint(5, (r, 4)),
    "randint from": lambda r: torch.randint(1, 9, (r,)),
    "randint of a size": lambda r: torch.randint(1, 9, size=(r,)),
    "rand_like": lambda r: torch.rand_like(torch.ones(r, 9)),
    "uniform_": lambda r: torch.empty(r, 3, 4).uniform_(-1, 1),
    "normal_": lambda r: torch.empty(4, r, 5).normal_().movedim(1, 0),
    "exponential_": lambda r: torch.empty(r, 3).exponential_(),
    "normal": lambda r: dist.Normal(number(r).float(), 1.0).sample((3,)).movedim(1, 0),
    "normal, reparameterised": lambda r: dist.Normal(torch.zeros(r, 5, 2), number(r).view(-1, 1, 1)).rsample(),
    "uniform": lambda r: dist.Uniform(torch.zeros(r, 2), 1.0).sample((16,)).movedim(1, 0),
    "bernoulli": lambda r: dist.Bernoulli(number(r).float().view(-1, 1).expand(r, 6) / 5).sample(),
    "categorical": lambda r: dist.Categorical(number(r).view(-1, 1, 1) ** torch.arange(3.0).expand(r, 5, 3)).sample(),
    "categorical, often": lambda r: (
        dist.Categorical(number(r).view(-1, 1) ** torch.arange(3.0)).sample((4,)).movedim(1, 0)
    ),
    "categorical, with particles": lambda r: (
        dist.Categorical(number(r).view(-1, 1, 1) ** torch.arange(3.0).expand(2, r, 5, 3)).sample().movedim(1, 0)
    ),
    "dirichlet": lambda r: dist.Dirichlet(torch.ones(r, 3)).sample(),
    "what all replicates share": lambda r: torch.rand(7).expand(r, 7),
    "a permutation": lambda r: torch.randperm(4).expand(r, 4),
    "a number": lambda r: torch.rand(()).expand(r),
    "gumbel softmax": lambda r: functional.gumbel_softmax(number(r).view(-1, 1) * torch.arange(3.0), hard=True),
    "dropout": lambda r: functional.dropout(number(r).view(-1, 1).expand(r, 20).double()),
    "rows of two networks": lambda r: in_rows(lambda: torch.randn(2 * r, 3)),
    "choices of two networks": lambda r: in_rows(lambda: dist.Categorical(torch.ones(2 * r, 5, 3)).sample()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_each_group_draws_what_it_would_draw_alone(name: str) -> None:
    draw = DRAWS[name]
    alone = []
    for group in range(GROUPS):
        torch.manual_seed(1)
        # All replicates of one group, which know no others.
        alone.append(_of_group(draw, group))
    after = torch.get_rng_state()
    torch.manual_seed(1)
    with CommonNumbers(GROUPS, TOGETHER):
        together = draw(TOGETHER)
    assert torch.equal(torch.cat(alone), together)
    assert torch.equal(torch.get_rng_state(), after), "and goes on alike"


def in_rows(draw: Callable[[], Tensor]) -> Tensor:
    with rows(2):
        return draw().unflatten(0, (-1, 2))


def _of_group(draw: Callable[[int], Tensor], group: int) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "number", lambda replicates: torch.full((replicates,), 1 + group))
        return draw(ALONE)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(2 * TOGETHER),
        lambda: torch.rand(5, TOGETHER, TOGETHER),
        lambda: torch.multinomial(torch.ones(4 * TOGETHER, 3), 1),
    ],
)
def test_draws_in_which_replicates_cannot_be_told_are_refused(draw: Callable[[], Tensor]) -> None:
    message = r"^random numbers: got .* expected one dimension of 30 replicates"
    with pytest.raises(RuntimeError, match=message), CommonNumbers(GROUPS, TOGETHER):
        draw()


def test_draws_by_rejection_are_refused_where_they_take_other_amounts() -> None:
    shape = number(TOGETHER).view(-1, 1).expand(TOGETHER, 99) ** -2.0
    with pytest.raises(RuntimeError, match="other amounts of random numbers"), CommonNumbers(GROUPS, TOGETHER):
        dist.Gamma(shape, 1.0).sample()


def test_outside_nothing_has_changed() -> None:
    torch.manual_seed(0)
    expected = torch.rand(TOGETHER)
    torch.manual_seed(0)
    with CommonNumbers(GROUPS, TOGETHER):
        pass
    assert torch.equal(torch.rand(TOGETHER), expected)
