"""`local_parameters`: whose parameters are whose, inside and outside; and conditionals with Pyro's own attributes."""

from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroParam, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

from inference_marl.described import IncompatibleError
from inference_marl.inference.conditional import _LOCAL, Conditional, local_parameters
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

pytestmark = pytest.mark.pyro_store


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A test that leaves the mode on fails by itself, and not all after it."""
    yield
    pyro.settings.set(module_local_params=False)
    _LOCAL.set(False)


SEAT = Seat(0, (Discrete(1),) * 2, (Discrete(3),) * 2, replicates=2, dtype=torch.float64)
OBS = torch.zeros(2, 4, dtype=torch.int64)


class Logits(Conditional):
    """The same in every state."""

    targets = (Discrete,)

    def setup(self) -> None:
        self.logits = nn.Parameter(torch.randn(self.seat.replicates, 1, self.target.features))

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=self.logits)


def bound(conditional: Conditional) -> Conditional:
    return conditional.bind(SEAT, SEAT.action, [SEAT.observation])


def statements(conditional: Conditional) -> set[str]:
    """The parameters and samples that Pyro sees when it is called."""
    trace = poutine.trace(conditional).get_trace(OBS)
    return {name for name, node in trace.nodes.items() if node["type"] in ("param", "sample")}


def is_local() -> bool:
    return bool(pyro.settings.get("module_local_params"))


def test_inside_reading_a_parameter_is_no_statement_and_outside_it_is() -> None:
    one, other = bound(Logits()), bound(Logits())
    with local_parameters():
        assert not statements(one)
        assert not torch.equal(one(OBS).logits, other(OBS).logits)
        assert not list(pyro.get_param_store().keys())
    assert statements(one) == {"logits"}
    assert list(pyro.get_param_store().keys()) == ["logits"]
    with local_parameters():  # what stands in the store is not looked at
        assert not torch.equal(one(OBS).logits, other(OBS).logits)


def test_it_may_be_entered_again_inside() -> None:
    with local_parameters():
        with local_parameters():
            assert is_local()
        assert is_local()
        assert not statements(bound(Logits()))
    assert not is_local()
    assert statements(bound(Logits())) == {"logits"}


def test_an_error_inside_ends_it() -> None:
    with pytest.raises(RuntimeError, match="broken"), local_parameters(), local_parameters():
        raise RuntimeError("broken")
    assert not is_local()
    assert statements(bound(Logits())) == {"logits"}


def test_an_error_inside_ends_it_at_once() -> None:
    """And not when Python gets to collect what was entered."""
    scope = local_parameters()
    with pytest.raises(RuntimeError, match="broken"), scope:
        raise RuntimeError("broken")
    left_on = is_local()
    if left_on:
        scope._setting.__exit__(None, None, None)
    assert not left_on


def test_a_setting_of_the_users_is_restored() -> None:
    with pyro.settings.context(module_local_params=True):
        with local_parameters():
            assert is_local()
        assert is_local()
    assert not is_local()


def test_as_a_decorator_it_holds_for_every_call_and_for_calls_in_calls() -> None:
    seen: list[bool] = []

    @local_parameters()
    def down(depth: int) -> int:
        seen.append(is_local())
        below = down(depth - 1) if depth else 0
        seen.append(is_local())
        return below + 1

    assert down(2) == 3
    assert down(0) == 1
    assert seen == [True] * 8
    assert not is_local()


def test_one_of_them_may_be_entered_in_itself() -> None:
    scope = local_parameters()
    with scope, scope:
        assert is_local()
    left_on = is_local()
    if left_on:  # else this would end whenever Python next collects garbage, in the middle of another test
        scope._setting.__exit__(None, None, None)
    assert not left_on


class Positive(Conditional):
    """A constrained parameter, made in `setup`."""

    def setup(self) -> None:
        start = torch.full((self.seat.replicates, 1, self.target.features), 2.0)
        self.rate = PyroParam(start, constraint=constraints.positive)

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(self.rate)


class Declared(Conditional):
    """A constrained parameter, declared on the class."""

    @PyroParam(constraint=constraints.positive)
    def rate(self) -> Tensor:
        return torch.full((2, 1, 3), 2.0)

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(self.rate)


class Drawn(Conditional):
    """A weight that is sampled, as in Bayesian networks of Pyro's own."""

    def setup(self) -> None:
        self.rate = PyroSample(dist.Gamma(torch.ones(2, 1, 3), 1.0).to_event(3))

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(self.rate)


class Around(Conditional):
    """Has nothing of Pyro's itself; what it holds has."""

    def __init__(self, inner: Conditional) -> None:
        super().__init__()
        self.inner = inner

    def setup(self) -> None:
        self.inner = self.inner.bind(self.seat, self.target, self.parents)

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        found: dist.TorchDistribution = self.inner(obs)
        return found


@pytest.mark.parametrize("make", [Positive, Declared, lambda: Around(Positive()), lambda: Around(Around(Declared()))])
def test_constrained_parameters_are_their_constrained_selves_inside(make: type[Conditional]) -> None:
    """Before and after training, and the optimised ones are the unconstrained ones."""
    conditional = bound(make())
    with local_parameters():
        for _ in range(2):
            torch.testing.assert_close(conditional(OBS).probs, torch.full((2, 1, 3), 1 / 3))
        (parameter,) = conditional.parameters()
        with torch.no_grad():
            parameter[..., 0] -= 3.0
        assert (conditional(OBS).probs[..., 0] > 0).all()
        assert (conditional(OBS).probs[..., 0] < 0.1).all()
        assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("make", [Drawn, lambda: Around(Drawn())])
def test_sampled_attributes_are_sites_inside_as_well(make: type[Conditional]) -> None:
    conditional = bound(make())
    with local_parameters():
        (name,) = statements(conditional)
        assert name.endswith("rate")
        assert not torch.equal(conditional(OBS).probs, conditional(OBS).probs)
    assert name in statements(conditional)


def test_a_description_that_was_called_may_be_bound_to_something_else() -> None:
    """What was found out of one of its copies is not held against the next."""
    described = Around(Logits())
    with local_parameters():
        first = bound(described)
        first(OBS)
        again = first.bind(SEAT, SEAT.action, [SEAT.observation])
        assert isinstance(again, Around)
        again.inner = bound(Positive())
        torch.testing.assert_close(again(OBS).probs, torch.full((2, 1, 3), 1 / 3))


def test_what_it_cannot_be_used_for_is_refused() -> None:
    with pytest.raises(
        IncompatibleError, match=r"Logits got Box\(.*\) for the variable it describes, expected Discrete"
    ):
        Logits().bind(SEAT, Box(0.0, 1.0), [SEAT.observation])
