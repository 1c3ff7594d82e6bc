"""Every number that a class takes is held to a range: the classes are found, and so are their arguments."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from inference_marl import guides, models
from inference_marl.config.catalogue import available
from inference_marl.described import Described, In, Positive, arguments, hyperparameters, watch
from inference_marl.described.ranges import RANGES
from inference_marl.experiment import Experiment
from inference_marl.games import DirichletTypes, MatrixGame, Rendezvous, UniformTypes
from inference_marl.inference.noise import NormalNoise
from inference_marl.inference.schedules import ByReplicate, Constant, Linear, Schedule, current
from inference_marl.learners import Maddpg, Rommeo, Stationary
from inference_marl.learners.tabular import PHC, Boltzmann, EpsilonGreedy, IndependentQ
from inference_marl.learners.tabular.pr2_q import PR2Q
from inference_marl.models import TabularCritic
from inference_marl.play import Evaluation, Tasks, TrialEvaluation
from inference_marl.types import Learner, Seat
from tests.config.small_files import refused, with_overrides

NEEDED: dict[str, dict[str, Any]] = {
    "OfRange": {"fraction": 0.1},
    "Scaled": {"game": MatrixGame("climbing")},
    "BayesianMatrixGame": {"payoff": "rock_paper_scissors", "populations": {"all": DirichletTypes(1.0, 3)}},
    "DirichletTypes": {"concentration": 1.0, "count": 3},
    "Guard": {"populations": {"all": UniformTypes(-1.0, 1.0, 3)}},
    "KuhnPoker": {"populations": {"all": UniformTypes(0.0, 1.0, 3)}},
    "ListedTypes": {"points": [[0.5, 0.5]]},
    "ShellTypes": {"inner": 0.5, "outer": 1.0, "count": 3},
    "TrialEvaluation": {"every": 10},
    "UniformTypes": {"low": -1.0, "high": 1.0, "count": 3},
    "Amortised": {"conditional": guides.Tabular()},
    "BernoulliOptimality": {"upper": 1.0},
    "ByReplicate": {"values": [0.1, 0.2]},
    "Constant": {"value": 0.1},
    "Evaluation": {"every": 10},
    "Experiment": {"game": MatrixGame(), "arms": {"a": Stationary()}},
    "ExponentialDecay": {"start": 1.0, "rate": 0.1},
    "Fixed": {"probabilities": [1, 1]},
    "Linear": {"start": 1.0, "end": 0.1, "steps": 3},
    "OpponentTypes": {"types": [models.Uniform()]},
    "PiecewiseConstant": {"values": {0: 0.5}},
    "PettingZoo": {"env": "tests.simulators.small.Walk"},
    "Planner": {"opponent_prior": models.Uniform(), "guide": guides.ExactTrajectory(), "reward": models.KnownReward()},
    "Rommeo": {
        "opponent_prior": models.Uniform(),
        "guide": guides.OpponentFirst(guides.Optimal(), guides.Optimal()),
        "critic": TabularCritic(),
    },
    "LearningRuleFilter": {"rules": 2},
    "Scripted": {"probabilities": [[1, 0]]},
    "StochasticGame": {
        "initial": [0.5, 0.5],
        "transition": [[[[0.5, 0.25]] * 2] * 3, [[[0, 1]] * 2] * 3],
        "reward": [[[1, 2]] * 3] * 2,
    },
    "Tasks": {"ids": [0, 1]},
    "Vmas": {"scenario": "navigation"},
}
"""What classes need to be made, beside an exploration."""

ANY_NUMBER = {
    *("BayesianCritic.initial", "BernoulliOptimality.upper", "Constant.value"),
    *("Evaluation.success_reward", "PettingZoo.success_reward", "Vmas.success_reward"),
    *("Experiment.published", "ExponentialDecay.floor", "ExponentialDecay.start", "InverseTime.start"),
    *("Linear.end", "Linear.start", "MatrixGame.k", "MatrixGame.memory", "MatrixGame.success_reward"),
    *("MaxOfTwoQuadratics.global_centre", "MaxOfTwoQuadratics.local_centre", "MaxOfTwoQuadratics.success_reward"),
    *("MeetingGrid.goals", "MeetingGrid.starts", "MeetingGrid.walls", "NetworkCritic.initial", "Stationary.action"),
    *("ListedTypes.points", "UniformTypes.low", "UniformTypes.high", "TrialEvaluation.success_reward"),
    *("Pearl.target_entropy", "RiskyBridge.loss", "RiskyBridge.prize", "RiskyBridge.safe", "Scaled.offset"),
    "TabularCritic.initial",
    *(f"{learner}.initial" for learner in available()["learners"]),
    *(f"{game}.{end}" for game in available()["games"] for end in ("low", "high")),
    *(f"{part}.log_std" for part in ("GaussianEnsemble", "TanhNormalMixture", "TanhNormalNetwork")),
}
"""Arguments that may be any number, as far as their annotation goes: all others state a range."""

TRIED: Sequence[Any] = (math.nan, math.inf, -math.inf, -1, -1.0, 0, 0.0, 1e15, 10**15, 2**70, "three", "1", True, 2.5)


def every_class() -> Iterator[type[Described]]:
    """Every class that files can name but `Frozen`, which needs a run, and those that stand in files without a name."""
    names = {name for kind in available().values() for name in kind} - {"Frozen"}
    names -= set() if importlib.util.find_spec("vmas") else {"Vmas"}
    todo: list[type[Described]] = [Described]
    named: set[type[Described]] = set()
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if cls.__name__ in names and cls.__module__.startswith("inference_marl."):
            named.add(cls)
    assert {cls.__name__ for cls in named} == names
    yield from sorted({*named, Experiment, Evaluation, Tasks, TrialEvaluation}, key=lambda cls: cls.__name__)


def places(hint: Any, stated: In | None = None) -> Iterator[tuple[Callable[[Any], Any], In | None, type]]:
    """Where an annotation has numbers: how one is put there, the range that is stated for it, and its type."""
    if get_origin(hint) is Annotated:
        kind, *more = get_args(hint)
        yield from places(kind, next((each for each in reversed(more) if isinstance(each, In)), stated))
    elif hint in (int, float):
        yield (lambda number: number), stated, hint
    elif get_origin(hint) is tuple:
        kinds = get_args(hint)
        for at, kind in enumerate(kinds):
            for put, allowed, number in places(kind):
                items = [*([0] * at), put, *([0] * (len(kinds) - at - 1))]
                yield (lambda it, items=items: tuple(one(it) if one else 0 for one in items)), allowed, number
    elif isinstance(origin := get_origin(hint), type) and issubclass(origin, Mapping):
        key, value = get_args(hint)
        numbered = any(True for _ in places(key)) and any(True for _ in places(value))
        for _, allowed, number in places(key):
            yield (lambda it: {it: 0.5 if numbered else Stationary()}), allowed, number
        for put, allowed, number in places(value):
            yield (lambda it, put=put: {0 if numbered else "a": put(it)}), allowed, number
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        for put, allowed, number in places(get_args(hint)[0]):
            yield (lambda it, put=put: [put(it)]), allowed, number
    else:
        for kind in get_args(hint):
            yield from places(kind, stated)


def found() -> Iterator[tuple[type[Described], str, Any]]:
    """Classes, their arguments with numbers, and what these are annotated as."""
    for cls in every_class():
        hints = get_type_hints(cls.__init__, include_extras=True)
        for name in inspect.signature(cls).parameters:
            if any(places(hints.get(name))):
                yield cls, name, hints[name]


FOUND = [pytest.param(cls, name, hint, id=f"{cls.__name__}.{name}") for cls, name, hint in found()]


def test_there_are_many_numbers() -> None:
    assert len(FOUND) > 200
    assert sum(sum(1 for _ in places(each.values[2])) for each in FOUND) > 220


def make(cls: type[Described], **given: Any) -> Described:
    needed = dict(NEEDED.get(cls.__name__, {}))
    parameters = inspect.signature(cls).parameters
    if "exploration" in parameters and parameters["exploration"].default is inspect.Parameter.empty:
        needed["exploration"] = Boltzmann()
    return cls(**needed | given)


def is_in(allowed: In | None, kind: type, number: Any) -> bool:
    """Whether a range that an annotation states allows a number; without one, any finite number of that type."""
    if isinstance(number, str | bool) or number != number or (kind is int and not isinstance(number, int)):
        return False
    if allowed is None:
        return math.isfinite(number)
    return bool(RANGES[allowed.what].fits(number))


class Own(Schedule):
    """A user's, which says nothing about its values: `first` at step 0, and then `later`."""

    def __init__(self, first: Any, later: Any) -> None:
        self.first, self.later = first, later

    def __call__(self, step: int) -> float:
        value: float = self.later if step else self.first
        return value


