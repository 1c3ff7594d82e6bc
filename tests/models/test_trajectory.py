"""The trajectory model and its guides through Pyro's own ELBO, against the closed forms of `inference.exact`."""

from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, Rendezvous, StochasticGame
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Empirical,
    ExactTrajectory,
    Optimal,
    Tabular,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.exact import evaluate, log_evidence, smooth
from inference_marl.inference.opponents import bind_over_opponents
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.svi import elbo_loss, no_guide
from inference_marl.models import (
    BernoulliOptimality,
    DirichletMultinomial,
    ExponentialOptimality,
    GaussianEnsemble,
    InitialState,
    KnownReward,
    KnownTransition,
    LevelK,
    NetworkCritic,
    OpponentPrior,
    OpponentTypes,
    TrajectoryModel,
    Uniform,
)
from inference_marl.spaces import Discrete
from inference_marl.types import Game, Seat

R = 2


class RandomPrior(OpponentPrior):
    """A fixed random distribution in every state."""

    def setup(self) -> None:
        shape = (self.seat.replicates, self.parents[0].features, self.target.features)
        self.register_buffer("logits", torch.randn(shape, dtype=self.seat.dtype))

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=Vindex(self.logits)[self.seat.rows, obs, :])


def random_game(states: int, sizes: tuple[int, ...], deterministic: bool = False) -> StochasticGame:
    shape = (states, *sizes)
    transition = torch.rand(*shape, states, dtype=torch.float64) ** 3
    transition /= transition.sum(-1, keepdim=True)
    if deterministic:
        transition = torch.nn.functional.one_hot(transition.argmax(-1), states).double()
    initial = torch.rand(states, dtype=torch.float64)
    return StochasticGame(initial / initial.sum(), transition, torch.randn(len(sizes), *shape, dtype=torch.float64))


def model_of(
    game: Game, horizon: int = 3, prior: OpponentPrior | None = None, initial: bool = False, upper: float | None = None
) -> TrajectoryModel:
    seat = Seat(0, game.observations, game.action_spaces, R, dtype=torch.float64, game=game)
    return TrajectoryModel(
        seat,
        bind_over_opponents(prior or RandomPrior(), seat, [seat.observation]),
        KnownTransition().bind(seat, seat.observation, seat.spaces),
        KnownReward().bind(seat),
        ExponentialOptimality() if upper is None else BernoulliOptimality(upper),
        horizon,
        InitialState().bind(seat, seat.observation, []) if initial else None,
    )


def every_state(model: TrajectoryModel) -> Tensor:
    return torch.arange(model.seat.observation.features).expand(R, -1)


def guide_of(model: TrajectoryModel, guide: TrajectoryGuide) -> Any:
    """The guide in the model's seat; one in closed form solved for the model."""
    bound = guide.bind(model.seat, model.horizon)
    if isinstance(bound, ExactTrajectory):
        bound.solve(model)
    return bound


def enumerated(model: Any, guide: Any, obs: Tensor) -> float:
    """Pyro's exact ELBO of a guide bound as above, or of a plain function."""
    pair = partial(guide, model=model) if isinstance(guide, TrajectoryGuide) else guide
    return -TraceEnum_ELBO(max_plate_nesting=2).loss(model, pair, obs)


def fitted(model: TrajectoryModel, guide: TrajectoryGuide, obs: Tensor) -> None:
    elbo = TraceEnum_ELBO(max_plate_nesting=2)
    for rate, steps in [(0.3, 50), (0.1, 20), (0.03, 20)]:
        optimiser = Optimiser("guide", guide.parameters(), learning_rate=rate)
        for _ in range(steps):
            optimiser.step(elbo_loss(elbo, model, partial(guide, model=model), obs.shape[1], obs))


