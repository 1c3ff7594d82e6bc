"""Command-line arguments that override keys of an experiment file."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

import yaml


def read_overrides(rest: Sequence[str], options: argparse.Namespace) -> list[tuple[str, Any]]:
    """Parse `--key value` and `--key=value` pairs; values are read as YAML.

    Raises:
        SpecError: if there is anything else.
    """
    from inference_marl.config.build import SpecError

    pairs: list[tuple[str, Any]] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        key, separator, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise SpecError(f"{word}: got a stray word, expected --KEY VALUE or --KEY=VALUE")
        _check_key(key.partition(".")[0], options)
        if not separator:
            if not words:
                raise SpecError(f"{key}: got no value, expected --{key} VALUE")
            value = words.pop(0)
        try:
            pairs.append((key, yaml.safe_load(value)))
        except yaml.YAMLError as error:
            raise SpecError(f"{key}: got {value!r}, expected a YAML value") from error
    return pairs


def _check_key(key: str, options: argparse.Namespace) -> None:
    """Check that a key is one of experiment files, rather than a misspelt option of the command.

    Raises:
        SpecError: if it is not; the message lists keys and options.
    """
    from inference_marl.config.build import SpecError
    from inference_marl.config.files import KEYS

    if key in KEYS:
        return
    near = difflib.get_close_matches(f"--{key}", [f"--{known}" for known in KEYS] + options.options, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise SpecError(
        f"{key}: got an unknown key, expected one of {', '.join(KEYS)}, or an option of {options.command}: "
        f"{', '.join(options.options)}{meant}"
    )
