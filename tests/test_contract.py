"""One suite drives every game, prior, conditional, critic, guide and actor through the contracts of the package.

The classes are found, not listed: one that needs arguments and has no recipe below fails here.
"""

import copy
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor

from inference_marl import games, guides, models, simulators
from inference_marl.config.build import construct
from inference_marl.config.catalogue import available
from inference_marl.described import IncompatibleError
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Empirical,
    ExactTrajectory,
    Guide,
    Independent,
    Joint,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    SamplerNetwork,
    Shared,
    SplineFlow,
    Tabular,
    TanhNormalMixture,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.conditional import Conditional, Reads
from inference_marl.inference.factored import Factored, as_factored, opponent_sites
from inference_marl.inference.opponents import bind_over_opponents, for_each
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.replay import Ring
from inference_marl.inference.schedules import ExponentialDecay, InverseTime
from inference_marl.learners import Planner, Rommeo, Stationary
from inference_marl.learners.deterministic import DeterministicActorCritic
from inference_marl.learners.lola import Lola
from inference_marl.learners.lola.gradient import ExactGradientLearner
from inference_marl.learners.scripts import BayesOracle, CoinTaker
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
from inference_marl.play import Collector, Functional, GameSimulator, Population, Tasks, update
from inference_marl.play.learning import snapshots
from inference_marl.spaces import Box, Discrete, Space, joint_action
from inference_marl.types import (
    OF_ALL_OPPONENTS,
    OF_OPPONENTS,
    Actor,
    Experience,
    Game,
    Learner,
    Memory,
    Seat,
    Start,
    Team,
    Trajectory,
    about_all,
    check_belief_names,
    is_belief,
    kept_streams,
    numbered,
    seed_streams,
)

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
    "Adversary": [games.Adversary, lambda: games.Adversary(2, 2, 3, actions="continuous")],
    "CoinGame": [
        *(lambda seen=seen: games.CoinGame(observation=seen) for seen in ("history", "index", "relative", "absolute")),
        lambda: games.CoinGame(2),
    ],
    "BayesianMatrixGame": [
        lambda: games.BayesianMatrixGame("stag_hunt", {"all": games.DirichletTypes([1, 2], 5)}, horizon=3),
        lambda: games.BayesianMatrixGame("fully_stochastic_climbing", {"all": games.DirichletTypes(0.5, 5)}),
    ],
    "Guard": [
        lambda: games.Guard({"training": games.UniformTypes(-0.7, 0.7, 4), "far": games.ShellTypes(0.8, 1, 3)}),
        lambda: games.Guard({"one": games.ListedTypes([[0.5] * 7])}, 3, rewards="no_negative"),
    ],
    "KuhnPoker": [lambda: games.KuhnPoker({"all": games.UniformTypes(0, 1, 4)})],
    "Crypto": [games.Crypto, lambda: games.Crypto(3, 5, actions="continuous")],
    "MeetingGrid": [
        games.MeetingGrid,
        lambda: games.MeetingGrid(3, 2, goals=[(0, 0, 1.0), (1, 2, 2.0)], walls=[(0, 1)], slip=0.2, step_cost=0.1),
    ],
    "Push": [games.Push, lambda: games.Push(2, 2, 3, actions="continuous")],
    "Reference": [games.Reference, lambda: games.Reference(2, 3, actions="continuous")],
    "Rendezvous": [games.Rendezvous, lambda: games.Rendezvous(2)],
    "Scaled": [
        lambda: games.Scaled(games.MatrixGame("fully_stochastic_climbing"), 10.0, -3.0),
        lambda: games.Scaled(games.MatrixGame("prisoners_dilemma", horizon=None, memory=1), 0.1, 1.0),
        lambda: games.Scaled(games.MaxOfTwoQuadratics(), 10.0),
    ],
    "Spread": [games.Spread, lambda: games.Spread(2, actions="continuous", rules="openai")],
    "SpeakerListener": [games.SpeakerListener, lambda: games.SpeakerListener(4, actions="continuous")],
    "StochasticGame": [
        lambda: games.StochasticGame([0.5, 0.5], [[[[0.5, 0.25]] * 2] * 3, [[[0, 1]] * 2] * 3], [[[1, 2]] * 3] * 2),
    ],
    "Tag": [games.Tag, lambda: games.Tag(2, 2, 0, actions="continuous")],
    "Variants": [
        lambda: games.Variants([games.Spread(2), games.Spread(2, collision=0.0)]),
        lambda: games.Variants([games.MatrixGame("climbing"), games.MatrixGame("penalty")]),
        lambda: games.Variants([games.Rendezvous(), games.Rendezvous()]),
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
    "Independent": lambda: Independent(CategoricalNetwork(HIDDEN)),
    "IndependentBox": lambda: Independent(TanhNormalNetwork(HIDDEN)),
    "Joint": lambda: Joint(CategoricalNetwork(HIDDEN)),
    "LevelK": lambda: LevelK(2),
    "OpponentTypes": lambda: OpponentTypes([LevelK(), Fixed([1, 2, 3, 4, 5, 6]), DirichletMultinomial()], [1, 2, 1]),
    "SamplerNetwork": lambda: SamplerNetwork(HIDDEN),
    "Shared": lambda: Shared(CategoricalNetwork(HIDDEN)),
    "SharedBox": lambda: Shared(TanhNormalNetwork(HIDDEN)),
    "SplineFlow": lambda: SplineFlow(HIDDEN),
    "Tabular": lambda: Tabular(scale=1.0),
    "TanhNormalMixture": lambda: TanhNormalMixture(2, HIDDEN),
    "TanhNormalNetwork": lambda: TanhNormalNetwork(HIDDEN),
    "Uniform": Uniform,
}
REASONING = ("LevelK", "OpponentTypes")  # the latter with a LevelK among its types
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


