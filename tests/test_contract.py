"""One suite drives every game, prior, conditional, critic, guide and learner through the contracts in types.py.

The classes are found, not listed: one that needs arguments and has no recipe below fails here.
"""

import copy
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference_marl import games, guides, models
from inference_marl.config.files import available
from inference_marl.described import IncompatibleError
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Empirical,
    ExactTrajectory,
    Guide,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    SplineFlow,
    Tabular,
    TanhNormalMixture,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.schedules import ExponentialDecay, InverseTime
from inference_marl.learners import Planner, Rommeo, Stationary
from inference_marl.models import (
    Amortised,
    BayesianCritic,
    BernoulliOptimality,
    ControlModel,
    Critic,
    DirichletMultinomial,
    DirichletTransition,
    EmpiricalFrequency,
    ExponentialOptimality,
    Fixed,
    HierarchicalDirichlet,
    KnownReward,
    KnownTransition,
    LevelK,
    NetworkCritic,
    OpponentPrior,
    OpponentTypes,
    TabularCritic,
    Uniform,
)
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Conditional, Game, Learner, OneStepModel, Seat, Transition

R, E = 3, 2
THREE_AGENTS = [[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [1.0, 0.0]]]

GAMES: dict[str, list[Callable[[], Game]]] = {
    "MatrixGame": [
        games.MatrixGame,
        *(lambda name=name: games.MatrixGame(name) for name in games.PAYOFFS),
        lambda: games.MatrixGame("climbing", horizon=3, memory=1),
        lambda: games.MatrixGame("prisoners_dilemma", horizon=None, memory=1),
        lambda: games.MatrixGame(THREE_AGENTS, common=True),
    ],
    "MeetingGrid": [
        games.MeetingGrid,
        lambda: games.MeetingGrid(3, 2, goals=[(0, 0, 1.0), (1, 2, 2.0)], walls=[(0, 1)], slip=0.2, step_cost=0.1),
    ],
    "Rendezvous": [games.Rendezvous, lambda: games.Rendezvous(2)],
    "StochasticGame": [
        lambda: games.StochasticGame([0.5, 0.5], [[[[0.5, 0.25]] * 2] * 3, [[[0, 1]] * 2] * 3], [[[1, 2]] * 3] * 2),
    ],
}

HIDDEN = (6,)
CONDITIONALS: dict[str, Callable[[], Conditional]] = {
    "Amortised": lambda: Amortised(CategoricalNetwork(HIDDEN), window=20, batch_size=4),
    "AmortisedBox": lambda: Amortised(TanhNormalNetwork(HIDDEN), window=20, batch_size=4),
    "Autoregressive": lambda: Autoregressive(CategoricalNetwork(HIDDEN)),
    "AutoregressiveBox": lambda: Autoregressive(TanhNormalNetwork(HIDDEN)),
    "CategoricalNetwork": lambda: CategoricalNetwork(HIDDEN),
    "DirichletMultinomial": DirichletMultinomial,
    "EmpiricalFrequency": lambda: EmpiricalFrequency(window=3),
    "Fixed": lambda: Fixed([1, 2, 3, 4, 5, 6]),
    "HierarchicalDirichlet": lambda: HierarchicalDirichlet(window=3, steps=1),
    "LevelK": lambda: LevelK(2),
    "OpponentTypes": lambda: OpponentTypes([LevelK(), Fixed([1, 2, 3, 4, 5, 6]), DirichletMultinomial()], [1, 2, 1]),
    "SplineFlow": lambda: SplineFlow(HIDDEN),
    "Tabular": lambda: Tabular(scale=1.0),
    "TanhNormalMixture": lambda: TanhNormalMixture(2, HIDDEN),
    "TanhNormalNetwork": lambda: TanhNormalNetwork(HIDDEN),
    "Uniform": Uniform,
}
CLOSED_FORMS = ("Empirical", "Optimal")  # need a guide around them: driven with the guides below
CRITICS: dict[str, Callable[[], Critic]] = {
    "BayesianCritic": lambda: BayesianCritic(HIDDEN),
    "KnownReward": KnownReward,
    "NetworkCritic": lambda: NetworkCritic(HIDDEN),
    "TabularCritic": TabularCritic,
}


