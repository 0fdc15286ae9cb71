"""``holdfast tune`` through the command line: what comes out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import holdfast
from holdfast.core.run_files import check_files, check_model, read_result
from holdfast.search.rules.winner import Winner
from holdfast.search.trial_plan import Pruning

RANGES = (
    "train.learning_rate={range: [1e-4, 3e-3], log: true}",
    "train.batch_size={choices: [8, 16]}",
    "methods.contrast={choices: [true, false]}",
    "methods.contrast.steps={range: [2, 4]}",
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("tune") / "rows.csv", marked_rows(90))
    return path


@pytest.fixture(scope="module")
def options(tiny_model: Path) -> list[str]:
    """Of a search of seconds."""
    fixed = ("train.epochs=2", "train.precision=float32", "train.threads=1", "train.evaluations=3")
    settings = (f"model.name={tiny_model}", "train.matmul=default", *fixed, *RANGES)
    return [part for one in settings for part in ("--set", one)]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command: its exit code, and what it printed."""

    def call(*arguments: str) -> tuple[int, str, str]:
        from holdfast.cli.main import run as command

        monkeypatch.setattr("sys.argv", ["holdfast", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            command()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def told(folder: Path) -> list[Any]:
    """What the trials of a run were and gave, without the times of the clock."""
    study = json.loads((folder / "result.json").read_text())["study"]
    clock = ("seconds", "latency_ms")
    rows = [{k: v for k, v in row.items() if k not in clock} for row in study["trials_table"]]
    kept = ("trials", "best", "expected_test", "optimism", "noise", "because", "settings", "space")
    return [rows, {key: study[key] for key in kept}]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, rows: Path, options: Sequence[str]) -> Path:
    """A finished search, to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    settings = [one for one in options if one != "--set"]
    holdfast.tune(str(rows), trials=4, out=folder, settings=settings, quiet=True)
    return folder


def test_a_search_leaves_a_run_that_says_what_it_found(
    tuned: Path, rows: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = read_result(tuned)
    study, table = result["study"], result["study"]["trials_table"]
    assert study["trials"] == len(table) == 4
    assert [row["trial"] for row in table] == [0, 1, 2, 3]
    assert (table[0]["origin"], table[0]["settings"]) == ("default", {})
    assert study["metric"] == "accuracy"
    for name in ("expected_test", "optimism"):
        assert study[name]["low"] <= study[name]["value"] <= study[name]["high"]
    kept = table[study["best"]]
    assert study["settings"] == kept["settings"]
    # The kept model is the winner's: its validation rows say what the trial's said.
    assert result["valid"]["metrics"]["accuracy"]["value"] == pytest.approx(kept["seen"])
    assert result["best_step"] == kept["best_step"]
    # What was inflated is what was seen without what is expected.
    gap = kept["seen"] - study["expected_test"]["value"]
    assert study["optimism"]["value"] == pytest.approx(gap, abs=2e-6)
    # Of the trials that nobody beats: what their weights take up, four bytes each.
    for point in study["pareto"]["trials"]:
        weights = table[point["trial"]]["parameters"]
        assert weights > 0
        assert point["size_mb"] == pytest.approx(4e-6 * weights, abs=0.005)
    for key, value in kept["settings"].items():
        part, _, name = key.partition(".")
        if part == "train":
            assert result["settings"][part][name] == pytest.approx(value)
    # Test rows: scored once, by the kept model.
    events = (tuned / "events.jsonl").read_text()
    assert events.count("test rows opened") <= 1
    assert result["test"]["n"] > 0
    check_files(tuned, result, ("recipe.yaml", "predictions.parquet"))
    check_model(tuned, result)
    assert {"recipe.yaml", "search.yaml", "study.journal", "report.html"} <= {
        path.name for path in tuned.iterdir()
    }
    assert not (tuned / "checkpoints").exists()
    page = (tuned / "report.html").read_text()
    assert "Hyperparameter search" in page
    assert "train.learning_rate" in page
    code, out, _ = run("evaluate", tuned, rows, "--json")
    assert code == 0
    assert json.loads(out)["n"] == 90


@pytest.mark.slow
def test_the_model_that_is_kept_is_made_by_the_settings_that_won(
    rows: Path, options: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the rows say: the default wins most searches of few rows."""
    won = Winner("trial 1", "it won", False, "trial 1", 0.1, 0.9, 1.0)
    monkeypatch.setattr("holdfast.search.study_verdict.select_winner", lambda *_, **__: won)
    settings = [one for one in options if one != "--set"]
    run = holdfast.tune(str(rows), trials=2, out=tmp_path / "r", settings=settings, quiet=True)
    study, made = run.result["study"], run.result["settings"]
    table = study["trials_table"]
    assert study["best"] == 1
    assert study["settings"] == table[1]["settings"]
    assert "train.learning_rate" in study["settings"]
    for key, value in study["settings"].items():
        part, _, name = key.partition(".")
        if part == "train":
            assert made[part][name] == pytest.approx(value)
    assert run.result["best_step"] == table[1]["best_step"]
    assert run.result["valid"]["metrics"]["accuracy"]["value"] == pytest.approx(table[1]["seen"])


def test_the_recipe_of_the_run_repeats_its_model(tuned: Path, tmp_path: Path) -> None:
    again = holdfast.train(str(tuned / "recipe.yaml"), out=tmp_path / "again", quiet=True)
    one, other = (load_file(f / "model" / "model.safetensors") for f in (tuned, again.folder))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_command_prints_what_won_at_80_columns_and_json_alone(
    rows: Path, options: Sequence[str], run: Run, tmp_path: Path
) -> None:
    code, out, err = run("tune", rows, "--trials", "2", "--out", tmp_path / "r", *options)
    assert code == 0, err
    assert max(map(len, out.splitlines()[:30])) <= 80
    for word in ("Expected", "Optimism", "Effects", "Cost", "Stopped", "* saved", "Trial"):
        assert word in out, word
    assert "trial 1 (2 of 2)" in err
    code, out, err = run("tune", rows, "--out", tmp_path / "r", "--resume", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["study"]["trials"] == 2
    assert not err


@pytest.mark.slow
@pytest.mark.parametrize("look", [2, 6])
def test_a_search_that_is_killed_in_a_trial_ends_as_if_it_had_not_been(
    tuned: Path,
    rows: Path,
    options: Sequence[str],
    tmp_path: Path,
    killed: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    look: int,
) -> None:
    settings = [one for one in options if one != "--set"]
    out, seen, see = tmp_path / "cut", [0], Pruning.stop_reason

    def cut(self: Pruning, key: str, snapshot: Any) -> str | None:
        seen[0] += 1
        if seen[0] == look:
            raise killed
        return see(self, key, snapshot)

    with monkeypatch.context() as patched:
        patched.setattr(Pruning, "stop_reason", cut)
        with pytest.raises(killed):
            holdfast.tune(str(rows), trials=4, out=out, settings=settings, quiet=True)
    assert not (out / "result.json").exists()
    # The resumed command needs to say nothing again.
    holdfast.tune(str(rows), out=out, resume=True, quiet=True)
    assert told(out) == told(tuned)
    one, other = (load_file(f / "model" / "model.safetensors") for f in (tuned, out))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_train_does_not_continue_a_search(
    rows: Path,
    options: Sequence[str],
    tmp_path: Path,
    killed: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    def cut(self: Pruning, key: str, snapshot: Any) -> str | None:
        raise killed

    with monkeypatch.context() as patched:
        patched.setattr(Pruning, "stop_reason", cut)
        with pytest.raises(killed):
            holdfast.tune(
                str(rows),
                trials=2,
                out=tmp_path / "cut",
                settings=[one for one in options if one != "--set"],
                quiet=True,
            )
    code, _, err = run("train", rows, "--out", tmp_path / "cut", "--resume")
    assert code == 2
    assert "holdfast tune" in err


@pytest.mark.slow
def test_trials_are_judged_out_of_fold_and_those_behind_end(
    rows: Path, options: Sequence[str], tmp_path: Path
) -> None:
    settings = [one for one in options if one != "--set"]
    settings = [one for one in settings if "contrast" not in one]
    more = ["methods.contrast=false", "search.folds=3", "search.pruner=race"]
    made = holdfast.tune(
        str(rows), trials=3, out=tmp_path / "r", settings=[*settings, *more], quiet=True
    )
    study = made.result["study"]
    data = made.result["data"]
    assert study["judged_by"] == {"rows": data["train"] + data["valid"], "folds": 3}
    assert study["pruner"]["chosen"] == "race"
    assert all(row["state"] in ("complete", "pruned") for row in study["trials_table"])
    assert study["trials_table"][0]["state"] == "complete"


@pytest.mark.slow
def test_a_language_model_searches_the_rank_of_its_adapter(
    tiny_llama: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt.jsonl"
    lines = [{"text": f"row {i} says {'ab' * (i % 5)} again and again."} for i in range(60)]
    texts.write_text("\n".join(json.dumps(line) for line in lines))
    settings = {
        "model.adapter.kind": {"choices": [None, "lora"]},
        "model.adapter.rank": {"range": [2, 8], "log": True},
        "train.max_steps": 3,
        "train.evaluations": 2,
        "train.threads": 1,
        "generate.rows": 2,
    }
    made = holdfast.tune(
        str(texts),
        task="causal-lm",
        model=tiny_llama,
        trials=3,
        out=tmp_path / "r",
        settings=settings,
        quiet=True,
    )
    study = made.result["study"]
    assert study["metric"] == "loss"
    assert not study["higher_is_better"]
    assert study["expected_test"]["low"] < study["expected_test"]["value"]
    adapted = [r for r in study["trials_table"] if r["settings"].get("model.adapter.kind")]
    assert all(("model.adapter.rank" in row["settings"]) for row in adapted)
    for row in study["trials_table"]:
        if row["settings"] and row not in adapted:
            assert "model.adapter.rank" not in row["settings"]
    ranks = [one for one in study["space"] if one["key"] == "model.adapter.rank"]
    assert ranks[0]["when"] == {"model.adapter.kind": ["lora"]}


@pytest.mark.parametrize(
    ("setting", "names", "remedy"),
    [
        ("data.split.valid={choices: [0.1, 0.2]}", "data.split.valid", "holdfast compare"),
        ("train.learning_rat={range: [1e-5, 1e-3]}", "train.learning_rat", "train.learning_rate"),
        ("search.sampler=tpee", "search.sampler", "remove it to use its default"),
        ("data.split.test=0", "data.split.test", "--test"),
    ],
)
def test_a_wrong_space_is_refused_by_its_key_with_a_remedy(
    rows: Path, tmp_path: Path, run: Run, setting: str, names: str, remedy: str
) -> None:
    code, out, err = run("tune", rows, "--out", tmp_path / "r", "--set", setting)
    assert (code, out) == (2, "")
    assert names in err
    assert remedy in err
    assert not (tmp_path / "r").exists()


def test_train_says_that_a_range_is_searched_by_tune(rows: Path, run: Run, tmp_path: Path) -> None:
    setting = "train.learning_rate={range: [1e-5, 1e-3], log: true}"
    code, _, err = run("train", rows, "--out", tmp_path / "r", "--set", setting)
    assert code == 2
    assert "holdfast tune" in err


@pytest.mark.slow
def test_a_study_file_is_continued_and_that_of_another_space_refused(
    rows: Path, options: Sequence[str], tmp_path: Path, run: Run
) -> None:
    file = tmp_path / "own.journal"
    how = ["--study", str(file), *options]
    code, _, err = run("tune", rows, "--trials", "2", "--out", tmp_path / "a", *how)
    assert code == 0, err
    code, out, err = run("tune", rows, "--trials", "3", "--out", tmp_path / "b", "--json", *how)
    assert code == 0
    assert "2 finished trials" in err
    table = json.loads(out)["study"]["trials_table"]
    assert len(table) == 3
    assert table[:2] == json.loads((tmp_path / "a" / "result.json").read_text())["study"][
        "trials_table"
    ] or [row["seen"] for row in table[:2]]
    other = [*how, "--set", "train.warmup={range: [0, 0.3]}"]
    code, _, err = run("tune", rows, "--trials", "3", "--out", tmp_path / "c", *other)
    assert code == 2
    assert "another space" in err
    assert "train.learning_rate" in err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("study", "rule"),
    [
        ("", "is a folder"),
        ("none/s.journal", "folder does not exist"),
        ("rows.csv", "is not an Optuna study"),
    ],
)
def test_a_study_that_is_none_is_refused_before_rows_are_read(
    tmp_path: Path, run: Run, study: str, rule: str
) -> None:
    (tmp_path / "rows.csv").write_text("a row")
    place = str(tmp_path / study)
    code, out, err = run("tune", tmp_path / "rows.csv", "--out", tmp_path / "r", "--study", place)
    assert (code, out) == (2, "")
    assert rule in err
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_search_that_is_continued_says_that_what_is_given_now_is_not_used(
    rows: Path,
    options: Sequence[str],
    tmp_path: Path,
    run: Run,
    killed: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = [one for one in options if one != "--set"]

    def cut(self: Pruning, key: str, snapshot: Any) -> str | None:
        raise killed

    with monkeypatch.context() as patched:
        patched.setattr(Pruning, "stop_reason", cut)
        with pytest.raises(killed):
            holdfast.tune(str(rows), trials=1, out=tmp_path / "r", settings=settings, quiet=True)
    how = ["--trials", "5", "--out", tmp_path / "r", "--resume", "--json"]
    code, out, err = run("tune", rows, *how)
    assert code == 0, err
    assert "settings given now are ignored" in " ".join(err.split())
    assert json.loads(out)["study"]["trials"] == 1


@pytest.mark.slow
def test_minutes_end_a_search_after_its_first_trial(
    rows: Path, options: Sequence[str], tmp_path: Path
) -> None:
    settings = [one for one in options if one != "--set"]
    made = holdfast.tune(
        str(rows), minutes=0.0005, out=tmp_path / "r", settings=settings, quiet=True
    )
    study = made.result["study"]
    assert study["trials"] == 1
    assert "minutes" in study["stopped_because"]
    assert study["noise"]
    assert study["best"] == 0
    assert study["optimism"]["value"] == 0


def test_a_dry_run_shows_what_would_be_tried_and_writes_nothing(
    rows: Path, options: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("tune", str(rows), *options, "--dry-run")
    code, out, err = run(*asked, "--trials", "3")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert "at most 3 trials" in out
    assert "train.learning_rate: 0.0001 to 0.003 (log)" in out
    code, out, err = run(*asked, "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["trials"] == 16
    assert plan["judged_by"] == {"rows": plan["division"]["valid"], "folds": 1}
    assert {one["key"] for one in plan["space"]} == {key.partition("=")[0] for key in RANGES}
    fixed = [one for one in options if one != "--set" and one not in RANGES]
    settings = [part for one in (*fixed, "search=capacity") for part in ("--set", one)]
    code, out, err = run("tune", str(rows), *settings, "--dry-run")
    assert code == 0, err
    assert "Sizes" in out
    assert "3 folds" in out
    assert list(tmp_path.iterdir()) == []
