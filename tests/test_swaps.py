"""Every shipped prior with every guide, on a discrete and on a continuous game, from the command line alone.

A pair that fits runs; one that does not is refused in one line that says what would fit. What fits is written out
below, and the classes are found: a new one fails here until it is said where it fits.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest

from inference_marl.cli import main
from inference_marl.config.catalogue import available

BOTH = ("discrete", "continuous")


def network(name: str) -> str:
    return f"{{class_path: {name}, init_args: {{hidden: [4]}}}}"


def made(name: str, arguments: str) -> str:
    return f"{{class_path: {name}, init_args: {{{arguments}}}}}"


CATEGORICAL, NORMAL = network("CategoricalNetwork"), network("TanhNormalNetwork")

# How each class is written on the command line, where its name alone does not do.
WRITTEN: dict[str, dict[str, str]] = {
    "Amortised": {
        "discrete": made("Amortised", f"conditional: {CATEGORICAL}, batch_size: 4"),
        "continuous": made("Amortised", f"conditional: {NORMAL}, batch_size: 4"),
    },
    "Autoregressive": {
        "discrete": made("Autoregressive", "factor: Tabular"),
        "continuous": made("Autoregressive", f"factor: {NORMAL}"),
    },
    "EmpiricalFrequency": dict.fromkeys(BOTH, made("EmpiricalFrequency", "smoothing: 0.1")),
    "Fixed": dict.fromkeys(BOTH, made("Fixed", "probabilities: [1, 2, 3]")),
    "Independent": {
        "discrete": made("Independent", "factor: Tabular"),
        "continuous": made("Independent", f"factor: {NORMAL}"),
    },
    "Joint": {
        "discrete": made("Joint", "factor: Tabular"),
        "continuous": made("Joint", f"factor: {NORMAL}"),
    },
    "OpponentTypes": dict.fromkeys(BOTH, made("OpponentTypes", "types: [Uniform, LevelK]")),
    "Shared": {
        "discrete": made("Shared", "factor: Tabular"),
        "continuous": made("Shared", f"factor: {NORMAL}"),
    },
    **{
        name: dict.fromkeys(BOTH, network(name))
        for name in ("CategoricalNetwork", "SamplerNetwork", "SplineFlow", "TanhNormalMixture", "TanhNormalNetwork")
    },
}

# Which priors and which opponent models fit which game.
OF_OPPONENTS = {"Autoregressive", "Independent", "Joint", "Shared"}  # of the only one, they are their factor
COUNTING = {"DirichletMultinomial", "EmpiricalFrequency", "HierarchicalDirichlet", "OpponentTypes"}
PRIORS = {
    "discrete": {"Amortised", "Fixed", "LevelK", "Uniform", *COUNTING},
    "continuous": {"Amortised", "Uniform"},
}
OPPONENT_MODELS = {
    "discrete": {*OF_OPPONENTS, "CategoricalNetwork", "Empirical", "Fixed", "Optimal", "Tabular", "Uniform"},
    "continuous": {*OF_OPPONENTS, "Empirical", "SplineFlow", "TanhNormalMixture", "TanhNormalNetwork", "Uniform"},
}
POLICIES = {game: fitting - {"Empirical", *OF_OPPONENTS} for game, fitting in OPPONENT_MODELS.items()}
EVERY_PRIOR = sorted(available()["opponent priors"])
EVERY_FACTOR = sorted({*available()["conditionals"], *EVERY_PRIOR})

SPECS = {
    "discrete": """
        game: {class_path: MatrixGame, init_args: {payoff: climbing}}
        replicates: 2
        steps: 2
        arms:
          rommeo:
            class_path: Rommeo
            init_args:
              opponent_prior: Uniform
              guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
              critic: TabularCritic
        """,
    "continuous": """
        game: MaxOfTwoQuadratics
        replicates: 2
        steps: 2
        draws: 2
        arms:
          rommeo:
            class_path: Rommeo
            init_args:
              opponent_prior: Uniform
              guide:
                class_path: OpponentFirst
                init_args:
                  opponent_model: {class_path: TanhNormalNetwork, init_args: {hidden: [4]}}
                  policy: {class_path: TanhNormalNetwork, init_args: {hidden: [4]}}
              critic: {class_path: NetworkCritic, init_args: {hidden: [4]}}
              batch_size: 4
        """,
}


def written(name: str, game: str) -> str:
    return WRITTEN.get(name, {}).get(game, name)


def run(game: str, folder: Path, arms: Mapping[str, Mapping[str, str]]) -> int:
    """Run a game with these arms, each by what it changes in `rommeo`: one run costs less than one for each arm."""
    spec = folder / "swap.yaml"
    spec.write_text(SPECS[game])
    words = ["--arms.rommeo", "null"]
    for name, changes in arms.items():
        for key, value in {"like": "rommeo", **changes}.items():
            words += [f"--arms.{name}.{key}", value]
    return main(["run", str(spec), "--out", str(folder / "runs"), "--quiet", *words])


def guided(game: str, prior: str, order: str, opponent_model: str) -> dict[str, str]:
    policy = "Optimal" if game == "discrete" else NORMAL
    guide = made(order, f"opponent_model: {written(opponent_model, game)}, policy: {policy}")
    return {"opponent_prior": written(prior, game), "guide": guide}


def check_refused(code: int, errors: str, *names: str) -> None:
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith("inference-marl: arms.swapped")
    assert "expected" in line
    assert any(name in line for name in names), line


SLOWER = ("HierarchicalDirichlet", "OpponentTypes", "LevelK", "Uniform", "Fixed", "DirichletMultinomial")


def fits(game: str, prior: str, opponent_model: str) -> bool:
    return prior in PRIORS[game] and opponent_model in OPPONENT_MODELS[game]


@pytest.mark.parametrize("order", ["OpponentFirst", pytest.param("PolicyFirst", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("game", "prior"),
    [
        pytest.param(game, prior, marks=[pytest.mark.slow] if prior in SLOWER else [])
        for game in BOTH
        for prior in sorted(PRIORS[game])
    ],
)
def test_every_prior_with_every_guide(
    game: str, prior: str, order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = {each: guided(game, prior, order, each) for each in sorted(OPPONENT_MODELS[game])}
    assert run(game, tmp_path, arms) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("game", "prior", "opponent_model"),
    [
        # Beside Uniform, which fits everywhere, the fast tests refuse each prior and each opponent model once.
        pytest.param(
            game, prior, opponent_model, marks=() if "Uniform" in (prior, opponent_model) else pytest.mark.slow
        )
        for game, prior, opponent_model in itertools.product(BOTH, EVERY_PRIOR, EVERY_FACTOR)
        if not fits(game, prior, opponent_model)
    ],
)
def test_a_pair_that_does_not_fit_is_refused(
    game: str, prior: str, opponent_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(game, tmp_path, {"swapped": guided(game, prior, "OpponentFirst", opponent_model)})
    check_refused(code, capsys.readouterr().err, prior, opponent_model)


@pytest.mark.slow
@pytest.mark.parametrize("game", BOTH)
def test_every_policy(game: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {policy: {"guide.policy": written(policy, game)} for policy in sorted(POLICIES[game])}
    assert run(game, tmp_path, arms) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("game", "policy"), [(game, each) for game in BOTH for each in EVERY_FACTOR if each not in POLICIES[game]]
)
def test_a_policy_that_does_not_fit_is_refused(
    game: str, policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(game, tmp_path, {"swapped": {"guide.policy": written(policy, game)}})
    check_refused(code, capsys.readouterr().err, policy)


@pytest.mark.slow
@pytest.mark.parametrize("opponent_model", sorted(OPPONENT_MODELS["discrete"]))
def test_a_prior_without_full_support(opponent_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Probabilities of 0 fit factors that follow them, and no others."""
    swapped = {
        "opponent_prior": "EmpiricalFrequency",
        "guide.opponent_model": written(opponent_model, "discrete"),
    }
    code = run("discrete", tmp_path, {"swapped": swapped})
    errors = capsys.readouterr().err
    if opponent_model in {"Empirical", "Optimal"}:
        assert code == 0, errors
    else:
        check_refused(code, errors, "smoothing")
