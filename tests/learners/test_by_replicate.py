"""Numbers that differ by replicate: every group of replicates does what a learner with its number does alone.

The numbers are found, not listed: whatever a class in one of the arms below declares is put to the test, and a class
that declares numbers and is in none of them fails here. Priors that draw by rejection are in none: how many random
numbers such a draw takes depends on those of the other replicates.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from inference_marl.config.build import actors_of
from inference_marl.config.catalogue import available
from inference_marl.described import Described, arguments, plain
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, Rendezvous, RiskyBridge
from inference_marl.guides import (
    CategoricalNetwork,
    Empirical,
    ExactTrajectory,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    SamplerNetwork,
    Tabular,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.action_gradients import ScoreFunction
from inference_marl.inference.reward_range import OfRange
from inference_marl.inference.schedules import ByReplicate, ExponentialDecay, InverseTime, Linear
from inference_marl.inference.stein import Stein
from inference_marl.learners import Ddpg, DdpgOm, Maddpg, Masql, Pearl, Planner, Pr2Ac, Rommeo, Stationary
from inference_marl.learners.alignment import AdvantageAlignment, RecurrentAlignment, TabularAlignment
from inference_marl.learners.deterministic import InferredPolicies, PredictedActions
from inference_marl.learners.latent import GaussianFactors
from inference_marl.learners.lola import (
    BestResponse,
    Lola,
    LolaDice,
    LolaUnknownRule,
    LookAhead,
    NaiveGradient,
    StableOpponentShaping,
    UnsteadyGradient,
)
from inference_marl.learners.tabular import (
    FMQ,
    PHC,
    PR2Q,
    Boltzmann,
    DistributedQ,
    EpsilonGreedy,
    FictitiousPlay,
    HystereticQ,
    IndependentQ,
    JointActionLearner,
    LenientQ,
    RecursiveFMQ,
    WoLFPHC,
)
from inference_marl.models import (
    Amortised,
    BayesianCritic,
    DirichletMultinomial,
    DirichletTransition,
    EmpiricalFrequency,
    LevelK,
    NetworkCritic,
    TabularCritic,
)
from inference_marl.play import Collector, GameSimulator, Tasks, update
from inference_marl.runs.common_numbers import CommonNumbers
from inference_marl.types import Actor, Game, seed_streams

STEPS, REPLICATES, ENVIRONMENTS = 5, 4, 2
Arm = Actor | list[Actor]

VALUES: dict[str, tuple[Any, Any]] = {
    "temperature": (0.4, ExponentialDecay(3.0, 0.1, 0.2)),
    "opponent_temperature": (0.4, Linear(3.0, 0.2, 5)),
    "kl_weight": (Linear(2.0, 0.5, 5), 0.3),
    "fraction": (0.3, Linear(0.5, 0.05, 5)),
    "discount": (0.9, 0.2),
    "rate": (0.3, InverseTime(1.0, 2.0)),
    "negative_rate": (0.05, InverseTime(0.4, 2.0)),
    "policy_rate": (0.05, InverseTime(0.4, 2.0)),
    "frequency_rate": (0.05, InverseTime(0.4, 2.0)),
    "epsilon": (0.1, Linear(0.9, 0.3, 5)),
    "guide_learning_rate": (0.1, 0.003),
    "learning_rate": (0.1, 0.003),
    "initial": (0.0, 3.0),
    "weight": (10.0, 0.5),
    "policy_rate_winning": (0.02, InverseTime(0.1, 2.0)),
    "policy_rate_losing": (0.3, InverseTime(0.9, 20.0)),
    "max_temperature": (3.0, 1.0),
    "min_temperature": (2.0, 0.3),
    "decay": (0.95, 0.5),
    "diffusion": (0.1, 0.9),
    "selection_moderation": (1.0, 9.0),
    "leniency_moderation": (0.1, 9.0),
    "step_size": (1.0, 0.2),
    "opponent_step_size": (1.5, 0.2),
    "beta": (Linear(2.0, 0.5, 5), 0.3),
    "entropy": (Linear(0.5, 0.1, 5), 0.01),
    "trace_decay": (0.9, 0.2),
    "past_trace_decay": (Linear(0.9, 0.5, 5), 0.0),
    "critic_rate": (0.3, 0.9),
    "critic_learning_rate": (0.1, 0.003),
}
"""Two different values of every number that may differ by replicate, by its name."""


def repeated() -> Game:
    """Several states, and never over."""
    return MatrixGame("stag_hunt", horizon=None, memory=1, discount=0.9)


def network() -> TanhNormalNetwork:
    return TanhNormalNetwork((4,))


def rommeo(**changes: Any) -> Rommeo:
    parts: dict[str, Any] = {
        "opponent_prior": EmpiricalFrequency(window=5, smoothing=0.1),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
        "temperature": 1.0,
    }
    return Rommeo(**parts | changes)


def rommeo_ac(**changes: Any) -> Rommeo:
    parts: dict[str, Any] = {
        "opponent_prior": Amortised(network(), window=12, batch_size=4),
        "guide": OpponentFirst(network(), network()),
        "critic": NetworkCritic((4,), max_gradient_norm=10.0),
        "temperature": 1.0,
        "replay": 9,
        "batch_size": 4,
        "warmup": 3,
    }
    return Rommeo(**parts | changes)


def deterministic(learner: Any, **changes: Any) -> Actor:
    made: Actor = learner(**{"hidden": (4,), "replay": 9, "batch_size": 4, "warmup": 2} | changes)
    return made


def planner(**changes: Any) -> Planner:
    parts: dict[str, Any] = {
        "opponent_prior": DirichletMultinomial(),
        "reward": TabularCritic(),
        "guide": ExactTrajectory(),
        "transition": DirichletTransition(),
        "horizon": 3,
    }
    return Planner(**parts | changes)


def sampling(learner: Any, **changes: Any) -> Any:
    parts: dict[str, Any] = {
        "sampler": SamplerNetwork((4,), noise=3),
        "critic": NetworkCritic((4,)),
        "stein": Stein(5, 3),
        "value_particles": 6,
        "replay": 9,
        "batch_size": 4,
        "warmup": 1,
        "max_gradient_norm": 1.0,
    }
    return learner(**parts | changes)


ARMS: dict[str, tuple[Callable[[], Game], Callable[[], Arm]]] = {
    "rommeo": (repeated, rommeo),
    "rommeo by range": (repeated, Rommeo),
    "rommeo, fitted": (
        repeated,
        lambda: rommeo(guide=OpponentFirst(Tabular(), Tabular()), replay=8, batch_size=4),
    ),
    "rommeo, policy first": (repeated, lambda: rommeo(guide=PolicyFirst(Optimal(), Optimal()))),
    "rommeo, rho := P": (repeated, lambda: rommeo(guide=OpponentFirst(Empirical(), Optimal()))),
    "rommeo, policy first, rho := P": (repeated, lambda: rommeo(guide=PolicyFirst(Empirical(), Optimal()))),
    "rommeo by visits": (
        repeated,
        lambda: rommeo(opponent_prior=LevelK(2), critic=TabularCritic(rate_over="visits", target_rate=0.5)),
    ),
    "rommeo, optimal before fitted": (repeated, lambda: rommeo(guide=OpponentFirst(Optimal(), Tabular()))),
    "rommeo, fitted before optimal": (repeated, lambda: rommeo(guide=PolicyFirst(Optimal(), CategoricalNetwork((4,))))),
    "rommeo-ac": (lambda: Rendezvous(horizon=7), rommeo_ac),
    "rommeo-ac, policy first": (
        lambda: Rendezvous(horizon=7),
        lambda: rommeo_ac(
            guide=PolicyFirst(network(), network()),
            critic=BayesianCritic((4,), particles=3),
            particles=2,
            max_gradient_norm=1.0,
        ),
    ),
    "planner": (RiskyBridge, planner),
    "planner, fitted": (
        RiskyBridge,
        lambda: planner(guide=TrajectoryGuide(Tabular(), CategoricalNetwork((4,)), "inferred"), replay=8, batch_size=4),
    ),
    "planner, inferred": (RiskyBridge, lambda: planner(guide=ExactTrajectory("inferred"))),
    "planner, drawn": (
        RiskyBridge,
        lambda: planner(guide=TrajectoryGuide(Empirical(), Tabular(), enumerate=False), particles=2),
    ),
    "planner, continuous": (
        lambda: Rendezvous(horizon=7),
        lambda: Planner(
            opponent_prior=Amortised(network(), window=12, batch_size=4),
            reward=NetworkCritic((4,)),
            guide=TrajectoryGuide(network(), network()),
        ),
    ),
    "q": (repeated, lambda: IndependentQ(exploration=Boltzmann())),
    "q, against a script": (repeated, lambda: [IndependentQ(exploration=EpsilonGreedy()), Stationary()]),
    "fmq": (repeated, lambda: FMQ(exploration=Boltzmann())),
    "recursive fmq": (repeated, lambda: RecursiveFMQ(epsilon=0.5)),
    "phc": (repeated, PHC),
    "phc of mapr2": (repeated, lambda: PHC(step="played_action", initial_policy="random")),
    "wolf-phc": (repeated, lambda: WoLFPHC(policy_rate_losing=0.3, initial=(0.0, 1.0))),
    "hysteretic q": (repeated, lambda: HystereticQ(exploration=Boltzmann(), initial=20.0)),
    "lenient q": (repeated, lambda: LenientQ(max_temperature=1.0, min_temperature=0.9, initial=20.0)),
    "distributed q": (repeated, lambda: DistributedQ(exploration=EpsilonGreedy())),
    "jal": (repeated, lambda: JointActionLearner(exploration=Boltzmann())),
    "pr2-q": (repeated, lambda: PR2Q(exploration=Boltzmann(), opponent_model="soft")),
    "fictitious play": (repeated, lambda: FictitiousPlay(exploration=Boltzmann())),
    "ddpg": (lambda: Rendezvous(horizon=7), lambda: deterministic(Ddpg)),
    "ddpg_om": (
        lambda: Rendezvous(horizon=7),
        lambda: deterministic(DdpgOm, predicted=PredictedActions(hidden=(4,), window=8, batch_size=4)),
    ),
    "maddpg": (lambda: Rendezvous(horizon=7), lambda: deterministic(Maddpg)),
    "maddpg_ensemble": (lambda: Rendezvous(horizon=1), lambda: deterministic(Maddpg, sub_policies=2, warmup=0)),
    "maddpg_inferred": (
        lambda: MatrixGame("stag_hunt", horizon=4, memory=1),
        lambda: deterministic(Maddpg, inferred=InferredPolicies(window=8, batch_size=4), estimator=ScoreFunction()),
    ),
    "masql": (lambda: Rendezvous(horizon=7), lambda: sampling(Masql)),
    "pr2-ac": (lambda: Rendezvous(horizon=7), lambda: sampling(Pr2Ac, hidden=(4,))),
    "pr2-ac, soft": (lambda: Rendezvous(horizon=7), lambda: sampling(Pr2Ac, hidden=(4,), value="soft")),
    "pearl": (
        lambda: Rendezvous(horizon=2),
        lambda: Pearl(
            context=GaussianFactors(latent=3, hidden=(3,), context_steps=3),
            hidden=(5,),
            temperature=0.3,
            kl_weight=0.3,
            tasks_per_update=2,
            batch=3,
        ),
    ),
    "naive gradient": (repeated, NaiveGradient),
    "best response": (repeated, BestResponse),
    "lola": (repeated, Lola),
    "lola of order 2": (repeated, lambda: Lola(order=2, look_ahead=True)),
    "lola of an estimate": (repeated, lambda: [Lola(), IndependentQ(exploration=Boltzmann())]),
    "lola-dice": (repeated, lambda: LolaDice(rollouts=3, length=4)),
    "lola of an unknown rule": (repeated, LolaUnknownRule),
    "unsteady gradient": (repeated, lambda: UnsteadyGradient(until=2)),
    "alignment": (repeated, lambda: TabularAlignment(past_trace_decay=0.5)),
    "recurrent alignment": (repeated, lambda: RecurrentAlignment(hidden=4, past_trace_decay=0.5)),
    "look-ahead": (repeated, LookAhead),
    "sos": (repeated, lambda: StableOpponentShaping(gradients="autograd")),
}

WITHOUT_EFFECT = {(arm, "guide_learning_rate") for arm in ("rommeo", "rommeo by range", "rommeo by visits", "planner")}
"""Nothing is fitted there."""

IN_VARIANTS = {"temperature", "kl_weight"}
"""What variants of an arm, named after a comma, use in another way; of the rest they add what no arm before has."""


def declared(cls: type[Described]) -> list[str]:
    """The constructor arguments that may differ by replicate."""
    return sorted(cls.by_replicate & set(inspect.signature(cls).parameters))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[type[Described], tuple[Any, ...]]]:
    """Every argument in a description that may differ by replicate: whose it is, and the path to it in plain data."""
    if isinstance(value, Described):
        for name in declared(type(value)):
            if not isinstance(arguments(value)[name], OfRange):  # whose number may differ
                yield type(value), (*path, "init_args", name)
        for name, item in arguments(value).items():
            yield from places(item, (*path, "init_args", name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from places(item, (*path, i))


def cases() -> Iterator[tuple[str, tuple[Any, ...], type[Described]]]:
    """What is put to the test: an arm, the path to a number in it, and whose it is."""
    before = set()
    for name, (_, make) in ARMS.items():
        for cls, path in places(make()):
            if "," not in name or path[-1] in IN_VARIANTS or (cls, path[-1]) not in before:
                yield name, path, cls
            if (name, path[-1]) not in WITHOUT_EFFECT:
                before.add((cls, path[-1]))


CASES = [(name, path) for name, path, _ in cases()]


def with_values(arm: Arm, values: Mapping[tuple[Any, ...], Any]) -> Arm:
    """The arm with other arguments at some paths, through the builder of files."""
    config = copy.deepcopy(plain(arm))
    for path, value in values.items():
        node = config
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = plain(value)
    return actors_of(config, "arms.it")


def played(game: Game, arm: Arm, replicates: int = REPLICATES, dtype: str = "float64") -> dict[str, Tensor]:
    """Actions and rewards of some steps, then beliefs and the learners' tensors, all leading with replicates."""
    experiment = Experiment(game, {"it": arm}, replicates, STEPS, ENVIRONMENTS, seed=3, dtype=dtype)  # type: ignore[arg-type]
    seed_streams(experiment.seed, torch.device("cpu"))
    actors = experiment.bind("it")
    shape = (replicates, ENVIRONMENTS)
    tasks = Tasks([0, 1], episodes=2)
    collector = Collector(GameSimulator(game, *shape, dtype=experiment.dtype), actors, tasks=tasks)
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        newest = collector.collect(3 if any(isinstance(actor, AdvantageAlignment) for actor in actors) else 1)
        found |= {f"{step}.action_{agent}": action for agent, action in enumerate(newest.flat.actions)}
        found[f"{step}.rewards"] = newest.flat.rewards
        update(actors, newest)
    for agent, (actor, obs) in enumerate(zip(actors, collector.observe().obs, strict=True)):
        believed = actor.beliefs(obs, collector.memories[agent], 3)
        found |= {f"{agent}.beliefs.{name}": value for name, value in believed.items()}
        greedy = actor.act(obs, collector.memories[agent], explore=False)
        found[f"{agent}.greedy"] = greedy.action
        tensors = {name: value for name, value in actor.state_dict().items() if isinstance(value, Tensor)}
        found |= {f"{agent}.{name}": value.clone() for name, value in tensors.items() if "prior_mean" not in name}
    # Networks of several agents lead with (replicates agents).
    return {name: value.unflatten(0, (replicates, -1)) for name, value in found.items()}


