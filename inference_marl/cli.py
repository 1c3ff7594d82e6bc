"""The command `inference-marl`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from inference_marl.analysis.posterior import Recorded
    from inference_marl.analysis.report.suite import RunOfSuite
    from inference_marl.runs.run import Experiment
    from inference_marl.runs.suite import Suite


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 2 for an error that a user can mend, with one message on standard error; 1, with one as well,
        if some of a run's arms could not be played to their end.
    """
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    options, rest = parser.parse_known_args(words)
    if rest and not hasattr(options, "spec"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # As `python -m` does, so that an experiment file can name classes of the user's own files.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    from inference_marl.analysis.report.text import InspectError
    from inference_marl.config.files import SpecError
    from inference_marl.runs.run import ArmError, RunError

    try:
        options.act(options, rest)
    except ArmError as error:
        print(f"inference-marl: {error}", file=sys.stderr)
        return 1
    except (SpecError, RunError, InspectError) as error:
        print(f"inference-marl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output, such as `head`, has seen enough
        sys.stdout = None
        return 0
    except OSError as error:
        where = error.filename2 or error.filename
        print(
            f"inference-marl: {where or 'files'}: got {error.strerror or error}, expected a place to read and write",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt as interrupt:
        again = f"; go on with: inference-marl {interrupt}" if interrupt.args else ""
        print(f"\ninference-marl: interrupted{again}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inference-marl", description="Multi-agent control as probabilistic inference.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="run an experiment file",
        allow_abbrev=False,
        description="Run an experiment file. Every key of the file can be overridden by its dotted path, for example "
        "--replicates 100 --arms.rommeo_q.temperature.floor 0.2. A file with the key runs is a suite: all of its runs "
        "go on where they were left, and an override holds for all of them, or for one, as in --runs.penalty.steps 10",
        usage="inference-marl run SPEC [--out DIR] [--jobs N] [--inspect] [--print-spec] [--quiet] [--KEY VALUE ...]",
    )
    run.add_argument("spec", metavar="SPEC", help="an experiment file (YAML)")
    run.add_argument("--out", metavar="DIR", default="runs", help="where run folders go (default: runs)")
    run.add_argument("--inspect", action="store_true", help="inspect the run when it is done")
    run.add_argument("--print-spec", action="store_true", help="print the fully resolved experiment and stop")
    _add_jobs(run, 1)
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.set_defaults(act=_run)
    ablate = _goes_on(
        commands,
        "ablate",
        "run an experiment file with factors; tabulate and draw its cells",
        "Run an experiment file and compare its arms: those of its factors, or any others.",
        "--factors.variant.no_kl.kl_weight 0.01",
    )
    ablate.set_defaults(act=_ablate)
    tournament = _goes_on(
        commands,
        "tournament",
        "play every learner of an experiment file against every learner; tabulate and draw who earns what",
        "Play every arm of an experiment file against every arm. An arm is one learner, the game has two agents.",
        "--arms.wolf null",
    )
    tournament.set_defaults(act=_tournament)
    resume = commands.add_parser("resume", help="go on with a run from its last checkpoints", allow_abbrev=False)
    resume.add_argument("run", metavar="RUN", help="the folder of a run, or of a suite")
    _add_jobs(resume, 1)
    resume.add_argument("--quiet", action="store_true", help="no progress bar")
    resume.set_defaults(act=_resume)
    inspect = commands.add_parser(
        "inspect",
        help="print a run's results and draw its figures; compare several runs",
        allow_abbrev=False,
        description="Print what a run found and believed, and draw its figures; of a tournament who earns what against "
        "whom; of a suite the tables of all runs together, with the figures of each. Of several runs, compare the "
        "first with each of the others.",
    )
    inspect.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, or of a suite")
    inspect.set_defaults(act=_inspect)
    report = commands.add_parser(
        "report",
        help="write a run's results as one HTML file; compare several runs",
        allow_abbrev=False,
        description="Write one HTML file with everything that is known of a run, or of all runs of a suite, figures "
        "embedded: report.html in its folder. Of several runs, one that compares the first with each of the others: "
        "comparison.html in its folder.",
    )
    report.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, or of a suite")
    report.add_argument("--out", metavar="FILE", help="write this file instead")
    report.set_defaults(act=_write_report)
    listing = commands.add_parser("list", help="what experiment files can name", allow_abbrev=False)
    listing.set_defaults(act=_list)
    return parser


def _goes_on(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, more: str, example: str
) -> argparse.ArgumentParser:
    """A command that plays an experiment file and goes on where it was left."""
    command = commands.add_parser(
        name,
        help=what,
        allow_abbrev=False,
        description=f"{more} Goes on where the same experiment was left, and starts a new folder if the file or an "
        "override is another. Every key can be overridden by its dotted path, for example --replicates 100 "
        f"{example}",
        usage=f"inference-marl {name} SPEC [--out DIR] [--jobs N] [--quiet] [--KEY VALUE ...]",
    )
    command.add_argument("spec", metavar="SPEC", help="an experiment file (YAML)")
    command.add_argument("--out", metavar="DIR", default="runs", help="where run folders go (default: runs)")
    _add_jobs(command, os.cpu_count() or 1)
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    return command


def _add_jobs(command: argparse.ArgumentParser, default: int) -> None:
    what = "arms to play at once, each in a process of its own (default: %(default)s)"
    command.add_argument("--jobs", metavar="N", type=int, default=default, help=what)


def _loaded(options: argparse.Namespace, rest: Sequence[str]) -> Experiment | Suite:
    from inference_marl.config.files import SpecError, load_any

    if not Path(options.spec).exists() and rest:
        how = f"{options.command} SPEC --KEY VALUE"
        raise SpecError(f"{options.spec}: got no such file, expected SPEC before the overrides: {how}")
    return load_any(options.spec, _overrides(rest))


def _run(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.config.files import dump
    from inference_marl.runs.run import Experiment

    experiment, name = _loaded(options, rest), Path(options.spec).stem
    if options.print_spec:
        print(dump(experiment), end="")
        return
    report = _look_into if options.inspect else _report
    if not isinstance(experiment, Experiment):
        _play_suite(experiment, name, options, _draw if options.inspect else _write_tables)
        return
    with _failures(_report):
        folder = experiment.run(options.out, name, not options.quiet, options.jobs)
    report(folder)


def _resume(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.runs import run, suite

    several = suite.is_suite(options.run)
    report = partial(_report_suite, write=_write_tables) if several else _report
    with _failures(report):
        folder = (suite if several else run).resume(options.run, not options.quiet, options.jobs)
    report(folder)


def _ablate(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.analysis.report.ablation import write

    _play(_loaded(options, rest), Path(options.spec).stem, options, _compare, lambda run: write(run.folder))


def _tournament(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.config.files import SpecError
    from inference_marl.described import first_line

    try:
        paired = _loaded(options, rest).tournament()
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(first_line(error)) from error
    _play(paired, f"{Path(options.spec).stem}_tournament", options, _report, _write_tables)


def _play(
    experiment: Experiment | Suite,
    name: str,
    options: argparse.Namespace,
    report: Callable[[Path], None],
    write: Callable[[RunOfSuite], list[Path]],
) -> None:
    """Go on with an experiment where it was left, and `report` on its folder; or with a suite, see `_play_suite`."""
    from inference_marl.runs.run import Experiment, start_or_go_on

    if not isinstance(experiment, Experiment):
        _play_suite(experiment, name, options, write)
        return
    with _failures(report):
        folder, before = start_or_go_on(experiment, options.out, name, not options.quiet, options.jobs)
    if before:
        print(f"This experiment was run to its end before, in {folder}. It found:\n")
    report(folder)


def _play_suite(
    suite: Suite, name: str, options: argparse.Namespace, write: Callable[[RunOfSuite], list[Path]]
) -> None:
    """Play what is missing of a suite, tabulate all runs together, and `write` the files of each."""
    before = suite.finished(options.out, name)
    if before:
        print(f"Run to their end before, in {Path(options.out) / name}: {', '.join(before)}.\n")
    with _failures(lambda folder: _report_suite(folder, write)):
        folder = suite.run(options.out, name, not options.quiet, options.jobs)
    _report_suite(folder, write)


@contextmanager
def _failures(report: Callable[[Path], None]) -> Iterator[None]:
    """Report what a run found though some of its arms failed, and then say so."""
    from inference_marl.runs.run import ArmError

    try:
        yield
    except ArmError as error:
        if error.folder is not None:
            report(error.folder)
        raise


def _report(folder: Path) -> None:
    from inference_marl.analysis.posterior import read
    from inference_marl.analysis.report.text import results_table
    from inference_marl.config.tournament import is_tournament

    recorded = read(folder)
    levels = recorded.spec.get("levels")
    if levels and is_tournament(levels):
        _crosstable(recorded)
    elif levels:
        _compare(recorded)
    else:
        print(results_table(recorded))
        print(f"\nResults are in {folder}; look at them with: inference-marl inspect {folder}")


def _compare(run: Path | Recorded) -> None:
    from inference_marl.analysis.posterior import Recorded, read
    from inference_marl.analysis.report.ablation import table, write

    recorded = run if isinstance(run, Recorded) else read(run)
    print(table(recorded))
    files = _relative(recorded.folder, write(recorded))
    where = recorded.folder
    print(f"\nResults are in {where}: {files}; look further with: inference-marl inspect {where}")


def _crosstable(recorded: Recorded) -> None:
    from inference_marl.analysis.report.tournament import table, write

    print(table(recorded))
    print(f"\nResults are in {recorded.folder}: {_relative(recorded.folder, write(recorded))}")


def _report_suite(folder: Path, write: Callable[[RunOfSuite], list[Path]]) -> None:
    """Print the tables of all runs together and, when its files are written, a line on each run."""
    from inference_marl.analysis.report import suite

    played = suite.read(folder)
    print(suite.table(played))
    print(f"\nResults of all runs together are in {folder}: {_relative(folder, suite.write(played))}\n")
    for run in played.runs:
        files = _relative(run.folder, write(run)) if run.summary else "no results"
        print(f"{run.name} is in {run.folder}{files and f': {files}'}", flush=True)
    print("Look into one with: inference-marl inspect FOLDER")


def _relative(folder: Path, paths: Sequence[Path]) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths)


def _write_tables(run: RunOfSuite) -> list[Path]:
    """The tables and figures that tournaments and ablations have instead of a table of results; else nothing."""
    from inference_marl.analysis.report import ablation, tournament
    from inference_marl.config.tournament import is_tournament

    levels = run.summary["levels"]
    if not levels:
        return []
    return tournament.write(run.folder) if is_tournament(levels) else ablation.write(run.folder)


def _draw(run: RunOfSuite) -> list[Path]:
    """`_write_tables`, and the figures of a run that is no tournament."""
    from inference_marl.analysis.plots import write_all
    from inference_marl.config.tournament import is_tournament

    paths = _write_tables(run)
    return paths if is_tournament(run.summary["levels"]) else [*paths, *write_all(run.folder)]


def _inspect(options: argparse.Namespace, rest: Sequence[str]) -> None:
    if len(options.runs) == 1:
        _look_into(Path(options.runs[0]))
        return
    from inference_marl.analysis.report.text import compare_runs
    from inference_marl.runs.suite import check_none

    check_none(options.runs)
    compare_runs(options.runs)


def _write_report(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.analysis.report.page import report

    print(f"The report is {report(options.runs, options.out)}")


def _look_into(folder: Path) -> None:
    from inference_marl.analysis.posterior import read
    from inference_marl.analysis.report.text import inspect_run
    from inference_marl.config.tournament import is_tournament
    from inference_marl.runs.suite import is_suite

    if is_suite(folder):
        _report_suite(folder, _draw)
        return
    recorded = read(folder)
    if is_tournament(recorded.spec.get("levels")):
        _crosstable(recorded)
    else:
        inspect_run(recorded)
    kept = ("spec.yaml", "summary.json", "metrics.nc", "posterior.nc", "surface.nc", "checkpoints", "figures")
    print(f"\nThe run is in {folder}: {', '.join(name for name in kept if (folder / name).exists())}")


def _list(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.config.files import available

    for title, classes in available().items():
        print(f"{title}:")
        width = max(len(name) for name in classes)
        for name, line in classes.items():
            print(f"  {name:<{width}}  {line}")
        print()
    print("An experiment file names a class by this short name, or any other by its import path.")


def _overrides(rest: Sequence[str]) -> list[tuple[str, Any]]:
    """`--key value` and `--key=value` pairs; values are read as YAML.

    Raises:
        SpecError: for anything else.
    """
    from inference_marl.config.files import SpecError

    pairs: list[tuple[str, Any]] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        key, separator, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise SpecError(f"{word}: got a stray word, expected --KEY VALUE or --KEY=VALUE")
        if not separator:
            if not words:
                raise SpecError(f"{key}: got no value, expected --{key} VALUE")
            value = words.pop(0)
        try:
            pairs.append((key, yaml.safe_load(value)))
        except yaml.YAMLError as error:
            raise SpecError(f"{key}: got {value!r}, expected a YAML value") from error
    return pairs


if __name__ == "__main__":
    sys.exit(main())