LEARNERS: dict[str, tuple[str, Callable[[], Actor]]] = {
    "Stationary": ("any", Stationary),
    "Stationary, fixed": ("discrete", lambda: Stationary(probabilities=[0.2, 0.8])),
    "Stationary, drawn": ("discrete", lambda: Stationary(concentration=0.5)),
    "Population": ("any", lambda: Population(members=[Stationary(), Stationary()])),
    "CoinTaker": ("coins", CoinTaker),
    "BayesOracle": ("two agents", BayesOracle),
    "CoinTaker, of all": ("coins", lambda: CoinTaker(coins="all")),
    "Rommeo": ("discrete", discrete_rommeo),
    "Rommeo, of any scale": ("discrete", Rommeo),
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
        lambda: Planner(
            opponent_prior=DirichletMultinomial(),
            reward=KnownReward(),
            guide=ExactTrajectory(),
            transition=KnownTransition(),
            horizon=2,
        ),
    ),
    "Planner, fitted": (
        "discrete",
        lambda: Planner(
            opponent_prior=HierarchicalDirichlet(steps=1),
            reward=TabularCritic(),
            guide=TrajectoryGuide(Tabular(), CategoricalNetwork(HIDDEN), "inferred"),
            transition=DirichletTransition(),
            horizon=3,
            replay=20,
            batch_size=8,
        ),
    ),
    "Planner, drawn": (
        "discrete",
        lambda: Planner(
            opponent_prior=LevelK(),
            reward=KnownReward(),
            guide=TrajectoryGuide(Empirical(), Tabular(), enumerate=False),
            transition=KnownTransition(),
            horizon=2,
            particles=3,
        ),
    ),
    "Planner, one continuous step": (
        "box",
        lambda: Planner(
            opponent_prior=Amortised(TanhNormalNetwork(HIDDEN), window=50, batch_size=8),
            reward=NetworkCritic(HIDDEN),
            guide=TrajectoryGuide(TanhNormalMixture(2, HIDDEN), SplineFlow(HIDDEN)),
        ),
    ),
}


def cases_of_learners() -> dict[str, tuple[str, Callable[[], Actor]]]:
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
        lambda: games.MatrixGame("stag_hunt", horizon=4, memory=1),
        lambda: games.MatrixGame(THREE_AGENTS, common=True),
    ],
    "box": [games.MaxOfTwoQuadratics],
    "known, two agents": [
        lambda: games.MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96),
        lambda: games.MatrixGame("climbing"),
    ],
    "memory one": [lambda: games.MatrixGame("stag_hunt", horizon=4, memory=1)],
}
LEARNER_GAMES["two agents"] = [
    lambda: games.MatrixGame("rock_paper_scissors", horizon=4),
    lambda: games.MatrixGame("stag_hunt", horizon=4, memory=1),
]
LEARNER_GAMES["coins"] = [games.CoinGame, lambda: games.CoinGame(observation="absolute")]
LEARNER_GAMES["any"] = [*LEARNER_GAMES["discrete"], *LEARNER_GAMES["box"]]


ELBO = {"elbo", "elbo_reward", "elbo_entropy", "elbo_kl", "elbo_gap"}
METRICS = ELBO | {"total_correlation", "belief_sd"}
DO_NOT_LEARN = ("Stationary", "Population", "Scripted", "CoinTaker", "BayesOracle")
ELSEWHERE = {"Frozen", "KuhnPlayer", "PlaysItsType", "Raiders", "Stranger"}
"""Frozen is driven by the runs that it needs, in tests/runs; scripts of single seats in tests/learners."""