def together(game: Game, arm: Arm, groups: int = 2) -> dict[str, Tensor]:
    """As `played`, of groups that have as many replicates each, and the random numbers of one that is played alone."""
    with CommonNumbers(groups, groups * REPLICATES):
        return played(game, arm, groups * REPLICATES)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], group: int) -> None:
    """But for the last bits: vectorised operations round otherwise at the end of a tensor."""
    assert found.keys() == expected.keys()
    for name, value in found.items():
        part, close = value[group * REPLICATES : (group + 1) * REPLICATES], {"rtol": 1e-6, "atol": 1e-9}
        torch.testing.assert_close(part, expected[name], **close, equal_nan=True, msg=partial("{}: {}".format, name))


@pytest.mark.slow  # each by itself; all at once below
@pytest.mark.parametrize(("name", "path"), CASES, ids=lambda part: part if isinstance(part, str) else str(part[-1]))
def test_each_group_does_what_a_learner_with_its_number_does(name: str, path: tuple[Any, ...]) -> None:
    make_game, make_arm = ARMS[name]
    game, arm, number = make_game(), make_arm(), path[-1]
    with pyro.validation_enabled(False):
        first, second = (played(game, with_values(arm, {path: value})) for value in VALUES[number])
        both = together(game, with_values(arm, {path: ByReplicate(list(VALUES[number]))}))
    assert_same(both, first, 0)
    assert_same(both, second, 1)
    same = all(torch.equal(first[key], second[key]) for key in first)
    assert same == ((name, number) in WITHOUT_EFFECT), "groups that were exchanged, or alike, would have been noticed"


