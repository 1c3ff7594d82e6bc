"""Plates by name, and networks that know theirs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from inference_marl.inference.networks import MLP
from inference_marl.inference.plates import ONE_STEP, Plates
from inference_marl.spaces import Discrete
from inference_marl.types import Seat

TASKS = Plates(("replicate", "task", "batch"))
R = 4


def seat() -> Seat:
    return Seat(0, (Discrete(1),) * 2, (Discrete(2),) * 2, R, dtype=torch.float64)


def test_dimensions_are_counted_from_the_right() -> None:
    assert [TASKS.dim(name) for name in TASKS.names] == [-3, -2, -1]
    assert len(TASKS) == 3


@pytest.mark.parametrize("sizes", [(4, 4), (4, 4, 4, 4), (4,)])
def test_one_size_per_name(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected one for each of replicate, task, batch"):
        TASKS.open(sizes)


@pytest.mark.parametrize("shape", [(4, 5), (4, 4, 5), (4, 5, 2), (4, 4, 5, 3)])
def test_observations_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected replicate x batch x 3$"):
        ONE_STEP.sizes(torch.zeros(shape), (3,))


def test_sizes() -> None:
    assert ONE_STEP.sizes(torch.zeros(4, 5), ()) == (4, 5)
    assert ONE_STEP.sizes(torch.zeros(4, 5, 3), (3,)) == (4, 5)


def test_plates_are_entered_by_name_and_again() -> None:
    """Sites in some of the plates, and others in all of them, of one run of a model."""

    def model() -> None:
        plates = TASKS.open((4, 3, 5))
        with plates.within("replicate", "task"):
            context = pyro.sample("context", dist.Normal(0.0, 1.0))
        with plates.within():
            pyro.sample("reward", dist.Normal(context, 1.0), obs=torch.zeros(4, 3, 5))

    trace = poutine.trace(model).get_trace()
    assert trace.nodes["context"]["value"].shape == (4, 3, 1)
    frames = {name: [f.name for f in trace.nodes[name]["cond_indep_stack"]] for name in ("context", "reward")}
    assert frames == {"context": ["replicate", "task"], "reward": ["replicate", "task", "batch"]}
    trace.compute_log_prob()
    assert trace.nodes["reward"]["log_prob"].shape == (4, 3, 5)
    guide = poutine.block(model, hide=["reward"])
    assert Trace_ELBO(max_plate_nesting=len(TASKS)).loss(model, guide) > 0


def test_as_many_tasks_as_replicates_do_not_mix() -> None:
    """A network with a task plate treats tasks as data, also where there are as many as replicates."""
    torch.manual_seed(0)
    network = MLP(seat(), 3, 2, (5,), TASKS)
    x = torch.randn(R, R, 6, 3, dtype=torch.float64)
    out = network(x)
    assert out.shape == (R, R, 6, 2)
    alone = MLP(seat(), 3, 2, (5,))
    alone.load_state_dict(network.state_dict())
    for task in range(R):
        torch.testing.assert_close(out[:, task], alone(x[:, task]))
    many = network(x.expand(7, *x.shape))
    torch.testing.assert_close(many, out.expand(7, *out.shape))


@pytest.mark.parametrize(
    "shape", [(R, 3), (R, 6, 2), (5, 6, 3), (2, 5, 6, 3), (3,)], ids=["no batch", "features", "R", "extra", "bare"]
)
def test_networks_refuse_other_shapes(shape: tuple[int, ...]) -> None:
    network = MLP(seat(), 3, 2, (5,))
    with pytest.raises(ValueError, match=r"expected \[extra x\] replicate x batch x 3 with 4 replicates"):
        network(torch.zeros(shape, dtype=torch.float64))


def test_enumerated_values_are_the_same_for_all_replicates() -> None:
    network = MLP(seat(), 3, 2, (5,))
    x = torch.randn(7, 1, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(network(x), network(x.expand(7, R, 6, 3)))
