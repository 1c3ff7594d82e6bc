"""Imports point one way: every room has a rank of its own, and promises about imports are checked on the syntax tree.

A room is a module or a folder at the first level of the package. It may import rooms of a lower rank only, wherever the
import stands: in a function, or for type checkers alone. The face, which imports lazily by name, is the one exception.
"""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "inference_marl"

RANKS = (
    *("described", "spaces", "types", "statistics", "inference", "play", "experiment", "games"),
    *("simulators", "models", "guides", "learners", "config", "runs", "analysis", "cli", "__main__"),
)
"""From the ground up."""
RANK = {room: rank for rank, room in enumerate(RANKS)}
DATA = "experiments"  # a link to files that the package ships, with no module of it
STRANGERS = frozenset({"models", "guides"})  # they meet only by site names
ONLY_IMPORTER = dict.fromkeys(("arviz", "arviz_stats"), "analysis.arviz.library")
MOST_MODULES = 6  # at the package's top level
MOST_LINES, MOST_IN_A_BODY = 350, 30


def python_files(folder: Path) -> Iterator[Path]:
    """Python files under `folder`, links followed, without hidden folders, virtual environments and builds."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__pycache__"))
            and not (here / name / "pyvenv.cfg").exists()
            and not (here == ROOT and name in {"build", "dist", "runs"})
            and not (here == ROOT / PACKAGE and name == DATA)
        )
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


def module_of(path: Path, package: Path) -> str:
    """The dotted name of a file, without the package's; empty for the package's own face."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported(source: str) -> Sequence[tuple[int, str]]:
    """Line and dotted target of every import in `source`, wherever it stands.

    `from a import b` gives `a.b`, since b may be a module; relative targets keep their leading dots. What is imported
    by a string, `importlib.import_module("a")`, gives its text, or `?` where that is computed. An attribute of the
    package, `inference_marl.a`, counts too: it may be imported by its being read.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (f"{node.module}." if node.module else "")
            found += ((node.lineno, base + alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == PACKAGE:
            if not node.attr.startswith("__"):  # `__all__` and the like import nothing
                found.append((node.lineno, f"{PACKAGE}.{node.attr}"))
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                first = node.args[0] if node.args else None
                found.append((node.lineno, str(first.value) if isinstance(first, ast.Constant) else "?"))
    return found


MAY_COMPUTE = {"config.build", "config.moved", "learners", "simulators.recipe"}
"""Who imports what a user's file names, and who imports every file of its own folder."""


def edges(package: Path) -> Mapping[str, set[str]]:
    """Which modules of the package each of its modules imports."""
    known = {module_of(path, package) for path in python_files(package)}
    found: dict[str, set[str]] = defaultdict(set)
    for path in python_files(package):
        here = module_of(path, package)
        for _, target in imported(path.read_text()):
            if target.startswith(f"{package.name}."):
                name = target.removeprefix(f"{package.name}.")
                while name and name not in known:
                    name = name.rpartition(".")[0]
                if name != here:
                    found[here].add(name)
    return found


def violations(package: Path) -> list[str]:
    """Every import inside `package` that breaks a promise, as `file:line: what is wrong`."""
    found = []
    for path in python_files(package):
        module = module_of(path, package)
        room = module.partition(".")[0]
        if not module:
            continue  # the face
        if room not in RANK:
            found.append(f"{path}: '{room}' has no rank: give it one in RANKS")
            continue
        for line, target in imported(path.read_text()):
            where = f"{path}:{line}"
            if target.startswith("."):
                found.append(f"{where}: '{module}' imports by the relative path {target}")
            elif target == "?" and module not in MAY_COMPUTE:
                found.append(f"{where}: '{module}' imports what no one can read off")
            top, _, rest = target.partition(".")
            if ONLY_IMPORTER.get(top, module) != module:
                found.append(f"{where}: only {ONLY_IMPORTER[top]} imports {top}")
            if top != package.name:
                continue
            other = rest.partition(".")[0]
            if other not in RANK:
                found.append(f"{where}: '{room}' imports the face, by {target}")
            elif {room, other} == STRANGERS:
                found.append(f"{where}: {room} imports {other}; they meet only by site names")
            elif RANK[other] > RANK[room]:
                found.append(f"{where}: '{room}' imports '{other}', of a higher rank, by {target}")
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that reach themselves by imports, grouped by who reaches whom."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph.get(start, ()))
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo.extend(graph.get(module, ()))
        return seen

    reach = {module: reached(module) for module in graph}
    grouped = {
        tuple(sorted(other for other in reach[module] if module in reach.get(other, ())))
        for module in graph
        if module in reach[module]
    }
    return [list(group) for group in sorted(grouped)]


def bare_room_imports(folder: Path) -> list[str]:
    """Imports of `models` or `guides` under the bare name, which would load a second copy of every class."""
    return [
        f"{path}:{line}: import {PACKAGE}.{target}"
        for path in python_files(folder)
        for line, target in imported(path.read_text())
        if target.split(".")[0] in {"models", "guides"}
    ]