@pytest.mark.slow
@pytest.mark.parametrize("dynamics", ["inferred", pytest.param("kept", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("states", "sizes", "deterministic"),
    [
        (3, (2, 3), False),
        *(pytest.param(*c, marks=pytest.mark.slow) for c in ((2, (2, 2, 2), False), (4, (2, 2), True))),
    ],
)
def test_fitted_elbo_is_the_soft_bellman_value(
    states: int, sizes: tuple[int, ...], deterministic: bool, dynamics: Any
) -> None:
    model = model_of(random_game(states, sizes, deterministic), horizon=2)
    guide = guide_of(model, TrajectoryGuide(Tabular(), Tabular(), dynamics))
    obs = every_state(model)
    fitted(model, guide, obs)
    tables = model.tables()
    value = smooth(*tables, 2, dynamics=dynamics).v[:, 0]
    evidence = log_evidence(*tables, 2)
    reached = evaluate(*tables, guide.tables(model)).elbo
    torch.testing.assert_close(reached, value, rtol=0, atol=1e-3)
    assert (reached <= evidence + 1e-9).all()
    assert enumerated(model, guide, obs) == pytest.approx(float(reached.sum()), abs=1e-9)
    if deterministic:
        torch.testing.assert_close(reached, evidence, rtol=0, atol=1e-3)
    elif dynamics == "kept":
        assert (evidence - reached > 1e-3).any()


@pytest.mark.parametrize("dynamics", ["kept", "inferred"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("temperature", "kl_weight"), [(1.0, 1.0), (0.4, 2.5)])
@pytest.mark.parametrize("horizon", [1, 4])
def test_pyros_elbo_is_the_backward_recursion(
    dynamics: Any, deterministic: bool, temperature: float, kl_weight: float, horizon: int
) -> None:
    """At the exact guide and at a random one, for any weights: three agents, three states."""
    weights = {"temperature": temperature, "kl_weight": kl_weight}
    model = replace(model_of(random_game(3, (2, 2, 2), deterministic), horizon), **weights)
    obs, tables = every_state(model), model.tables()
    exact = guide_of(model, ExactTrajectory(dynamics))
    value = smooth(*tables, horizon, dynamics=dynamics, **weights).v[:, 0]  # type: ignore[arg-type]
    assert enumerated(model, exact, obs) == pytest.approx(float(value.sum()), abs=1e-9)
    random = guide_of(model, TrajectoryGuide(Tabular(1.0), Tabular(1.0), dynamics))
    parts = evaluate(*tables, random.tables(model), **weights)
    assert enumerated(model, random, obs) == pytest.approx(float(parts.elbo.sum()), abs=1e-9)


def test_pyros_evidence_is_the_backward_recursion() -> None:
    """An empty guide and an enumerated model: Pyro sums over all trajectories by itself."""
    model = model_of(random_game(3, (2, 3)), horizon=4)
    obs = every_state(model)
    evidence = log_evidence(*model.tables(), 4)
    assert enumerated(config_enumerate(model), no_guide, obs) == pytest.approx(float(evidence.sum()), abs=1e-9)


@pytest.mark.parametrize("dynamics", ["kept", "inferred"])
def test_an_exact_guide_is_of_the_model_that_it_was_solved_for_last(dynamics: Any) -> None:
    """And keeps its factors until it is solved again, so that of another model it is one guide among others."""
    first = model_of(random_game(3, (2, 2)))
    other = replace(first, temperature=0.3, kl_weight=2.0)
    guide = guide_of(first, ExactTrajectory(dynamics))
    obs = every_state(first)

    def best(model: TrajectoryModel) -> float:
        weights = {"temperature": model.temperature, "kl_weight": model.kl_weight}
        return float(smooth(*model.tables(), 3, dynamics=dynamics, **weights).v[:, 0].sum())  # type: ignore[arg-type]

    assert enumerated(first, guide, obs) == pytest.approx(best(first), abs=1e-9)
    parts = evaluate(*other.tables(), guide.tables(other), temperature=0.3, kl_weight=2.0)
    assert enumerated(other, guide, obs) == pytest.approx(float(parts.elbo.sum()), abs=1e-9)
    assert enumerated(other, guide, obs) < best(other) - 1e-3
    guide.solve(other)
    assert enumerated(other, guide, obs) == pytest.approx(best(other), abs=1e-9)


def test_initial_states_are_summed_out() -> None:
    game = random_game(3, (2, 2))
    model = model_of(game, initial=True)
    guide = guide_of(model, ExactTrajectory("inferred"))
    obs = torch.zeros(R, 1, dtype=torch.int64)
    v = smooth(*model.tables(), 3).v[:, 0]
    # The guide keeps the initial distribution, so the bound is the mean of the values, not the log of the mean.
    assert enumerated(model, guide, obs) == pytest.approx(float((v @ game.dynamics().initial).sum()), abs=1e-9)
    log_mean = torch.logsumexp(v + game.dynamics().initial.log(), -1).sum()
    assert enumerated(config_enumerate(model), no_guide, obs) == pytest.approx(float(log_mean), abs=1e-9)


def test_a_bernoulli_variable_lowers_the_bound_by_its_offset() -> None:
    game = random_game(3, (2, 2))
    torch.manual_seed(1)
    plain = model_of(game)
    torch.manual_seed(1)
    proper = model_of(game, upper=5.0)
    bounds = [enumerated(m, guide_of(m, ExactTrajectory()), every_state(m)) for m in (plain, proper)]
    assert bounds[1] == pytest.approx(bounds[0] - 3 * 5.0 * 3 * R, abs=1e-6)
    assert bounds[1] < 0
    evidence = log_evidence(*proper.tables(), 3)
    torch.testing.assert_close(evidence, log_evidence(*plain.tables(), 3) - 3 * 5.0)


@pytest.mark.parametrize("dynamics", ["kept", "inferred"])
@pytest.mark.parametrize(
    ("sizes", "opponents"), [((2, 3), ("opponent_action",)), ((2, 3, 2), ("opponent_action_0", "opponent_action_1"))]
)
def test_sites_plates_and_scales_equal_the_models(
    sizes: tuple[int, ...], opponents: tuple[str, ...], dynamics: Any
) -> None:
    model = replace(model_of(random_game(3, sizes), initial=True), temperature=0.5, kl_weight=2.0)
    guide = guide_of(model, TrajectoryGuide(Tabular(), Tabular(), dynamics))
    obs = every_state(model)
    latent, guided = (
        {
            name: ([frame.name for frame in site["cond_indep_stack"]], site["scale"])
            for name, site in poutine.trace(part).get_trace(obs).nodes.items()
            if site["type"] == "sample" and not site["is_observed"] and "_Subsample" not in type(site["fn"]).__name__
        }
        for part in (model, partial(guide, model=model))
    )
    assert latent == guided
    steps = range(3)
    assert set(latent) == {f"{name}_{t}" for t in steps for name in ("state", "action", *opponents)}
    assert {latent[f"action_{t}"][1] for t in steps} == {0.5}
    assert {latent[f"{name}_{t}"][1] for t in steps for name in opponents} == {2.0}
    assert {latent[f"state_{t}"][1] for t in steps} == {1.0}


def test_cost_of_exact_sums_is_not_exponential() -> None:
    """`pyro.markov` reuses dimensions: forty steps have as many as four, where paths would be 12^40."""

    def widest(horizon: int) -> int:
        model = model_of(random_game(3, (2, 2)), horizon)
        guide = partial(guide_of(model, ExactTrajectory()), model=model)
        trace = poutine.trace(poutine.enum(guide, first_available_dim=-3)).get_trace(every_state(model))
        return max(site["value"].dim() for site in trace.nodes.values() if site["type"] == "sample")

    assert widest(40) == widest(4)


def test_score_function_gradient_is_unbiased() -> None:
    """Without enumeration the gradient is drawn; its mean over many particles is the exact one."""
    model = model_of(random_game(2, (2, 2)), horizon=2)
    guides = [guide_of(model, TrajectoryGuide(Tabular(), Tabular(), enumerate=way)) for way in (True, False)]
    obs = every_state(model)
    particles = 40_000
    estimators = [
        TraceEnum_ELBO(max_plate_nesting=2),
        Trace_ELBO(max_plate_nesting=2, num_particles=particles, vectorize_particles=True),
    ]
    gradients = []
    for guide, elbo in zip(guides, estimators, strict=True):
        elbo.differentiable_loss(model, partial(guide, model=model), obs).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in guide.parameters()]))
    # Standard errors are about 2 / sqrt(40,000) = .01; 5 of them, so a false alarm in 1e-5 of the seeds.
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0.06)
    assert gradients[0].abs().max() > 0.3