def test_every_class_is_driven() -> None:
    found = available()
    assert set(found["learners"]) - ELSEWHERE <= {name.partition(",")[0] for name in ALL_LEARNERS}
    made = {name.partition(",")[0]: make() for name, (_, make) in ALL_LEARNERS.items()}
    assert all(isinstance(actor, Actor) for actor in made.values())
    assert {name for name, actor in made.items() if not isinstance(actor, Learner)} == set(DO_NOT_LEARN)
    assert set(found["opponent priors"]) | set(found["conditionals"]) == {
        name.removesuffix("Box") for name in CONDITIONALS
    } | set(CLOSED_FORMS)
    assert set(found["critics"]) == set(CRITICS)
    # Games that cannot be asked for their rules are driven in tests/simulators.
    assert set(found["simulators"]) == {"PettingZoo", "Vmas"}
    # Guides of trajectories, and transitions, are driven with the planner's cases and in tests/models.
    assert set(found["guides"]) == {"OpponentFirst", "PolicyFirst", "TrajectoryGuide", "ExactTrajectory"}
    assert set(found["transitions"]) == {
        *("KnownTransition", "DeterministicTransition", "DirichletTransition", "GaussianEnsemble")
    }
    assert set(found["optimality"]) == {"BernoulliOptimality", "ExponentialOptimality"}
    # Beside the learners that have them, in tests/learners/test_unknown_rule.py.
    assert set(found["learning rules"]) == {"LolaRule", "NaiveRule", "StaticRule"}
    # Beside the learners that have them, in tests/learners/test_lola.py.
    beliefs = {"ClonedOpponent", "CountedOpponent", "FilteredOpponent", "LearningRuleFilter"}
    assert set(found["beliefs about logits"]) == beliefs


def all_games() -> list[Any]:
    made = [make for name in available()["games"] for make in GAMES.get(name, [getattr(games, name)])]
    return [pytest.param(make(), id=f"{i}-{type(make()).__name__}") for i, make in enumerate(made)]


def inside(space: Space, value: Tensor) -> bool:
    if isinstance(space, Discrete):
        return value.dtype == torch.int64 and bool(((value >= 0) & (value < space.n)).all())
    low, high = space.edges(value.dtype, value.device)
    return value.shape[-len(space.shape) :] == space.shape and bool(((value >= low) & (value <= high)).all())


def uniform_actions(game: Game) -> list[Tensor]:
    cpu = torch.device("cpu")
    return [space.uniform(torch.float64, cpu).sample((R, E)) for space in game.action_spaces]


@pytest.mark.parametrize("game", all_games())
class TestGame:
    def test_shapes(self, game: Game) -> None:
        state = game.reset(R, E, torch.device("cpu"), torch.float64)
        assert len(game.observations) == len(game.action_spaces) == game.agents
        for _ in range(3):
            for space, obs in zip(game.observations, game.observe(state).obs, strict=True):
                assert obs.shape == (R, E, *space.event_shape)
                assert inside(space, obs)
            state, rewards, terminated, truncated = game.step(state, uniform_actions(game))
            assert rewards.shape == (R, E, game.agents)
            assert rewards.dtype == torch.float64
            assert torch.isfinite(rewards).all()
            for over in (terminated, *([] if truncated is None else [truncated])):
                assert over.shape == (R, E)
                assert over.dtype == torch.bool
            assert all(value.shape[:2] == (R, E) for value in state.values())

    def test_episodes_are_judged_as_declared(self, game: Game) -> None:
        state = game.reset(R, E, torch.device("cpu"), torch.float64)
        judged = game.judge(game.step(state, uniform_actions(game)).state)
        assert judged.keys() == {metric.name for metric in game.episode_metrics}
        for metric in game.episode_metrics:
            value, (low, high) = judged[metric.name], metric.bounds
            assert value.shape == (R, E, *([game.agents] if metric.dims else []))
            assert value.dtype == torch.float64
            assert (value.isnan() | (value >= low) & (value <= high)).all()

    def test_a_game_that_does_not_terminate_is_not_over_before_its_horizon(self, game: Game) -> None:
        if game.terminates:
            return
        state = game.reset(R, E, torch.device("cpu"), torch.float64, None)
        for _ in range(5 if game.horizon is None else min(game.horizon - 1, 5)):
            state, _, terminated, truncated = game.step(state, uniform_actions(game))
            assert not terminated.any()
            assert truncated is None or not truncated.any()

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
        twin: Game = construct(Game, game.describe(), "game")
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
    return Seat(0, (Discrete(4),) * 2, (action, action), replicates, dtype=dtype)


SIX = Discrete(6)
BOX = Box(-2, 3, 2)


class _Values:
    """What a prior reads of the model it is part of."""

    def __init__(self, seat: Seat) -> None:
        self.rows = seat.rows
        self.table = torch.linspace(-1, 1, R * 4 * 36, dtype=torch.float64).sin().view(R, 4, 6, 6)

    def q_table(self, obs: Tensor) -> Tensor:
        return self.table[self.rows, obs]


def only(found: Factored | dist.TorchDistribution) -> dist.TorchDistribution:
    """The distribution of the only opponent's action, of what is over every opponent's."""
    return found.factor(0) if isinstance(found, Factored) else found


