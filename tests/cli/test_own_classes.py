"""Classes of a user's own: found beside the experiment file from anywhere, kept in the run, and not mixed up later."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from inference_marl.cli import main
from tests.cli.files import ROOT, SPEC

PRIORS = """
from my_helpers import CONCENTRATION
from inference_marl.models import DirichletMultinomial


class Flat(DirichletMultinomial):
    '''Mine.'''

    def __init__(self, concentration: float = CONCENTRATION) -> None:
        super().__init__(concentration)
"""

HELPERS = "CONCENTRATION = 0.5\n"

MODULES = ("my_priors", "my_helpers", "late", "late.rates", "installed")

Command = Callable[..., int]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with `exp/mine.yaml`, the modules that it needs beside it, and two other folders."""
    for name in ("exp", "elsewhere", "third"):
        (tmp_path / name).mkdir()
    content = yaml.safe_load(SPEC) | {"checkpoint_every": 1}
    content["arms"]["a"]["init_args"]["opponent_prior"] = "my_priors.Flat"
    (tmp_path / "exp" / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "exp" / "my_priors.py").write_text(PRIORS)
    (tmp_path / "exp" / "my_helpers.py").write_text(HELPERS)
    return tmp_path


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Calls a command in a folder of `home`, as if in a process that has never heard of a user's classes."""
    path = list(sys.path)

    def forget() -> None:
        for name in MODULES:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()

    def call(folder: str, *words: str) -> int:
        forget()
        monkeypatch.setattr(sys, "path", list(path))
        monkeypatch.chdir(home / folder)
        return main([*words, "--quiet"])

    yield call
    forget()


def steps_of(folder: Path) -> int:
    steps: int = json.loads((folder / "summary.json").read_text())["steps"]
    return steps


@pytest.mark.slow
def test_they_are_found_beside_the_file_and_later_in_the_run(home: Path, command: Command) -> None:
    folder = home / "elsewhere" / "runs" / "mine"
    assert command("elsewhere", "run", str(home / "exp" / "mine.yaml")) == 0
    kept = {path.relative_to(folder / "sources").as_posix() for path in (folder / "sources").rglob("*.py")}
    assert kept == {"my_priors.py", "my_helpers.py"}
    assert command("third", "resume", str(folder), "--steps", "4") == 0
    shutil.rmtree(home / "exp")
    (home / "exp").mkdir()
    assert command("exp", "resume", "../elsewhere/runs/mine", "--steps", "5") == 0
    assert steps_of(folder) == 5


@pytest.mark.slow
def test_processes_of_their_own_find_them_too(home: Path, command: Command) -> None:
    folder = home / "elsewhere" / "runs" / "mine"
    assert command("elsewhere", "run", "../exp/mine.yaml", "--jobs", "2") == 0
    (home / "exp").rename(home / "gone")
    assert command("third", "resume", str(folder), "--steps", "4", "--jobs", "2") == 0
    assert steps_of(folder) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_priors.py", "my_helpers.py"])
def test_an_edited_file_is_named_where_it_is_found(
    home: Path, command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, edited = home / "elsewhere" / "runs" / "mine", home / "exp" / name
    assert command("elsewhere", "run", "../exp/mine.yaml") == 0
    with edited.open("a") as file:
        file.write("# edited since\n")
    capsys.readouterr()
    assert command("exp", "resume", str(folder), "--steps", "4") == 2
    assert capsys.readouterr().err == (
        f"inference-marl: {edited}: got another content than when the run in {folder} was begun, expected that of "
        f"{folder / 'sources' / name}: put it back, or start a new run\n"
    )
    assert steps_of(folder) == 3
    assert command("third", "resume", str(folder), "--steps", "4") == 0  # there it is not found
    edited.unlink()
    assert command("exp", "resume", str(folder), "--steps", "5") == 0
    assert command("elsewhere", "run", "../exp/mine.yaml") == 2  # which a new run cannot be made of
    assert f"No module named '{edited.stem}'" in capsys.readouterr().err


LATE = """
from inference_marl.models import DirichletMultinomial


class Flat(DirichletMultinomial):
    seen = 0

    def observe(self, obs, opponent_action):
        Flat.seen += 1
        if Flat.seen > 4:
            from late import rates

            assert rates.RATE
        super().observe(obs, opponent_action)
"""


@pytest.mark.slow
def test_what_is_imported_only_while_a_run_is_played_is_kept_too(home: Path, command: Command) -> None:
    (home / "exp" / "my_priors.py").write_text(LATE)
    (home / "exp" / "late").mkdir()
    (home / "exp" / "late" / "__init__.py").touch()
    (home / "exp" / "late" / "rates.py").write_text("RATE = 0.5")
    folder = home / "elsewhere" / "runs" / "mine"
    assert command("elsewhere", "run", "../exp/mine.yaml") == 0
    assert (folder / "sources" / "late" / "rates.py").read_text() == "RATE = 0.5"
    (home / "exp").rename(home / "gone")
    assert command("third", "resume", str(folder), "--steps", "8") == 0


@pytest.mark.parametrize("known_by", ["installed-1.0.dist-info", "site-packages"])
def test_what_is_installed_anywhere_is_nobodys_own(home: Path, command: Command, known_by: str) -> None:
    """Also by `pip install --target`, or in another environment that this one sees."""
    place = home / "exp" / "lib" / "site-packages" if known_by == "site-packages" else home / "target"
    place.mkdir(parents=True)
    (place / known_by).mkdir(exist_ok=True)
    (place / "installed.py").write_text("CONCENTRATION = 0.5")
    (home / "exp" / "my_helpers.py").write_text(
        f"import sys\nsys.path.append({str(place)!r})\nfrom installed import CONCENTRATION"
    )
    assert command("elsewhere", "run", "../exp/mine.yaml") == 0
    kept = home / "elsewhere" / "runs" / "mine" / "sources"
    assert {path.name for path in kept.rglob("*.py")} == {"my_priors.py", "my_helpers.py"}


def test_what_is_beside_the_file_comes_before_what_is_in_the_working_folder(home: Path, command: Command) -> None:
    (home / "elsewhere" / "my_priors.py").write_text("raise ValueError('not this one')")
    assert command("elsewhere", "run", "../exp/mine.yaml") == 0


@pytest.mark.slow
# -P keeps the working folder off the path, as for the installed command; without it, Python puts it first.
@pytest.mark.parametrize("options", [["-P"], []])
def test_a_killed_run_goes_on_from_another_folder(home: Path, command: Command, options: list[str]) -> None:
    folder = home / "elsewhere" / "runs" / "mine"
    (home / "elsewhere" / "my_priors.py").write_text("raise ValueError('not this one')")
    words = ["run", str(home / "exp" / "mine.yaml"), "--steps", "150", "--checkpoint_every", "5", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, *options, "-W", "error", "-m", "inference_marl", *words],
        cwd=home / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    try:
        while not list(folder.glob("checkpoints/*.pt")):
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed: make it longer"
    assert not (folder / "summary.json").exists()
    shutil.rmtree(home / "exp")
    assert command("third", "resume", str(folder), "--steps", "155") == 0
    assert steps_of(folder) == 155