def box_rommeo(**more: Any) -> Rommeo:
    chosen: dict[str, Any] = {
        "opponent_prior": Amortised(TanhNormalNetwork(HIDDEN), window=50, batch_size=8),
        "guide": OpponentFirst(TanhNormalNetwork(HIDDEN), TanhNormalNetwork(HIDDEN)),
        "critic": NetworkCritic(HIDDEN),
        "replay": 50,
        "batch_size": 8,
        **more,
    }
    return Rommeo(**chosen)


def discrete_rommeo(**more: Any) -> Rommeo:
    chosen: dict[str, Any] = {
        "opponent_prior": DirichletMultinomial(),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
        **more,
    }
    return Rommeo(**chosen)


LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "Stationary": ("any", Stationary),
    "Stationary, fixed": ("discrete", lambda: Stationary([0.2, 0.8])),
    "Stationary, drawn": ("discrete", lambda: Stationary(concentration=0.5)),
    "Rommeo": ("discrete", discrete_rommeo),
    "Rommeo, paper": (
        "discrete",
        lambda: discrete_rommeo(
            opponent_prior=EmpiricalFrequency(window=5),
            critic=TabularCritic(rate=InverseTime()),
            temperature=ExponentialDecay(500, 0.1, 0.1),
        ),
    ),
    "Rommeo, sharpened": (
        "discrete",
        lambda: discrete_rommeo(
            opponent_prior=EmpiricalFrequency(smoothing=1.0, exponent=4.0),
            critic=TabularCritic(20.0, InverseTime(1.0, 1.0), rate_over="visits"),
            temperature=0.1,
            kl_weight=0.25,
        ),
    ),
    "Rommeo, fitted": ("discrete", lambda: discrete_rommeo(guide=OpponentFirst(Tabular(), Tabular()), guide_steps=2)),
    "Rommeo, networks": (
        "discrete",
        lambda: discrete_rommeo(
            guide=PolicyFirst(CategoricalNetwork(HIDDEN), CategoricalNetwork(HIDDEN)),
            critic=NetworkCritic(HIDDEN),
            replay=20,
            batch_size=8,
            warmup=2,
        ),
    ),
    "Rommeo, Bernoulli": ("discrete", lambda: discrete_rommeo(optimality=BernoulliOptimality(1000.0))),
    "Rommeo, replayed table": (
        "discrete",
        lambda: discrete_rommeo(replay=20, batch_size=8, critic=TabularCritic(target_rate=0.5)),
    ),
    "Rommeo, empirical": ("discrete", lambda: discrete_rommeo(guide=OpponentFirst(Empirical(), Optimal()))),
    "Rommeo, level-k": ("discrete", lambda: discrete_rommeo(opponent_prior=LevelK(2, 0.5, "opposed"))),
    "Rommeo, level-k of a network": (
        "discrete",
        lambda: discrete_rommeo(
            opponent_prior=LevelK(), guide=OpponentFirst(Tabular(), Tabular()), critic=NetworkCritic(HIDDEN)
        ),
    ),
    "Rommeo, types": (
        "discrete",
        lambda: discrete_rommeo(
            opponent_prior=OpponentTypes([LevelK(), EmpiricalFrequency(window=2), Amortised(Tabular())], forget=0.1),
            guide=OpponentFirst(Empirical(), Tabular()),
        ),
    ),
    "Rommeo, hierarchy": (
        "discrete",
        lambda: discrete_rommeo(
            opponent_prior=HierarchicalDirichlet(steps=2), guide=OpponentFirst(Tabular(), Tabular())
        ),
    ),
    "Rommeo, autoregressive": (
        "discrete",
        lambda: discrete_rommeo(
            opponent_prior=Amortised(Autoregressive(Tabular()), window=10, batch_size=4),
            guide=PolicyFirst(Autoregressive(CategoricalNetwork(HIDDEN)), Tabular()),
        ),
    ),
    "Rommeo, Thompson": (
        "discrete",
        lambda: discrete_rommeo(critic=BayesianCritic(HIDDEN, resample_every=2), replay=20, batch_size=8),
    ),
    "Rommeo, actor-critic": ("box", box_rommeo),
    "Rommeo, actor-critic, Thompson": (
        "box",
        lambda: box_rommeo(
            guide=OpponentFirst(Autoregressive(TanhNormalMixture(2, HIDDEN)), TanhNormalMixture(2, HIDDEN)),
            critic=BayesianCritic(HIDDEN, target_rate=1.0, memory=10),
        ),
    ),
    "Rommeo, flow": ("box", lambda: box_rommeo(guide=PolicyFirst(SplineFlow(HIDDEN), SplineFlow(HIDDEN)), particles=3)),
    "Rommeo, rho := P": (
        "box",
        lambda: box_rommeo(guide=OpponentFirst(Empirical(), TanhNormalNetwork(HIDDEN)), warmup=2),
    ),
    "Planner": (
        "discrete",
        lambda: Planner(DirichletMultinomial(), KnownReward(), ExactTrajectory(), KnownTransition(), horizon=2),
    ),
    "Planner, fitted": (
        "discrete",
        lambda: Planner(
            HierarchicalDirichlet(steps=1),
            TabularCritic(),
            TrajectoryGuide(Tabular(), CategoricalNetwork(HIDDEN), "inferred"),
            DirichletTransition(),
            horizon=3,
            replay=20,
            batch_size=8,
        ),
    ),
    "Planner, drawn": (
        "discrete",
        lambda: Planner(
            LevelK(),
            KnownReward(),
            TrajectoryGuide(Empirical(), Tabular(), enumerate=False),
            KnownTransition(),
            horizon=2,
            particles=3,
        ),
    ),
    "Planner, one continuous step": (
        "box",
        lambda: Planner(
            Amortised(TanhNormalNetwork(HIDDEN), window=50, batch_size=8),
            NetworkCritic(HIDDEN),
            TrajectoryGuide(TanhNormalMixture(2, HIDDEN), SplineFlow(HIDDEN)),
        ),
    ),
}