@pytest.mark.parametrize("name", CONDITIONALS)
class TestConditional:
    def bound(self, name: str, target: Space, *parents: Space) -> Conditional:
        return CONDITIONALS[name]().bind(a_seat(target), target, parents)

    def at(self, conditional: Conditional, obs: Tensor) -> dist.TorchDistribution:
        """A prior's distribution is that which it has as part of a model."""
        if not isinstance(conditional, OpponentPrior):
            return only(conditional(obs))
        return only(conditional.given(cast(Reads, _Values(conditional.seat)), obs))

    def see(self, conditional: Conditional, obs: Tensor, value: Tensor) -> None:
        if isinstance(conditional, OpponentPrior):
            conditional.observe_given(cast(Reads, _Values(conditional.seat)), obs, value)
            conditional.fit()

    def said(self, conditional: Conditional, obs: Tensor, value: Tensor) -> Tensor:
        """Log-probabilities of a value; where there are none, draws at the same random numbers."""
        distribution = self.at(conditional, obs).expand(obs.shape)
        if conditional.has_density:
            return distribution.log_prob(value)
        torch.manual_seed(5)
        return distribution.sample()

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
                distribution = self.at(conditional, *parents).expand(shape)
                assert distribution.event_shape == target.event_shape
                sample = distribution.sample()
                assert sample.shape == (*shape, *target.event_shape)
                assert inside(target, sample)
                if not conditional.has_density:
                    with pytest.raises(NotImplementedError, match=f"{name} has no density"):
                        distribution.log_prob(sample)
                    continue
                assert distribution.log_prob(sample).shape == shape
                assert torch.isfinite(distribution.log_prob(sample)).all()

    def test_stored_values_have_finite_log_probabilities(self, name: str) -> None:
        for target in self.targets(name):
            if isinstance(target, Box):
                obs = torch.zeros(R, 5, dtype=torch.int64)
                conditional = self.bound(name, target, Discrete(4))
                if not conditional.has_density:
                    continue
                distribution = self.at(conditional, obs)
                for edge in target.edges(torch.float64, torch.device("cpu")):
                    assert torch.isfinite(distribution.log_prob(edge.expand(R, 5, -1))).all()

    def test_a_second_parent_broadcasts(self, name: str) -> None:
        for target in self.targets(name):
            if Discrete not in type(CONDITIONALS[name]()).conditions or name.startswith("Amortised"):
                continue
            conditional = self.bound(name, target, Discrete(4), SIX)
            if name in ("DirichletMultinomial", "EmpiricalFrequency"):
                continue  # counts over observations; as an opponent model after the policy they ignore it
            obs, every = torch.randint(4, (R, 5)), torch.arange(6).view(-1, 1, 1)
            # What reasons with a model is told of the observation alone, whatever else there is.
            distribution = self.at(conditional, obs) if name in REASONING else only(conditional(obs, every))
            distribution = distribution.expand((6, R, 5))
            assert distribution.sample().shape == (6, R, 5, *target.event_shape)

    def test_what_a_prior_says_by_itself(self, name: str) -> None:
        """The same as in a model, but for those that reason with the model's values, and are refused without."""
        for target in self.targets(name):
            conditional, obs = self.bound(name, target, Discrete(4)), torch.randint(4, (R, 5))
            if name in REASONING:
                with pytest.raises(IncompatibleError, match="expected to be the opponent prior of a learner"):
                    conditional(obs)
            elif isinstance(conditional, OpponentPrior):
                value = self.values(target, R, 5)
                self.see(conditional, obs, value)
                one, two = (
                    only(d).expand((R, 5)).log_prob(value) for d in (conditional(obs), self.at(conditional, obs))
                )
                assert torch.equal(one, two)

    def test_seeing_draws_no_random_numbers(self, name: str) -> None:
        for target in self.targets(name):
            conditional = self.bound(name, target, Discrete(4))
            obs, value = torch.randint(4, (R, 5)), self.values(target, R, 5)
            before = torch.get_rng_state()
            if isinstance(conditional, OpponentPrior):
                conditional.observe_given(cast(Reads, _Values(conditional.seat)), obs, value)
            else:
                conditional.observe(obs, value)
            assert torch.equal(torch.get_rng_state(), before)

    def test_replicates_do_not_mix(self, name: str) -> None:
        """Replicate r's distribution depends on replicate r's observations alone."""
        for target in self.targets(name):
            conditional = self.bound(name, target, Discrete(4))
            obs = torch.randint(4, (R, 5))
            other = obs.clone()
            other[1:] = (other[1:] + 1) % 4
            value = self.values(target, R, 5)
            one, two = (self.said(conditional, o, value) for o in (obs, other))
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
                    self.see(conditional, obs, value)
            two.load_state_dict(one.state_dict())
            for _ in range(2):
                said = [self.said(c, obs, value) for c in (one, two)]
                torch.testing.assert_close(said[0], said[1], rtol=0, atol=0)
                for conditional in (one, two):
                    torch.manual_seed(7)
                    self.see(conditional, obs, value)

    def test_over_several_opponents(self, name: str) -> None:
        """As a prior: a factor for each, whether it is over one opponent, each of them or their joint action."""
        of_kind: dict[Space, tuple[Space, Space]] = {SIX: (Discrete(2), Discrete(3)), BOX: (BOX, Box(0, 1))}
        for target in self.targets(name):
            opponents = of_kind[target]
            alike = (opponents[0],) * 2 if name.startswith(("Shared", "Hierarchical")) else opponents
            seat = Seat(0, (Discrete(4),) * 3, (target, *alike), R, dtype=torch.float64)
            if not CONDITIONALS[name]().has_density:
                with pytest.raises(IncompatibleError, match="can only be sampled"):
                    bind_over_opponents(Independent(CONDITIONALS[name]()), seat, [Discrete(4)])
                continue
            conditional = bind_over_opponents(for_each(CONDITIONALS[name](), seat, Independent), seat, [Discrete(4)])
            obs, values = torch.randint(4, (R, 5)), [self.values(space, R, 5) for space in alike]
            if isinstance(conditional, OpponentPrior):
                model = cast(Reads, _Values(seat))
                conditional.observe_given(model, obs, *values)
                conditional.fit()
                found = as_factored(conditional.given(model, obs), alike)
            else:
                found = as_factored(conditional(obs), alike)
            drawn = found.sample((R, 5))
            for value, space in zip(drawn, alike, strict=True):
                assert value.shape == (R, 5, *space.event_shape)
                assert inside(space, value)
            assert torch.isfinite(found.log_prob(drawn).expand(R, 5)).all()
            if target == SIX:
                table = found.table().exp().expand(R, 5, -1)
                torch.testing.assert_close(table.sum(-1), torch.ones(R, 5, dtype=torch.float64))
                chosen = table.gather(-1, joint_action(alike, drawn).unsqueeze(-1)).squeeze(-1)
                torch.testing.assert_close(chosen, found.log_prob(drawn).exp().expand(R, 5))

    def test_refuses_what_it_cannot_describe(self, name: str) -> None:
        for target in (SIX, BOX):
            if target not in self.targets(name):
                with pytest.raises(IncompatibleError, match="expected"):
                    self.bound(name, target, Discrete(4))


