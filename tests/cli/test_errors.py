"""Wrong usage, exit status, and errors of one line."""

import itertools
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import inference_marl
from inference_marl.cli import main
from tests.cli.files import failure


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (
            ["run", "small.yaml", "--jbos", "2"],
            "--jobs, --inspect, --print-spec, --quiet, --debug (did you mean --jobs?)",
        ),
        (
            ["run", "small.yaml", "--inspct"],
            "--jobs, --inspect, --print-spec, --quiet, --debug (did you mean --inspect?)",
        ),
        (
            ["ablate", "small.yaml", "--stepz=3"],
            ", or an option of ablate: --out, --jobs, --quiet, --debug (did you mean --steps?)",
        ),
        (
            ["tournament", "small.yaml", "--xyz", "3"],
            ", show, or an option of tournament: --out, --jobs, --quiet, --debug",
        ),
    ],
)
def test_what_is_neither_an_option_nor_a_key_may_have_been_meant_as_either(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], end: str
) -> None:
    said = failure(capsys, *arguments)
    assert re.match(
        r"\w+: got an unknown key, expected one of game, arms, .*, factors, design, runs, show, or an", said
    )
    assert said.endswith(end)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"inference-marl {inference_marl.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.yaml"], "none.yaml: got no readable file (No such file or directory), expected an experiment"),
        (["run", "small.yaml", "--stepz", "3"], "stepz: got an unknown key, expected one of game, arms"),
        (["ablate", "small.yaml", "--arms.a.stepz", "3"], "arms.a.stepz: got an unknown key, expected one of opponent"),
        (["run", "small.yaml", "--steps", "many"], "steps: got many, expected int"),
        (["run", "small.yaml", "--steps="], "steps: got nothing, expected int"),
        (["run", "small.yaml", "--steps"], "steps: got no value, expected --steps VALUE"),
        (["run", "small.yaml", "--steps", "3", "4"], "4: got a stray word, expected --KEY VALUE or --KEY=VALUE"),
        (["run", "small.yaml", "-s", "3"], "-s: got a stray word, expected --KEY VALUE"),
        (["run", "small.yaml", "--=3"], "--=3: got a stray word, expected --KEY VALUE"),
        (["run", "small.yaml", "--steps", "[1"], "steps: got '[1', expected a YAML value"),
        (["run", "small.yaml", "--game", "!!python/object/apply:os.getcwd []"], "game: got '!!python"),
        (["run", "small.yaml", "--arms.a.opponent_prior.window", "0"], "arms.a.opponent_prior.window: got 0, expected"),
        (["run", "small.yaml", "--arms.c.like", "z"], "arms.c.like: got 'z', expected another arm: a, b, c"),
        (["run", "small.yaml", "--game", "MaxOfTwoQuadratics"], "arms.a.opponent_prior: got Box("),
        (["run", "small.yaml", "--game.payoff", "[[1, 2], [3]]"], "game.payoff: got 1 entries at [1] and 2 at [0]"),
        (["run", "small.yaml", "--quiet", "--out", "small.yaml"], "small.yaml: got no folder to write to (Not a dir"),
        (["run", "small.yaml", "--jobs", "0"], "jobs: got 0, expected a positive integer"),
        (["run", "small.yaml", "--runs.x.steps", "1"], "runs: got None, expected a mapping from names to what differs"),
        (
            ["ablate", "--steps", "3", "none.yaml"],
            "3: got no such file, expected SPEC before the overrides: ablate SPEC",
        ),
        (
            ["ablate", "small.yaml", "--factors", "{x: {y: {z: 1}}}"],
            "factors.x.y.z: got an unknown key, expected one of",
        ),
        (["resume", "nowhere"], "nowhere: got no spec.yaml there, expected the folder of a run"),
        (["resume", "."], ".: got no spec.yaml there, expected the folder of a run"),
        (["inspect", "nowhere"], "nowhere"),
        (["inspect", "."], "."),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert failure(capsys, *arguments).startswith(message)
    assert {path.name for path in file.parent.iterdir()} == {"small.yaml"}


def test_a_damaged_checkpoint_is_one_line(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recorded / "checkpoints" / "a.pt").write_bytes(b"half")
    message = failure(capsys, "resume", "runs/small", "--quiet", "--steps", "20")
    assert message.startswith("runs/small/checkpoints/a.pt: got a file that is not a checkpoint")


def test_a_damaged_spec_is_one_line(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recorded / "summary.json").unlink()
    (recorded / "spec.yaml").write_text("game: [")
    assert failure(capsys, "resume", "runs/small").startswith("runs/small/spec.yaml: got another content than was")
    (recorded / "SHA256SUMS").unlink()
    assert failure(capsys, "resume", "runs/small").startswith("runs/small/spec.yaml: got malformed YAML")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *itertools.product(["summary.json"], ["inspect", "report", "resume"]),
        *itertools.product(["spec.yaml"], ["inspect", "report", "resume"]),
    ],
)
@pytest.mark.parametrize("content", [b"{'a: [", b"", b"\xff\xfe\x00"])
def test_a_damaged_file_of_a_run_is_one_line(
    recorded: Path, capsys: pytest.CaptureFixture[str], name: str, command: str, content: bytes
) -> None:
    (recorded / name).write_bytes(content)
    assert failure(capsys, command, "runs/small").startswith(f"runs/small/{name}: got ")