def cases_of_learners() -> dict[str, tuple[str, Callable[[], Learner]]]:
    """The cases above, and those that the tests of single learners bring along as `LEARNERS`."""
    found = dict(LEARNERS)
    for path in sorted((Path(__file__).parent / "learners").rglob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"cases_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= getattr(module, "LEARNERS", {})
    return found


ALL_LEARNERS = cases_of_learners()
LEARNER_GAMES: dict[str, list[Callable[[], Game]]] = {
    "discrete": [
        lambda: games.MatrixGame("stag_hunt"),
        lambda: games.MatrixGame("stag_hunt", horizon=4, memory=1),
        lambda: games.MatrixGame(THREE_AGENTS, common=True),
    ],
    "box": [games.MaxOfTwoQuadratics],
    "known, two agents": [
        lambda: games.MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96),
        lambda: games.MatrixGame("climbing"),
    ],
}
LEARNER_GAMES["any"] = [*LEARNER_GAMES["discrete"], *LEARNER_GAMES["box"]]


def test_every_class_is_driven() -> None:
    found = available()
    assert set(found["learners"]) <= {name.partition(",")[0] for name in ALL_LEARNERS}
    assert set(found["opponent priors"]) | set(found["conditionals"]) == {
        name.removesuffix("Box") for name in CONDITIONALS
    } | set(CLOSED_FORMS)
    assert set(found["critics"]) == set(CRITICS)
    # Guides of trajectories, and transitions, are driven with the planner's cases and in tests/models.
    assert set(found["guides"]) == {"OpponentFirst", "PolicyFirst", "TrajectoryGuide", "ExactTrajectory"}
    assert set(found["transitions"]) == {
        *("KnownTransition", "DeterministicTransition", "DirichletTransition", "GaussianEnsemble")
    }
    assert set(found["optimality"]) == {"BernoulliOptimality", "ExponentialOptimality"}