@pytest.mark.parametrize("opponents", [1, 2])
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
    def pair(self, order: type[Guide], rho: Any, pi: Any, action: Space, opponents: int) -> tuple[ControlModel, Guide]:
        seat = a_seat(action)
        every = 1 + opponents
        seat = replace(seat, observations=seat.observations[:1] * every, action_spaces=(action,) * every)
        prior = bind_over_opponents(Uniform(), seat, [seat.observation])
        critic = (TabularCritic() if isinstance(action, Discrete) else NetworkCritic(HIDDEN)).bind(seat)
        model = ControlModel(seat, prior, critic, ExponentialOptimality(), temperature=0.5, kl_weight=2.0)
        return model, order(rho(), pi()).bind(seat)

    def test_sites_plates_and_scales_equal_the_models(
        self, order: type[Guide], rho: Any, pi: Any, action: Space, opponents: int
    ) -> None:
        model, guide = self.pair(order, rho, pi, action, opponents)
        obs = torch.randint(4, (R, 5))
        traces = [poutine.trace(part).get_trace(obs) for part in (model, partial(guide, model=model))]
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
        assert set(latent) == {"action", *opponent_sites(opponents)}
        assert {frame for stack, _ in latent.values() for frame in stack} == {"replicate", "batch"}
        assert traces[0].nodes["optimality"]["is_observed"]

    def test_samples_and_isolation(self, order: type[Guide], rho: Any, pi: Any, action: Space, opponents: int) -> None:
        model, guide = self.pair(order, rho, pi, action, opponents)
        own, others = guide(torch.randint(4, (R, 5)), model)
        assert len(others) == opponents
        for value in (own, *others):
            assert value.shape == (R, 5, *action.event_shape)
            assert inside(action, value)
        mine = {id(parameter) for parameter in guide.parameters()}
        assert not mine & {id(parameter) for part in (model.prior, model.critic) for parameter in part.parameters()}


def seated(make: Callable[[], Actor], game: Game) -> list[Actor]:
    pyro.set_rng_seed(0)
    description = make()
    spaces = game.observations, game.action_spaces
    seats = [Seat(i, *spaces, R, E, dtype=torch.float64, game=game) for i in range(game.agents)]
    return description.bind_all(seats) if isinstance(description, Team) else [description.bind(seat) for seat in seats]


def collector(actors: Sequence[Actor], game: Game) -> Collector:
    return Collector(GameSimulator(game, R, E, dtype=torch.float64), actors, tasks=Tasks([0, 1], episodes=2))


