"""What folds say together where one of them has nothing to say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, log_loss

from holdfast.data.memory.texts import table_from_texts
from holdfast.report.view.folds import folds_advice, folds_answer
from holdfast.search.folds.scores import _fold_estimates, _probe_baseline, fold_decision
from holdfast.stats.paired_tests import newcombe


def fold(**metrics: Any) -> Any:
    rows = np.arange(4)
    held = SimpleNamespace(scores={"metrics": metrics})
    return SimpleNamespace(train=rows, valid=rows, held_out=rows), SimpleNamespace(
        held_out_scores=held
    )


def test_a_metric_that_a_fold_lacks_is_undefined_with_the_reason_and_never_left_out() -> None:
    known, none = {"value": 0.5}, {"value": None, "why": "the numbers do not vary"}
    found = _fold_estimates([fold(mae=known, r2=known), fold(mae=known, r2=none)])
    assert found["mae"].value == pytest.approx(0.5)
    assert found["r2"].value is None
    assert found["r2"].low is None
    assert found["r2"].why == "undefined in 1 of 2 folds: the numbers do not vary"


@pytest.mark.parametrize(("repeat", "said"), [(0, "fold 2 of 5"), (1, "fold 2, repeat 2")])
def test_a_fold_is_counted_among_those_of_its_repeat(repeat: int, said: str) -> None:
    one, done = fold(accuracy={"value": 0.5})
    one.number, one.repeat = 1, repeat
    done.best_step, done.planned, done.seconds, done.verdict = 3, 4, 1.0, {"label": "healthy"}
    told = fold_decision(one, done, 5, "", 100.0)
    assert told.what == said
    assert told.because.endswith("about 1 min 40 s left")


def test_no_interval_goes_beyond_what_its_metric_can_be() -> None:
    """Two folds that differ much have a t of one degree of freedom, ±12.7 errors wide."""
    far = {
        name: ({"value": low}, {"value": high})
        for name, low, high in [
            *(("rmse", 0.2, 4.0), ("loss", 0.1, 3.0), ("r2", -0.5, 0.9), ("mcc", -0.5, 0.9)),
            *(("spearman", 0.1, 0.9), ("entity_f1", 0.1, 0.9), ("mine", 10.0, 90.0)),
        ]
    }
    pairs = [fold(**{name: two[i] for name, two in far.items()}) for i in (0, 1)]
    found = _fold_estimates(pairs, {"mine": (0.0, 100.0)})
    ends = {name: (one.low, one.high) for name, one in found.items()}
    assert ends["rmse"][0] == ends["loss"][0] == 0
    assert ends["rmse"][1] > 4  # type: ignore[operator]
    assert ends["r2"][0] < -2  # type: ignore[operator]
    assert ends["r2"][1] == 1
    assert ends["mcc"] == ends["spearman"] == (-1, 1)
    assert ends["entity_f1"] == (0, 1)
    assert ends["mine"] == (0, 100)
    near = _fold_estimates([fold(rmse={"value": 3.0}), fold(rmse={"value": 3.01})])["rmse"]
    rows = np.array([3.0, 3.01])
    half = 12.706204736 * np.sqrt((1 / 2 + 4 / 8) * rows.var(ddof=1))
    assert [near.low, near.high] == pytest.approx([3.005 - half, 3.005 + half])


def test_folds_of_one_value_are_no_certainty() -> None:
    """40 rows in five folds that are all right had an interval of 100 % to 100 %."""
    found = _fold_estimates([fold(exact_match={"value": 1.0})] * 5)["exact_match"]
    assert (found.value, found.low, found.high) == (1.0, None, None)
    assert found.why == "no interval: all folds have the same value"


def predicted(
    held_out: np.ndarray, logits: np.ndarray, probe: np.ndarray | None, repeat: int = 0
) -> Any:
    """A fold whose model and linear probe have these logits for its rows."""
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions = pa.table({"row": held_out, "probabilities": chances.tolist()})
    held = SimpleNamespace(predictions=predictions, probe=probe)
    fold = SimpleNamespace(held_out=held_out, repeat=repeat)
    return fold, SimpleNamespace(held_out_scores=held)


def test_the_probes_of_the_folds_are_one_baseline_of_all_rows() -> None:
    """The rows of the folds are in no order; each probe's logits stay with their rows."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(90) % 2)
    table = table_from_texts([f"text {i}" for i in range(90)], labels.tolist())
    context: Any = SimpleNamespace(rows=table)
    model = rng.normal(size=(90, 2)) + 2.0 * np.eye(2)[labels]
    probe = rng.normal(size=(90, 2)) + 0.5 * np.eye(2)[labels]
    order = rng.permutation(90)
    parts = [order[:30], order[30:60], order[60:]]
    pairs = [predicted(rows, model[rows], probe[rows]) for rows in parts]
    found = _probe_baseline(context, pairs, 3)
    metrics = found["test"]["metrics"]
    assert metrics["accuracy"]["value"] == accuracy_score(labels, probe.argmax(axis=1))
    chances = np.exp(probe) / np.exp(probe).sum(axis=1, keepdims=True)
    assert metrics["loss"]["value"] == pytest.approx(log_loss(labels, chances))
    right = [logits.argmax(axis=1) == labels for logits in (model, probe)]
    difference = found["comparison"]["difference"]
    value = float(right[0].mean() - right[1].mean())
    assert difference["value"] == pytest.approx(value)
    # Wider than of rows that share no training rows: as for accuracy, n ÷ 1.5 rows.
    low, high = newcombe(*right)
    ends = [value + np.sqrt(1.5) * (end - value) for end in (low, high)]
    assert [difference["low"], difference["high"]] == pytest.approx(ends)
    assert (
        _probe_baseline(context, [*pairs[:2], predicted(parts[2], model[parts[2]], None)], 3) == {}
    )


