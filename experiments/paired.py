"""Prints paired differences of returns between an arm of a run and all others, by the number of earlier episodes.

    python experiments/paired.py runs/guard/guard belief_step

Differences are over the same seeds. `inspect` compares with the first arm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from inference_marl import read
from inference_marl.analysis.report.adaptation import better


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run with a TrialEvaluation")
    parser.add_argument("arm", help="the arm that the others are compared with")
    given = parser.parse_args()
    recorded = read(given.folder)
    if given.arm not in recorded.learners:
        raise SystemExit(f"arm: got {given.arm}, expected one of {', '.join(recorded.learners)}")
    section = better(recorded, given.arm)
    if section is None:
        raise SystemExit(f"{given.folder}: got nothing to compare, expected a TrialEvaluation and at least two arms")
    print(section.text())


if __name__ == "__main__":
    main()