def test_every_number_is_put_to_the_test() -> None:
    listed = {name for names in available().values() for name in names}
    classes = [Described]
    for cls in classes:
        classes += cls.__subclasses__()
    may = {cls for cls in classes if cls.__module__.startswith("inference_marl.") and cls.__name__ in listed}
    effective = {(cls, path[-1]) for name, path, cls in cases() if (name, path[-1]) not in WITHOUT_EFFECT}
    assert effective >= {(cls, number) for cls in may for number in declared(cls)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if "," in name else []) for name in ARMS])
def test_several_numbers_differ_at_once(name: str) -> None:
    make_game, make_arm = ARMS[name]
    game, paths = make_game(), [path for case, path in CASES if case == name]

    def everywhere(play: Callable[[Game, Arm], dict[str, Tensor]], value_of: Callable[[str], Any]) -> dict[str, Tensor]:
        with pyro.validation_enabled(False):
            return play(game, with_values(make_arm(), {path: value_of(path[-1]) for path in paths}))

    both = everywhere(together, lambda number: ByReplicate(list(VALUES[number])))
    for i in range(2):
        assert_same(both, everywhere(played, lambda number, i=i: VALUES[number][i]), i)  # type: ignore[misc]


def test_numbers_need_not_come_in_equally_many_groups() -> None:
    game, weights = repeated(), [0.5, 1.0, 2.0, 4.0]
    both = together(game, rommeo(temperature=ByReplicate([0.3, 3.0]), kl_weight=ByReplicate(list(weights))), 4)
    for group, kl_weight in enumerate(weights):
        alone = played(game, rommeo(temperature=[0.3, 3.0][group // 2], kl_weight=kl_weight))
        assert_same(both, alone, group)