def test_the_counts_of_repeats_are_said_to_be_those_of_the_first() -> None:
    labels, rows = np.arange(40) % 2, np.arange(40)
    context: Any = SimpleNamespace(
        rows=table_from_texts([f"text {i}" for i in rows], labels.tolist())
    )

    def repeat(number: int, wrong: int) -> list[Any]:
        model = np.eye(2)[labels]
        probe = np.where((rows < wrong)[:, None], 1 - model, model)
        parts = rows[:20], rows[20:]
        return [predicted(part, model[part], probe[part], number) for part in parts]

    first = _probe_baseline(context, repeat(0, 4), 2)["comparison"]
    both = _probe_baseline(context, [*repeat(0, 4), *repeat(1, 8)], 2)["comparison"]
    assert both["difference"]["value"] == pytest.approx(0.15)
    counts = "f 40 rows, 4 are predicted correctly only by the fine-tuned model, and 0 only by the"
    assert first["because"] == f"O{counts} linear probe."
    because = "The difference is the mean of 2 repeats. In the first, "
    assert both["because"] == f"{because}o{counts} linear probe."


@pytest.mark.parametrize(
    ("low", "high", "advice", "use"),
    [
        (0.02, 0.18, "Worth using: better than the linear probe (baseline) by 10.0", "yes"),
        (-0.02, 0.22, "Inconclusive: on 400 rows no difference from the linear", "unsettled"),
        (-0.2, -0.02, "Do not use it: the linear probe (baseline) is better by", "no"),
        (None, None, "The model was not compared with a linear probe", "unknown"),
    ],
)
def test_the_advice_follows_the_folds_comparison(
    low: float | None, high: float | None, advice: str, use: str
) -> None:
    def accuracy(value: float) -> dict[str, Any]:
        return {"accuracy": {"value": value, "low": value - 0.04, "high": value + 0.04}}

    gain = 0.0 if low is None or high is None else (low + high) / 2
    cv: dict[str, Any] = {"metric": "accuracy", "metrics": accuracy(0.88), "commonest": 0.6}
    cv |= {"folds": 5, "repeats": 1, "rows": 400}
    if low is not None:
        difference = {"value": gain, "low": low, "high": high, "level": 0.95}
        cv["baseline"] = {
            "test": {"n": 400, "metrics": accuracy(0.88 - gain)},
            "comparison": {"difference": difference, "p_value": None},
        }
    told, colour = folds_advice(cv)
    assert told.replace("\u00a0", " ").startswith(advice)
    assert colour == use
    assert ("linear probe (baseline)" in folds_answer(cv)) == (low is not None)
    assert folds_advice({**cv, "commonest": 0.9})[1] == "no"


def test_few_rows_do_not_show_that_guessing_is_as_good() -> None:
    accuracy = {"value": 0.6, "low": 0.45, "high": 0.74, "level": 0.95}
    cv: dict[str, Any] = {"metric": "accuracy", "metrics": {"accuracy": accuracy}, "folds": 5}
    cv |= {"baseline": paired_block(0.05), "repeats": 1}
    for rows, commonest, use in ((40, 0.6, "unsettled"), (40, 0.8, "no"), (400, 0.6, "no")):
        advice, found = folds_advice({**cv, "rows": rows, "commonest": commonest})
        assert found == use
        assert advice.startswith("Inconclusive" if use == "unsettled" else "Do not use it")


def paired_block(gain: float) -> dict[str, Any]:
    difference = {"value": gain, "low": gain - 0.1, "high": gain + 0.1, "level": 0.95}
    probe = {"accuracy": {"value": 0.55}}
    return {
        "test": {"n": 40, "metrics": probe},
        "comparison": {"difference": difference, "p_value": None},
    }
