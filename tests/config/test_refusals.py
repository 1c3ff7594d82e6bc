"""What is refused and in which words, and what is never run."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inference_marl.config.build import SpecError
from inference_marl.config.files import load
from inference_marl.config.overrides import override
from inference_marl.learners import Rommeo
from tests.config.small_files import base, refused, with_overrides

REFUSED: list[tuple[Sequence[tuple[str, Any]], str, str, str]] = [
    # unknown keys, at each level
    ([("stepz", 1)], "stepz", "an unknown key", "one of game, arms, .*did you mean steps"),
    ([("game.payof", "x")], "game.payof", "an unknown key", "one of payoff, .*did you mean payoff"),
    ([("arms.a.temprature", 1)], "arms.a.temprature", "an unknown key", "one of .*did you mean temperature"),
    ([("arms.a.critic.rat", 1)], "arms.a.critic.rat", "an unknown key", "one of initial, rate, .*did you mean rate"),
    ([("arms.a.critic.rate.scal", 3)], "arms.a.critic.rate.scal", "an unknown key", "one of start, scale"),
    ([("arms.a.guide.policy.hidden", [3])], "arms.a.guide.policy.hidden", "an unknown key", "none"),
    ([("arms.a.foo.bar", 1)], "arms.a.foo", "an unknown key", "one of opponent_prior"),
    ([("arms.a", {"class_path": "Rommeo", "inits": {}})], "arms.a.inits", "an unknown key", "class_path or init_args"),
    ([("arms.a", ["Stationary", {"like": "a"}])], "arms.a[1].like", "an unknown key", "class_path or init_args"),
    # fields that a base has and the learner has not
    ([("arms.a", {"class_path": "FictitiousPlay", "init_args": {"rate": 0.1}})], "arms.a.rate", "an unknown key",
     "one of exploration, opponent_prior"),
    # missing keys
    ([("arms.a", "Planner")], "arms.a.opponent_prior", "nothing", r"one of Amortised.*\(guide, reward missing too\)"),
    ([("arms.a.temperature", "ExponentialDecay")], "arms.a.temperature.start", "nothing", r"float \(rate missing"),
    ([("arms.a.opponent_prior", "Fixed")], "arms.a.opponent_prior.probabilities", "nothing", r"list\[float\]"),
    ([("arms.a", {"init_args": {}})], "arms.a.class_path", "nothing", ".*Rommeo, .*Stationary"),
    ([("arms.a", None)], "arms.a", "nothing", ".*Rommeo, .*Stationary"),
    ([("game", None)], "game", "nothing", "one of .*MatrixGame"),
    ([("replicates", None)], "replicates", "nothing", "int"),
    ([("arms.a.discount", None)], "arms.a.discount", "nothing", "float"),
    ([("arms.a.guide", None)], "arms.a.guide", "nothing", "one of OpponentFirst, PolicyFirst"),
    ([("game.payoff", None)], "game.payoff", "nothing", r"str or list"),
    ([("arms.a", "IndependentQ")], "arms.a.exploration", "nothing", "one of Boltzmann, EpsilonGreedy"),
    # wrong types
    ([("replicates", "x")], "replicates", "x", "int"),
    ([("replicates", 1.5)], "replicates", "1.5", "int"),
    ([("replicates", True)], "replicates", "True", "int"),
    ([("device", "gpu")], "device", "gpu", "one of 'auto', 'cpu', 'cuda'"),
    ([("dtype", "float16")], "dtype", "float16", "one of 'float32', 'float64'"),
    ([("game", 3)], "game", "3", "one of .*MatrixGame"),
    ([("game", [])], "game", r"\[\]", "one of .*MatrixGame"),
    ([("game.payoff", 3)], "game.payoff", "3", "str or list"),
    ([("game.horizon", "z")], "game.horizon", "z", "int or null"),
    ([("arms", ["a"])], "arms", r"\['a'\]", "a mapping from names to learners"),
    ([("arms", {})], "arms", r"\{\}", "a mapping from names to learners"),
    ([("arms.a", 3)], "arms.a", "3", ".*Rommeo, .*Stationary"),
    ([("arms.a.init_args", [1])], "arms.a.init_args", r"\[1\]", "a mapping from arguments to values"),
    ([("arms.a.class_path", ["Rommeo"])], "arms.a", r"\['Rommeo'\]", ".*Rommeo, .*Stationary"),
    ([("arms.a.discount", "x")], "arms.a.discount", "'x'", "float"),
    ([("arms.a.temperature", "x")], "arms.a.temperature", "'x'", "float or one of ByReplicate, .*ExponentialDecay"),
    ([("arms.a.temperature", [1])], "arms.a.temperature", r"\[1\]", "float"),
    ([("arms.a.critic.rate.scale", "q")], "arms.a.critic.rate.scale", "q", "float"),
    ([("arms.a.critic.initial", [1, 0, 2])], "arms.a.critic.initial", r"\[1, 0, 2\]", "float or list with 2 elements"),
    ([("arms.a.opponent_prior.window", "x")], "arms.a.opponent_prior.window", "x", "int or null"),
    ([("arms.a.opponent_prior.initial", "x")], "arms.a.opponent_prior.initial", "x", "one of 'dirichlet', 'uniform'"),
    (
        [("arms.a.guide.policy", {"class_path": "CategoricalNetwork", "init_args": {"hidden": ["x"]}})],
        "arms.a.guide.policy.hidden",
        "x",
        "int",
    ),
    ([("arms.l", ["Stationary", {"class_path": "Stationary", "init_args": {"probabilities": "x"}}])],
     "arms.l[1].probabilities", "x", "list"),
    ([("arms.a", {"class_path": "WoLFPHC", "init_args": {"rate": "x"}})], "arms.a.rate", "'x'", "float or one of"),
    ([("arms.a", {"class_path": "Lola", "init_args": {"order": 1.5}})], "arms.a.order", "1.5", "int"),
    ([("arms.a", {"class_path": "Lola", "init_args": {"gradients": "x"}})], "arms.a.gradients", "x",
     "one of 'closed', 'autograd'"),
    # unknown and wrong classes
    ([("game", "MatrixGam")], "game", "'MatrixGam'", "one of .*or an import path .did you mean MatrixGame"),
    ([("arms.a.guide.policy", "Optmal")], "arms.a.guide.policy", "'Optmal'", "one of .*did you mean Optimal"),
    ([("arms.a.guide.policy", "Rommeo")], "arms.a.guide.policy", "'Rommeo'", "one of Amortised"),
    ([("arms.a.guide", "Optimal")], "arms.a.guide", "'Optimal'", "one of OpponentFirst, PolicyFirst"),
    ([("arms.a.opponent_prior", "Tabular")], "arms.a.opponent_prior", "'Tabular'", ".*DirichletM"),
    ([("arms.a.opponent_prior", "no_such.Prior")], "arms.a.opponent_prior", "no_such.Prior, .*cannot", "one of Am"),
    ([("arms.a.critic", "inference_marl.models.Crtic")], "arms.a.critic", ".*Crtic, .*cannot be", "one of .*Netw"),
    ([("arms.a.critic", "torch.nn.Linear")], "arms.a.critic", "torch.nn.Linear, which is something", "one of .*Netw"),
    # numbers out of range
    ([("replicates", 0)], "replicates", "0", "a positive integer"),
    ([("seed", -1)], "seed", "-1", "an integer that is not negative"),
    ([("record_every", 10)], "record_every", "10", "at most steps = 3"),
    ([("arms.a.discount", 1.0)], "arms.a.discount", "1.0", r"a number in \[0, 1\)"),
    ([("arms.a.temperature", 0)], "arms.a.temperature", "0.0", "a .*positive"),
    ([("arms.a.critic.rate.scale", 0)], "arms.a.critic.rate.scale", "0.0", "a positive number"),
    ([("arms.a.opponent_prior.window", -3)], "arms.a.opponent_prior.window", "-3", "a positive integer"),
    ([("game.payoff", "climing")], "game.payoff", "'climing'", "nested lists of numbers, or one of climbing"),
    ([("game.horizon", 0)], "game.horizon", "0", "a positive integer"),
    # names that are file names and parts of keys
    ([("arms", {"a/b": "Stationary"})], "arms", "an arm called 'a/b'", "letters, digits, _ and - only"),
    ([("arms", {"..": "Stationary"})], "arms", r"an arm called '\.\.'", "letters, digits"),
    ([("arms", {1: "Stationary"})], "arms", "an arm called 1", "letters, digits"),
    # impossible combinations
    ([("game", "MaxOfTwoQuadratics")], "arms.a.opponent_prior", r"Box\(", "Discrete"),
    ([("game", "MaxOfTwoQuadratics"), ("arms.a.opponent_prior", "Uniform")], "arms.a.critic", "states Discrete.*Box",
     "Discrete spaces; use NetworkCritic"),
    (
        [("game", "MaxOfTwoQuadratics"), ("arms.a.opponent_prior", "Uniform"), ("arms.a.critic", "NetworkCritic")],
        "arms.a.guide.opponent_model",
        r"Box\(",
        "Discrete",
    ),
    ([("arms.a.guide.policy", "TanhNormalNetwork")], "arms.a.guide.policy", r"Discrete\(n=3\)", "Box"),
    ([("arms.a.guide.policy", "Tabular")], "arms.a.opponent_prior", "EmpiricalFrequency with actions of probability 0",
     "smoothing > 0"),
    ([("arms.a.guide.policy", "Empirical")], "arms.a.guide.policy", "the policy's place", "the opponent model's"),
    ([("arms.a", ["Stationary"])], "arms.a", "1 learners", "one per seat: 2"),
    ([("arms.a", ["Stationary"] * 3)], "arms.a", "3 learners", "one per seat: 2"),
    ([("arms.a", [])], "arms.a", "0 learners", "one per seat: 2"),
    (
        [("arms.a", ["Stationary", {"class_path": "Stationary", "init_args": {"probabilities": [1]}}])],
        "arms.a[1].probabilities",
        "1 numbers",
        ".*: 3",
    ),
    (
        [("arms.a.opponent_prior", {"class_path": "Amortised", "init_args": {"conditional": "Uniform"}})],
        "arms.a.opponent_prior.conditional",
        "Uniform, which has no parameters",
        "one that has",
    ),
    (
        [("arms.a.optimality", {"class_path": "BernoulliOptimality", "init_args": {"upper": -5.0}})],
        "arms.a.optimality.upper",
        "-5.0, but Q reaches",
        "an upper bound of Q",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "key", "got", "expected"), REFUSED, ids=[f"{i}-{case[1]}" for i, case in enumerate(REFUSED)]
)
def test_what_is_refused_is_named_with_what_was_got_and_expected(
    overrides: Sequence[tuple[str, Any]], key: str, got: str, expected: str
) -> None:
    message = refused(with_overrides(*overrides))
    assert re.match(rf"{re.escape(key)}: .*got {got}.*expected {expected}", message), message


@pytest.mark.parametrize("key", ["game", "arms"])
def test_a_file_needs_a_game_and_arms(key: str) -> None:
    config = base()
    del config[key]
    assert refused(config).startswith(f"{key}: got nothing, expected")


def test_a_key_that_is_not_text_is_unknown() -> None:
    assert refused(base() | {1: 2}).startswith("1: got an unknown key, expected one of game")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got NoneType, expected a mapping with the keys game and arms"),
        ("- 1\n", "got list, expected a mapping"),
        ("game: [1\n", "got malformed YAML, .*line 2"),
        ("steps: 3\ngame: MatrixGame\nsteps: 4\n", "got malformed YAML, found the key steps twice .*line 3"),
        ("arms:\n  a: Stationary\n  b: Stationary\n  a: Stationary\n", "got malformed YAML, found the key a twice"),
    ],
)
def test_files_that_are_no_experiments(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load(file)
    assert re.match(f"{re.escape(str(file))}: {message}", str(caught.value))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00game")
    for path, reason in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "directory"), (binary, "not UTF-8 text")]:
        with pytest.raises(
            SpecError, match=rf"^{re.escape(str(path))}: got no readable file \(.*{reason}.*\), expected"
        ):
            load(path)


def test_merge_keys_may_repeat_what_they_merge(tmp_path: Path) -> None:
    arm = "&a {class_path: Stationary}"
    file = tmp_path / "merged.yaml"
    file.write_text(f"game: MatrixGame\nsteps: 1\narms:\n  a: {arm}\n  b:\n    <<: *a\n    class_path: Stationary\n")
    assert list(load(file).arms) == ["a", "b"]


class _Marked(Rommeo):
    """Of no declared type where it is asked for; says so if it is ever made."""

    made = False

    def __init__(self) -> None:
        type(self).made = True


DANGEROUS = [
    ("os.system", {"command": "touch {mark}"}),
    ("subprocess.Popen", {"args": ["touch", "{mark}"]}),
    ("builtins.eval", {"source": "open('{mark}', 'w')"}),
    ("pathlib.Path.touch", {"self": "{mark}"}),
    ("io.FileIO", {"file": "{mark}", "mode": "w"}),
    ("tests.test_refusals._Marked", {}),
]


PLACES = [
    "game",
    "arms.a",
    "arms.a.opponent_prior",
    "arms.a.guide.policy",
    "arms.a.critic.rate",
    "arms.a.temperature",
    "arms.seats.1",
    "game.payoff",
    "game.payoff.0",
    "game.payoff.0.0",
    "arms.a.critic.initial",
    "arms.a.critic.initial.0",
    "arms.seats.0.probabilities",
    "arms.seats.0.probabilities.0",
    "steps",
]


# A process, and a class of the package's own kind in the wrong place, everywhere; the others at four places.
MALICE = [
    pytest.param(place, path, arguments, id=f"{place}-{path}")
    for path, arguments in DANGEROUS
    for place in (PLACES if path in ("subprocess.Popen", "tests.test_refusals._Marked") else PLACES[:4:3] + PLACES[7:9])
]


@pytest.mark.parametrize(("place", "path", "arguments"), MALICE)
def test_what_is_not_of_the_declared_type_is_refused_and_never_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, path: str, arguments: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "tests.test_refusals", sys.modules[__name__])
    mark = tmp_path / "mark"

    def filled(value: Any) -> Any:
        return [filled(item) for item in value] if isinstance(value, list) else value.replace("{mark}", str(mark))

    config = with_overrides(
        ("game.payoff", [[1, 2], [3, 4]]),
        ("arms.seats", [{"class_path": "Stationary", "init_args": {"probabilities": [1, 1]}}, "Stationary"]),
    )
    malice = {"class_path": path, "init_args": {name: filled(value) for name, value in arguments.items()}}
    override(config, place, malice)
    if path == "tests.test_refusals._Marked" and place in ("arms.a", "arms.seats.1"):
        return  # there it is of the declared type
    message = refused(config)
    assert message.startswith(re.sub(r"\.(\d)", r"[\1]", place).partition("[")[0]), message
    assert not mark.exists()
    assert not _Marked.made


@pytest.mark.parametrize(
    ("place", "path", "reason"),
    [
        ("game", "inference_marl.types.Game", "does not define reset, step"),
        ("arms.a", "inference_marl.types.Actor", r"does not define policy \(or act\)"),
        ("arms.a", "inference_marl.types.Learner", r"does not define policy \(or act\), learn"),
        ("arms.a", "inference_marl.types.Team", "does not define learn_all"),
        ("arms.a", "inference_marl.play.Functional", "is only a base of others"),
        ("arms.a", "inference_marl.learners.variational.VariationalLearner", "does not define .*learn"),
        ("arms.a.opponent_prior", "inference_marl.models.OpponentPrior", "does not define forward"),
        ("arms.a.opponent_prior", "inference_marl.models.TabularCounts", "does not define .*"),
        ("arms.a.guide", "inference_marl.guides.Guide", "does not define order"),
        ("arms.a.guide.policy", "inference_marl.inference.conditional.Conditional", "does not define forward"),
        ("arms.a.guide.policy", "inference_marl.guides.ClosedForm", "does not define .*"),
        ("arms.a.critic", "inference_marl.models.Critic", "does not define forward"),
        ("arms.a.optimality", "inference_marl.models.Optimality", "does not define forward"),
        ("arms.a.temperature", "inference_marl.inference.schedules.Schedule", "does not define __call__"),
    ],
)
def test_bases_cannot_be_made(place: str, path: str, reason: str) -> None:
    message = refused(with_overrides((place, path)))
    assert re.match(rf"{place}: got {re.escape(path)}, which {reason}, expected ", message), message


@pytest.mark.parametrize(
    "text",
    [
        "game: !!python/object/apply:os.system ['touch {mark}']\narms: {a: Stationary}\n",
        "game: MatrixGame\narms: !!python/object/apply:subprocess.Popen [[touch, '{mark}']]\n",
        "game: !!python/name:os.system\narms: {a: Stationary}\n",
        "game: !!python/module:os\narms: {a: Stationary}\n",
        "game: MatrixGame\narms: {a: !!python/object/new:os.system ['touch {mark}']}\n",
    ],
)
def test_tags_that_make_python_objects_are_refused(tmp_path: Path, text: str) -> None:
    mark, file = tmp_path / "mark", tmp_path / "file.yaml"
    file.write_text(text.replace("{mark}", str(mark)))
    with pytest.raises(SpecError, match="got malformed YAML, could not determine a constructor for the tag"):
        load(file)
    assert not mark.exists()
