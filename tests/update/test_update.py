"""``holdfast update`` through the command line, on whole small runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from holdfast.analyses.row_texts import labels_of_rows
from holdfast.cli.main import app
from holdfast.core.errors import HoldfastError, ModelError, RecipeError
from holdfast.pipeline.main import train
from holdfast.plugins.update.procedure import UpdateProcedure
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.runs.finished_run import FinishedRun


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run(*given: object) -> Ran:
    found = CliRunner().invoke(app, ["update", *map(str, given)])
    if isinstance(found.exception, HoldfastError):
        return Ran(found.exception.exit_code, found.stdout, str(found.exception))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Ran(found.exit_code, found.stdout, found.stderr)


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return found


def code(result: dict[str, Any]) -> int:
    """The exit code that the gate's decision means."""
    return 0 if result["update"]["gate"]["decision"] == "taken" else 3


def texts(path: Path) -> list[str]:
    return list(parquet.read_table(path)["text"].to_pylist())


@pytest.fixture
def feedback(tmp_path: Path, odd_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path / "feedback.csv", odd_rows())
    return path


@pytest.mark.slow
def test_a_good_update_is_taken_and_scored_once(
    served: Path, feedback: Path, tmp_path: Path
) -> None:
    """What a person sees, what the folder holds, and that the old run's test rows were opened."""
    out = tmp_path / "new"
    done = run(served, "--feedback", feedback, "--out", out, "--start", "warm")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80 or str(out) in max(lines, key=len)
    assert lines[1].startswith("The update is accepted:")
    result = read(out)
    block = result["update"]
    assert block["from"] == str(served)
    gate = block["gate"]
    assert (gate["decision"], gate["outcome"]) == ("taken", "accepted")
    assert gate["new"]["n"] == block["feedback"]["held"]
    assert gate["new"]["difference"]["low"] > 0.1
    assert {one["kind"] for one in gate["slices"]} == {"class"}
    assert block["start"] == {"start": "warm", "because": "requested"}
    # The old test rows are the new run's, and are scored after the decision.
    assert result["test"]["n"] == read(served)["test"]["n"] == block["test"]["n"]
    (opening,) = (served / "openings.jsonl").read_text().splitlines()
    assert json.loads(opening)["command"] == "update"
    events = [json.loads(one) for one in (out / "events.jsonl").read_text().splitlines()]
    order = [one["what"] for one in events if one.get("what") in ("gate", "test rows opened")]
    assert order == ["gate", "test rows opened"]
    # No row that judges is learned from.
    learned = set(texts(out / "data.parquet"))
    for judge in ("valid", "test", "gate"):
        assert not learned & set(texts(out / f"{judge}.parquet"))
    assert "Update decision" in (out / "report.html").read_text()
    again = run(served, "--feedback", feedback, "--out", out)
    assert (again.exit_code, "never overwrites" in again.stderr) == (2, True)