def refused_by(call: Callable[[], object]) -> str:
    """What the `ValueError` says that a call raises; nothing if it does not."""
    try:
        call()
    except ValueError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize(("cls", "name", "hint"), FOUND)
def test_every_number_is_held_to_its_range(cls: type[Described], name: str, hint: Any) -> None:
    make(cls)
    for put, stated, kind in places(hint):
        allowed = stated or inherited(cls, name)
        assert (allowed is None) == (f"{cls.__name__}.{name}" in ANY_NUMBER), "expected a range in the annotation"
        for number in TRIED:
            expected = is_in(allowed, kind, number)
            for value in [put(number), *([Own(number, number)] if Schedule in get_args(hint) else [])]:
                refusal = refused_by(lambda value=value: make(cls, **{name: value}))
                # What is in range may still not go with another argument.
                known = "|".join(inspect.signature(cls).parameters) if expected else name
                assert refusal or expected, f"{name}: {value!r} of {number!r} was accepted"
                assert not refusal or re.match(rf"({known})(\W.*)?: got ", refusal), refusal
    for value in (math.nan, "three", object()):  # where a container is expected, too
        with pytest.raises(ValueError, match=rf"^{name}: got "):
            make(cls, **{name: value})


def inherited(cls: type[Described], name: str) -> In | None:
    """The range that a base states for the argument of that name."""
    for base in cls.__mro__[1:]:
        hint = get_type_hints(base.__init__, include_extras=True).get(name)
        for _, allowed, _ in places(hint):
            if allowed:
                return allowed
    return None


