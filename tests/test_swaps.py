"""Every shipped prior with every guide, on a discrete and on a continuous game, from the command line alone.

A pair that fits runs; one that does not is refused in one line that says what would fit. What fits is written out
below, and the classes are found: a new one fails here until it is said where it fits.
"""

import itertools
from pathlib import Path

import pytest

from inference_marl.cli import main
from inference_marl.config.files import available

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
    "OpponentTypes": dict.fromkeys(BOTH, made("OpponentTypes", "types: [Uniform, LevelK]")),
    **{
        name: dict.fromkeys(BOTH, network(name))
        for name in ("CategoricalNetwork", "SplineFlow", "TanhNormalMixture", "TanhNormalNetwork")
    },
}

# Which priors and which opponent models fit which game.
COUNTING = {"DirichletMultinomial", "EmpiricalFrequency", "HierarchicalDirichlet", "OpponentTypes"}
PRIORS = {
    "discrete": {"Amortised", "Fixed", "LevelK", "Uniform", *COUNTING},
    "continuous": {"Amortised", "Uniform"},
}
OPPONENT_MODELS = {
    "discrete": {"Autoregressive", "CategoricalNetwork", "Empirical", "Fixed", "Optimal", "Tabular", "Uniform"},
    "continuous": {*("Autoregressive", "Empirical", "SplineFlow", "TanhNormalMixture", "TanhNormalNetwork", "Uniform")},
}
POLICIES = {game: fitting - {"Empirical"} for game, fitting in OPPONENT_MODELS.items()}
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


def run(game: str, folder: Path, *overrides: tuple[str, str]) -> int:
    spec = folder / "swap.yaml"
    spec.write_text(SPECS[game])
    pairs = [word for key, value in overrides for word in (f"--arms.rommeo.{key}", value)]
    return main(["run", str(spec), "--out", str(folder / "runs"), "--quiet", *pairs])


def check(fitting: bool, code: int, errors: str, *names: str) -> None:
    if fitting:
        assert code == 0, errors
        return
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith("inference-marl: arms.rommeo")
    assert "expected" in line
    assert any(name in line for name in names), line


def fits(game: str, prior: str, opponent_model: str) -> bool:
    return prior in PRIORS[game] and opponent_model in OPPONENT_MODELS[game]


@pytest.mark.parametrize(
    ("game", "prior", "order", "opponent_model"),
    [
        pytest.param(game, prior, order, opponent_model, marks=marks)
        for game, prior, opponent_model in itertools.product(BOTH, EVERY_PRIOR, EVERY_FACTOR)
        for order, marks in [("OpponentFirst", ()), ("PolicyFirst", pytest.mark.slow)]
        if order == "OpponentFirst" or fits(game, prior, opponent_model)
    ],
)
def test_every_prior_with_every_guide(
    game: str, prior: str, order: str, opponent_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = "Optimal" if game == "discrete" else NORMAL
    guide = made(order, f"opponent_model: {written(opponent_model, game)}, policy: {policy}")
    code = run(game, tmp_path, ("opponent_prior", written(prior, game)), ("guide", guide))
    check(fits(game, prior, opponent_model), code, capsys.readouterr().err, prior, opponent_model)


@pytest.mark.parametrize("policy", EVERY_FACTOR)
@pytest.mark.parametrize("game", BOTH)
def test_every_policy(game: str, policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(game, tmp_path, ("guide.policy", written(policy, game)))
    check(policy in POLICIES[game], code, capsys.readouterr().err, policy)


@pytest.mark.parametrize("opponent_model", sorted(OPPONENT_MODELS["discrete"]))
def test_a_prior_without_full_support(opponent_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Probabilities of 0 fit factors that follow them, and no others."""
    code = run(
        "discrete",
        tmp_path,
        ("opponent_prior", "EmpiricalFrequency"),
        ("guide.opponent_model", written(opponent_model, "discrete")),
    )
    check(opponent_model in {"Empirical", "Optimal"}, code, capsys.readouterr().err, "smoothing")