@pytest.mark.slow
def test_reparameterised_plans_improve_with_gradients_through_learned_dynamics() -> None:
    """Continuous states and actions: `Trace_ELBO` alone, whose gradient passes through the ensemble's samples."""
    game = Rendezvous(horizon=5)
    seat = Seat(0, game.observations, game.action_spaces, R, dtype=torch.float64, game=game)
    spaces = [seat.observation, seat.action, seat.opponent_action]
    transition = GaussianEnsemble(2, (8,)).bind(seat, seat.observation, spaces)
    model = TrajectoryModel(
        seat,
        Uniform().bind(seat, seat.opponent_action, spaces[:1]),
        transition,
        KnownReward().bind(seat),
        ExponentialOptimality(),
        3,
        temperature=0.05,
        kl_weight=0.05,
    )
    bound = guide_of(model, TrajectoryGuide(TanhNormalNetwork((8,)), TanhNormalNetwork((8,))))
    guide = partial(bound, model=model)
    assert all(site["fn"].has_rsample for site in _drawn(guide, torch.zeros(R, 4, 2, dtype=torch.float64)))
    obs = 2 * torch.rand(R, 64, 2, dtype=torch.float64) - 1
    elbo = Trace_ELBO(max_plate_nesting=2)
    optimiser = Optimiser("guide", bound.parameters(), learning_rate=0.02)
    before = [parameter.clone() for parameter in transition.parameters()]
    many = Trace_ELBO(max_plate_nesting=2, num_particles=20, vectorize_particles=True)
    losses = [many.loss(model, guide, obs)]
    for _ in range(60):
        optimiser.step(elbo_loss(elbo, model, guide, 64, obs))
    losses.append(many.loss(model, guide, obs))
    assert losses[1] < 0.9 * losses[0]
    assert all(torch.equal(one, other) for one, other in zip(before, transition.parameters(), strict=True))


