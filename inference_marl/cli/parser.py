"""The argument parser of the command line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import TypeAlias

from inference_marl.cli.commands import (
    ablate_file,
    copy_experiment,
    inspect_folders,
    list_names,
    report_folders,
    resume_folder,
    run_file,
    tournament_file,
)
from inference_marl.runs.versions import __version__

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

SPEC = "an experiment file (YAML), or the name of a shipped experiment (see inference-marl list)"
FOLDER = "the folder of a run, or of a suite"


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `act` is the function of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="inference-marl", description="Multi-agent control as probabilistic inference.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands)
    _add_ablate_and_tournament(commands)
    _add_resume(commands)
    _add_inspect_and_report(commands)
    _add_list_and_copy(commands)
    return parser


def _add_run(commands: Commands) -> None:
    run = _command(
        commands,
        run_file,
        "run",
        "run an experiment file, or all runs of a suite",
        "Run an experiment file, or a shipped experiment by its name. Every key can be overridden by its "
        "dotted path, for example --replicates 100 --arms.rommeo_q.temperature.floor 0.2. A file with the key runs is "
        "a suite: each of its runs continues where it stopped, and an override applies to all of them, or to one, as "
        "in --runs.penalty.steps 10",
        "SPEC [--out DIR] [--jobs N] [--inspect] [--print-spec]",
    )
    _takes_spec(run)
    run.add_argument("--inspect", action="store_true", help="inspect the run when it has finished")
    run.add_argument("--print-spec", action="store_true", help="print the fully resolved experiment and stop")
    _plays(run, 1)


def _add_ablate_and_tournament(commands: Commands) -> None:
    for act, name, what, description, example in (
        (
            ablate_file,
            "ablate",
            "run an experiment and compare its arms, such as the cells of an ablation",
            "Run an experiment file and compare its arms: those that its factors stand for, or any others.",
            "--factors.variant.no_kl.kl_weight 0.01",
        ),
        (
            tournament_file,
            "tournament",
            "play every learner of an experiment against every learner, and show the rewards of each pair",
            "Play every arm of an experiment file against every arm. An arm must be one learner, in a game of two "
            "agents.",
            "--arms.wolf null",
        ),
    ):
        description += (
            " Continues where the same experiment stopped; starts a new folder if the file or an override has "
            f"changed. Every key can be overridden by its dotted path, for example --replicates 100 {example}"
        )
        command = _command(commands, act, name, what, description, "SPEC [--out DIR] [--jobs N]")
        _takes_spec(command)
        _plays(command, os.cpu_count() or 1)


def _add_resume(commands: Commands) -> None:
    resume = _command(
        commands,
        resume_folder,
        "resume",
        "continue a run from its last checkpoints, or extend it to more steps",
        "Continue a run, or all runs of a suite, from the last checkpoints. The result is as if it had never been "
        "stopped. With --steps N it is extended to N steps, even if it was finished. Other keys can be "
        "overridden if no result depends on them, such as --checkpoint_every 100, or for arms without a checkpoint.",
        "RUN [--steps N] [--jobs N] [--other-versions]",
    )
    resume.add_argument("run", metavar="RUN", help=FOLDER)
    what = "resume under other versions of this package, torch, Pyro or numpy than before; the results will record it"
    resume.add_argument("--other-versions", action="store_true", help=what)
    _plays(resume, 1)


def _add_inspect_and_report(commands: Commands) -> None:
    inspect = _command(
        commands,
        inspect_folders,
        "inspect",
        "show what a run's learners believe, or its results, and draw its figures; compare several runs",
        "Print what a run's learners believe of their opponents (its results, if they have no opponent "
        "models) and draw its figures. For a tournament, print the rewards of each pair; for a suite, the tables of "
        "all runs together, with the figures of each. Given several runs, compare the first with each of the others.",
    )
    inspect.add_argument("runs", metavar="RUN", nargs="+", help=FOLDER)
    inspect.add_argument("--full", action="store_true", help="every question with its table, instead of one screen")
    report = _command(
        commands,
        report_folders,
        "report",
        "write a run's results as one HTML file; compare several runs",
        "Write all results of a run, or of all runs of a suite, with figures, as one HTML file: "
        "report.html in its folder. Given several runs, write a comparison of the first with each of the others: "
        "comparison.html in the first one's folder.",
    )
    report.add_argument("runs", metavar="RUN", nargs="+", help=FOLDER)
    report.add_argument("--out", metavar="FILE", help="write this file instead")


def _add_list_and_copy(commands: Commands) -> None:
    what = "list the shipped experiments, the classes that files can name, and the metrics"
    _command(commands, list_names, "list", what)
    copy = _command(
        commands,
        copy_experiment,
        "copy",
        "copy the file of a shipped experiment, for editing",
        "Copy the file of a shipped experiment, for editing. Nothing is ever overwritten.",
    )
    copy.add_argument("name", metavar="NAME", help="one of the experiments that inference-marl list names")
    copy.add_argument("destination", metavar="DEST", nargs="?", default="", help="a file or a folder (default: here)")


def _command(
    commands: Commands,
    act: Callable[..., object],
    name: str,
    what: str,
    description: str | None = None,
    arguments: str = "",
) -> argparse.ArgumentParser:
    """Add a command; the usage of commands that play is their `arguments` and the common options."""
    usage = f"inference-marl {name} {arguments} [--quiet] [--debug] [--KEY VALUE ...]" if arguments else None
    command = commands.add_parser(name, help=what, description=description, usage=usage, allow_abbrev=False)
    command.set_defaults(act=act)
    return command


def _takes_spec(command: argparse.ArgumentParser) -> None:
    command.add_argument("spec", metavar="SPEC", help=SPEC)
    command.add_argument("--out", metavar="DIR", default="runs", help="where run folders go (default: runs)")


def _plays(command: argparse.ArgumentParser, jobs: int) -> None:
    """Add the arguments of all commands that play; `options` are those that the usage shows."""
    what = "number of arms to play in parallel, each in a separate process (default: %(default)s)"
    command.add_argument("--jobs", metavar="N", type=int, default=jobs, help=what)
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    what = "also print the traceback of an error, such as one in a class of your own"
    command.add_argument("--debug", action="store_true", help=what)
    command.set_defaults(options=re.findall(r"--[a-z-]+", command.format_usage()))
