"""The command-line program `inference-marl`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from traceback import format_exception

from inference_marl.cli.parser import make_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; or, with a message on standard error, 1 if some arms of a run could not be played to their
        end, 2 for an error that the user can fix, and 3 if some replicates failed.
    """
    parser = make_parser()
    words = sys.argv[1:] if arguments is None else arguments
    options, rest = parser.parse_known_args(words)
    if rest and not hasattr(options, "options"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return _status(lambda: options.act(options, rest), getattr(options, "debug", False))


def _status(act: Callable[[], object], debug: bool) -> int:
    """Run a command, print errors, with the traceback of their cause if `debug`, and return the exit status."""
    from inference_marl.config.build import SpecError
    from inference_marl.described import IncompatibleError, InspectError
    from inference_marl.runs.errors import ArmError, RunError, UnsupportedSystemError

    try:
        from inference_marl.runs.suite import failed_replicates

        played = act()
        if isinstance(played, Path) and (said := failed_replicates(played)):
            print("".join(f"inference-marl: {line}\n" for line in said), end="", file=sys.stderr)
            return 3
    except (SpecError, RunError, InspectError, UnsupportedSystemError, IncompatibleError) as error:
        _say(error, str(error), debug)
        return 1 if isinstance(error, ArmError) else 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        sys.stdout = None
        return 0
    except OSError as error:
        where = error.filename2 or error.filename
        why = (error.strerror or str(error)).splitlines()[0]  # HDF5 says more
        _say(error, f"{where or 'files'}: got {why}, expected a place to read and write", debug)
        return 2
    except KeyboardInterrupt as interrupt:
        again = f"; go on with: inference-marl {interrupt}" if interrupt.args else ""
        print(f"\ninference-marl: interrupted{again}", file=sys.stderr)
        return 130
    return 0


def _say(error: Exception, message: str, debug: bool) -> None:
    """Print an error to standard error, in one line, with the traceback of its first cause if `debug`."""
    print(f"inference-marl: {message}", file=sys.stderr)
    if debug:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        print(getattr(error, "traceback", "") or "".join(format_exception(cause)), end="", file=sys.stderr)