def all_games() -> list[Any]:
    made = [make for name in available()["games"] for make in GAMES.get(name, [getattr(games, name)])]
    return [pytest.param(make(), id=f"{i}-{type(make()).__name__}") for i, make in enumerate(made)]


def inside(space: Space, value: Tensor) -> bool:
    if isinstance(space, Discrete):
        return value.dtype == torch.int64 and bool(((value >= 0) & (value < space.n)).all())
    return bool(((value >= space.low) & (value <= space.high)).all())


def uniform_actions(game: Game) -> list[Tensor]:
    cpu = torch.device("cpu")
    return [space.uniform(torch.float64, cpu).sample((R, E)) for space in game.action_spaces]


@pytest.mark.parametrize("game", all_games())
class TestGame:
    def test_shapes(self, game: Game) -> None:
        state = game.reset(R, E, torch.device("cpu"), torch.float64)
        assert len(game.observations) == len(game.action_spaces) == game.agents
        for _ in range(3):
            for space, obs in zip(game.observations, game.observe(state), strict=True):
                assert obs.shape == (R, E, *space.event_shape)
                assert inside(space, obs)
            state, rewards, terminated = game.step(state, uniform_actions(game))
            assert rewards.shape == (R, E, game.agents)
            assert rewards.dtype == torch.float64
            assert torch.isfinite(rewards).all()
            assert terminated.shape == (R, E)
            assert terminated.dtype == torch.bool
            assert all(value.shape[:2] == (R, E) for value in state.values())

    def test_step_is_pure(self, game: Game) -> None:
        state = game.reset(R, E, torch.device("cpu"), torch.float64)
        actions = uniform_actions(game)
        kept, kept_actions = copy.deepcopy(state), copy.deepcopy(actions)
        torch.manual_seed(1)
        first = game.step(state, actions)
        for key, value in state.items():
            assert torch.equal(value, kept[key])
        assert all(torch.equal(one, other) for one, other in zip(actions, kept_actions, strict=True))
        torch.manual_seed(1)
        again = game.step(state, actions)
        assert torch.equal(first[1], again[1])
        assert all(torch.equal(value, again[0][key]) for key, value in first[0].items())

    def test_describes_itself(self, game: Game) -> None:
        twin = type(game)(**game.describe()["init_args"])
        assert twin.describe() == game.describe()
        actions = uniform_actions(game)
        state = game.reset(R, E, torch.device("cpu"), torch.float64)
        torch.manual_seed(2)
        one = game.step(state, actions)[1]
        torch.manual_seed(2)
        assert torch.equal(twin.step(state, actions)[1], one)

    def test_optimum(self, game: Game) -> None:
        optimal = game.is_optimal(uniform_actions(game))
        if optimal is not None:
            assert optimal.shape == (R, E)
            assert optimal.dtype == torch.bool


def a_seat(action: Space, replicates: int = R, dtype: torch.dtype = torch.float64) -> Seat:
    return Seat(0, Discrete(4), (action, action), replicates, dtype=dtype)


SIX = Discrete(6)
BOX = Box(-2, 3, 2)


class _Values:
    """All of a model that a prior may read."""

    def __init__(self, seat: Seat) -> None:
        self.rows = seat.rows
        self.table = torch.linspace(-1, 1, R * 4 * 36, dtype=torch.float64).sin().view(R, 4, 6, 6)

    def q_table(self, obs: Tensor) -> Tensor:
        return self.table[self.rows, obs]


