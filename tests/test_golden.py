"""Numbers that must not change while the code around them does.

`golden/states.npz` holds the state of learners after 30 steps, on games with random starts, replay, peers and several
states among them. It was written by commit 2f2e242, from before the package was arranged in rooms. `golden/*.txt` is
what commands print: the same numbers as then, in tables of pandas. A commit that must change one writes it anew
(`python tests/test_golden.py write`) and says which value changed, and why. The state of `rommeo_three_agents` is from
when each of several opponents got a site of its own, and so other random numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from matplotlib.figure import Figure

from inference_marl.cli import main
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, MeetingGrid, Rendezvous, RiskyBridge
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    Tabular,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.schedules import ExponentialDecay
from inference_marl.learners import Planner, Rommeo, Stationary
from inference_marl.learners.lola import Lola
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.learners.tabular.fmq import FMQ
from inference_marl.learners.tabular.hill_climbing import WoLFPHC
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.models import (
    Amortised,
    BayesianCritic,
    DirichletTransition,
    EmpiricalFrequency,
    HierarchicalDirichlet,
    LevelK,
    NetworkCritic,
    OpponentTypes,
    TabularCritic,
)
from inference_marl.runs.arm import Arm
from inference_marl.types import Actor, Game

GOLDEN = Path(__file__).parent / "golden"
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STEPS, REPLICATES, ENVIRONMENTS = 30, 3, 4
THREE_AGENTS = [[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [1.0, 0.0]]]


def normal() -> TanhNormalNetwork:
    return TanhNormalNetwork((8,))


def categorical() -> CategoricalNetwork:
    return CategoricalNetwork((8,))


def rommeo_ac(**more: Any) -> Rommeo:
    chosen: dict[str, Any] = {
        "opponent_prior": Amortised(normal(), window=20, batch_size=8),
        "guide": OpponentFirst(normal(), normal()),
        "critic": NetworkCritic((8,)),
        "temperature": 0.1,
        "replay": 50,
        "batch_size": 8,
        "warmup": 5,
        **more,
    }
    return Rommeo(**chosen)


PAIRS: dict[str, tuple[Callable[[], Game], Callable[[], Actor | list[Actor]]]] = {
    "rommeo_q_climbing": (
        lambda: MatrixGame("climbing"),
        lambda: Rommeo(
            opponent_prior=EmpiricalFrequency(window=50),
            guide=OpponentFirst(Optimal(), Optimal()),
            critic=TabularCritic(),
            temperature=ExponentialDecay(500.0, 0.1, 0.1),
        ),
    ),
    "rommeo_ac_quadratics": (lambda: MaxOfTwoQuadratics(horizon=7), rommeo_ac),
    "rommeo_ac_rendezvous": (  # random starts
        lambda: Rendezvous(horizon=11),
        lambda: rommeo_ac(opponent_prior=Amortised(normal(), window=20, batch_size=8, max_gradient_norm=1.0)),
    ),
    "rommeo_bayesian_rendezvous": (
        lambda: Rendezvous(horizon=11),
        lambda: rommeo_ac(critic=BayesianCritic((8,), resample_every=3), guide=PolicyFirst(normal(), normal())),
    ),
    "rommeo_grid_replay": (
        MeetingGrid,
        lambda: Rommeo(
            opponent_prior=EmpiricalFrequency(smoothing=0.1),
            guide=OpponentFirst(categorical(), categorical()),
            critic=TabularCritic(),
            temperature=1.0,
            replay=50,
            batch_size=8,
        ),
    ),
    "rommeo_three_agents": (
        lambda: MatrixGame(THREE_AGENTS, common=True),
        lambda: Rommeo(
            opponent_prior=HierarchicalDirichlet(steps=2),
            guide=OpponentFirst(Autoregressive(Tabular()), Tabular()),
            critic=TabularCritic(),
            temperature=1.0,
        ),
    ),
    "rommeo_types_repeated": (
        lambda: MatrixGame("stag_hunt", horizon=4, memory=1),
        lambda: Rommeo(
            opponent_prior=OpponentTypes(
                [LevelK(), EmpiricalFrequency(window=2, smoothing=0.5), Amortised(Tabular())], forget=0.1
            ),
            guide=PolicyFirst(categorical(), Optimal()),
            critic=TabularCritic(target_rate=0.5),
            temperature=1.0,
        ),
    ),
    "planner_bridge": (
        RiskyBridge,
        lambda: Planner(
            opponent_prior=HierarchicalDirichlet(steps=1),
            reward=TabularCritic(),
            guide=TrajectoryGuide(Tabular(), categorical(), "inferred"),
            transition=DirichletTransition(),
            horizon=3,
            replay=20,
            batch_size=8,
        ),
    ),
    "wolf_phc_repeated": (lambda: MatrixGame("chicken", horizon=5, memory=1), WoLFPHC),
    "independent_q_grid": (MeetingGrid, lambda: IndependentQ(exploration=Boltzmann())),
    "fmq_against_a_script": (
        lambda: MatrixGame("climbing", horizon=3, memory=1),
        lambda: [FMQ(exploration=Boltzmann()), Stationary(concentration=0.5)],
    ),
    "lola_reads_peers": (
        lambda: MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96),
        Lola,
    ),
    "lola_estimates": (
        lambda: MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96),
        lambda: [Lola(), IndependentQ(exploration=Boltzmann())],
    ),
}

COMMANDS = {
    "climbing": [
        *("run", "climbing.yaml", "--replicates", "30", "--steps", "60", "--arms.rommeo_q_uniform_prior", "null"),
        "--inspect",
    ],
    "max_of_two_quadratics": [
        *("run", "max_of_two_quadratics.yaml", "--replicates", "2", "--steps", "75", "--checkpoint_every", "75"),
        *("--arms.rommeo_ac.warmup", "25", "--arms.rommeo_ac.batch_size", "32"),
    ],
    "lola_tournament": [
        *("tournament", "lola_tournament.yaml", "--replicates", "3", "--steps", "40", "--record_every", "20"),
        *("--arms.nl_q", "null", "--arms.phc", "null", "--jobs", "1"),
        *("--runs.prisoners_dilemma.game.horizon", "20", "--runs.matching_pennies.game.horizon", "20"),
    ],
}


def state(name: str) -> dict[str, np.ndarray]:
    """All tensors that a pair's learners hold after some steps, by agent and name."""
    make_game, make_learner = PAIRS[name]
    experiment = Experiment(
        make_game(), {"it": make_learner()}, REPLICATES, 10**6, environments=ENVIRONMENTS, record_every=10**6, seed=5
    )
    with pyro.validation_enabled(False):
        arm = Arm.start(experiment, "it")
        for _ in range(STEPS):
            arm.advance()
    found = {"reward": arm.recorder.sums["reward"].mean(1)}
    for agent, actor in enumerate(arm.actors):
        tensors = {key: value for key, value in actor.state_dict().items() if isinstance(value, torch.Tensor)}
        found |= {f"{agent}.{key_of_old(key, agent)}": value for key, value in tensors.items()}
    return {key: value.detach().numpy() for key, value in found.items()}