def _drawn(guide: Any, obs: Tensor) -> list[dict[str, Any]]:
    trace = poutine.trace(guide).get_trace(obs)
    return [site for name, site in trace.nodes.items() if name.startswith(("state", "action", "opponent"))]


@pytest.mark.parametrize(
    ("sizes", "opponents"),
    [((2, 3), ("opponent_action_0",)), ((2, 3, 2), ("opponent_action_0_0", "opponent_action_1_0"))],
)
def test_a_guide_returns_the_first_actions(sizes: tuple[int, ...], opponents: tuple[str, ...]) -> None:
    model = model_of(random_game(3, sizes))
    guide = guide_of(model, TrajectoryGuide(Tabular(), Tabular(), enumerate=False))
    trace = poutine.trace(partial(guide, model=model)).get_trace(torch.zeros(R, 50, dtype=torch.int64))
    action, opponent_actions = trace.nodes["_RETURN"]["value"]
    assert torch.equal(action, trace.nodes["action_0"]["value"])
    for value, name in zip(opponent_actions, opponents, strict=True):
        assert torch.equal(value, trace.nodes[name]["value"])


def test_a_prior_that_reads_values_reads_the_rewards_of_one_step() -> None:
    game = random_game(3, (2, 3))
    model = model_of(game, prior=LevelK(1))
    expected = game.dynamics().reward[0].mean(1).softmax(-1)
    torch.testing.assert_close(model.opponent_prior(every_state(model)).table().exp(), expected.expand(R, -1, -1))


def test_rho_may_be_the_prior() -> None:
    model = model_of(random_game(3, (2, 2)))
    guide = guide_of(model, TrajectoryGuide(Empirical(), Tabular()))
    obs = every_state(model)
    torch.testing.assert_close(guide.believe(1, obs, model).table(), model.opponent_prior(obs).table())
    assert len(list(guide.parameters())) == 1
    assert float(evaluate(*model.tables(), guide.tables(model)).kl.abs().max()) < 1e-12


