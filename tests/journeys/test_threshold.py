"""``holdfast threshold`` and what ``predict`` does by it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def fresh(marked_rows: Any, write_csv: Any, tmp_path: Path) -> Path:
    path: Path = write_csv(tmp_path / "fresh.csv", marked_rows(60, seed=5))
    return path


def _set(holdfast: Any, run: Path, *arguments: object) -> dict[str, Any]:
    done = holdfast("threshold", run, *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def _none(holdfast: Any, run: Path, *arguments: object) -> dict[str, Any]:
    """What is said where nothing can be guaranteed."""
    done = holdfast("threshold", run, *arguments, "--json")
    assert done.code == 3, done.err
    found: dict[str, Any] = json.loads(done.out)
    assert found["rule"] is None
    return found


def test_a_threshold_is_chosen_on_validation_and_measured_on_the_stored_test_answers(
    holdfast: Any, run: Path, fresh: Path
) -> None:
    before = [json.loads(line) for line in holdfast("predict", run, fresh).out.splitlines()]
    found = _set(holdfast, run, "--coverage", 0.5)
    answers = parquet.read_table(run / "answers.parquet").to_pylist()
    valid = [line for line in answers if line["split"] == "valid"]
    test = parquet.read_table(run / "predictions.parquet").to_pylist()
    for name, side in (("valid", valid), ("test", test)):
        given = [one for one in side if max(one["probabilities"]) >= found["threshold"]]
        right = [one for one in given if one["label"] == one["prediction"]]
        assert found[name]["n"] == len(side)
        assert found[name]["answered"] == len(given)
        assert found[name]["precision"]["value"] == pytest.approx(len(right) / len(given))
        classes = {one["prediction"] for one in given}
        assert {one["class"] for one in found[name]["per_class"]} == classes
    assert found["promise"] == "at least 50 % of rows get a prediction, with 95 % confidence"
    assert not (run / "openings.jsonl").exists()
    assert (
        json.loads((run / "threshold.json").read_text("utf-8"))["threshold"] == found["threshold"]
    )
    done = holdfast("predict", run, fresh)
    after = [json.loads(line) for line in done.out.splitlines()]
    below = 0
    for old, new in zip(before, after, strict=True):
        assert new["confidence"] == old["confidence"]
        if old["confidence"] >= found["threshold"]:
            assert new["prediction"] == old["prediction"]
            assert "because" not in new
        else:
            below += 1
            assert new["prediction"] is None
            assert "ask a person" in new["because"]
    assert 0 < below < 60
    assert f"{below} of 60 rows" in " ".join(done.err.split())


def test_tables_and_python_leave_it_empty_too(holdfast: Any, run: Path, fresh: Path) -> None:
    import holdfast as package

    opened = package.TrainedRun(run)
    asked = [line.split(",")[0] for line in fresh.read_text("utf-8").splitlines()[1:]]
    assert None not in opened.predict(asked)
    found = package.threshold(opened, coverage=0.5)
    said = opened.predict(asked)
    assert 0 < said.count(None) < 60
    assert holdfast("predict", run, fresh, "--out", "said.parquet").code == 0
    table = parquet.read_table("said.parquet").to_pydict()
    assert table["prediction"] == said
    assert [c >= found["threshold"] for c in table["confidence"]] == [s is not None for s in said]


def test_evaluate_says_what_it_does_on_other_rows(holdfast: Any, run: Path, fresh: Path) -> None:
    before = json.loads(holdfast("evaluate", run, fresh, "--json").out)
    _set(holdfast, run, "--coverage", 0.5)
    after = json.loads(holdfast("evaluate", run, fresh, "--json").out)
    told = after.pop("threshold")
    # The score is of all answers, whatever is left to a person.
    assert after == before
    lines = [json.loads(line) for line in holdfast("predict", run, fresh).out.splitlines()]
    given = [line for line in lines if line["prediction"] is not None]
    right = [line for line in given if line["prediction"] == line["label"]]
    assert (told["n"], told["answered"]) == (60, len(given))
    assert told["precision"]["value"] == pytest.approx(len(right) / len(given))
    assert f"{len(given)} of 60 rows with a prediction" in holdfast("evaluate", run, fresh).out


def test_few_rows_say_how_many_would_do_and_nothing_is_written(holdfast: Any, run: Path) -> None:
    found = _none(holdfast, run, "--precision", 0.99)
    assert found["threshold"] is None
    assert found["rows_needed"] is None or found["rows_needed"] > found["valid"]["n"]
    assert not (run / "threshold.json").exists()
    done = holdfast("threshold", run, "--precision", 0.99)
    assert done.code == 3
    assert "nothing can be guaranteed" in done.out
    # A path is not broken, however long it is.
    assert max(map(len, done.out.replace(str(run), "RUN").splitlines())) <= 80
    most = found["highest"]
    assert f"precision {100 * most['asked']:.1f} %" in done.out
    # The command that it names takes it, and a thousandth more is not promised.
    more = round(most["asked"] + 0.001, 3)
    assert _none(holdfast, run, "--precision", more)["highest"]["asked"] == most["asked"]
    taken = holdfast(*shlex.split(most["command"])[1:], "--json")
    assert taken.code == 0, taken.err
    assert json.loads(taken.out)["valid"]["answered"] == most["answered"]
    assert (run / "threshold.json").exists()


def test_a_coverage_beyond_the_rows_is_not_promised_and_the_most_is_named(
    holdfast: Any, run: Path
) -> None:
    found = _none(holdfast, run, "--coverage", 0.999)
    n, most = found["valid"]["n"], found["highest"]
    assert not (run / "threshold.json").exists()
    # The smallest of n certainties covers more than s in 1 − sⁿ of draws.
    assert most["asked"] ** n <= 0.05 < (most["asked"] + 0.001) ** n
    assert found["rows_needed"] > n
    assert holdfast(*shlex.split(most["command"])[1:]).code == 0


def test_costs_that_no_rule_lowers_are_not_promised(
    holdfast: Any, run: Path, tmp_path: Path
) -> None:
    """Where all mistakes cost the same, the most probable class costs least already."""
    costs = tmp_path / "costs.csv"
    costs.write_text("true,predicted,cost\nyes,no,1\nno,yes,1\n", "utf-8")
    found = _none(holdfast, run, "--cost", costs)
    assert not (run / "threshold.json").exists()
    # A cost of 1 for a mistake: the mean is the share of mistakes.
    wrong = 1 - found["valid"]["precision"]["value"]
    assert found["valid"]["cost_without"] == pytest.approx(wrong)
    assert wrong < found["limit_without"] <= 1
    assert found["highest"]["by"] == "precision"
    assert holdfast(*shlex.split(found["highest"]["command"])[1:]).code == 0


def test_what_was_promised_before_stays_where_nothing_is(holdfast: Any, run: Path) -> None:
    _set(holdfast, run, "--precision", 0.3)
    before = (run / "threshold.json").read_bytes()
    found = _none(holdfast, run, "--precision", 0.99, "--force")
    assert found["unchanged"] == str(run / "threshold.json")
    assert (run / "threshold.json").read_bytes() == before
    assert "stays in force" in " ".join(
        holdfast("threshold", run, "--precision", 0.99, "--force").out.split()
    )
    assert found["highest"]["command"].endswith(" --force")


def test_a_threshold_is_never_replaced_in_silence(holdfast: Any, run: Path, fresh: Path) -> None:
    first = _set(holdfast, run, "--precision", 0.3)
    done = holdfast("threshold", run, "--coverage", 0.5)
    assert done.code == 2
    assert "precision 0.3" in done.err
    second = _set(holdfast, run, "--coverage", 0.5, "--force")
    assert second["by"] == "coverage"
    assert first["model"] == second["model"]
    path = run / "threshold.json"
    stored = json.loads(path.read_text("utf-8"))
    stored["rule"]["threshold"] = 0.1
    path.write_text(json.dumps(stored), "utf-8")
    done = holdfast("predict", run, fresh)
    assert done.code == 2
    assert "was changed since it was chosen" in done.err
    path.write_text("{", "utf-8")
    assert holdfast("predict", run, fresh).code == 2
    path.unlink()
    assert holdfast("predict", run, fresh).code == 0


def test_the_average_of_several_is_not_what_it_was_chosen_for(
    holdfast: Any, run: Path, finished_run: Path, fresh: Path
) -> None:
    _set(holdfast, run, "--precision", 0.3)
    done = holdfast("predict", run, finished_run, fresh)
    assert done.code == 0
    assert "threshold: not applied" in " ".join(done.err.split())
    assert all(json.loads(line)["prediction"] for line in done.out.splitlines())


def test_costs_choose_the_answer(holdfast: Any, run: Path, fresh: Path, tmp_path: Path) -> None:
    costs = tmp_path / "costs.csv"
    costs.write_text("true,predicted,cost\nyes,NO,50\nno,yes,1\n*,,0.9\n", "utf-8")
    before = [json.loads(line) for line in holdfast("predict", run, fresh).out.splitlines()]
    found = _set(holdfast, run, "--cost", costs)
    assert found["valid"]["cost"] < found["valid"]["cost_without"]
    assert found["valid"]["cost"] <= found["limit"]
    assert f"at most {found['limit']:.4g}, with 95 % confidence" in found["promise"]
    after = [json.loads(line) for line in holdfast("predict", run, fresh).out.splitlines()]
    saids = [line["prediction"] for line in after]
    # At 50 to 1, "no" is worth saying below 1.8 % of "yes" alone.
    for old, new in zip(before, after, strict=True):
        yes = old["confidence"] if old["prediction"] == "yes" else 1 - old["confidence"]
        least = int(np.argmin([50 * yes, 1 - yes, 0.9]))
        assert new["prediction"] == ("no", "yes", None)[least]
    assert "yes" in saids
    shown = holdfast("threshold", run, "--cost", costs, "--force").out
    assert "cost per row" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("true,predicted\nyes,no\n", "needs the columns"),
        ("true,predicted,cost\nyes,no,1\n", "'yes' instead of 'no'"),
        ("true,predicted,cost\nmaybe,no,1\n", "unknown class"),
        ("true,predicted,cost\nyes,no,much\n", "not a number"),
        ("true,predicted,cost\nyes,no,1\nyes,no,2\n", "repeats a pair"),
        ("true,predicted,cost\n*,*,1\nyes,,0.2\n", "not for all"),
    ],
)
def test_costs_that_cannot_be_read_are_refused(
    holdfast: Any, run: Path, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "costs.csv").write_text(text, "utf-8")
    done = holdfast("threshold", run, "--cost", tmp_path / "costs.csv")
    assert done.code == 2
    assert said in done.err


def test_what_is_not_one_question_is_refused(holdfast: Any, run: Path) -> None:
    assert "exactly one" in holdfast("threshold", run).err
    assert "exactly one" in holdfast("threshold", run, "--precision", 0.9, "--coverage", 0.9).err
    done = holdfast("threshold", run, "--precision", 95)
    assert done.code == 2
    assert "strictly between 0 and 1" in done.err


def test_the_report_has_three_promises(finished_run: Path) -> None:
    result = json.loads((finished_run / "result.json").read_text("utf-8"))
    promises = result["thresholds"]["promises"]
    assert [line["precision"] for line in promises] == [0.9, 0.95, 0.99]
    for line in promises:
        assert (line["threshold"] is None) == (line["test"] is None)


def test_a_promise_that_no_rows_could_prove_is_answered_at_once(holdfast: Any, run: Path) -> None:
    """It once took an array of as many numbers as rows that it would take: thirty billion."""
    _none(holdfast, run, "--precision", "0.9999999999")


def test_costs_without_a_name_are_refused(holdfast: Any, run: Path) -> None:
    done = holdfast("threshold", run, "--cost", "")
    assert done.code == 2
    assert "--cost: names no file" in done.err


def test_a_rule_for_other_classes_is_refused(holdfast: Any, run: Path, fresh: Path) -> None:
    """Rightly summed, as from another version or a run without sums."""
    from holdfast.runs.threshold import write_threshold

    _set(holdfast, run, "--coverage", "0.5")
    found = json.loads((run / "threshold.json").read_text("utf-8"))
    found.pop("sha256")
    matrix = {"classes": ["a"], "cost": [[0, 1]]}
    rule = {"by": "cost", "threshold": None, "matrix": matrix}
    write_threshold(run, {**found, "rule": rule})
    done = holdfast("predict", run, fresh)
    assert done.code == 2
    assert "was chosen for another model" in done.err