def play(actors: Sequence[Actor], game: Game, rounds: int, start: int = 0) -> list[Tensor]:
    """Actions of all agents over some rounds of learning, seeded per round, of one and of two steps in turn."""
    played, collected = [], collector(actors, game)
    for number in range(start, start + rounds):
        pyro.set_rng_seed(number)
        newest = collected.collect(1 + number % 2)
        for said in update(actors, newest):
            assert all(value.shape[:1] == (R,) for value in said.values())
        played.extend(action for step in newest.steps for action in step.actions)
    return played


def observed(game: Game) -> tuple[Tensor, ...]:
    """What all agents observe at the start."""
    return game.observe(game.reset(R, E, torch.device("cpu"), torch.float64)).obs


def begun(actor: Actor) -> Memory:
    """The same every time, also if something is drawn for the episode."""
    cpu = torch.device("cpu")
    with kept_streams(cpu):
        seed_streams(0, cpu)
        return actor.begin(Start.everywhere(R, E, cpu), None)


def probabilities(actor: Actor, obs: Tensor) -> Tensor | None:
    """Of the actions of an actor with a density over discrete ones."""
    distribution, _ = actor.policy(obs, begun(actor))
    if distribution is None or not isinstance(distribution, dist.Categorical):
        return None
    return distribution.expand(obs.shape[:2]).probs


def plays(actor: Actor, obs: Tensor) -> list[Tensor]:
    """What it does with and without exploring, at the same random numbers whoever it is."""
    actions = []
    for explore in (True, False):
        torch.manual_seed(11)
        actions.append(actor.act(obs, begun(actor), explore).action)
    return actions


def believes(actor: Actor, obs: Tensor) -> list[Tensor]:
    """What it believes, by the order of names, at the same random numbers whoever it is."""
    torch.manual_seed(11)
    belief = actor.beliefs(obs, begun(actor), draws=3)
    return [belief[name] for name in sorted(belief)]