def test_refusals() -> None:
    game = random_game(2, (2, 2))
    model = model_of(game)
    for factor in (Optimal(), DirichletMultinomial()):
        with pytest.raises(IncompatibleError, match=r"opponent_model: got .*ExactTrajectory"):
            guide_of(model, TrajectoryGuide(factor, Tabular()))
    with pytest.raises(IncompatibleError, match="policy: got Empirical"):
        guide_of(model, TrajectoryGuide(Tabular(), Empirical()))
    with pytest.raises(ValueError, match="dynamics: got 'bent', expected kept or inferred"):
        TrajectoryGuide(Tabular(), Tabular(), "bent")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="transition: got none with horizon = 2"):
        TrajectoryModel(model.seat, model.prior, None, model.reward, ExponentialOptimality(), 2)
    with pytest.raises(ValueError, match="horizon: got 0, expected a positive integer"):
        replace(model, horizon=0)
    for part in (model, partial(guide_of(model, ExactTrajectory()), model=model)):
        with pytest.raises(ValueError, match=r"^observations: got shape \(2,\), expected replicate x batch$"):
            part(torch.zeros(2, dtype=torch.int64))
    ends = MatrixGame("climbing")
    model_of(ends, horizon=1)
    continuous = MaxOfTwoQuadratics()
    seat = Seat(0, continuous.observations, continuous.action_spaces, R, game=continuous)
    with pytest.raises(IncompatibleError, match="expected Discrete"):
        KnownTransition().bind(seat, seat.observation, seat.spaces)


@pytest.mark.parametrize(
    "prior", [DirichletMultinomial(), OpponentTypes([LevelK(), DirichletMultinomial(), Uniform()])]
)
@pytest.mark.parametrize("factor", [Autoregressive(Tabular(1.0)), CategoricalNetwork((4,)), Tabular(1.0)])
def test_factors_and_priors_that_differ_between_replicates(prior: OpponentPrior, factor: Conditional) -> None:
    """Enumerated states are the same for all replicates; what factors and priors say of them is not."""
    game = random_game(2, (2, 3, 2))
    model = model_of(game, horizon=2, prior=prior)
    for _ in range(3):
        model.prior.observe_given(model, *(torch.randint(size, (R, 1)) for size in (2, 3, 2)))
    guide = guide_of(model, TrajectoryGuide(factor, Tabular(1.0)))
    parts = evaluate(*model.tables(), guide.tables(model))
    assert enumerated(model, guide, every_state(model)) == pytest.approx(float(parts.elbo.sum()), abs=1e-9)
    assert not torch.allclose(parts.elbo[0], parts.elbo[1])


def test_exact_sums_over_drawn_states_are_refused() -> None:
    class Steps(Rendezvous):
        def __init__(self) -> None:
            super().__init__()
            self.action_spaces = (Discrete(2), Discrete(2))

    game = Steps()
    seat = Seat(0, game.observations, game.action_spaces, R, game=game)
    transition = GaussianEnsemble(2, (4,)).bind(seat, seat.observation, [seat.observation, seat.action, seat.action])
    prior = Uniform().bind(seat, seat.opponent_action, [seat.observation])
    reward = NetworkCritic((4,)).bind(seat)
    model = TrajectoryModel(seat, prior, transition, reward, ExponentialOptimality(), 2)
    network = CategoricalNetwork((4,))
    with pytest.raises(IncompatibleError, match="enumerate: got true with continuous states"):
        guide_of(model, TrajectoryGuide(network, network))
    guide_of(model, TrajectoryGuide(network, network, enumerate=False))(torch.zeros(R, 3, 2), model)
    # One step has no drawn states to sum over.
    one_step = TrajectoryModel(seat, prior, None, reward, ExponentialOptimality(), 1)
    guide_of(one_step, TrajectoryGuide(network, network))(torch.zeros(R, 3, 2), one_step)


def test_a_trace_leaves_no_global_parameters() -> None:
    model = model_of(random_game(2, (2, 2)))
    poutine.trace(model).get_trace(every_state(model))
    assert not list(pyro.get_param_store().keys())