@pytest.mark.slow
def test_too_little_evidence_exits_3_with_every_file_complete(
    served: Path, odd_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    """One update of the served model on twenty new rows shows nothing, for or against it."""
    path, out = write_csv(tmp_path / "few.csv", odd_rows(20)), tmp_path / "new"
    short = ("--set", "train.max_steps=1", "--start", "warm", "--hold", "0.3")
    done = run(served, "--feedback", path, "--out", out, *short)
    assert done.exit_code == 3, done.output
    assert done.stdout.splitlines()[1].startswith("The update is inconclusive: ")
    assert "the update is inconclusive, so the exit code is 3" in done.stderr
    assert f"--challenger {out}" in " ".join(done.stdout.split())
    result = read(out)
    assert result["update"]["gate"]["outcome"] == "inconclusive"
    assert result["test"]["n"] == read(served)["test"]["n"]
    assert not (out / "checkpoints").exists()
    page = (out / "report.html").read_text("utf-8")
    assert "Keep serving served: this update is inconclusive" in page
    assert "Worth using" not in page
    # What is finished is not done again, and is no more accepted than before.
    again = run(served, "--out", out, "--resume", "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (3, result)


def test_a_cross_fitted_run_is_updated_and_judged_out_of_fold(
    feedback: Path, odd_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path
) -> None:
    """Its validation rows are set aside again, and of the served model count there the predictions
    of the folds that had not learned from them."""
    data = write_csv(tmp_path / "reviews.csv", odd_rows(100, seed=1, mark="good"))
    settings = [f"data.path={data}", *quick, "train.folds=2", "train.epochs=1", "seed=3"]
    train(override(Recipe(), settings), tmp_path / "served")
    finished = FinishedRun(tmp_path / "served")
    judged = finished.divided_table("valid")
    assert 0 < len(judged) < len(finished.table("valid"))
    assert len(judged) + len(finished.divided_table("train")) == len(finished.table("train"))
    out = tmp_path / "new"
    done = run(finished.run, "--feedback", feedback, "--out", out, "--json")
    assert done.exit_code in (0, 3), done.output
    result = read(out)
    block = result["update"]
    assert block["start"]["start"] == "anew"
    assert "also learned from the validation rows" in block["start"]["because"]
    assert set(texts(out / "valid.parquet")) == set(judged.column("text"))
    assert not set(texts(out / "valid.parquet")) & set(texts(out / "data.parquet"))
    stored = finished.stored("valid").to_pylist()
    of_row = {one["row"]: one["prediction"] == one["label"] for one in stored}
    right = [of_row[row] for row in judged.column("row")]
    served = finished.predictor.predict_table(judged).predictions
    assert np.mean(right) != np.mean(
        [a == b for a, b in zip(served, labels_of_rows(judged), strict=True)]
    )
    new = result["valid"]["metrics"]["accuracy"]["value"]
    difference = block["gate"]["old"]["difference"]["value"]
    assert new - difference == pytest.approx(np.mean(right))


@pytest.mark.slow
def test_a_renamed_class_is_rejected(
    served: Path, odd_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = [(text, "yes") for text, _ in odd_rows(250, mark="good")]
    path = write_csv(tmp_path / "renamed.csv", rows)
    done = run(served, "--feedback", path, "--out", tmp_path / "new", "--start", "anew", "--json")
    assert done.exit_code == 3, done.output
    assert "the update is rejected, so the exit code is 3" in done.stderr
    gate = json.loads(done.stdout)["update"]["gate"]
    assert gate["decision"] == "kept_aside"
    (one,) = gate["renamed"]
    assert (one["name"], one["other"], one["same"]) == ("no", "yes", 0)
    assert "seems to be renamed" in gate["because"]
    # Its recipe repeats the training, if not the gate.
    from holdfast.pipeline.main import train
    from holdfast.recipe import read_recipe

    train(read_recipe(tmp_path / "new" / "recipe.yaml"), tmp_path / "again")
    first, again = (
        parquet.read_table(tmp_path / one / "predictions.parquet") for one in ("new", "again")
    )
    assert first.equals(again)


@pytest.mark.slow
def test_labels_that_a_table_program_wrote_as_decimals_are_those_of_the_run(
    quick: list[str], odd_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    number = {"no": "0", "yes": "1"}
    rows = [(text, number[label]) for text, label in odd_rows(160, seed=1, mark="good")]
    data = write_csv(tmp_path / "rows.csv", rows)
    train(override(Recipe(), [f"data.path={data}", *quick]), tmp_path / "run")
    rows = [(text, f"{number[label]}.0") for text, label in odd_rows(80)]
    path = write_csv(tmp_path / "feedback.csv", rows)
    done = run(tmp_path / "run", "--feedback", path, "--out", tmp_path / "new", "--start", "anew")
    result = read(tmp_path / "new")
    assert done.exit_code == code(result), done.output
    assert result["update"]["feedback"]["left_out"]["unknown_label"] == 0
    learned = parquet.read_table(tmp_path / "new" / "data.parquet").to_pylist()
    kept = {one["text"]: one["label"] for one in learned}
    used = {text: label for text, label in rows if text in kept}
    assert len(used) >= 40
    assert {text: f"{kept[text]}.0" for text in used} == used


@pytest.mark.slow
def test_what_judges_or_is_known_is_left_out_and_told(
    served: Path, served_once: Path, odd_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    """Copies of the run's own rows, labels that contradict each other, and what is no class."""
    with (served_once / "reviews.csv").open(encoding="utf-8") as file:
        source = list(csv.DictReader(file))
    splits = parquet.read_table(served / "splits.parquet").to_pylist()
    side = {one["row"]: one["split"] for one in splits}

    def of(name: str, n: int) -> list[tuple[str, str]]:
        rows = [one for row, one in enumerate(source) if side[row] == name]
        return [(one["text"].upper(), one["label"]) for one in rows[:n]]

    fresh = odd_rows(120, seed=3)
    other = {"yes": "no", "no": "yes"}
    rows = [
        *fresh,
        *of("valid", 4),
        *of("test", 5),
        *of("train", 6),
        *[(text, other[label]) for text, label in of("train", 9)[6:]],
        (fresh[0][0], other[fresh[0][1]]),
        *[fresh[2]] * 2,
        ("w1 w2 w3 maybe so", "perhaps"),
        ("w1 w2 w3 not labelled", ""),
        ("w1 w2 w4 not labelled either", "N/A"),
    ]
    path = write_csv(tmp_path / "feedback.csv", rows)
    out = tmp_path / "new"
    done = run(served, "--feedback", path, "--out", out, "--start", "anew")
    result = read(out)
    assert done.exit_code == code(result), done.output
    left = result["update"]["feedback"]["left_out"]
    assert (left["leaked_valid"], left["leaked_test"]) == (4, 5)
    assert (left["repeats"], left["corrected"]) == (6, 3)
    assert (left["conflicting"], left["copies"], left["unknown_label"]) == (2, 2, 1)
    told = {one["check"] for one in result["data"]["findings"]}
    assert told >= {"feedback_copies_test", "feedback_conflicts", "unknown_label"}
    said = next(one for one in result["data"]["findings"] if one["check"] == "unknown_label")
    assert "not a class of the run ('perhaps')" in said["because"]
    assert result["update"]["feedback"]["replayed"]["n"] == 280 - 3
    learned = parquet.read_table(out / "data.parquet").to_pylist()
    kept = {one["text"].lower(): one["label"] for one in learned}
    judging = (*of("valid", 4), *of("test", 5))
    assert not {text.lower() for text, _ in judging} & set(kept)
    for text, label in of("train", 9)[6:]:
        assert kept[text.lower()] == other[label]
    assert "5 duplicates of test rows" in " ".join(done.stdout.split())


def test_rows_in_look_alike_letters_are_the_copies_that_they_are_and_are_reported(
    served: Path, served_once: Path, odd_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    """Rows of the run written again with Cyrillic letters and the other label, and a Greek one."""
    from holdfast.plugins.update.merge import join_feedback

    with (served_once / "reviews.csv").open(encoding="utf-8") as file:
        source = list(csv.DictReader(file))
    splits = parquet.read_table(served / "splits.parquet").to_pylist()
    other = {"yes": "no", "no": "yes"}
    alike = str.maketrans("ao", "\u0430\u043e")

    def of(name: str, n: int) -> list[tuple[str, str]]:
        rows = [source[one["row"]] for one in splits if one["split"] == name]
        return [(one["text"].translate(alike), other[one["label"]]) for one in rows[:n]]

    fresh = odd_rows(60, seed=3)
    strange = ("maybe so", "perhaps")
    rows = [
        *fresh,
        strange,
        *of("train", 6),
        *of("test", 3),
        ("\u03bb\u03ac\u03b8\u03bf\u03c2", "no"),
    ]
    joined = join_feedback(served, str(write_csv(tmp_path / "feedback.csv", rows)))
    left = joined.block["left_out"]
    assert (left["corrected"], left["leaked_test"], left["unknown_label"]) == (6, 3, 1)
    found = {one.check: one for one in joined.findings}
    assert found["feedback_mixed_scripts"].rows == tuple(range(61, 70))
    assert "\\u0430" in found["feedback_mixed_scripts"].because
    assert found["feedback_new_script"].rows == (70,)
    assert "Greek" in found["feedback_new_script"].because
    plain = join_feedback(served, str(write_csv(tmp_path / "plain.csv", fresh)))
    assert not plain.findings


@pytest.mark.slow
def test_rows_that_a_model_labelled_are_capped_and_judge_nothing(
    served: Path, odd_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    sources = ["model"] * 250 + ["page"] * 100
    rows = [(*row, who) for row, who in zip(odd_rows(350), sources, strict=True)]
    path = write_csv(tmp_path / "feedback.csv", rows, ("text", "label", "source"))
    done = run(served, "--feedback", path, "--out", tmp_path / "new", "--own", "0.1", "--json")
    assert done.exit_code == code(json.loads(done.stdout)), done.output
    block = json.loads(done.stdout)["update"]["feedback"]
    own = block["own_labelled"]
    people = block["used"] - own["used"]
    assert own["n"] == 250
    assert own["used"] == own["cap"] == int(0.1 / 0.9 * (people + 280))
    assert people + block["held"] == 100
    assert own["diversity"]["rows"] == own["used"]
    assert own["diversity"]["own"] == pytest.approx(2, abs=0.1)


@pytest.mark.slow
def test_an_update_that_was_killed_is_continued(
    served: Path, feedback: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Any
) -> None:
    """Killed between the fit and the gate; the feedback is gone when it goes on."""
    from holdfast.plugins.update.procedure import UpdateLearner

    def dies(*given: Any) -> None:
        raise killed

    out = tmp_path / "new"
    monkeypatch.setattr(UpdateLearner, "_judge", dies)
    with pytest.raises(killed):
        CliRunner().invoke(
            app,
            [
                "update",
                str(served),
                "--feedback",
                str(feedback),
                "--out",
                str(out),
                "--start",
                "warm",
            ],
            standalone_mode=False,
            catch_exceptions=False,
        )
    monkeypatch.undo()
    feedback.unlink()
    done = run(served, "--out", out, "--resume", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["update"]["gate"]["decision"] == "taken"
    assert not (out / "checkpoints").exists()
    # Once more changes nothing.
    assert run(served, "--out", out, "--resume", "--json").stdout == done.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--feedback: is missing"),
        (("--feedback", "gone.csv"), "does not exist"),
        (("--feedback", "FILE", "--margin", "0"), "above 0 and below 100"),
        (("--feedback", "FILE", "--hold", "0.95"), "--hold"),
        (("--feedback", "FILE", "--start", "cold"), "must be one of anew, warm"),
        (("--feedback", "OTHER"), "no label that is a class of the run"),
        (("--feedback", "BARE"), "has no column 'label'"),
        (("--feedback", "FEW"), "leaves too few rows"),
        (("--feedback", "FILE", "--every", "soon", "--out", "x"), "must be a time"),
        (("--feedback", "FILE", "--least", "3"), "--least: is for updates on a schedule"),
        (("--resume", "--out", "nowhere"), "is not an update that can be continued"),
        (("--resume", "--out", "RUN", "--json"), "is not an update that can be continued"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    served: Path,
    feedback: Path,
    tmp_path: Path,
    write_csv: Any,
    monkeypatch: pytest.MonkeyPatch,
    more: Sequence[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "other.csv", [("w1 w2", "red"), ("w3 w4", "blue")])
    write_csv(tmp_path / "bare.csv", [("w1 w2", "x")], ("text", "remark"))
    write_csv(tmp_path / "few.csv", [("w1 w2 w5 odd", "yes")])
    files = {"FILE": feedback.name, "OTHER": "other.csv", "BARE": "bare.csv", "FEW": "few.csv"}
    files["RUN"] = str(served)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run(served, *(files.get(one, one) for one in more))
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not (served / "openings.jsonl").exists()


def test_a_base_model_that_is_gone_is_refused_before_the_first_fit(
    served: Path, tmp_path: Path
) -> None:
    """It was refused after the first fit, and a folder was left."""
    recipe = read_recipe(served / "recipe.yaml").with_changes(model={"name": str(tmp_path / "no")})
    with pytest.raises(ModelError, match="is not a folder") as error:
        UpdateProcedure(str(served)).checked_recipe(recipe)
    assert error.value.remedy.endswith("--start warm.")
    assert UpdateProcedure(str(served), start="warm").checked_recipe(recipe) == recipe


@pytest.mark.slow
def test_feedback_of_a_store_and_what_was_deleted_since(
    served: Path, odd_rows: Any, tmp_path: Path
) -> None:
    """From the texts that a service kept; of deleted feedback nothing comes back, not even by way
    of the rows that an earlier update had learned from."""
    from holdfast.plugins.store.records import Feedback, StoredRequest, StoredText
    from holdfast.plugins.store.store import open_store

    where = tmp_path / "service.db"
    rows = odd_rows(240)
    store = open_store(str(where))
    requests = [
        StoredRequest(f"{i:04d}", float(i), "m", 1, 0.1, texts=(StoredText(0, {"text": text}),))
        for i, (text, _) in enumerate(rows)
    ]
    store.add_requests(requests)
    for i, (_, label) in enumerate(rows):
        who, drawn = ("ann" if i < 200 else "bob"), ("uniform" if i % 2 else "volunteered")
        store.add_feedback(Feedback(f"{i:04d}", 0, label, who, float(i), drawn=drawn))  # type: ignore[arg-type]
    # The later word of a person counts; a text that was not kept cannot be learned from.
    store.add_feedback(Feedback("0000", 0, rows[0][1], "ann", 500.0))
    store.add_feedback(Feedback("9999", 0, "yes", "ann", 501.0))
    out, later = tmp_path / "new", tmp_path / "later"
    done = run(served, "--feedback", where, "--out", out, "--start", "anew", "--json")
    assert done.exit_code == code(json.loads(done.stdout)), done.output
    block = json.loads(done.stdout)["update"]
    assert block["feedback"]["left_out"]["replaced"] == 1
    assert block["feedback"]["left_out"]["no_text"] == 1
    assert block["feedback"]["uniform"] == 120
    assert 30 < block["feedback"]["held"] < 90
    (event,) = store.events("gate")
    assert (event.body["decision"], event.body["run"]) == (block["gate"]["decision"], str(out))
    run(served, "--feedback", where, "--out", out, "--resume")
    assert len(store.events("gate")) == 1, "of a finished update it is there already"
    store.delete(600.0, by="who", value="bob")
    for i, (text, label) in enumerate(odd_rows(60, seed=11)):
        row = {"text": text}
        store.add_feedback(
            Feedback(f"f{i}", 0, label, "ann", 700.0, source="file", drawn="uniform", row=row)
        )
    store.close()
    done = run(out, "--feedback", where, "--out", later, "--json")
    assert done.exit_code == code(json.loads(done.stdout)), done.output
    gone = {text for text, _ in rows[200:]}
    learned_before = gone & set(texts(out / "data.parquet"))
    block = json.loads(done.stdout)["update"]
    assert block["feedback"]["deleted_since"] == len(learned_before) > 10
    assert not gone & set(texts(later / "data.parquet"))
    # What it had learned from them is in the served weights: it is no place to start from.
    assert block["start"]["start"] == "anew"
    assert "deleted since" in block["start"]["because"]
    assert (block["first"], block["gate"]["first"]["n"]) == (str(served), 60)
    # What two updates ago had learned is still known to have come of feedback.
    mine = {text for text, _ in rows[:200]} & set(texts(later / "data.parquet"))
    assert len(mine) > 50
    store = open_store(str(where))
    store.delete(800.0, by="who", value="ann")
    for i, (text, label) in enumerate(odd_rows(60, seed=12)):
        row = {"text": text}
        store.add_feedback(
            Feedback(f"g{i}", 0, label, "eve", 900.0, source="file", drawn="uniform", row=row)
        )
    store.close()
    from holdfast.plugins.update.merge import join_feedback

    joined = join_feedback(later, str(where))
    left = joined.tables["data"]["text"].to_pylist()
    assert not mine & set(left)
    assert joined.deleted >= len(mine)
    # A file does not tell what was deleted, so it is said.
    some = tmp_path / "some.csv"
    some.write_text("text,label\n" + "".join(f"{t},{one}\n" for t, one in odd_rows(60, seed=9)))
    joined = join_feedback(later, str(some))
    assert joined.deleted == 0
    (unknown,) = [one for one in joined.decisions if one.what == "deleted feedback"]
    assert (unknown.chosen, unknown.prominent) == ("unknown", True)
    assert "if any was, update from the store" in unknown.because


@pytest.mark.slow
def test_from_python_with_rows_in_memory(served: Path, odd_rows: Any, tmp_path: Path) -> None:
    import holdfast

    texts, labels = zip(*odd_rows(), strict=True)
    rows = {"text": list(texts), "label": list(labels)}
    out = tmp_path / "new"
    run = holdfast.update(served, rows, start="anew", margin=6, out=out, quiet=True)
    gate = run.result["update"]["gate"]
    assert gate["margin"] == 0.06
    assert gate["decision"] != "kept_aside"
    assert gate["new"]["new"] > gate["new"]["old"]
    assert list(run.predict(["w1 w2 w3 bad w4"])) == ["no"]
    with pytest.raises(RecipeError, match="feedback: is missing"):
        holdfast.update(served)


def test_who_saw_the_answer_judges_nothing_and_near_copies_stay_on_one_side(
    served: Path, odd_rows: Any, tmp_path: Path
) -> None:
    from holdfast.plugins.store.records import Feedback
    from holdfast.plugins.store.store import open_store
    from holdfast.plugins.update.merge import join_feedback

    where = tmp_path / "service.db"
    store = open_store(str(where))
    rows = odd_rows(480, seed=21)
    long = [" ".join(text for text, _ in rows[i : i + 6]) for i in range(0, 480, 6)]
    twins = [f"{text} again" for text in long]
    for i, text in enumerate([*long, *twins]):
        label, seen = ("yes" if i % 2 else "no"), ("seen" if i % 80 < 20 else "hidden")
        row = {"text": text}
        given = Feedback(f"r{i}", 0, label, "ann", 1.0, source="file", drawn="uniform", row=row)
        store.add_feedback(replace(given, suggestion=seen))
    store.close()
    held = join_feedback(served, str(where)).tables
    judged = set(held["gate"]["text"].to_pylist())
    learned = set(held["data"]["text"].to_pylist())
    assert judged
    assert not judged & {*long[:20], *twins[:20]}
    for one, twin in zip(long, twins, strict=True):
        assert not ({one, twin} & judged and {one, twin} & learned)
