"""What can be said on the command line."""

from __future__ import annotations

import argparse
import os
import re
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

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

SPEC = "an experiment file (YAML), or the name of a shipped experiment (see inference-marl list)"


def make_parser() -> argparse.ArgumentParser:
    """The commands, with their arguments and what each does, `act`."""
    parser = argparse.ArgumentParser(
        prog="inference-marl", description="Multi-agent control as probabilistic inference.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True)
    _add_run(subparsers)
    _add_ablate_and_tournament(subparsers)
    _add_resume(subparsers)
    _add_inspect_and_report(subparsers)
    _add_list_and_copy(subparsers)
    return parser


def _add_run(subparsers: Subparsers) -> None:
    run = subparsers.add_parser(
        "run",
        help="run an experiment file, or all runs of a suite",
        allow_abbrev=False,
        description="Run an experiment file, or a shipped experiment by its name. Every key can be overridden by its "
        "dotted path, for example --replicates 100 --arms.rommeo_q.temperature.floor 0.2. A file with the key runs is "
        "a suite: each of its runs continues where it stopped, and an override applies to all of them, or to one, as "
        "in --runs.penalty.steps 10",
        usage="inference-marl run SPEC [--out DIR] [--jobs N] [--inspect] [--print-spec] [--quiet] [--debug] "
        "[--KEY VALUE ...]",
    )
    run.add_argument("spec", metavar="SPEC", help=SPEC)
    run.add_argument("--out", metavar="DIR", default="runs", help="where run folders go (default: runs)")
    run.add_argument("--inspect", action="store_true", help="inspect the run when it has finished")
    run.add_argument("--print-spec", action="store_true", help="print the fully resolved experiment and stop")
    _add_jobs(run, 1)
    _add_quiet_and_debug(run)
    run.set_defaults(act=run_file, options=_options_of(run))


def _add_ablate_and_tournament(subparsers: Subparsers) -> None:
    ablate = _experiment_command(
        subparsers,
        "ablate",
        "run an experiment and compare its arms, such as the cells of an ablation",
        "Run an experiment file and compare its arms: those that its factors stand for, or any others.",
        "--factors.variant.no_kl.kl_weight 0.01",
    )
    ablate.set_defaults(act=ablate_file)
    tournament = _experiment_command(
        subparsers,
        "tournament",
        "play every learner of an experiment against every learner, and show who earns what",
        "Play every arm of an experiment file against every arm. An arm must be one learner, in a game of two agents.",
        "--arms.wolf null",
    )
    tournament.set_defaults(act=tournament_file)


def _add_resume(subparsers: Subparsers) -> None:
    resume = subparsers.add_parser(
        "resume",
        help="continue a run from its last checkpoints, or play it on for longer",
        allow_abbrev=False,
        description="Continue a run, or all runs of a suite, from the last checkpoints. The result is as if it "
        "had never been stopped. With --steps N it is played on to N steps, even if it was finished. Other keys can be "
        "overridden if no result depends on them, such as --checkpoint_every 100, or for arms without a checkpoint.",
        usage="inference-marl resume RUN [--steps N] [--jobs N] [--other-versions] [--quiet] [--debug] "
        "[--KEY VALUE ...]",
    )
    resume.add_argument("run", metavar="RUN", help="the folder of a run, or of a suite")
    what = "resume under other versions of this package, torch, Pyro or numpy than before; the results will record it"
    resume.add_argument("--other-versions", action="store_true", help=what)
    _add_jobs(resume, 1)
    _add_quiet_and_debug(resume)
    resume.set_defaults(act=resume_folder, options=_options_of(resume))


def _add_inspect_and_report(subparsers: Subparsers) -> None:
    inspect = subparsers.add_parser(
        "inspect",
        help="show what a run's learners believe, or its results, and draw its figures; compare several runs",
        allow_abbrev=False,
        description="Print what a run's learners believe of their opponents (its results, if they have no opponent "
        "models) and draw its figures. For a tournament, print who earns what against whom; for a suite, the tables of "
        "all runs together, with the figures of each. Given several runs, compare the first with each of the others.",
    )
    inspect.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, or of a suite")
    inspect.add_argument("--full", action="store_true", help="every question with its table, instead of one screen")
    inspect.set_defaults(act=inspect_folders)
    report = subparsers.add_parser(
        "report",
        help="write a run's results as one HTML file; compare several runs",
        allow_abbrev=False,
        description="Write all that is known of a run, or of all runs of a suite, with its figures, as one HTML file: "
        "report.html in its folder. Given several runs, write a comparison of the first with each of the others: "
        "comparison.html in the first one's folder.",
    )
    report.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, or of a suite")
    report.add_argument("--out", metavar="FILE", help="write this file instead")
    report.set_defaults(act=report_folders)


def _add_list_and_copy(subparsers: Subparsers) -> None:
    what = "list the shipped experiments, the classes that files can name, and the metrics"
    listing = subparsers.add_parser("list", help=what, allow_abbrev=False)
    listing.set_defaults(act=list_names)
    copy = subparsers.add_parser(
        "copy",
        help="copy the file of a shipped experiment, for editing",
        allow_abbrev=False,
        description="Copy the file of a shipped experiment, for editing. Nothing is ever overwritten.",
    )
    copy.add_argument("name", metavar="NAME", help="an experiment that inference-marl list names")
    copy.add_argument("destination", metavar="DEST", nargs="?", default="", help="a file or a folder (default: here)")
    copy.set_defaults(act=copy_experiment)


def _experiment_command(
    subparsers: Subparsers, name: str, what: str, more: str, example: str
) -> argparse.ArgumentParser:
    """A command that plays an experiment file, going on where it was left."""
    command = subparsers.add_parser(
        name,
        help=what,
        allow_abbrev=False,
        description=f"{more} Continues where the same experiment stopped; starts a new folder if the file or an "
        "override has changed. Every key can be overridden by its dotted path, for example --replicates 100 "
        f"{example}",
        usage=f"inference-marl {name} SPEC [--out DIR] [--jobs N] [--quiet] [--debug] [--KEY VALUE ...]",
    )
    command.add_argument("spec", metavar="SPEC", help=SPEC)
    command.add_argument("--out", metavar="DIR", default="runs", help="where run folders go (default: runs)")
    _add_jobs(command, os.cpu_count() or 1)
    _add_quiet_and_debug(command)
    command.set_defaults(options=_options_of(command))
    return command


def _add_jobs(command: argparse.ArgumentParser, default: int) -> None:
    what = "number of arms to play at once, each in a process of its own (default: %(default)s)"
    command.add_argument("--jobs", metavar="N", type=int, default=default, help=what)


def _add_quiet_and_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    what = "also print the traceback of an error, such as one in a class of your own"
    command.add_argument("--debug", action="store_true", help=what)


def _options_of(command: argparse.ArgumentParser) -> list[str]:
    """The options that a command's usage shows."""
    return re.findall(r"--[a-z-]+", command.format_usage())
