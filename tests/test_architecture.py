"""Imports point one way, and each promise about who may import what is checked on the syntax tree.

A row of `RANKS` is a rank: a module may import from its own row and from the rows before it, never from a later one.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "inference_marl"

RANKS = (
    {"described", "spaces", "types"},
    {
        "games",
        "networks",
        "distributions",
        "objectives",
        "exact",
        "plates",
        "replay",
        "returns",
        "schedules",
        "svi",
        "tables",
    },
    {"models", "guides"},
    {"learners"},
    {
        *("run", "playing", "spec", "building", "designs", "recording", "results", "suite", "tournament"),
        *("posterior", "readings", "statistics", "plots", "report"),
    },
    {"cli"},
    {"", "__main__"},  # the package's own face, which re-exports: nothing inside may lean on it
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
STRANGERS = {("models", "guides"), ("guides", "models")}  # they meet only by site names
ONLY_IMPORTER = {"arviz": "posterior"}


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
        )
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted target of every import in `source`, wherever it stands.

    `from a import b` gives `a.b`, since b may be a module; relative targets keep their leading dots.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (f"{node.module}." if node.module else "")
            yield from ((node.lineno, base + alias.name) for alias in node.names)


def absolute(target: str, importer: Path, package: Path) -> str:
    """The absolute form of an import target that stands in the file `importer` of `package`."""
    rest = target.lstrip(".")
    level = len(target) - len(rest)
    return ".".join((*importer.relative_to(package.parent).parts[:-level], rest)) if level else target


def direction_violations(package: Path) -> list[str]:
    """Every import inside `package` that points the wrong way, as `file:line: what is wrong`."""
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    found = []
    for path in python_files(package):
        room = path.relative_to(package).parts[0].removesuffix(".py").replace("__init__", "")
        if room not in RANK:
            found.append(f"{path}: '{room}' has no rank: give it one in RANKS")
            continue
        for line, target in imported(path.read_text()):
            top, _, rest = absolute(target, path, package).partition(".")
            where = f"{path}:{line}"
            if ONLY_IMPORTER.get(top, room) != room:
                found.append(f"{where}: only {ONLY_IMPORTER[top]} imports {top}")
            if top != package.name:
                continue
            other = rest.split(".")[0]
            other = other if other in rooms else ""
            if (room, other) in STRANGERS:
                found.append(f"{where}: {room} imports {other}; they meet only by site names")
            elif RANK.get(other, -1) > RANK[room]:
                found.append(f"{where}: '{room}' imports '{other or package.name}', of a later rank, by {target}")
    return found


def bare_room_imports(folder: Path) -> list[str]:
    """Imports of `models` or `guides` under the bare name, which would load a second copy of every class."""
    return [
        f"{path}:{line}: import {PACKAGE}.{target}"
        for path in python_files(folder)
        for line, target in imported(path.read_text())
        if target.split(".")[0] in {"models", "guides"}
    ]


def write(folder: Path, **sources: str) -> Path:
    """A package of modules given as `room__module=source`."""
    for name, source in sources.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


def test_imports_point_one_way() -> None:
    assert direction_violations(ROOT / PACKAGE) == []


def test_rooms_are_never_imported_under_their_bare_names() -> None:
    assert bare_room_imports(ROOT) == []


@pytest.mark.parametrize("room", ["models", "guides"])
def test_links_are_relative(room: str) -> None:
    link = ROOT / PACKAGE / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room
    assert (ROOT / room).is_dir()
    assert not (ROOT / room).is_symlink()


def test_checker_accepts_what_is_allowed(tmp_path: Path) -> None:
    package = write(
        tmp_path / PACKAGE,
        types="import torch",
        networks="",
        models__prior="from inference_marl.types import Seat\nfrom inference_marl.models import other",
        models__other="from . import prior\nfrom ..types import Seat",
        learners__rommeo="from inference_marl import guides, models",
        guides__ordered="import inference_marl.inference.networks",
        posterior="import arviz.stats",
        cli="from inference_marl.runs.run import run",
        run="from .learners.rommeo import Rommeo",
    )
    (package / "__init__.py").write_text("from inference_marl.cli import main")
    assert direction_violations(package) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("types", "from inference_marl.inference.networks import Linear", "'types' imports 'networks'"),
        ("types", "def f():\n    import inference_marl.models.prior", "types.py:2: 'types' imports 'models'"),
        ("models__prior", "from inference_marl.guides import Ordered", "models imports guides"),
        ("models__prior", "from ..guides import ordered", "models imports guides"),
        ("guides__ordered", "from inference_marl import models", "guides imports models"),
        ("guides__ordered", "from .. import models", "guides imports models"),
        ("learners__rommeo", "from ..run import run", "'learners' imports 'run'"),
        ("run", "from inference_marl.cli import main", "'run' imports 'cli'"),
        ("cli", "from inference_marl import __version__", "'cli' imports 'inference_marl'"),
        ("plots", "import arviz as az", "only posterior imports arviz"),
        ("cli", "from arviz.stats import rhat", "only posterior imports arviz"),
        ("helpers", "import torch", "'helpers' has no rank"),
    ],
)
def test_checker_finds_what_is_not(tmp_path: Path, name: str, source: str, complaint: str) -> None:
    rooms = dict.fromkeys(["networks", "models__prior", "guides__ordered", "run", "cli"], "")
    found = direction_violations(write(tmp_path / PACKAGE, **rooms | {name: source}))
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    "source", ["import models", "import guides.ordered as g", "if True:\n    from models.prior import Prior"]
)
def test_bare_import_is_found(tmp_path: Path, source: str) -> None:
    write(tmp_path, experiments__mine=source, experiments__fine="from inference_marl import models, guides")
    assert [found.split(":")[0] for found in bare_room_imports(tmp_path)] == [str(tmp_path / "experiments" / "mine.py")]
