"""What is too large, too deep or contains itself is refused by its key, quickly, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from inference_marl.config.build import SpecError
from inference_marl.config.files import build, load
from inference_marl.config.limits import DEEPEST, MOST_VALUES, check_tree

BASE = """\
game: {class_path: MatrixGame, init_args: {payoff: climbing}}
replicates: 3
steps: 5
arms:
  a: {class_path: IndependentQ, init_args: {exploration: {class_path: Boltzmann}}}
"""


WINDOW = """\
  b:
    class_path: Rommeo
    init_args:
      guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
      critic: TabularCritic
      opponent_prior: {class_path: EmpiricalFrequency, init_args: {window: 1000000000000}}
"""


REPLAY = "      replay: 1000000000\n"


def bomb(levels: int) -> str:
    """Aliases that stand for `10 ** levels` numbers."""
    nested = ["&x0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"]
    nested += [f"&x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, levels)]
    return f"[{', '.join(nested)}]"


CASES = {
    "alias_bomb": (
        BASE.replace("payoff: climbing", f"payoff: {bomb(8)}"),
        r"game\.init_args\.payoff\[.*more than 1,000,000",
    ),
    "itself": (
        BASE.replace("{payoff: climbing}", "{payoff: &p [1, *p]}"),
        r"game\.init_args\.payoff\[1\]: got something that",
    ),
    "game_itself": (
        BASE.replace("game: {", "game: &g {").replace("climbing}", "climbing, k: *g}"),
        r"game\.init_args\.k: got something that contains itself",
    ),
    "deep_lists": (
        BASE.replace("climbing", "[" * 5000 + "1" + "]" * 5000),
        "spec.yaml: got lists or mappings within each",
    ),
    "deep_maps": (BASE + "published: " + "{a: " * 200 + "1" + "}" * 200, r"published\.a.*: got more than 100 levels"),
    "key_is_a_list": ("? [1, 2]\n: 3\n" + BASE, "spec.yaml: got malformed YAML, found a key that is no word"),
    "like_chain": (
        BASE + "".join(f"  b{i}: {{like: {'a' if i == 0 else f'b{i - 1}'}}}\n" for i in range(1500)),
        r"arms\.b\d+\.like: got more than 50 arms, each like the next",
    ),
    "factors": (
        BASE + "factors: {" + ", ".join(f"rate{i}: {list(range(1, 101))}" for i in range(4)) + "}\n",
        "factors: got 100,000,000 cells, expected at most 10,000",
    ),
    "design": (BASE + "design: grid\n", "design: got grid without factors, expected it beside them"),
    "published": (
        BASE + "published: {a: {reward: .nan}}\n",
        r"published\.a\.reward: got nan, expected a finite number",
    ),
    "steps": (
        BASE.replace("steps: 5", "steps: 1000000000000000"),
        "steps: got 1000000000000000, expected .* at most 1,000",
    ),
    "digits": (
        BASE.replace("steps: 5", f"steps: 1{'0' * 400}"),
        r"steps: got 10000000000000000000\.\.\. \(401 digits\)",
    ),
    "threads": (BASE + "threads: 1000000\n", "threads: got 1000000, expected at most 1024"),
    "long_name": (BASE.replace("  a:", f"  {'n' * 250}:"), r"arms: got an arm called n+\.\.\., expected at most 200"),
    "replicates": (
        BASE.replace("replicates: 3", "replicates: 1000000000000"),
        r"replicates: got 1000000000000, for which",
    ),
    "environments": (BASE + "environments: 1000000000000\n", "environments: got 1000000000000, for which arm a needs"),
    "window": (BASE + WINDOW, r"arms\.b\.opponent_prior\.window: got 1000000000000, for which arm b needs"),
    "replay": (
        BASE + WINDOW.replace("window: 1000000000000}}", "}}\n      replay: 1000000000"),
        r"arms\.b\.replay: got 100",
    ),
    "booleans": (BASE.replace("climbing", "[[true, 1], [0, 1]]"), r"game\.payoff: got a boolean at \[0\]\[0\]"),
    "payoff": (
        BASE.replace("climbing", "[[1.0e+39, 1], [0, 1]]"),
        r"game\.payoff: got 1e\+39 at \[0\]\[0\], expected finite",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_nobody_means_is_refused_by_its_key(name: str, tmp_path: Path) -> None:
    text, message = CASES[name]
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SpecError, match=message) as refused:
        load(tmp_path / "spec.yaml")
    assert len(str(refused.value)) < 400


def test_what_is_within_the_limits_is_not() -> None:
    nested: object = 1
    for _ in range(DEEPEST):
        nested = [nested]
    check_tree(nested)
    with pytest.raises(SpecError, match="more than 100 levels"):
        check_tree([nested])
    shared = [1, 2, 3]
    check_tree({"a": shared, "b": {"c": shared}})
    check_tree([0] * (MOST_VALUES - 1))
    with pytest.raises(SpecError, match="more than 1,000,000 values"):
        check_tree([0] * MOST_VALUES)
    assert build(yaml.safe_load(BASE)).steps == 5