def assert_same(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def update_alone(learner: Learner, newest: Trajectory, peers: Sequence[Actor]) -> None:
    learner.store(newest)
    learner.learn(newest, peers if learner.reads_peers else [])


def learner_cases() -> list[Any]:
    """Every case in every game of its kind; where there is little time, every class in every kind of game."""
    return [
        pytest.param(make, made, id=f"{name}-{i}", marks=[] if is_first(name, kind, i) else [pytest.mark.slow])
        for name, (kind, make) in ALL_LEARNERS.items()
        for i, made in enumerate(LEARNER_GAMES[kind])
    ]


def is_first(name: str, kind: str, game: int) -> bool:
    """Whether a case is a class's first of its kind, in its own right or as the first of its variants."""
    described = name.partition(",")[0]
    same = [other for other, (its, _) in ALL_LEARNERS.items() if other.partition(",")[0] == described and its == kind]
    return name == same[0] and (game == 0 or "," not in name)


@pytest.mark.parametrize(("make", "make_game"), learner_cases())
class TestActor:
    def test_acts_learns_and_believes(self, make: Callable[[], Actor], make_game: Callable[[], Game]) -> None:
        game = make_game()
        actors = seated(make, game)
        play(actors, game, 4)
        for actor, seen in zip(actors, observed(game), strict=True):
            space, memory = actor.seat.action, begun(actor)
            for explore in (True, False):
                decision = actor.act(seen, memory, explore)
                assert decision.action.shape == (R, E, *space.event_shape)
                assert inside(space, decision.action)
                assert decision.log_prob is None or decision.log_prob.shape == (R, E)
                assert all(value.shape[:2] == (R, E) for value in (*decision.memory.values(), *decision.info.values()))
            belief = actor.beliefs(seen, memory, draws=5)
            others = actor.seat.opponent_actions
            of_others = {name: dict(zip(numbered(name, len(others)), others, strict=True)) for name in OF_OPPONENTS}
            assert {name for name in belief if not is_belief(name)} <= METRICS
            check_belief_names(belief, len(others))
            for name, joint in OF_ALL_OPPONENTS.items():
                if joint in belief:
                    expected = about_all(name, belief[joint], others)
                    assert all(torch.equal(belief[each], value) for each, value in expected.items())
            for name, of in [("policy", space), *(pair for each in of_others.values() for pair in each.items())]:
                if name not in belief:
                    continue
                value = belief[name]
                if isinstance(of, Discrete):
                    assert value.shape == (R, E, of.n)
                    torch.testing.assert_close(value.sum(-1), torch.ones(R, E, dtype=torch.float64))
                else:
                    assert value.shape == (R, E, 5, *of.event_shape)
                    assert inside(of, value)
            assert "policy" in belief
            if "opponent_type" in belief:
                torch.testing.assert_close(belief["opponent_type"].sum(-1), torch.ones(R, E, dtype=torch.float64))
            for name in belief.keys() & ELBO:
                assert belief[name].shape == (R, E)
                assert torch.isfinite(belief[name]).all()
            if "elbo" in belief:
                parts = belief["elbo_reward"] + belief["elbo_entropy"] - belief["elbo_kl"]
                torch.testing.assert_close(belief["elbo"], parts)
                if isinstance(space, Discrete):  # where draws are averaged, a mean may be on the other side of 0
                    assert (belief["elbo_entropy"] <= 1e-9).all()
                    assert (belief["elbo_kl"] >= -1e-9).all()
                    assert (belief["elbo_gap"] >= -1e-9).all()

    def test_the_policy_is_what_is_believed_and_played(
        self, make: Callable[[], Actor], make_game: Callable[[], Game]
    ) -> None:
        """2000 draws per replicate; a frequency is wrongly refused with probability 1e-9."""
        game = make_game()
        actors = seated(make, game)
        play(actors, game, 3)
        for actor, seen in zip(actors, observed(game), strict=True):
            distribution, memory = actor.policy(seen, begun(actor))
            assert memory.keys() == begun(actor).keys()
            if distribution is None:
                assert isinstance(actor.seat.action, Box)
                continue
            assert distribution.expand((R, E)).event_shape == actor.seat.action.event_shape
            expected = probabilities(actor, seen)
            if expected is None:
                continue
            torch.testing.assert_close(actor.beliefs(seen, begun(actor), 1)["policy"], expected)
            many = seen[:, :1].expand(R, 2000, *seen.shape[2:])
            counts = torch.nn.functional.one_hot(
                actor.act(many, actor.initial_memory(R, 2000)).action, expected.shape[-1]
            ).sum(1)
            for count, share in zip(counts.flatten().tolist(), expected[:, 0].flatten().tolist(), strict=True):
                share = min(max(share, 0.0), 1.0)
                assert stats.binomtest(count, 2000, share).pvalue > 1e-9

    def test_memories(self, make: Callable[[], Actor], make_game: Callable[[], Game]) -> None:
        """They keep their names, types and shapes; where no episode begins nothing is forgotten."""
        game = make_game()
        actors = seated(make, game)
        (step,) = collector(actors, game).collect().steps
        nowhere = Start(torch.zeros(R, E, dtype=torch.bool), torch.zeros(R, E, dtype=torch.bool))
        for actor, seen in zip(actors, observed(game), strict=True):

            def form(memory: Memory) -> dict[str, Any]:
                return {name: (value.shape, value.dtype) for name, value in memory.items()}

            first = begun(actor)
            assert all(value.shape[:2] == (R, E) for value in first.values())
            after = actor.act(seen, begun(actor)).memory
            kept = copy.deepcopy(after)
            same = actor.begin(nowhere, after)
            assert_same([same[name] for name in kept], list(kept.values()))
            view = step.seen_by(actor.seat)
            assert isinstance(view, Experience)
            assert form(first) == form(after) == form(same) == form(actor.remember(same, view))

    def test_legal_actions(self, make: Callable[[], Actor], make_game: Callable[[], Game]) -> None:
        game = make_game()
        actors = seated(make, game)
        if not any(actor.heeds_masks for actor in actors) or isinstance(game.action_spaces[0], Box):
            return
        play(actors, game, 3)
        for actor, seen in zip(actors, observed(game), strict=True):
            actions = actor.seat.action.features
            without, _ = actor.policy(seen, begun(actor))
            every = torch.ones(R, E, actions, dtype=torch.bool)
            masked, _ = actor.policy(seen, begun(actor), every)
            assert without is not None
            assert masked is not None
            torch.testing.assert_close(masked.probs, without.expand((R, E)).probs)
            for only in range(actions):
                mask = torch.zeros_like(every)
                mask[..., only] = True
                masked, _ = actor.policy(seen, begun(actor), mask)
                assert masked is not None
                torch.testing.assert_close(masked.probs, mask.double())
                for explore in (True, False):
                    assert (actor.act(seen, begun(actor), explore, mask).action == only).all()

    def test_same_seed_same_result(self, make: Callable[[], Actor], make_game: Callable[[], Game]) -> None:
        runs = [play(seated(make, make_game()), make_game(), 3) for _ in range(2)]
        assert_same(*runs)

    def test_state_dict_round_trip(self, make: Callable[[], Actor], make_game: Callable[[], Game]) -> None:
        game = make_game()
        original, restored = seated(make, game), seated(make, game)
        play(original, game, 3)
        for source, sink in zip(original, restored, strict=True):
            sink.load_state_dict(source.state_dict())
        runs = [play(actors, game, 1, start=3) for actors in (original, restored)]
        assert_same(*runs)

    def test_describes_itself(self, make: Callable[[], Actor], make_game: Callable[[], Game]) -> None:
        description = make()
        before = description.describe()
        seated(lambda: description, make_game())
        assert description.describe() == before
        assert not list(description.buffers())
        assert set(before["init_args"]) == set(inspect.signature(type(description)).parameters)


@pytest.mark.parametrize(
    ("make", "make_game"),
    [case for case in learner_cases() if not case.id.startswith(DO_NOT_LEARN)],
)
class TestLearner:
    def test_storing_draws_no_random_numbers(self, make: Callable[[], Learner], make_game: Callable[[], Game]) -> None:
        game = make_game()
        learners = seated(make, game)
        newest = collector(learners, game).collect(2)
        before = torch.get_rng_state()
        for learner in learners:
            assert isinstance(learner, Learner)
            learner.store(newest)
        assert torch.equal(torch.get_rng_state(), before)

    def test_games_in_which_agents_may_be_out_are_refused(
        self, make: Callable[[], Learner], make_game: Callable[[], Game]
    ) -> None:
        """Learners from experience would learn from the actions of agents that are out, which mean nothing."""
        game = make_game()
        learners = seated(make, game)
        first, second = collector(learners, game).collect(2).steps
        newest = Trajectory([first, replace(second, alive=torch.ones(R, E, game.agents, dtype=torch.bool))])
        peers = snapshots(learners)
        for learner in learners:
            assert isinstance(learner, Learner)
            if isinstance(learner, ExactGradientLearner) or isinstance(
                getattr(learner, "of", None), DeterministicActorCritic
            ):
                continue  # it knows the rules, in which all act; it heeds who is out
            with pytest.raises(IncompatibleError, match=f"{type(learner).__name__} got a game in which agents may be"):
                update_alone(learner, newest, peers)

    def test_learning_leaves_peers_as_they_are(
        self, make: Callable[[], Learner], make_game: Callable[[], Game]
    ) -> None:
        game = make_game()
        learners = seated(make, game)
        newest = collector(learners, game).collect()
        peers = snapshots(learners)
        obs = observed(game)
        before = [plays(peer, seen) for peer, seen in zip(peers, obs, strict=True)]
        for learner in learners:
            assert isinstance(learner, Learner)
            update_alone(learner, newest, peers)
        for peer, seen, kept in zip(peers, obs, before, strict=True):
            assert_same(plays(peer, seen), kept)

    def test_a_snapshot_is_what_the_learner_was(
        self, make: Callable[[], Learner], make_game: Callable[[], Game]
    ) -> None:
        """It plays and believes the same at the same random numbers, whatever the learner learns after it was taken."""
        game = make_game()
        learners = seated(make, game)
        play(learners, game, 2)
        obs, taken = observed(game), snapshots(learners)
        kept = []
        for learner, snapshot, seen in zip(learners, taken, obs, strict=True):
            assert isinstance(snapshot, Actor)
            assert snapshot is not learner
            assert not any(parameter.requires_grad for parameter in snapshot.parameters())
            played, shares = plays(snapshot, seen), probabilities(snapshot, seen)
            if isinstance(snapshot, Functional):  # explores as its distribution draws, not as its learner does
                assert torch.equal(played[1], plays(learner, seen)[1])
                torch.testing.assert_close(shares, probabilities(learner, seen), rtol=0, atol=0)
                believed = None
            else:
                assert_same(played, plays(learner, seen))
                believed = believes(snapshot, seen)
                assert_same(believed, believes(learner, seen))
            kept.append((played, shares, believed))
        play(learners, game, 2, start=2)
        for snapshot, seen, (played, shares, believed) in zip(taken, obs, kept, strict=True):
            assert_same(plays(snapshot, seen), played)
            torch.testing.assert_close(probabilities(snapshot, seen), shares, rtol=0, atol=0)
            if believed is not None:
                assert_same(believes(snapshot, seen), believed)

    def test_a_snapshot_holds_no_replay_and_no_optimiser(
        self, make: Callable[[], Learner], make_game: Callable[[], Game]
    ) -> None:
        game = make_game()
        learners = seated(make, game)
        play(learners, game, 2)
        for snapshot in snapshots(learners):
            held = [name for name, part in snapshot.named_modules() if isinstance(part, Ring | Optimiser)]
            assert held == []


def test_a_snapshot_that_is_a_function_of_its_parameters_believes_too() -> None:
    """It is an actor like any other."""
    game = games.MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96)
    for learner, seen in zip(seated(Lola, game), observed(game), strict=True):
        snapshot = learner.snapshot()
        assert isinstance(snapshot, Functional)
        torch.testing.assert_close(
            snapshot.beliefs(seen, {}, draws=1)["policy"], learner.beliefs(seen, {}, draws=1)["policy"]
        )


def test_exports_are_what_is_found() -> None:
    for module, kinds in [
        (games, ["games"]),
        (simulators, ["simulators"]),
        (models, ["opponent priors", "transitions", "critics", "optimality"]),
        (guides, ["guides", "conditionals"]),
    ]:
        found = {name for kind in kinds for name in available()[kind]}
        assert found <= set(module.__all__)
