"""How much more every arm of a run has than one of them: differences of the same seeds, at the last record.

    python experiments/paired.py runs/guard/guard belief_step

`inspect` compares with the first arm. Columns are the metrics given; if none are, returns by how often opponents were
met before (`return_after_5_interpolated`), or the reward. ± is half of a 95 % interval over seeds (Student's).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

from inference_marl import read
from inference_marl.analysis.tables import cell
from inference_marl.statistics.adaptation import RETURN, by_evaluation
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.metrics import in_dataset
from inference_marl.statistics.summary import paired_differences


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run")
    parser.add_argument("reference", help="the arm that the others are compared with")
    parser.add_argument("metrics", nargs="*", help="metrics")
    given = parser.parse_args()
    recorded = read(given.folder)
    if given.reference not in recorded.learners:
        raise SystemExit(f"reference: got {given.reference}, expected one of {', '.join(recorded.learners)}")
    declared, rows = in_dataset(recorded.metrics), dict[str, dict[str, str]]()
    if unknown := [name for name in given.metrics if name not in declared]:
        raise SystemExit(f"metrics: got {', '.join(unknown)}, expected some of {', '.join(declared)}")
    of_trials = [name for names in by_evaluation(recorded.metrics, RETURN).values() for name in names.values()]
    for row in paired_differences(recorded.metrics, given.reference, given.metrics or of_trials):
        ends = (math.nan if row[end] is None else row[end] for end in ("mean", "low", "high"))
        rows.setdefault(row["learner"], {})[row["metric"]] = cell(declared[row["metric"]], Interval(*ends))
    print(f"More than {given.reference}\n{pd.DataFrame(rows).T.to_string()}")


if __name__ == "__main__":
    main()
