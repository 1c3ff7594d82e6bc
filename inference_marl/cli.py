"""The command `inference-marl`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors a user can mend are one message on standard error and exit status 2."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # As `python -m` does, so that an experiment file can name classes of the user's own files.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    from inference_marl.inspect import InspectError
    from inference_marl.run import RunError
    from inference_marl.spec import SpecError

    try:
        options.act(options, rest)
    except (SpecError, RunError, InspectError) as error:
        print(f"inference-marl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output, such as `head`, has seen enough
        sys.stdout = None
        return 0
    except KeyboardInterrupt as interrupt:
        again = f"; go on with: inference-marl resume {interrupt}" if interrupt.args else ""
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
        "--replicates 100 --arms.rommeo_q.temperature.floor 0.2",
        usage="inference-marl run SPEC [--out DIR] [--inspect] [--print-spec] [--quiet] [--KEY VALUE ...]",
    )
    run.add_argument("spec", metavar="SPEC", help="an experiment file (YAML)")
    run.add_argument("--out", metavar="DIR", default="runs", help="where run folders go (default: runs)")
    run.add_argument("--inspect", action="store_true", help="inspect the run when it is done")
    run.add_argument("--print-spec", action="store_true", help="print the fully resolved experiment and stop")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.set_defaults(act=_run)
    resume = commands.add_parser("resume", help="go on with a run from its last checkpoints", allow_abbrev=False)
    resume.add_argument("run", metavar="RUN", help="the folder of a run")
    resume.add_argument("--quiet", action="store_true", help="no progress bar")
    resume.set_defaults(act=_resume)
    inspect = commands.add_parser("inspect", help="print a run's results and draw its figures", allow_abbrev=False)
    inspect.add_argument("run", metavar="RUN", help="the folder of a run")
    inspect.set_defaults(act=_inspect)
    listing = commands.add_parser("list", help="what experiment files can name", allow_abbrev=False)
    listing.set_defaults(act=_list)
    return parser


def _run(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.spec import SpecError, dump, load

    if not Path(options.spec).exists() and rest:
        raise SpecError(f"{options.spec}: got no such file, expected SPEC before the overrides: run SPEC --KEY VALUE")
    experiment = load(options.spec, _overrides(rest))
    if options.print_spec:
        print(dump(experiment), end="")
        return
    out, name = Path(options.out), Path(options.spec).stem
    folder = experiment.run(out, name, progress=not options.quiet)
    if options.inspect:
        _look_into(folder)
    else:
        _report(folder)


def _resume(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.run import resume

    _report(resume(options.run, progress=not options.quiet))


def _report(folder: Path) -> None:
    from inference_marl.inspect import results_table

    print(results_table(folder))
    print(f"\nResults are in {folder}; look at them with: inference-marl inspect {folder}")


def _inspect(options: argparse.Namespace, rest: Sequence[str]) -> None:
    _look_into(Path(options.run))


def _look_into(folder: Path) -> None:
    from inference_marl.inspect import inspect_run

    inspect_run(folder)
    print(f"\nThe run is in {folder}: spec.yaml, summary.json, metrics.nc, posterior.nc, checkpoints, figures")


def _list(options: argparse.Namespace, rest: Sequence[str]) -> None:
    from inference_marl.spec import available

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
    from inference_marl.spec import SpecError

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
