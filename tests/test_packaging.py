"""The wheel and the sdist hold the package and nothing else, install into a clean environment and import there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import inference_marl

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "inference_marl"
ROOMS = (PACKAGE, "models", "guides", "tests", "experiments", "examples")

IMPORT_SCRIPT = """
import importlib, importlib.metadata, importlib.util
import inference_marl, inference_marl.models, inference_marl.guides, inference_marl.cli
for room in ("models", "guides", "tests", "experiments", "examples"):
    assert importlib.util.find_spec(room) is None, f"{room} is importable under its bare name"
assert inference_marl.__version__ == importlib.metadata.version("inference-marl")
print(inference_marl.__file__, inference_marl.models.__file__, inference_marl.guides.__file__, sep="\\n")
"""

COMMANDS_SCRIPT = """
import sys
from inference_marl.cli import main

for words in (
    ["list"],
    ["run", "climbing", "--steps", "2", "--replicates", "2", "--arms.rommeo_q_emp", "null", "--quiet"],
    ["resume", "runs/climbing", "--steps", "3", "--quiet"],
    ["report", "runs/climbing"],
    ["copy", "climbing", sys.argv[1]],
):
    assert main(words) == 0, words
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the source tree; its output is shown when it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wheel_files(wheel: Path) -> dict[str, bytes]:
    """The wheel's files by name, without the list of hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is committed, free of what earlier builds left behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, cwd=checkout)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", out, cwd=checkout)
    return next(out.glob("*.tar.gz"))


def clean_environment(folder: Path) -> Path:
    """An environment's Python that sees our dependencies but not the source tree.

    A `.pth` line adds a folder without running the `.pth` files in it, so that the editable installation which
    the tests themselves run from stays invisible.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    dependencies = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (Path(site) / "dependencies.pth").write_text("\n".join(dependencies))
    return python


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in wheel_files(wheel) if ".dist-info/" not in name}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py")}
    for room in ("models", "guides"):
        files |= {f"{PACKAGE}/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / room).rglob("*.py")}
    page = {f"{PACKAGE}/analysis/report/{name}" for name in ("page.html.jinja", "page.css")}
    experiments = {f"{PACKAGE}/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yaml")}
    assert len(experiments) > 10
    assert names == files | {f"{PACKAGE}/py.typed", *page, *experiments}
    assert {f"{PACKAGE}/models/__init__.py", f"{PACKAGE}/guides/__init__.py"} <= names


def test_sdist_holds_no_links_and_no_loose_rooms(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() or member.isdir() for member in members)
    names = {Path(*Path(member.name).parts[1:]).as_posix() for member in members if member.isfile()}
    assert {"LICENSE", "README.md", "pyproject.toml", f"{PACKAGE}/models/__init__.py"} <= names
    experiments = {Path(name).name for name in names if name.startswith(f"{PACKAGE}/experiments/")}
    assert experiments == {path.name for path in (ROOT / "experiments").glob("*.yaml")}
    assert {name.split("/")[0] for name in names if "/" in name} == {PACKAGE, f"{PACKAGE}.egg-info"}


@pytest.mark.slow
def test_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, source, cwd=tmp_path)
    assert wheel_files(next(tmp_path.glob("*.whl"))) == wheel_files(wheel)


@pytest.mark.slow
# Of the sdist the same wheel is built, as another test shows.
@pytest.mark.parametrize("artefact", ["wheel", "sdist"])
def test_installs_and_imports_in_a_clean_environment(
    artefact: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    python = clean_environment(tmp_path / "clean")
    run(
        *(sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check"),
        *("install", "--no-index", "--no-deps", "--no-build-isolation", request.getfixturevalue(artefact)),
        cwd=tmp_path,
    )
    locations = run(python, "-I", "-W", "error", "-c", IMPORT_SCRIPT, cwd=tmp_path).splitlines()
    assert all(Path(location).is_relative_to(tmp_path / "clean") for location in locations)
    command = tmp_path / "clean" / "bin" / "inference-marl"
    assert "run" in run(command, "--help", cwd=tmp_path)
    version = run(python, "-I", "-m", PACKAGE, "--version", cwd=tmp_path)
    assert version == f"inference-marl {inference_marl.__version__}\n"
    as_a_user(python, command, tmp_path)


def as_a_user(python: Path, command: Path, folder: Path) -> None:
    """Use what is installed from an empty folder: experiments by name, one copied out, a prior of one's own."""
    empty, own = folder / "empty", folder / "own"
    empty.mkdir()
    own.mkdir()
    found = run(python, "-I", "-W", "error", "-c", COMMANDS_SCRIPT, own, cwd=empty)
    assert "\n  climbing  " in found
    assert "rommeo_q_optimistic" in found
    assert (empty / "runs" / "climbing" / "report.html").is_file()
    prior = "from inference_marl.models import Uniform\n\n\nclass Flat(Uniform):\n    pass\n"
    (own / "my_priors.py").write_text(prior)
    changes = ("--arms.rommeo_q.opponent_prior", "my_priors.Flat", "--steps", "2", "--replicates", "2", "--quiet")
    run(command, "run", "../own/climbing.yaml", *changes, cwd=empty)
    assert (empty / "runs" / "climbing-2" / "sources" / "my_priors.py").read_text() == prior


def test_a_checkout_without_links_says_what_to_do(tmp_path: Path) -> None:
    """Git writes links as text files where it may not make links, as on Windows."""
    (tmp_path / PACKAGE).mkdir()
    shutil.copy(ROOT / PACKAGE / "__init__.py", tmp_path / PACKAGE)
    for room in ("models", "guides", "experiments"):
        (tmp_path / PACKAGE / room).write_text(f"../{room}")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {PACKAGE}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / PACKAGE / 'models'}: got no folder, expected a link to one")
    assert "git config core.symlinks true && git checkout -- inference_marl/models" in last
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    made = subprocess.run(["make", "demo"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "git config core.symlinks true && git checkout -- inference_marl/models" in made.stderr
    assert not (tmp_path / ".venv").exists()


NO_FCNTL = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["fcntl"] = None  # as on Windows
import inference_marl
from inference_marl.cli import main
print(main(["run", "climbing"]))
inference_marl.load("climbing")
try:
    inference_marl.run
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_system_without_locks_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_FCNTL, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    why = f"system: got {sys.platform}, without fcntl, expected Linux or macOS; on Windows use WSL"
    assert (done.stdout, done.stderr) == (f"2\n{why}\n", f"inference-marl: {why}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "program",
    [
        "import inference_marl; dir(inference_marl)",
        "from inference_marl.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass",
    ],
)
def test_the_face_and_the_version_load_neither_torch_nor_pyro(program: str) -> None:
    found = run(sys.executable, "-c", f"{program}\nimport sys; print({{'torch', 'pyro'}} & set(sys.modules))", cwd=ROOT)
    assert found.splitlines()[-1] == "set()"
    assert "version" not in program or found.splitlines()[0] == f"inference-marl {inference_marl.__version__}"


def test_every_name_of_the_face_is_there() -> None:
    for name in inference_marl.__all__:
        assert getattr(inference_marl, name) is not None
    assert inference_marl.Experiment.__module__ == "inference_marl.experiment"
    assert dir(inference_marl) == sorted(inference_marl.__all__)
    with pytest.raises(AttributeError, match="module 'inference_marl' has no attribute 'runn'"):
        _ = inference_marl.runn


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert inference_marl.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