@pytest.mark.slow
def test_places_that_cannot_be_written_are_one_line(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failure(capsys, "report", "runs/small", "--out", "runs")
    assert said == "runs: got Is a directory, expected a place to read and write"
    assert failure(capsys, "report", "runs/small", "--out", "small.yaml/report.html").startswith("small.yaml: got ")
    shutil.rmtree(recorded / "figures")
    (recorded / "figures").write_text("in the way")
    assert failure(capsys, "report", "runs/small").startswith("runs/small/figures: got File exists")


def test_runs_that_cannot_be_compared_are_one_line(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "small.yaml", "--quiet", "--steps", "1", "--game.payoff", "[[1, 2], [3, 4]]"])
    capsys.readouterr()
    assert failure(capsys, "inspect", "runs/small", "runs/small", "runs/small-2").startswith("runs/small-2: got action")


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        *itertools.product([["inspect", "x"], ["report", "x"], ["list"]], [["--steps", "3"], ["--unknown"]]),
        (["list"], ["stray"]),
    ],
)
def test_only_what_plays_takes_overrides(
    command: list[str], extra: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, *extra])
    assert stopped.value.code == 2
    assert f"error: unrecognized arguments: {' '.join(extra)}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run"], ["ablate"], ["tournament"], ["resume"], ["inspect"]])
def test_wrong_usage_shows_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: inference-marl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ([], ["run an experiment file", "resume", "inspect", "list", "probabilistic inference"]),
        (
            ["run"],
            [
                "SPEC [--out DIR] [--jobs N] [--inspect] [--print-spec] [--quiet] [--debug] [--KEY VALUE ...]",
                "dotted path",
                "default: runs",
            ],
        ),
        (
            ["ablate"],
            ["SPEC [--out DIR] [--jobs N] [--quiet] [--debug] [--KEY VALUE ...]", "compare its arms", "dotted path"],
        ),
        (
            ["tournament"],
            ["SPEC [--out DIR] [--jobs N] [--quiet] [--debug] [--KEY VALUE ...]", "against every arm", "dotted path"],
        ),
        (["resume"], ["RUN", "the folder of a run", "--quiet", "--debug", "--jobs"]),
        (["inspect"], ["RUN", "the folder of a run", "--full", "one screen"]),
        (["list"], ["usage: inference-marl list"]),
        (["copy"], ["usage: inference-marl copy", "NAME [DEST]", "ever overwritten"]),
    ],
)
def test_help(arguments: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--help"])
    assert stopped.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    for text in texts:
        assert text in output


FAILING = """
from inference_marl.learners import Stationary


class Failing(Stationary):
    transient = ("played",)

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.played = at, 0

    def act(self, *arguments, **options):
        self.played += 1
        if self.played > self.at:
            fail(self)
        return super().act(*arguments, **options)


def fail(actor):
    raise KeyError("width")
"""


@pytest.fixture
def failing(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The import path of a user's own class whose every copy fails after `at` steps."""
    (file.parent / "users_failing.py").write_text(FAILING)
    monkeypatch.setenv("PYTHONPATH", str(file.parent), prepend=":")
    yield "users_failing.Failing"
    sys.modules.pop("users_failing", None)


def told(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> tuple[str, list[str]]:
    """The first line that a failing command writes to standard error, and the others."""
    assert main(arguments) == status
    line, *others = capsys.readouterr().err.splitlines()
    return line.removeprefix("inference-marl: "), others


def is_traceback_of_fail(lines: list[str]) -> bool:
    text = "\n".join(lines)
    return lines[0].startswith("Traceback") and "in fail\n" in text and lines[-1] == "KeyError: 'width'"


@pytest.mark.parametrize(
    ("command", "jobs"),
    [
        ("run", "1"),
        *(
            pytest.param(*c, marks=pytest.mark.slow)
            for c in (("run", "2"), ("ablate", "1"), ("resume", "2"), ("suite", "1"))
        ),
    ],
)
def test_debug_prints_the_traceback_of_an_arm_that_failed(
    file: Path, several: Path, failing: str, capsys: pytest.CaptureFixture[str], command: str, jobs: str
) -> None:
    arm = ("--arms.a", f"{{class_path: {failing}, init_args: {{at: 2}}}}", "--arms.b", "Stationary")
    words = ("--quiet", "--jobs", jobs)
    if command == "suite":
        line, none = told(capsys, 1, "run", "several.yaml", *words, "--runs.short", "null", *arm)
        again = ("run", "several.yaml", *words, "--runs.short", "null", *arm)
    else:
        line, none = told(capsys, 1, "run" if command == "resume" else command, "small.yaml", *words, *arm)
        again = ("resume", "runs/small", *words) if command == "resume" else (command, "small.yaml", *words, *arm)
    assert "arms.a, step 3: KeyError: 'width'" in line
    assert not none
    debugged, lines = told(capsys, 1, *again, "--debug")
    assert debugged == line
    assert is_traceback_of_fail(lines)


def test_debug_prints_the_traceback_of_what_is_found_before_a_run(
    file: Path, failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arm = ("--arms.a", f"{{class_path: {failing}, init_args: {{at: 0}}}}", "--arms.b", "null")
    for command in ("run", "ablate", "tournament"):
        line = "arms.a: KeyError at the first step: 'width'"
        assert told(capsys, 2, command, "small.yaml", *arm) == (line, [])
        debugged, lines = told(capsys, 2, command, "small.yaml", "--debug", *arm)
        assert debugged == line
        assert is_traceback_of_fail(lines)


def test_overrides_come_after_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected SPEC before the overrides" in failure(capsys, "run", "--replicates", "3", "small.yaml")


def test_errors_in_the_program_are_not_hidden(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("inference_marl.cli.commands.show_run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", "small.yaml", "--quiet"])


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(("arguments", "status"), [(["list"], 0), (["run", "none.yaml"], 2)])
def test_the_process_exits_with_the_status(
    file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["inference-marl", *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("inference_marl", run_name="__main__")
    assert stopped.value.code == status
