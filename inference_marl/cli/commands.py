"""The functions of the commands; those that play return the folder of the run."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from inference_marl.cli.overrides import read_overrides
from inference_marl.cli.results import look_into, show_run, show_suite, write_figures, write_tables

if TYPE_CHECKING:
    from inference_marl.experiment import Experiment, Suite

SHIPPED = "experiments; the command that each is made for is in brackets"
"""Heading of the list of shipped experiments."""


def run_file(options: argparse.Namespace, rest: Sequence[str]) -> Path | None:
    """Run an experiment file."""
    from inference_marl.config.files import dump
    from inference_marl.experiment import Experiment
    from inference_marl.runs.run import run

    experiment, name = _loaded(options, rest), Path(options.spec).stem
    if options.print_spec:
        print(dump(experiment), end="")
        return None
    if not isinstance(experiment, Experiment):
        return _play_suite(experiment, name, options, write_figures if options.inspect else write_tables)
    with _failures(show_run):
        folder = run(experiment, options.out, name, not options.quiet, options.jobs)
    show_run(folder)
    if options.inspect:
        print()
        look_into(folder, known=True)
    return folder


def resume_folder(options: argparse.Namespace, rest: Sequence[str]) -> Path | None:
    """Resume a run or a suite."""
    from inference_marl.config.files import find_classes_in
    from inference_marl.runs.run import resume
    from inference_marl.runs.suite import is_suite

    find_classes_in(Path.cwd())
    overrides = read_overrides(rest, options)
    show = partial(show_suite, write=write_tables) if is_suite(options.run) else show_run
    with _failures(show):
        folder = resume(options.run, not options.quiet, options.jobs, overrides, options.other_versions)
    show(folder)
    return folder


def ablate_file(options: argparse.Namespace, rest: Sequence[str]) -> Path | None:
    """Run a file with factors, and compare its arms."""
    return _play(_loaded(options, rest), Path(options.spec).stem, options, compare=True)


def tournament_file(options: argparse.Namespace, rest: Sequence[str]) -> Path | None:
    """Play every learner of a file against every learner."""
    from inference_marl.config.build import SpecError
    from inference_marl.config.tournament import tournament
    from inference_marl.described import first_line

    try:
        paired = tournament(_loaded(options, rest))
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(first_line(error)) from error
    return _play(paired, f"{Path(options.spec).stem}_tournament", options)


def _play(experiment: Experiment | Suite, name: str, options: argparse.Namespace, compare: bool = False) -> Path:
    """Run or continue an experiment or a suite, and show its results; `compare` as for `show_run`."""
    from inference_marl.experiment import Experiment
    from inference_marl.runs.run import run_or_resume

    if not isinstance(experiment, Experiment):
        return _play_suite(experiment, name, options, partial(write_tables, compare=compare))
    show = partial(show_run, compare=compare)
    with _failures(show):
        folder, before = run_or_resume(experiment, options.out, name, not options.quiet, options.jobs)
    if before:
        print(f"This experiment was run to its end before, in {folder}. It found:\n")
    show(folder)
    return folder


def _play_suite(suite: Suite, name: str, options: argparse.Namespace, write: Callable[[Path], list[Path]]) -> Path:
    """Play the missing runs of a suite, tabulate all runs together, and `write` the files of each."""
    from inference_marl.runs.run import run
    from inference_marl.runs.suite import finished

    before = finished(suite, options.out, name)
    if before:
        print(f"Run to their end before, in {Path(options.out) / name}: {', '.join(before)}.\n")
    with _failures(lambda folder: show_suite(folder, write)):
        folder = run(suite, options.out, name, not options.quiet, options.jobs)
    show_suite(folder, write)
    return folder


def inspect_folders(options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Inspect a run or a suite, or compare runs."""
    if len(options.runs) == 1:
        look_into(Path(options.runs[0]), options.full)
        return
    from inference_marl.analysis.report.text import compare_runs
    from inference_marl.runs.suite import check_none

    check_none(options.runs)
    compare_runs(options.runs)


def report_folders(options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Write a report on a run or a suite, or a comparison of runs."""
    from inference_marl.analysis.report.page import report

    print(f"The report is {report(options.runs, options.out)}")


def list_names(options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Print the shipped experiments, the classes that files can name, and the metrics."""
    from inference_marl.config import shipped
    from inference_marl.config.catalogue import available, measured
    from inference_marl.runs import frozen  # noqa: F401 (a learner to be listed)

    experiments = {name: f"{shipped.summary(name)} [{shipped.command(name)}]" for name in shipped.names()}
    metrics = {name: metric.meaning or f"{metric.label}." for name, metric in measured().items()}
    for title, named in {SHIPPED: experiments, **available(), "metrics": metrics}.items():
        print(f"{title}:")
        width = max(len(name) for name in named)
        for name, line in named.items():
            print(f"  {name:<{width}}  {line}")
        print()
    print("An experiment file names a class by this short name, or any other by its import path.")


def copy_experiment(options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Copy the file of a shipped experiment, without overwriting any file."""
    from inference_marl.config import shipped
    from inference_marl.config.build import SpecError

    source = shipped.path_of(options.name)
    is_folder = options.destination.endswith(("/", os.sep)) or Path(options.destination).is_dir()
    target = Path(options.destination) / source.name if is_folder else Path(options.destination or source.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = source.read_bytes()
    try:
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise SpecError(
            f"{target}: got a file that is there already, expected a new one: name another place, as in "
            f"inference-marl copy {options.name} {target.with_stem(f'my_{target.stem}')}"
        ) from error
    how = f"inference-marl {shipped.command(options.name)} {shlex.quote(str(target))}"
    print(f"Wrote {target}. Run it with: {how}")


def _loaded(options: argparse.Namespace, rest: Sequence[str]) -> Experiment | Suite:
    from inference_marl.config import shipped
    from inference_marl.config.build import SpecError
    from inference_marl.config.files import find_classes_in, load_any

    is_unknown = not Path(options.spec).exists() and options.spec not in shipped.names()
    if is_unknown and rest and not shipped.meant_by(options.spec):
        how = f"{options.command} SPEC --KEY VALUE"
        raise SpecError(f"{options.spec}: got no such file, expected SPEC before the overrides: {how}")
    for folder in (Path(options.spec).parent, Path.cwd()):
        find_classes_in(folder)
    return load_any(options.spec, read_overrides(rest, options))


@contextmanager
def _failures(show: Callable[[Path], None]) -> Iterator[None]:
    """Show the results of a run even if some of its arms failed, and then raise the error."""
    from inference_marl.runs.errors import ArmError

    try:
        yield
    except ArmError as error:
        if error.folder is not None:
            show(error.folder)
        raise