@pytest.mark.parametrize("name", CONDITIONALS)
class TestConditional:
    def bound(self, name: str, target: Space, *parents: Space) -> Conditional:
        conditional = CONDITIONALS[name]().bind(a_seat(target), target, parents)
        if isinstance(conditional, OpponentPrior):
            conditional.attach(cast(OneStepModel, _Values(conditional.seat)))
        return conditional

    def targets(self, name: str) -> list[Space]:
        cls = type(CONDITIONALS[name]())
        kinds = {Discrete: SIX, Box: BOX}
        accepted = [kinds[kind] for kind in cls.targets]
        made = CONDITIONALS[name]()
        inner = getattr(made, "conditional", None) or getattr(made, "factor", None)
        return [kinds[kind] for kind in type(inner).targets] if inner is not None else accepted

    def values(self, space: Space, *shape: int) -> Tensor:
        return space.uniform(torch.float64, torch.device("cpu")).sample(shape)

    def test_shapes_support_and_particles(self, name: str) -> None:
        for target in self.targets(name):
            conditional = self.bound(name, target, Discrete(4))
            obs = torch.randint(4, (R, 5))
            for parents in [(obs,), (obs.expand(7, R, 5),)]:
                shape = parents[0].shape
                distribution = conditional(*parents).expand(shape)
                assert distribution.event_shape == target.event_shape
                sample = distribution.sample()
                assert sample.shape == (*shape, *target.event_shape)
                assert inside(target, sample)
                assert distribution.log_prob(sample).shape == shape
                assert torch.isfinite(distribution.log_prob(sample)).all()

    def test_stored_values_have_finite_log_probabilities(self, name: str) -> None:
        for target in self.targets(name):
            if isinstance(target, Box):
                edge = torch.full((R, 5, target.dim), target.high, dtype=torch.float64)
                obs = torch.zeros(R, 5, dtype=torch.int64)
                assert torch.isfinite(self.bound(name, target, Discrete(4))(obs).log_prob(edge)).all()

    def test_a_second_parent_broadcasts(self, name: str) -> None:
        for target in self.targets(name):
            if Discrete not in type(CONDITIONALS[name]()).conditions or name.startswith("Amortised"):
                continue
            conditional = self.bound(name, target, Discrete(4), SIX)
            if name in ("DirichletMultinomial", "EmpiricalFrequency"):
                continue  # counts over observations; as an opponent model after the policy they ignore it
            every = torch.arange(6).view(-1, 1, 1)
            distribution = conditional(torch.randint(4, (R, 5)), every).expand((6, R, 5))
            assert distribution.sample().shape == (6, R, 5, *target.event_shape)

    def test_replicates_do_not_mix(self, name: str) -> None:
        """Replicate r's distribution depends on replicate r's observations alone."""
        for target in self.targets(name):
            conditional = self.bound(name, target, Discrete(4))
            obs = torch.randint(4, (R, 5))
            other = obs.clone()
            other[1:] = (other[1:] + 1) % 4
            value = self.values(target, R, 5)
            one, two = (conditional(o).expand((R, 5)).log_prob(value) for o in (obs, other))
            assert torch.equal(one[0], two[0])

    def test_binding_leaves_the_description_alone(self, name: str) -> None:
        for target in self.targets(name):
            description = CONDITIONALS[name]()
            before = description.describe()
            description.bind(a_seat(target), target, [Discrete(4)])
            assert description.describe() == before
            assert not list(description.parameters())
            assert not list(description.buffers())

    def test_state_dict_round_trip(self, name: str) -> None:
        for target in self.targets(name):
            one, two = (self.bound(name, target, Discrete(4)) for _ in range(2))
            obs, value = torch.randint(4, (R, 5)), self.values(target, R, 5)
            for conditional, times in [(one, 4), (two, 1)]:
                for _ in range(times):
                    if isinstance(conditional, OpponentPrior):
                        conditional.observe(obs, value)
            two.load_state_dict(one.state_dict())
            for _ in range(2):
                densities = [c(obs).expand((R, 5)).log_prob(value) for c in (one, two)]
                torch.testing.assert_close(densities[0], densities[1], rtol=0, atol=0)
                for conditional in (one, two):
                    torch.manual_seed(7)
                    if isinstance(conditional, OpponentPrior):
                        conditional.observe(obs, value)

    def test_refuses_what_it_cannot_describe(self, name: str) -> None:
        for target in (SIX, BOX):
            if target not in self.targets(name):
                with pytest.raises(IncompatibleError, match="expected"):
                    self.bound(name, target, Discrete(4))


