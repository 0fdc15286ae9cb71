"""``holdfast evaluate`` beside the run's own test score: a difference is tested, and its likely
reasons are looked for in the data."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as parquet
import pytest
from scipy.stats import binomtest, fisher_exact, ttest_1samp


def against(holdfast: Any, run: Path, data: Path) -> dict[str, Any]:
    done = holdfast("evaluate", run, data, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def swapped(rows: Any) -> Any:
    """Labels that contradict their texts: the score falls to what the run gets wrong."""
    names = sorted({label for _, label in rows})
    return [(text, names[(names.index(label) + 1) % len(names)]) for text, label in rows]


def test_a_score_like_the_runs_own_is_said_to_be(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "new.csv", marked_rows(30, seed=99))
    block = against(holdfast, finished_run, path)
    found, own = block["against_run"], parquet.read_table(finished_run / "predictions.parquet")
    right = sum(
        a == b for a, b in zip(own["label"].to_pylist(), own["prediction"].to_pylist(), strict=True)
    )
    assert found["run"] == {"value": right / len(own), "n": len(own)}
    assert found["here"] == {"value": block["metrics"]["accuracy"]["value"], "n": 30}
    hits = round(30 * found["here"]["value"])
    table = [[right, len(own) - right], [hits, 30 - hits]]
    assert found["p_value"] == pytest.approx(fisher_exact(table).pvalue)
    assert (found["differs"], found["reasons"]) == (False, [])
    here, there = (f"{100 * share:.1f} %" for share in (hits / 30, right / len(own)))
    assert f"is {here} on these 30 rows and {there} on the run's own" in found["because"]
    printed = holdfast("evaluate", finished_run, path).out
    assert "no difference can be shown (Fisher's exact test, p = " in " ".join(printed.split())
    table_lines = printed.partition("Class ")[2].splitlines()[1:3]
    recalls = {line.split()[0]: line.split()[1:4] for line in table_lines}
    for name, scores in block["per_class"].items():
        recall = f"{100 * scores['recall']['value']:.1f}"
        assert recalls[name] == [str(scores["n"]), recall, "%"]
    assert "positive class: yes" in printed


def test_a_score_far_from_the_runs_own_is_named_with_what_was_checked(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "new.csv", swapped(marked_rows(120, seed=98)))
    found = against(holdfast, finished_run, path)["against_run"]
    assert found["differs"] is True
    assert found["p_value"] < 0.05
    reasons = {one["check"]: one for one in found["reasons"]}
    assert set(reasons) == {
        "rows also in training",
        "another class mix",
        "another text length",
        "another source",
    }
    assert reasons["rows also in training"]["found"] is False
    assert reasons["another source"]["found"] is None
    assert "not checked" in reasons["another source"]["because"]
    said = " ".join(holdfast("evaluate", finished_run, path).out.split())
    assert "the difference is significant (Fisher's exact test" in said
    for one in found["reasons"]:
        assert one["because"].split(":")[0] in said


def test_the_reasons_are_found_where_they_are(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    """Training rows among them, one class alone, texts four times as long."""
    splits = parquet.read_table(finished_run / "splits.parquet").to_pydict()
    learned = [
        row for row, side in zip(splits["row"], splits["split"], strict=True) if side == "train"
    ]
    own = marked_rows()
    new = swapped(marked_rows(200, seed=97))
    one = [(" ".join([text] * 4), label) for text, label in new if label == new[0][1]]
    path = write_csv(tmp_path / "new.csv", [*one, *(own[row] for row in learned[:9])])
    block = against(holdfast, finished_run, path)
    reasons = {one["check"]: one for one in block["against_run"]["reasons"]}
    assert block["against_run"]["differs"] is True
    copies = reasons["rows also in training"]
    assert copies["found"] is True
    left = block["without_seen"]["n"]
    seen = len(one) + 9 - left
    assert f"{seen} of {len(one) + 9} rows" in copies["because"]
    assert f"on these {left:,} rows" in copies["because"]
    assert reasons["another class mix"]["found"] is True
    assert reasons["another text length"]["found"] is True


@dataclass
class FakeTable:
    """Rows of texts of ``tokens`` [n] each, with a loss each, in groups."""

    losses: Any
    tokens: Any
    groups: Any
    has_groups: bool

    columns = SimpleNamespace(label_kind=None)
    has_images = has_pairs = False

    @property
    def rows(self) -> Any:
        return datasets.Dataset.from_dict({"text": [f"text {loss}" for loss in self.losses]})

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, rows: Any) -> FakeTable:
        return FakeTable(self.losses[rows], self.tokens[rows], self.groups[rows], self.has_groups)

    def column(self, name: str) -> Any:
        return self.groups


@pytest.mark.parametrize("grouped", [False, True])
def test_the_loss_of_unseen_rows_is_that_of_their_tokens(
    grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.analyses import evaluation
    from holdfast.runs.known_rows import NO_SPLIT, SPLIT_NAMES, KnownRows
    from holdfast.stats.paired_tests import loss_rows

    seed = np.random.default_rng(0)
    table = FakeTable(
        seed.normal(2.3, 0.3, 4), np.array([1, 9, 2, 40]), np.array([*"aabb"]), grouped
    )
    recipe = SimpleNamespace(recipe=SimpleNamespace(task="causal-lm"))
    monkeypatch.setattr(evaluation, "FinishedRun", lambda run: recipe)
    predictor: Any = SimpleNamespace(
        runs=["run"],
        alone=contextlib.nullcontext,
        model=SimpleNamespace(row_losses=lambda rows: loss_rows(rows.losses, rows.tokens)),
    )
    learned = SPLIT_NAMES.index("train")

    def of(splits: list[int], why: str | None = None) -> evaluation.RowScores | None:
        seen = KnownRows(np.arange(4), np.array(splits, np.int8), np.ones(4, bool), why)
        rows: Any = table
        block = {"n": 2, "metrics": {"loss": {"value": 2.31}}}
        return evaluation._unseen_scores(predictor, rows, seen, block)

    assert of([NO_SPLIT] * 4, "the source is gone") is None
    assert of([learned] * 4) is None
    assert of([NO_SPLIT] * 4) is None
    unseen = of([learned, NO_SPLIT, learned, NO_SPLIT])
    assert unseen is not None
    loss = np.average(table.losses[[1, 3]], weights=table.tokens[[1, 3]])
    assert unseen.values.mean() == pytest.approx(loss)
    assert (None if unseen.groups is None else list(unseen.groups)) == (
        ["a", "b"] if grouped else None
    )


def test_rows_of_the_run_itself_are_no_evidence_that_it_holds(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    own = marked_rows()
    whole = against(holdfast, finished_run, write_csv(tmp_path / "same.csv", own))["against_run"]
    assert "rows of the run" in whole["why"]
    some = write_csv(tmp_path / "some.csv", [*own[:20], *marked_rows(40, seed=96)])
    found = against(holdfast, finished_run, some)["against_run"]
    assert found["differs"] is False
    assert (
        "; 20 of these rows were seen in training or validation, which can make the two scores "
        "more similar" in found["because"]
    )


def test_a_class_mix_is_priced_by_the_runs_own_classes() -> None:
    from holdfast.analyses.evaluation import RowScores, _expected_accuracy

    labels = ["a"] * 10 + ["b"] * 10
    right = np.array([1.0] * 9 + [0.0] + [1.0] * 5 + [0.0] * 5)
    scores = RowScores("accuracy", right)
    priced = _expected_accuracy(["a", "b"], np.array([30, 10]), labels, scores)
    assert priced is not None
    assert priced.startswith("80.0 % (95 % CI ")
    low, high = (100 * end for end in binomtest(9, 10).proportion_ci(0.95, method="wilson"))
    only = _expected_accuracy(["a", "b"], np.array([30, 0]), labels, scores)
    assert only == f"90.0 % (95 % CI {low:.1f}–{high:.1f})"
    assert _expected_accuracy(["a", "b", "c"], np.array([30, 10, 1]), labels, scores) is None
    # With the run's own class mix it is the accuracy; five groups of four equal rows are five rows.
    copied = np.tile(np.repeat([1.0, 1.0, 1.0, 0.0, 1.0], 2), 2)
    grouped = RowScores("accuracy", copied, np.tile(np.repeat([*"vwxyz"], 2), 2))
    low, high = ttest_1samp([1, 1, 1, 0, 1], 0).confidence_interval(0.95)
    same = _expected_accuracy(["a", "b"], np.array([7, 7]), labels, grouped)
    assert same == f"80.0 % (95 % CI {100 * low:.1f}–{100 * min(1, high):.1f})"


def test_reasons_are_tested_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and test rows of one population of authors, each with labels and lengths of its own."""
    from holdfast.analyses import evaluation

    seed, found = np.random.default_rng(0), []
    # A table is (labels, word counts, authors).
    monkeypatch.setattr(evaluation, "labels_of_rows", lambda rows: list(rows[0]))
    monkeypatch.setattr(evaluation, "read_texts", lambda rows: ["w " * n for n in rows[1]])
    monkeypatch.setattr(evaluation, "groups_of", lambda rows: rows[2])

    def draw(name: str, share: float = 1.0) -> Any:
        authors = np.repeat(np.arange(20), 10)
        labels = np.where(seed.random(200) < seed.beta(share, 1, 20)[authors], "a", "b")
        words = np.exp(seed.normal(3, 0.4, 20)[authors] + seed.normal(0, 0.3, 200)).astype(int)
        return labels, words, np.array([f"{name}{one}" for one in authors])

    def reasons(own: Any, new: Any) -> list[dict[str, Any]]:
        scores = evaluation.RowScores("accuracy", np.ones(200), own[2])
        stored: Any = {"label": SimpleNamespace(to_pylist=lambda: list(own[0]))}
        run: Any = SimpleNamespace(stored=lambda split: stored)
        mix = evaluation._class_mix_reason(run, new, scores)
        return [mix, evaluation._length_reason("length", own, new)]

    for _ in range(100):
        found.append([one["found"] for one in reasons(draw("run"), draw("new"))])
    assert np.mean(found, axis=0).max() < 0.1
    mix, _ = reasons(draw("run"), draw("new", 8.0))
    assert mix["found"]
    assert "(cluster-robust t-test, p" in mix["because"]
    labels, words, _ = draw("new")
    mix, length = reasons(draw("run"), (labels, words, np.array(["one"] * 200)))
    assert (mix["found"], length["found"]) == (None, None)
    assert "too few to show how much groups differ" in mix["because"]


def test_without_its_predictions_a_run_still_scores_other_rows(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "predictions.parquet").unlink()
    path = write_csv(tmp_path / "new.csv", marked_rows(20, seed=99))
    block = against(holdfast, run, path)
    assert block["n"] == 20
    assert "missing" in block["against_run"]["why"]
