"""The command ablate."""

from pathlib import Path

import pytest

from inference_marl.cli import main
from tests.cli.files import ABLATE, FACTORS


@pytest.mark.slow
def test_ablate_prints_its_table_and_says_where_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ABLATE, *FACTORS]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = output.out.splitlines()
    assert lines[0] == "small: MatrixGame(climbing), 4 cells, 2 replicates each, at step 3"
    headers = [i for i, line in enumerate(lines) if line.split() == ["arm", "kl_weight"]]
    for header, column in zip(headers, ("success rate", "ELBO gap", "rho minus P"), strict=True):
        assert column in lines[header - 1]
        one, two, three, four = (line.split() for line in lines[header + 1 : header + 5])
        assert [one[:2], two[0], three[:2], four[0]] == [["a", "1"], "0.1", ["b", "1"], "0.1"]
    files = ["ablation.csv", "ablation.md", "ablation.tex", "figures/ablation_curves.png", "figures/ablation_elbo.png"]
    assert lines[-2:] == [
        f"Results are in runs/small: {', '.join(files)}",
        "Look further with: inference-marl inspect runs/small",
    ]
    for name in (*files, "summary.json"):
        assert (file.parent / "runs" / "small" / name).is_file()


@pytest.mark.slow
def test_ablate_again_says_so_and_a_change_starts_a_new_folder(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*ABLATE])
    first = capsys.readouterr().out
    assert main([*ABLATE]) == 0
    again = capsys.readouterr().out
    assert again == f"This experiment was run to its end before, in runs/small. It found:\n\n{first}"
    assert main([*ABLATE, "--seed", "1"]) == 0
    assert "Results are in runs/small-2: " in capsys.readouterr().out
    file.write_text(file.read_text().replace("steps: 3", "steps: 2"))
    assert main([*ABLATE]) == 0
    assert "Results are in runs/small-3: " in capsys.readouterr().out


@pytest.mark.slow
def test_run_and_resume_of_a_file_with_factors_print_the_same_table(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "small.yaml", "--quiet", *FACTORS]) == 0
    ran = capsys.readouterr().out
    assert main(["resume", "runs/small", "--quiet"]) == 0
    assert capsys.readouterr().out == ran
    assert main([*ABLATE, *FACTORS]) == 0
    assert capsys.readouterr().out.endswith(ran)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "ablate"])
def test_a_failed_arm_is_status_1_with_the_results_of_the_others(
    file: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    refusing = ("--arms.b.optimality", "{class_path: BernoulliOptimality, init_args: {upper: 5}}", "--replicates", "50")
    assert main([command, "small.yaml", "--quiet", "--jobs", "1", *refusing]) == 1
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("inference-marl: arms.b, step ")
    assert "reward" in output.out
    assert "failed  b: arms.b, step " in output.out
    assert main(["resume", "runs/small", "--quiet"]) == 1
    assert capsys.readouterr().err.splitlines() == [line]
    if command == "ablate":
        assert main(["ablate", "small.yaml", "--quiet", "--jobs", "1", *refusing]) == 1
        assert capsys.readouterr() == output
        assert not (file.parent / "runs" / "small-2").exists()


def test_an_interrupted_ablation_says_how_to_go_on(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("inference_marl.runs.completion._complete", interrupted)
        assert main([*ABLATE]) == 130
    assert "interrupted; go on with: inference-marl resume runs/small" in capsys.readouterr().err
    assert main([*ABLATE]) == 0
    assert "Results are in runs/small: " in capsys.readouterr().out