@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
@pytest.mark.parametrize(
    ("rho", "pi", "action"),
    [
        (Optimal, Optimal, SIX),
        (Empirical, Optimal, SIX),
        (Tabular, Tabular, SIX),
        (Optimal, Tabular, SIX),
        (Tabular, Optimal, SIX),
        (lambda: CategoricalNetwork(HIDDEN), lambda: CategoricalNetwork(HIDDEN), SIX),
        (Uniform, Optimal, SIX),
        (lambda: TanhNormalNetwork(HIDDEN), lambda: TanhNormalNetwork(HIDDEN), BOX),
        (lambda: SplineFlow(HIDDEN), lambda: SplineFlow(HIDDEN), BOX),
        (Empirical, lambda: TanhNormalNetwork(HIDDEN), BOX),
        (Uniform, lambda: TanhNormalNetwork(HIDDEN), BOX),
        (lambda: Autoregressive(Tabular()), Optimal, SIX),
        (lambda: Autoregressive(SplineFlow(HIDDEN)), lambda: TanhNormalMixture(2, HIDDEN), BOX),
    ],
)
class TestGuide:
    def pair(self, order: type[Guide], rho: Any, pi: Any, action: Space) -> tuple[ControlModel, Guide]:
        seat = a_seat(action)
        prior = Uniform().bind(seat, seat.opponent_action, [seat.observation])
        critic = (TabularCritic() if isinstance(action, Discrete) else NetworkCritic(HIDDEN)).bind(seat)
        model = ControlModel(seat, prior, critic, ExponentialOptimality())
        model.temperature, model.kl_weight = 0.5, 2.0
        return model, order(rho(), pi()).bind(seat, model)

    def test_sites_plates_and_scales_equal_the_models(
        self, order: type[Guide], rho: Any, pi: Any, action: Space
    ) -> None:
        model, guide = self.pair(order, rho, pi, action)
        obs = torch.randint(4, (R, 5))
        traces = [poutine.trace(part).get_trace(obs) for part in (model, guide)]
        latent, guided = (
            {
                name: ([frame.name for frame in site["cond_indep_stack"]], site["scale"])
                for name, site in trace.nodes.items()
                if site["type"] == "sample"
                and not site["is_observed"]
                and "_Subsample" not in type(site["fn"]).__name__
            }
            for trace in traces
        )
        assert latent == guided
        assert set(latent) == {"action", "opponent_action"}
        assert {frame for stack, _ in latent.values() for frame in stack} == {"replicate", "batch"}
        assert traces[0].nodes["optimality"]["is_observed"]

    def test_samples_and_isolation(self, order: type[Guide], rho: Any, pi: Any, action: Space) -> None:
        model, guide = self.pair(order, rho, pi, action)
        values = guide(torch.randint(4, (R, 5)))
        for value in values:
            assert value.shape == (R, 5, *action.event_shape)
            assert inside(action, value)
        mine = {id(parameter) for parameter in guide.parameters()}
        assert not mine & {id(parameter) for parameter in model.parameters()}