def key_of_old(key: str, agent: int) -> str:
    """What the tensor that is now called `key` was called when the golden numbers were written."""
    if key.startswith("transitions."):  # of all agents now, and of two in every game here
        key = key.replace("transitions.", "replay.").replace(f"obs_{agent}", "obs").replace("rewards", "reward")
        key = key.replace(f"action_{agent}", "action").replace(f"action_{1 - agent}", "opponent_action")
    return {"softmax.logits": "logits", "strategy": "policy", "strategy.logits": "policy.logits"}.get(key, key)


def printed(name: str, folder: Path, capture: Callable[[], str]) -> str:
    """What a command prints, without where and how long it ran."""
    command, file, *rest = COMMANDS[name]
    assert main([command, str(EXPERIMENTS / file), *rest, "--out", str(folder), "--quiet"]) == 0
    if "--inspect" in rest:
        assert main(["inspect", "--full", str(folder / name)]) == 0
    lines = capture().replace(str(folder), "OUT").splitlines()
    return "\n".join(line.rstrip() for line in lines if "OUT" not in line) + "\n"


@pytest.mark.parametrize("name", PAIRS)
def test_learners_end_in_the_same_state(name: str) -> None:
    with np.load(GOLDEN / "states.npz") as kept:
        expected = {key.partition("/")[2]: kept[key] for key in kept.files if key.partition("/")[0] == name}
    found = state(name)
    for key, value in expected.items():
        if "lola" in name and key.endswith("counts"):  # of what is believed of the opponent now
            found[key] = found[key.replace("counts", "believed.counts")]
        if key.endswith("replay.reward"):  # of all agents now
            found[key] = found[key][..., int(key[0])]
        # The same to the bit on the machine that wrote them; others may round products of matrices otherwise.
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    "name", [name if name == "climbing" else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
def test_commands_print_the_same(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.write_bytes(b""))  # only text matters
    assert printed(name, tmp_path, lambda: capsys.readouterr().out) == (GOLDEN / f"{name}.txt").read_text()


if __name__ == "__main__":
    import contextlib
    import io
    import tempfile

    torch.set_num_threads(1)
    new = {f"{name}/{key}": value for name in PAIRS for key, value in state(name).items()}
    if (GOLDEN / "states.npz").exists():
        with np.load(GOLDEN / "states.npz") as old:
            for key in sorted(old.files):
                value = new.get(key)
                if value is not None and key.endswith("replay.reward"):
                    value = value[..., int(key.partition("/")[2][0])]
                if key in old.files and (value is None or not np.array_equal(value, old[key], equal_nan=True)):
                    print(f"changed: {key}")
    if sys.argv[1:] == ["write"]:
        for name in COMMANDS:
            out = io.StringIO()
            with contextlib.redirect_stdout(out), tempfile.TemporaryDirectory() as folder:
                text = printed(name, Path(folder), out.getvalue)
            (GOLDEN / f"{name}.txt").write_text(text)