def test_a_class_gets_the_check_by_its_annotations() -> None:
    class Plain(Described):
        def __init__(self, size: float = 1.0, sizes: Sequence[float] = (), number: int = 0) -> None:
            self.size = size

    class Endless(Described):
        def __init__(self, least: Annotated[float, In("a finite number, or minus infinity")] = -math.inf) -> None:
            self.least = least

    class Bounded(Described):
        def __init__(self, size: Positive = 1.0, also: Positive | Schedule | None = None) -> None:
            self.size = size

    class Narrowed(Bounded):
        def __init__(self, size: float = 1.0, **more: Any) -> None:  # keeps the range of its base
            super().__init__(size, **more)

    class Widened(Bounded):
        def __init__(self, size: Annotated[float, In("a finite number")] = 1.0) -> None:
            super().__init__()

    for size in (math.nan, math.inf, -math.inf, "1", True, None, 1e31):
        with pytest.raises(ValueError, match=rf"^size: got {size!r}, expected a finite number".replace("+", r"\+")):
            Plain(size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^sizes\[1\]: got nan, expected a finite number$"):
        Plain(sizes=[0, math.nan])
    with pytest.raises(ValueError, match=r"^sizes: got 3, expected a list$"):
        Plain(sizes=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^number: got 1.0, expected an integer$"):
        Plain(number=1.0)  # type: ignore[arg-type]
    assert Plain(np.float32(0.5), np.ones(2), np.int64(3)).size == 0.5  # type: ignore[arg-type]
    assert Endless().least == Endless(-math.inf).least == -math.inf
    with pytest.raises(ValueError, match=r"^least: got inf, expected a finite number, or minus infinity$"):
        Endless(math.inf)
    for wrong in (Bounded, Narrowed):
        with pytest.raises(ValueError, match=r"^size: got 0, expected a positive number$"):
            wrong(0)
    with pytest.raises(ValueError, match=r"^also: got -1, expected a positive number, or null$"):
        Narrowed(also=-1)
    with pytest.raises(ValueError, match=r"^also: got -1, expected a positive number at every update$"):
        Narrowed(also=Linear(1, -1, 3))
    Widened(-1)
    with pytest.raises(ValueError, match=r"^In: got 'a postive number', expected one of a finite number, "):
        In("a postive number")


def test_a_field_gets_the_check_by_its_annotation() -> None:
    @hyperparameters
    class Mine(IndependentQ):
        patience: Positive = 1.0
        shares: Sequence[Annotated[float, In("a number in (0, 1)")]] = ()

    with pytest.raises(ValueError, match=r"^patience: got nan, expected a positive number$"):
        Mine(exploration=Boltzmann(), patience=math.nan)
    with pytest.raises(ValueError, match=r"^shares\[0\]: got 1, expected a number in \(0, 1\)$"):
        Mine(exploration=Boltzmann(), shares=[1])


def test_python_is_held_to_what_files_are() -> None:
    def experiment(**settings: Any) -> Experiment:
        return Experiment(MatrixGame(), {"a": Stationary()}, **settings)

    for settings, message in (
        ({"seed": 1.5}, "seed: got 1.5, expected an integer that is not negative and below 2**64"),
        ({"seed": 2**64}, "seed: got 18446744073709551616, expected an integer"),
        ({"steps": 5.5}, "steps: got 5.5, expected a positive integer"),
        ({"steps": True}, "steps: got True, expected a positive integer"),
        ({"dtype": "float16"}, "dtype: got 'float16', expected float32 or float64"),
        ({"dtype": torch.float16}, "dtype: got torch.float16, expected float32 or float64"),
        ({"device": torch.device("meta")}, "device: got device(type='meta'), expected auto or cpu or cuda"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            experiment(**settings)
    made = experiment(dtype=torch.float64, device=torch.device("cpu"), seed=np.int64(3), steps=np.int32(10))
    assert (made.dtype, made.device) == (torch.float64, "cpu")
    assert (type(made.seed), type(made.steps)) == (int, int)
    said = made.describe()["init_args"]
    assert [said[name] for name in ("dtype", "device", "seed", "steps")] == ["float64", "cpu", 3, 10]
    assert all(type(said[name]) is not np.int64 for name in said)
    assert Rommeo(**NEEDED["Rommeo"], batch_size=np.int64(3)).batch_size == 3  # type: ignore[arg-type]
    assert experiment(seed=2**64 - 1).seed == 2**64 - 1
    assert made.replace(steps=20).dtype == torch.float64


@pytest.mark.parametrize(
    ("key", "number", "message"),
    [
        ("arms.a.temperature", math.nan, "arms.a.temperature: got nan, expected a positive number"),
        ("arms.a.critic.rate", math.inf, "arms.a.critic.rate: got inf, expected a number in (0, 1]"),
        ("arms.a.critic.initial", [0, math.nan], "arms.a.critic.initial[1]: got nan, expected a finite number"),
        (
            "arms.a.batch_size",
            10**15,
            "arms.a.batch_size: got 1000000000000000, expected a positive integer, of at most",
        ),
        ("arms.a.discount", -1, "arms.a.discount: got -1.0, expected a number in [0, 1)"),
        (
            "arms.a.max_gradient_norm",
            math.inf,
            "arms.a.max_gradient_norm: got inf, expected a positive number, or null",
        ),
        (
            "arms.a.critic.rate",
            {"class_path": "Constant", "init_args": {"value": math.nan}},
            "arms.a.critic.rate.value: ",
        ),
        ("seed", -1, "seed: got -1, expected an integer that is not negative"),
        ("steps", 0, "steps: got 0, expected a positive integer"),
        ("published", {"a": {"reward": math.nan}}, "published.a.reward: got nan, expected a finite number"),
        (
            "evaluation",
            {"class_path": "Evaluation", "init_args": {"every": 0}},
            "evaluation.every: got 0, expected a positive integer",
        ),
        (
            "tasks",
            {"class_path": "Tasks", "init_args": {"ids": [0, -1]}},
            "tasks.ids[1]: got -1, expected an integer that is not negative",
        ),
    ],
)
def test_files_are_told_the_key(key: str, number: Any, message: str) -> None:
    said = refused(with_overrides((key, number)))
    assert said.startswith(message), said


BAD = {
    "a positive number": (0.0, math.nan),
    "a number that is not negative": (-0.5, math.inf),
    "a number in [0, 1]": (1.5, math.nan),
    "a number in (0, 1]": (0.0, math.nan),
}
SCHEDULED = [each for each in FOUND if Schedule in get_args(each.values[2]) and each.values[0] is not ByReplicate]


def test_many_arguments_take_schedules() -> None:
    assert len(SCHEDULED) > 20


@pytest.mark.parametrize(("cls", "name", "hint"), SCHEDULED)
def test_what_an_own_schedule_comes_to_is_held_to_the_range(cls: type[Described], name: str, hint: Any) -> None:
    fine = {"opponent_model": "soft"} if cls is PR2Q else {}
    ((_, stated, _),) = places(hint)
    allowed = stated or inherited(cls, name)
    assert allowed is not None
    for later in BAD[allowed.what]:
        described = make(cls, **fine, **{name: Own(0.004, later)})
        bound = copy.deepcopy(described)
        watch(bound)
        schedule = arguments(bound)[name]
        assert current(schedule, 0) == 0.004
        message = rf"^{name}: got {later} at step 7, expected {re.escape(allowed.what)}"
        for read in (lambda s=schedule: current(s, 7), lambda s=schedule: s.at(torch.tensor([0, 7]), torch.float32)):
            with pytest.raises(ValueError, match=message):
                read()
        both = copy.deepcopy(described)
        if name in cls.by_replicate:
            both = copy.deepcopy(make(cls, **fine, **{name: ByReplicate([0.004, Own(0.004, later)])}))
            watch(both)
            with pytest.raises(ValueError, match=message):
                current(arguments(both)[name], 7)
        assert arguments(described)[name](7) is later, "what is not bound is as it was"


def seat_of(game: Any, replicates: int = 2) -> Seat:
    return Seat(0, game.observations, game.action_spaces, replicates, game=game)


def bound(learner: Learner, updates: int = 7) -> Any:
    made = learner.bind(seat_of(MatrixGame()))
    made.updates = updates
    return made


OBS = torch.zeros(2, 1, dtype=torch.int64)
READ: Mapping[str, Callable[[], object]] = {
    "rate: got 1.5 at step 7, expected a number in (0, 1]": lambda: bound(
        IndependentQ(exploration=Boltzmann(), rate=Own(0.5, 1.5))
    ).rates(OBS, OBS),
    "exploration.temperature: got -1.0 at step 7, expected a positive number": lambda: bound(
        IndependentQ(exploration=Boltzmann(Own(0.5, -1.0)))
    )(OBS),
    "exploration.epsilon: got nan at step 7, expected a number in [0, 1]": lambda: bound(
        IndependentQ(exploration=EpsilonGreedy(Own(0.5, math.nan)))
    )(OBS),
    "epsilon: got 2.0 at step 7, expected a number in [0, 1]": lambda: bound(PHC(epsilon=Own(0.5, 2.0)))(OBS),
    "opponent_temperature: got 0.0 at step 7, expected a positive number": lambda: bound(
        PR2Q(exploration=Boltzmann(), opponent_model="soft", opponent_temperature=Own(0.5, 0.0))
    ).soft_answers(torch.zeros(2, 1, 2), 7),
    "temperature: got nan at step 7, expected a positive number": lambda: bound(
        Rommeo(**NEEDED["Rommeo"], temperature=Own(0.5, math.nan))
    ).weights(),
    "kl_weight: got -1.0 at step 7, expected a positive number": lambda: bound(
        Rommeo(**NEEDED["Rommeo"], kl_weight=ByReplicate([0.5, Own(0.5, -1.0)]))
    ).weights(),
    "critic.rate: got 3.0 at step 7, expected a number in (0, 1]": lambda: bound(
        Rommeo(**NEEDED["Rommeo"] | {"critic": TabularCritic(rate=Own(0.5, 3.0), rate_over="visits")})
    ).critic.rate.at(torch.tensor([[0], [7]]), torch.float32),
    "noise.scale: got -1.0 at step 7, expected a number that is not negative": lambda: noisy(Own(0.1, -1.0)),
}


def noisy(scale: Schedule) -> object:
    game = Rendezvous()
    seats = [Seat(i, game.observations, game.action_spaces, 2, game=game) for i in (0, 1)]
    member: Any = Maddpg(noise=NormalNoise(scale)).bind_all(seats)[0]
    return member.of.noise(torch.zeros(2, 1, 1), game.action_spaces[0], {}, 7)


@pytest.mark.parametrize("message", READ)
def test_learners_name_what_a_schedule_comes_to(message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        READ[message]()


def test_a_schedule_made_from_another_is_judged_by_what_it_says_itself() -> None:
    class Halved(Linear):
        def __call__(self, step: int) -> float:
            return super().__call__(step) / 2

    learner = bound(IndependentQ(exploration=Boltzmann(), rate=Halved(1.5, 3.0, 7)), 1)
    assert learner.rates(OBS, OBS) == pytest.approx(1.5 / 2 + 1.5 / 14)
    learner.updates = 7
    with pytest.raises(ValueError, match=r"^rate: got 1.5 at step 7, expected a number in \(0, 1\]"):
        learner.rates(OBS, OBS)


def test_known_ends_need_no_watching() -> None:
    learner = bound(IndependentQ(exploration=Boltzmann(), rate=Linear(1.0, 0.5, 3)))
    assert learner.rates(OBS, OBS) == 0.5
    assert "_watching" not in vars(learner.rate)
    assert Constant(1.0).ends() == ((1.0,), ())