def play(learner_list: list[Learner], game: Game, steps: int, start: int = 0) -> list[Tensor]:
    """Actions of all agents over some steps, seeded per step."""
    played = []
    dtype = learner_list[0].seat.dtype
    state = game.reset(R, E, torch.device("cpu"), dtype)
    for step in range(start, start + steps):
        pyro.set_rng_seed(step)
        obs = game.observe(state)
        actions = tuple(learner.act(o) for learner, o in zip(learner_list, obs, strict=True))
        state, rewards, terminated = game.step(state, actions)
        batch = Transition(obs, actions, rewards, game.observe(state), terminated)
        for learner in learner_list:
            learner.update(batch, learner_list)
        played.extend(actions)
    return played


def learner_cases() -> list[Any]:
    return [
        pytest.param(make, made, id=f"{name}-{i}")
        for name, (kind, make) in ALL_LEARNERS.items()
        for i, made in enumerate(LEARNER_GAMES[kind])
        if not (name == "Stationary, fixed" and i > 2)
    ]


@pytest.mark.parametrize(("make", "make_game"), learner_cases())
class TestLearner:
    def bound(self, make: Callable[[], Learner], game: Game) -> list[Learner]:
        pyro.set_rng_seed(0)
        description = make()
        return [
            description.bind(Seat(i, game.observations[i], game.action_spaces, R, E, dtype=torch.float64, game=game))
            for i in range(game.agents)
        ]

    def test_acts_learns_and_believes(self, make: Callable[[], Learner], make_game: Callable[[], Game]) -> None:
        game = make_game()
        players = self.bound(make, game)
        play(players, game, 4)
        obs = game.observe(game.reset(R, E, torch.device("cpu"), torch.float64))
        for player, seen in zip(players, obs, strict=True):
            space = player.seat.action
            for explore in (True, False):
                action = player.act(seen, explore)
                assert action.shape == (R, E, *space.event_shape)
                assert inside(space, action)
            belief = player.posterior(seen, draws=5)
            for value, of in [
                (belief.policy, space),
                (belief.opponent_model, player.seat.opponent_action),
                (belief.opponent_prior, player.seat.opponent_action),
            ]:
                if value is None:
                    continue
                if isinstance(of, Discrete):
                    assert value.shape == (R, E, of.n)
                    torch.testing.assert_close(value.sum(-1), torch.ones(R, E, dtype=torch.float64))
                else:
                    assert value.shape == (R, E, 5, of.dim)
                    assert inside(of, value)
            if belief.elbo is not None:
                assert belief.elbo.shape == (R, E)
                assert torch.isfinite(belief.elbo).all()

    def test_same_seed_same_result(self, make: Callable[[], Learner], make_game: Callable[[], Game]) -> None:
        runs = [play(self.bound(make, make_game()), make_game(), 5) for _ in range(2)]
        assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))

    def test_state_dict_round_trip(self, make: Callable[[], Learner], make_game: Callable[[], Game]) -> None:
        game = make_game()
        original, restored = self.bound(make, game), self.bound(make, game)
        play(original, game, 6)
        for source, sink in zip(original, restored, strict=True):
            sink.load_state_dict(source.state_dict())
        runs = [play(players, game, 4, start=6) for players in (original, restored)]
        assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))

    def test_describes_itself(self, make: Callable[[], Learner], make_game: Callable[[], Game]) -> None:
        description = make()
        before = description.describe()
        self.bound(lambda: description, make_game())
        assert description.describe() == before
        assert not list(description.buffers())
        assert set(before["init_args"]) == set(inspect.signature(type(description)).parameters)


def test_exports_are_what_is_found() -> None:
    for module, kinds in [
        (games, ["games"]),
        (models, ["opponent priors", "transitions", "critics", "optimality"]),
        (guides, ["guides", "conditionals"]),
    ]:
        found = {name for kind in kinds for name in available()[kind]}
        assert found <= set(module.__all__)