def too_long(package: Path) -> list[str]:
    """Files, and bodies of functions without their docstrings, with more lines than a reader should have to hold."""
    found = []
    for path in python_files(package):
        source = path.read_text()
        if (lines := source.count("\n")) > MOST_LINES:
            found.append(f"{path.relative_to(package)}: {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > MOST_IN_A_BODY:
                    found.append(f"{path.relative_to(package)}:{node.lineno}: {lines} lines in {node.name}")
    return found


def write(folder: Path, **sources: str) -> Path:
    """A package of modules given as `room__module=source`."""
    for name, source in sources.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


def test_imports_point_one_way() -> None:
    assert violations(ROOT / PACKAGE) == []


def test_no_module_reaches_itself() -> None:
    assert circles(edges(ROOT / PACKAGE)) == []


def test_every_room_is_there_and_few_are_single_modules() -> None:
    rooms = {
        path.stem for path in (ROOT / PACKAGE).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} == set(RANKS)
    assert len(list((ROOT / PACKAGE).glob("*.py"))) <= MOST_MODULES


def test_files_and_functions_are_short() -> None:
    assert not too_long(ROOT / PACKAGE)


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    body = '    """Say."""\n' + "    x = 1\n" * MOST_IN_A_BODY
    package = write(tmp_path / PACKAGE, a="def f():\n" + body, b="def f():\n" + body + "    y = 2\n")
    write(package, c="x = 1\n" * MOST_LINES, d="x = 1\n" * (MOST_LINES + 1))
    assert too_long(package) == ["b.py:1: 31 lines in f", "d.py: 351 lines"]


def test_rooms_are_never_imported_under_their_bare_names() -> None:
    assert bare_room_imports(ROOT) == []


@pytest.mark.parametrize("room", sorted({*STRANGERS, DATA}))
def test_links_are_relative(room: str) -> None:
    link = ROOT / PACKAGE / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room
    assert (ROOT / room).is_dir()
    assert not (ROOT / room).is_symlink()


def test_checker_accepts_what_is_allowed(tmp_path: Path) -> None:
    package = write(
        tmp_path / PACKAGE,
        types__seat="import torch",
        inference__networks="from inference_marl.types.seat import Seat",
        models__prior="from inference_marl.types.seat import Seat\nfrom inference_marl.models import other",
        models__other="import importlib",
        learners__rommeo="from inference_marl import guides, models",
        guides__ordered="import inference_marl.inference.networks",
        analysis__arviz__library="import arviz.stats\nfrom arviz_stats.utils import ELPDDataLFO",
        analysis__arviz__beliefs="from inference_marl.analysis.arviz.library import tree",
        config__build="import importlib\nimportlib.import_module(named)",
        runs__run="from inference_marl.learners.rommeo import Rommeo",
        cli__main="def f():\n    from inference_marl.runs.run import run",
    )
    (package / "__init__.py").write_text("import importlib\nimportlib.import_module(named)")
    assert violations(package) == []
    assert circles(edges(package)) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("types", "from inference_marl.inference.networks import Linear", "'types' imports 'inference'"),
        ("types", "def f():\n    import inference_marl.models.prior", "types.py:2: 'types' imports 'models'"),
        (
            "types",
            "if TYPE_CHECKING:\n    from inference_marl.inference import networks",
            "types.py:2: 'types' imports 'inference'",
        ),
        ("spaces", "from inference_marl.types import Seat", "'spaces' imports 'types'"),
        ("play__collector", "from inference_marl import games", "'play' imports 'games'"),
        ("experiment", "import inference_marl.runs.run", "'experiment' imports 'runs'"),
        ("config__files", "from inference_marl.runs.run import run", "'config' imports 'runs'"),
        ("runs__run", "from inference_marl.analysis import read", "'runs' imports 'analysis'"),
        ("models__prior", "from inference_marl.guides import Ordered", "models imports guides"),
        ("guides__ordered", "from inference_marl import models", "guides imports models"),
        ("models__prior", "from . import other", "'models.prior' imports by the relative path"),
        ("learners__rommeo", "import importlib\nimportlib.import_module(x)", "imports what no one can read off"),
        (
            "learners__rommeo",
            "import importlib\nimportlib.import_module('inference_marl.runs.run')",
            "'learners' imports 'runs'",
        ),
        ("cli__main", "from inference_marl import __version__", "'cli' imports the face"),
        ("config__files", "import inference_marl.types\ninference_marl.Frozen", "'config' imports the face"),
        ("analysis__plots__beliefs", "import arviz as az", "only analysis.arviz.library imports arviz"),
        ("analysis__arviz__beliefs", "def f():\n    import arviz", "only analysis.arviz.library imports arviz"),
        ("analysis__arviz____init__", "from arviz import hdi", "only analysis.arviz.library imports arviz"),
        ("analysis__arviz__forecasting", "import arviz_stats", "only analysis.arviz.library imports arviz_stats"),
        ("helpers", "import torch", "'helpers' has no rank"),
    ],
)
def test_checker_finds_what_is_not(tmp_path: Path, name: str, source: str, complaint: str) -> None:
    found = violations(write(tmp_path / PACKAGE, **{name: source}))
    assert len(found) == 1
    assert complaint in found[0]


def test_a_circle_inside_a_room_is_found(tmp_path: Path) -> None:
    package = write(
        tmp_path / PACKAGE,
        runs__run="from inference_marl.runs.folder import begin",
        runs__folder="def f():\n    from inference_marl.runs import files",
        runs__files="from inference_marl.runs.run import run",
        cli__main="from inference_marl.runs.run import run",
    )
    assert circles(edges(package)) == [["runs.files", "runs.folder", "runs.run"]]


@pytest.mark.parametrize(
    "source", ["import models", "import guides.ordered as g", "if True:\n    from models.prior import Prior"]
)
def test_bare_import_is_found(tmp_path: Path, source: str) -> None:
    write(tmp_path, experiments__mine=source, experiments__fine="from inference_marl import models, guides")
    assert [found.split(":")[0] for found in bare_room_imports(tmp_path)] == [str(tmp_path / "experiments" / "mine.py")]
