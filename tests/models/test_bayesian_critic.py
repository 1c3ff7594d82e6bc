"""The Bayesian critic: its posterior against Bayesian linear regression, and who reads its draws and its mean."""

import copy
import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.inference.networks import track
from inference_marl.learners import Rommeo
from inference_marl.models import BayesianCritic, NetworkCritic, Uniform
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Seat, Transition
from tests.steps import teach

DOUBLE = torch.float64
R = 3
LINE = Box(-1.0, 1.0)


def fit(critic: Any, *data: Tensor) -> None:
    """Fit to observations, everybody's actions and, last, targets."""
    *given, target = data
    critic.fit(*given, target=target)


def a_seat(action: Space, replicates: int = R, environments: int = 1, states: int = 1) -> Seat:
    return Seat(0, (Discrete(states),) * 2, (action, action), replicates, environments, dtype=DOUBLE)


def bound(critic: BayesianCritic, action: Space = LINE, **options: int) -> Any:
    return critic.bind(a_seat(action, **options))


def draws_of(low: float, high: float, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """One state, own actions in `[low, high]`, opponents' in the whole box."""
    action = torch.rand(R, batch, 1, dtype=DOUBLE) * (high - low) + low
    opponent_action = torch.rand(R, batch, 1, dtype=DOUBLE) * 2 - 1
    return torch.zeros(R, batch, dtype=torch.int64), action, opponent_action


def settle(critic: Any, *data: Tensor) -> None:
    for rate in (0.1, 0.01, 0.001):
        for group in critic.optimiser.adam.param_groups:
            group["lr"] = rate
        for _ in range(100):
            fit(critic, *data)


def test_without_hidden_layers_it_is_bayesian_linear_regression() -> None:
    """Features are `(s, a, b, 1)`: the mean is exact regression's, the variances are 1 / diag(precision).

    The latter is the best of all normals with independent coordinates (Bishop 2006, Section 10.1.2).
    """
    batch, prior_scale, noise_scale, initial = 40, 0.3, 0.5, 2.0
    description = BayesianCritic(
        [], prior_scale=prior_scale, noise_scale=noise_scale, initial=initial, memory=batch, particles=64
    )
    critic: Any = description.bind(Seat(0, (LINE,) * 2, (LINE, LINE), R, dtype=DOUBLE))
    obs, action, opponent_action = (torch.rand(R, batch, 1, dtype=DOUBLE) * 2 - 1 for _ in range(3))
    noise = noise_scale * torch.randn(R, batch, dtype=DOUBLE)
    target = (obs + 1.5 * action - 0.7 * opponent_action).squeeze(-1) + 3 + noise
    settle(critic, obs, action, opponent_action, target)

    features = torch.cat([obs, action, opponent_action, torch.ones_like(obs)], -1)
    precision = features.mT @ features / noise_scale**2 + torch.eye(4, dtype=DOUBLE) / prior_scale**2
    start = torch.tensor([0.0, 0.0, 0.0, initial], dtype=DOUBLE) / prior_scale**2
    mean = torch.linalg.solve(precision, (features * target.unsqueeze(-1)).sum(1) / noise_scale**2 + start)
    variance = 1 / precision.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(critic._mean().squeeze(1).detach(), mean, atol=0.02, rtol=0)
    scale = critic.scale.squeeze(1)
    torch.testing.assert_close(scale, variance.sqrt())
    with critic.expected():
        value = critic(obs, action, opponent_action)
    torch.testing.assert_close(value, (features * mean.unsqueeze(1)).sum(-1), atol=0.03, rtol=0)
    expected = (features.square() @ variance.unsqueeze(-1)).squeeze(-1).sqrt()
    torch.testing.assert_close(critic.uncertainty(obs, action, opponent_action), expected)


@pytest.mark.parametrize(("updates", "memory", "data"), [(0, None, 2), (4, None, 10), (4, 7, 7), (2, 7, 6)])
def test_the_loss_weighs_the_prior_by_the_data_seen(updates: int, memory: int | None, data: int) -> None:
    """Per datum of the batch: minus the expected log-likelihood, plus KL / data. By hand, with 4000 draws."""
    critic = bound(BayesianCritic([], memory=memory, noise_scale=0.7, prior_scale=2.0), environments=2)
    critic.updates = updates
    assert critic.data == data
    with torch.no_grad():  # so that scale^-2 = 2^-2 + data E[phi^2] / .7^2 is .3^-2
        critic.second_moment.fill_((0.3**-2 - 2.0**-2) * 0.7**2 / data)
    obs, action, opponent_action = draws_of(-1, 1, 5)
    target = torch.randn(R, 5, dtype=DOUBLE)
    model, guide = (partial(part, target=target) for part in (critic.likelihood, critic.approximation))
    elbo = TraceMeanField_ELBO(4000, vectorize_particles=True, max_plate_nesting=2)
    loss = elbo.loss(model, guide, obs, action, opponent_action)
    mean, scale = critic._mean().detach(), 0.3
    with critic.expected(), torch.no_grad():
        error = target - critic(obs, action, opponent_action)
        variance = critic.uncertainty(obs, action, opponent_action).square()
    misfit = ((error.square() + variance) / (2 * 0.7**2)).mean(1) + math.log(0.7) + 0.5 * math.log(2 * math.pi)
    kl = (math.log(2.0 / scale) + (scale**2 + mean.square()) / (2 * 2.0**2) - 0.5).sum((1, 2))
    assert loss / 5 == pytest.approx((misfit + kl / data).sum().item(), rel=0.02)


def test_the_running_mean_of_squares_by_hand() -> None:
    """The plain mean of 20 minibatches, from then on each newer one weighs 0.05."""
    critic: Any = BayesianCritic([]).bind(Seat(0, (LINE,) * 2, (LINE, LINE), R, dtype=DOUBLE))
    obs = torch.rand(30, R, 4, 1, dtype=DOUBLE)
    for newest in obs:
        fit(critic, newest, newest, newest, torch.zeros(R, 4, dtype=DOUBLE))
    squares = obs.square().mean((2, 3))
    weights = torch.tensor([0.95**10 / 20] * 20 + [0.05 * 0.95 ** (9 - i) for i in range(10)], dtype=DOUBLE)
    expected = (weights.unsqueeze(-1) * squares).sum(0)
    torch.testing.assert_close(critic.second_moment[:, 0, 0], expected)
    torch.testing.assert_close(critic.second_moment[:, 0, 3], torch.ones(R, dtype=DOUBLE))


def test_expectations_may_be_nested() -> None:
    critic = bound(BayesianCritic([4]))
    data = draws_of(-1, 1, 4)
    drawn = critic(*data)
    with critic.expected():
        mean = critic(*data)
        with critic.expected():
            pass
        assert torch.equal(critic(*data), mean)
    assert torch.equal(critic(*data), drawn)
    assert not torch.equal(drawn, mean)


def fit_to_two_of_four_actions(critic: Any) -> tuple[Tensor, Tensor]:
    """Uncertainty at each own action before and after, `replicates x actions`; actions 2 and 3 are never taken."""
    every = torch.arange(4).expand(R, -1)
    zero = torch.zeros_like(every)
    before = critic.uncertainty(zero, every, zero).detach()
    for _ in range(400):
        action = torch.randint(2, (R, 8))
        fit(critic, torch.zeros(R, 8, dtype=torch.int64), action, torch.randint(4, (R, 8)), action.double())
    return before, critic.uncertainty(zero, every, zero).detach()


def test_uncertainty_shrinks_where_data_is_and_stays_where_it_is_not() -> None:
    critic = bound(BayesianCritic([], learning_rate=0.02, prior_scale=2.0), Discrete(4))
    _, after = fit_to_two_of_four_actions(critic)
    # Features are one-hot, so each action has a weight of its own; the first is the state's.
    torch.testing.assert_close(critic.scale[..., 3:5], torch.full((R, 1, 2), 2.0, dtype=DOUBLE))
    assert (after[:, 2:] >= 2.0).all()
    assert (after[:, :2] < 1.0).all()


@pytest.mark.slow
def test_a_network_generalises_and_is_still_least_certain_where_no_data_is() -> None:
    before, after = fit_to_two_of_four_actions(bound(BayesianCritic([32], learning_rate=0.02), Discrete(4)))
    ratio = after / before
    assert (ratio[:, 2:].mean(1) > 1.3 * ratio[:, :2].mean(1)).all()


def test_draws_have_the_posteriors_law() -> None:
    """Over 4000 replicates with one posterior, values have its mean and deviation (6 standard errors)."""
    critic = bound(BayesianCritic([4]), replicates=4000)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.copy_(parameter[:1].clone().expand_as(parameter))
    obs, action, opponent_action = (part[:1].expand(4000, 1, *part.shape[2:]) for part in draws_of(-1, 1, 1))
    value = critic(obs, action, opponent_action).detach()
    deviation = critic.uncertainty(obs, action, opponent_action)[0].item()
    with critic.expected():
        mean = critic(obs, action, opponent_action)[0].item()
    assert value.mean().item() == pytest.approx(mean, abs=6 * deviation / math.sqrt(4000))
    assert value.std().item() == pytest.approx(deviation, rel=6 / math.sqrt(8000))


def test_a_draw_lasts_for_resample_every_updates_and_is_one_per_replicate() -> None:
    critic = bound(BayesianCritic([4], resample_every=3))
    data = (*draws_of(-1, 1, 4), torch.zeros(R, 4, dtype=DOUBLE))
    noises = []
    for _ in range(7):
        noises.append(critic.noise.clone())
        fit(critic, *data)
    same = [torch.equal(one, other) for one, other in itertools.pairwise(noises)]
    assert same == [True, True, False, True, True, False]
    assert (critic.noise[0] != critic.noise[1]).all()


def test_a_state_dict_holds_the_draw() -> None:
    critic, other = (bound(BayesianCritic([4], resample_every=2)) for _ in range(2))
    data = (*draws_of(-1, 1, 4), torch.zeros(R, 4, dtype=DOUBLE))
    for _ in range(3):
        fit(critic, *data)
    other.load_state_dict(copy.deepcopy(critic.state_dict()))
    for _ in range(3):
        for one in (critic, other):
            torch.manual_seed(1)
            fit(one, *data)
        assert torch.equal(critic(*data[:3]), other(*data[:3]))


def test_the_mean_is_the_plain_critic_of_the_same_network() -> None:
    critic = bound(BayesianCritic([8, 4]), Discrete(3), states=2)
    plain: Any = NetworkCritic([8, 4]).bind(a_seat(Discrete(3), states=2))
    plain.network.load_state_dict(critic.network.state_dict())
    obs = torch.randint(2, (R, 5))
    with critic.expected():
        torch.testing.assert_close(critic.table(obs), plain.table(obs))
    assert not torch.isclose(critic.table(obs), plain.table(obs)).any()


def test_sites() -> None:
    critic = bound(BayesianCritic([4]))
    data, target = draws_of(-1, 1, 5), torch.zeros(R, 5, dtype=DOUBLE)
    guide, model = (
        poutine.trace(part).get_trace(*data, target=target) for part in (critic.approximation, critic.likelihood)
    )
    for trace in (guide, model):
        site = trace.nodes["critic_weight"]
        assert {frame.name: frame.dim for frame in site["cond_indep_stack"]} == {"replicate": -2}
        assert site["value"].shape == (R, 1, 5)
        assert site["scale"] == 5 / critic.data
    assert model.nodes["td_target"]["scale"] == 1
    assert {frame.name for frame in model.nodes["td_target"]["cond_indep_stack"]} == {"replicate", "batch"}


@pytest.mark.parametrize("target_rate", [0.5, 1.0])
def test_rommeo_plays_by_the_draw_and_bootstraps_from_the_mean(target_rate: float) -> None:
    game = MatrixGame("stag_hunt", horizon=4, memory=1)
    seat = Seat(0, game.observations, game.action_spaces, R, 1, dtype=DOUBLE)
    critic = BayesianCritic([6], target_rate=target_rate, prior_scale=5.0)
    learner: Any = Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(Optimal(), Optimal()), critic=critic).bind(seat)
    obs = torch.ones(R, 1, dtype=torch.int64)
    batch = Transition(
        (obs, obs),
        (obs, obs),
        torch.ones(R, 1, 2, dtype=DOUBLE),
        (obs, obs),
        torch.zeros(R, 1, dtype=torch.bool),
        torch.zeros(R, 1, dtype=torch.bool),
    )
    for _ in range(3):
        teach(learner, batch, [])
    seen = batch.seen_by(seat)
    bootstrap = learner._next_value(seen)
    policy = learner.beliefs(obs, {}, 1)["policy"]
    best = learner.act(obs, {}, explore=False).action
    with torch.no_grad():
        for one in (learner.critic, learner.target_critic):
            one.noise.normal_()
    assert torch.equal(learner._next_value(seen), bootstrap)
    assert torch.equal(learner.act(obs, {}, explore=False).action, best)
    assert not torch.equal(learner.beliefs(obs, {}, 1)["policy"], policy)
    if target_rate < 1:
        track(learner.target_critic, learner.critic, 1.0)
        with learner.critic.expected(), learner.target_critic.expected():
            assert torch.equal(learner.critic.table(obs), learner.target_critic.table(obs))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prior_scale": 0.0}, "^prior_scale: got 0.0, expected a positive number"),
        ({"noise_scale": -1.0}, "^noise_scale: got -1.0"),
        ({"resample_every": 0}, "^resample_every: got 0, expected a positive integer"),
        ({"memory": 0}, "^memory: got 0"),
        ({"particles": 0}, "^particles: got 0"),
        ({"hidden": [0]}, r"^hidden\[0\]: got 0, expected a positive integer"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BayesianCritic(**wrong)
