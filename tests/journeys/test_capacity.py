"""``holdfast tune --set search=capacity`` through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SETS = ("--set", "search=capacity")


@pytest.fixture(scope="module")
def settings(quick: list[str]) -> list[str]:
    return [word for one in (*quick, "train.evaluations=3") for word in ("--set", one)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", marked_rows(60))
    return path


@pytest.mark.slow
def test_a_search_for_the_size_is_told_kept_and_repeated(
    holdfast: Any, source: Path, settings: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = holdfast("tune", source, *SETS, *settings, "--out", run)
    assert done.code == 0, done.err
    result = json.loads((run / "result.json").read_text("utf-8"))
    block = result["capacity"]
    assert block["answer"] in ("oversized", "all_needed", "too_small", "undecided")
    assert [one["key"] for one in block["sizes"]] == ["whole", "first-1"]
    assert block["n"] == result["data"]["train"] + result["data"]["valid"]
    assert block["because"].split()[0] in done.out.lower()
    assert "blocks" in (run / "report.html").read_text("utf-8")
    kept = next(one for one in block["sizes"] if one["key"] == block["chosen"])
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(run / "model")
    assert config.num_hidden_layers - bool(getattr(config, "holdfast_mean", 0)) >= kept["blocks"]
    again = holdfast("train", run / "recipe.yaml", "--out", tmp_path / "again", "--quiet")
    assert again.code == 0, again.err
    name = "model/model.safetensors"
    assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.slow
def test_rows_by_time_are_judged_by_the_newest(
    holdfast: Any, settings: list[str], tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    rows = [(*row, str(i)) for i, row in enumerate(marked_rows(60))]
    path = write_csv(tmp_path / "rows.csv", rows, ("text", "label", "at"))
    by = ("--set", "data.time=at", "--set", "data.split.by=time", "--set", "train.max_steps=2")
    done = holdfast("tune", path, *SETS, *settings, *by, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["capacity"]["n"] == result["data"]["valid"]
    assert result["capacity"]["judged"] == "by the validation rows"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--set", "train.folds=3"], "train.folds"),
        (["--set", "model.layers=1"], "number of blocks"),
        (["--set", "data.split.test=0", "--set", "data.split.train=0.8"], "needs test rows"),
        (["--trials", "3"], "has no such setting"),
        (["--set", "model.adapter.kind=ia3"], "has no smaller form"),
    ],
)
def test_what_cannot_be_is_refused(
    holdfast: Any, source: Path, settings: list[str], tmp_path: Path, more: list[str], told: str
) -> None:
    done = holdfast("tune", source, *SETS, *settings, *more, "--out", tmp_path / "run")
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--set", "train.learning_rate={range: [1e-5, 1e-3]}"], "train.learning_rate"),
        (["--study", "s.journal"], "--study"),
    ],
)
def test_what_sizes_do_not_go_together_with_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    named: str,
) -> None:
    from holdfast.cli.main import run

    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\na,b\n")
    command = ["holdfast", "tune", str(rows), "--out", str(tmp_path / "r"), "--set"]
    monkeypatch.setattr("sys.argv", [*command, "search=capacity", *given])
    with pytest.raises(SystemExit) as left:
        run()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert named in err
    assert "capacity" in err
    assert not (tmp_path / "r").exists()
