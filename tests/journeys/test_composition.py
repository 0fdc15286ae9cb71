"""What comes out of whole small runs, where the parts meet: each test reads a run's folder and
computes again, by other means, what the run must have done with its rows."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from scipy import optimize, special, stats

import holdfast
from holdfast.core.errors import SplitError
from holdfast.training.evaluation_file import read_evaluations

WORDS = [f"w{i}" for i in range(40)]
MARKS = ["bad", "good", "odd"]
CLASSES = ("no", "yes", "perhaps")


def marked(n: int, noise: float, seed: int, classes: int = 2) -> list[tuple[str, str]]:
    """Random words with the mark of a class, the wrong one in ``noise`` of the rows."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(n):
        right = index % classes
        shown = right if rng.random() >= noise else (right + 1) % classes
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(6, 14))]
        words.insert(int(rng.integers(0, len(words))), MARKS[shown])
        rows.append((" ".join(words), CLASSES[right]))
    return rows


def write(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """``trained(rows, …)``: a run's folder and its result. Plain fine-tuning by default: no
    contrast, no probe, nothing that stops it."""

    def make(
        rows: Sequence[Sequence[str]],
        header: Sequence[str] = ("text", "label"),
        *,
        seed: int = 0,
        valid: Any = None,
        test: Any = None,
        **settings: Any,
    ) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("whole")
        plain: dict[str, Any] = {
            "model.name": str(tiny_model),
            "train.precision": "float32",
            "train.threads": 1,
            "train.matmul": "default",
            "control.policy": "off",
            "methods.contrast": False,
            "methods.probe_first": False,
        }
        if valid is not None:
            plain["data.valid"] = str(write(folder / "valid.csv", valid, header))
        if test is not None:
            plain["data.test"] = str(write(folder / "test.csv", test, header))
        source = write(folder / "rows.csv", rows, header)
        given = {name.replace("__", "."): value for name, value in settings.items()}
        run = holdfast.train(
            str(source), out=folder / "run", seed=seed, settings=plain | given, quiet=True
        )
        return folder / "run", run.result

    return make


LONG: dict[str, Any] = {
    "train__epochs": 30,
    "train__evaluations": 30,
    "train__schedule": "constant",
    "train__keep": "newest_unless_worse",
}


@pytest.fixture(scope="module")
def learned_by_heart(trained: Any) -> tuple[Path, dict[str, Any]]:
    """A run of many looks on 60 rows with wrong labels, which loses ground little by little."""
    found: tuple[Path, dict[str, Any]] = trained(
        marked(60, 0.35, 1), valid=marked(150, 0.1, 2), seed=1, train__learning_rate=4e-3, **LONG
    )
    return found


def refined(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row at the temperature that suits all of them best, by SciPy."""

    def losses(log_t: float) -> np.ndarray:
        scaled = logits.astype(float) / np.exp(log_t)
        rows = special.logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]
        return np.asarray(rows)

    found = optimize.minimize_scalar(
        lambda t: losses(t).mean(),
        bounds=(np.log(0.01), np.log(100)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return losses(float(found.x))


def kept_by(losses: np.ndarray, correct: list[int]) -> int:
    """The newest look not worse (p < 0.2, one-sided, paired) than the lowest one, and of which no
    other has both a lower loss and more correct rows."""

    def dominates(one: int, other: int) -> bool:
        lower = losses[:, one].mean() < losses[:, other].mean()
        return bool(lower and correct[one] > correct[other])

    kept = lowest = 0
    for look in range(1, losses.shape[1]):
        lowest = look if losses[:, look].mean() < losses[:, lowest].mean() else lowest
        if any(dominates(before, look) for before in range(look)):
            continue
        if look != lowest and not dominates(look, kept):
            p = stats.ttest_rel(losses[:, look], losses[:, lowest], alternative="greater").pvalue
            if p < 0.2:
                continue
        kept = look
    return kept


@pytest.mark.slow
def test_the_kept_state_is_the_newest_that_is_not_worse_than_the_lowest(trained: Any) -> None:
    # A run whose lowest loss comes long before its last checkpoint.
    run, result = trained(
        marked(60, 0.2, 4), valid=marked(150, 0.1, 2), seed=4, train__learning_rate=2e-3, **LONG
    )
    history = read_evaluations(run / "looks.npz").history
    valid = parquet.read_table(run / "splits.parquet").to_pylist()
    names = [label for _, label in marked(150, 0.1, 2)]
    used = [row["row"] for row in valid if row["split"] == "valid" and "valid" in row["file"]]
    labels = np.array([result["classes"].index(names[row]) for row in used])
    losses = np.stack([refined(np.asarray(s.valid_logits), labels) for s in history], axis=1)
    correct = [int(np.sum(s.valid_correct)) for s in history]
    assert losses.mean(axis=0).argmin() < (kept := kept_by(losses, correct))
    assert result["best_step"] == history[kept].step < result["last_step"]


@pytest.mark.slow
def test_the_saved_temperature_is_that_of_the_best_state(learned_by_heart: Any) -> None:
    """Fitted here by SciPy to the logits of every look: the last look's would be far hotter."""
    run, result = learned_by_heart
    looks = read_evaluations(run / "looks.npz")

    def fitted(snapshot: Any) -> float:
        logits = np.asarray(snapshot.valid_logits, dtype=float)
        chances = special.log_softmax(logits, axis=1)
        labels = np.abs(-chances - snapshot.valid_losses[:, None]).argmin(axis=1)
        # One pseudo-row whose label is uniform, spread over the rows.
        share = np.full_like(logits, 1 / logits.shape[1] / len(labels))
        share[np.arange(len(labels)), labels] += 1

        def loss(log_t: float) -> float:
            return float(-(share * special.log_softmax(logits / np.exp(log_t), axis=1)).sum())

        found = optimize.minimize_scalar(
            loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-9}
        )
        return float(np.exp(found.x))

    best = next(s for s in looks.history if s.step == result["best_step"])
    saved = result["model_facts"]["temperature"]
    assert saved == pytest.approx(fitted(best), rel=1e-3)
    assert fitted(looks.history[-1]) > 1.5 * saved
    told = [d["chosen"] for d in result["decisions"] if d["what"] == "temperature"]
    assert told == [f"{saved:.3f}"]


def test_the_baseline_is_chosen_on_the_validation_rows_and_not_on_the_test_rows(
    trained: Any,
) -> None:
    """On the validation rows every mark is a lie, so that the majority class beats the probe; on
    the test rows the probe is nearly always right."""
    honest, lies = marked(80, 0.0, 3), marked(40, 1.0, 4)
    _, result = trained(
        honest, valid=lies, test=marked(60, 0.0, 5), train__max_steps=2, methods__probe_first=True
    )
    scores = {
        entry["what"]: entry["test"]["metrics"]["accuracy"]["value"]
        for entry in result["baseline"]["all"]
    }
    assert scores["linear probe"] > scores["majority class"] + 0.1
    assert result["baseline"]["what"] == "majority class"
    chosen = result["baseline"]["test"]["metrics"]["accuracy"]["value"]
    assert chosen == scores["majority class"]
    (told,) = [d for d in result["decisions"] if d["what"] == "baseline"]
    assert told["chosen"] == "majority class"


def test_a_file_that_is_read_in_many_parts_keeps_its_row_numbers(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a few rows at a time; every row that a table of the run names must be the row of the
    file that it came from."""
    monkeypatch.setattr("holdfast.data.raw.BATCH_CELLS", 60)
    rows = marked(100, 0.1, 6)
    run, _ = trained(rows, train__max_steps=1)
    table = parquet.read_table(run / "splits.parquet").to_pylist()
    assert sorted(row["row"] for row in table) == list(range(len(rows)))
    answers = parquet.read_table(run / "predictions.parquet").to_pylist()
    assert {row["row"] for row in answers} == {r["row"] for r in table if r["split"] == "test"}
    assert [row["label"] for row in answers] == [rows[row["row"]][1] for row in answers]
    shown = parquet.read_table(run / "examples.parquet").to_pylist()
    assert shown
    for example in shown:
        assert rows[example["row"]][1] == example["label"]


def sides_of(run: Path, rows: Sequence[Sequence[str]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for row in parquet.read_table(run / "splits.parquet").to_pylist():
        found.setdefault(row["split"], Counter())[rows[row["row"]][1]] += 1
    return found


@pytest.mark.parametrize("seed", range(12))
def test_no_class_vanishes_from_a_side_where_units_are_moved_to_fill_another(
    seed: int, tmp_path: Path
) -> None:
    """Groups of mixed classes, few of each: the division must move some of them, and what it takes
    from one side that side must be able to spare."""
    from holdfast.split.assign import assign

    rng = np.random.default_rng(seed)
    moved = 0
    for _ in range(60):
        classes, units = 4, int(rng.integers(8, 16))
        sizes = rng.integers(1, 6, units)
        of_row = np.repeat(np.arange(units), sizes)
        labels = rng.choice(classes, len(of_row), p=[0.7, 0.1, 0.1, 0.1])
        keys = rng.permutation(units).astype(np.uint64)
        try:
            side = assign(of_row, labels, keys, (0.7, 0.15, 0.15), tuple("abcd"))
        except SplitError:
            continue
        moved += 1
        for label in np.unique(labels):
            assert set(side[of_row[labels == label]]) == {0, 1, 2}, (label, seed)
    assert moved > 3


def test_a_leak_is_called_one_only_when_two_looks_in_a_row_say_so(trained: Any) -> None:
    """Validation rows that are much easier than the training rows: one such look may be chance."""
    run, _ = trained(
        marked(400, 0.3, 7),
        valid=marked(200, 0.0, 8),
        train__epochs=6,
        train__evaluations=24,
        train__learning_rate=3e-3,
    )
    lines = [json.loads(x) for x in (run / "events.jsonl").read_text("utf-8").splitlines()]
    said = [x["step"] for x in lines if x["event"] == "verdict" and x["label"] == "leaking"]
    assert said, "the run must be one that is called leaking"
    history = list(read_evaluations(run / "looks.npz").history)
    at = [snapshot.step for snapshot in history].index(said[0])
    for snapshot in history[at - 1 : at + 1]:
        found = stats.ttest_ind(
            snapshot.valid_losses, snapshot.train_losses, equal_var=False, alternative="less"
        )
        assert found.pvalue < 0.01, (snapshot.step, said)


def test_the_saved_model_is_the_kept_state_and_scores_as_it_was_seen(
    learned_by_heart: Any, tiny_model: Path
) -> None:
    """The validation rows through plain Transformers give the kept look's logits at the saved
    temperature: the right state was put back, rows are measured without dropout, padding is no
    word. The result's validation block is made of the same numbers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run, result = learned_by_heart
    kept = next(
        s for s in read_evaluations(run / "looks.npz").history if s.step == result["best_step"]
    )
    rows = marked(150, 0.1, 2)
    split = parquet.read_table(run / "splits.parquet").to_pylist()
    used = [r["row"] for r in split if r["split"] == "valid" and "valid" in r["file"]]
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    batch = tokenizer([rows[row][0] for row in used], return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = model(**batch).logits.numpy()
    temperature = result["model_facts"]["temperature"]
    np.testing.assert_allclose(logits, kept.valid_logits / temperature, atol=2e-3)
    labels = np.array([result["classes"].index(rows[row][1]) for row in used])
    right = float((logits.argmax(axis=1) == labels).mean())
    losses = special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    block = result["valid"]["metrics"]
    assert block["accuracy"]["value"] == pytest.approx(right)
    # The loss is flat where its temperature is the best: only so close does it tell them apart.
    assert block["loss"]["value"] == pytest.approx(float(losses.mean()), rel=2e-5)
    assert kept.valid_metrics["accuracy"] == pytest.approx(right)
    lines = [json.loads(x) for x in (run / "events.jsonl").read_text("utf-8").splitlines()]
    seen = {x["step"]: x["valid_metrics"]["accuracy"] for x in lines if x["event"] == "snapshot"}
    assert seen[result["best_step"]] == pytest.approx(right)


def test_the_judge_knows_how_many_looks_are_planned(learned_by_heart: Any) -> None:
    looks = read_evaluations(learned_by_heart[0] / "looks.npz")
    assert looks.run_facts.planned_looks == len(looks.history)
    assert looks.run_facts.planned_steps == looks.history[-1].step


def test_the_result_says_which_state_is_kept_and_why(learned_by_heart: Any) -> None:
    _, result = learned_by_heart
    (told,) = [d for d in result["decisions"] if d["what"] == "best checkpoint"]
    assert told["chosen"].startswith(f"step {result['best_step']} of {result['last_step']}")
    assert "validation loss" in told["because"]


def test_a_metric_of_the_users_choice_keeps_its_highest_look(trained: Any) -> None:
    run, result = trained(
        marked(80, 0.3, 9),
        valid=marked(60, 0.1, 2),
        train__metric="accuracy",
        train__epochs=8,
        train__learning_rate=4e-3,
    )
    history = read_evaluations(run / "looks.npz").history
    seen = {s.step: s.valid_metrics["accuracy"] for s in history}
    assert len(set(seen.values())) > 1, "the run must be one whose looks differ"
    assert seen[result["best_step"]] == max(seen.values())


def test_what_the_rows_hold_stands_among_the_findings(trained: Any) -> None:
    """Found by the audit, by the division, and when the texts were encoded."""
    rows = marked(80, 0.1, 10)
    twisted = [(f"{rows[0][0]} w1", "no"), (f"{rows[0][0]} w1", "yes")]
    long = [(" ".join(["w3 w5 w7 good"] * 40), "yes"), (" ".join(["w2 w4 w6 bad"] * 40), "no")]
    rows = [*rows, *twisted, *long, *long, *long, *long]
    _, result = trained(rows, train__max_steps=1)
    checks = {finding["check"] for finding in result["data"]["findings"]}
    assert {"conflicting_labels", "truncated_texts", "exact_duplicates"} <= checks, checks


@pytest.mark.slow
def test_the_linear_probe_beside_the_model_does_not_depend_on_the_training(trained: Any) -> None:
    rows = marked(100, 0.1, 11)
    said = []
    for steps in (1, 12):
        _, result = trained(
            rows, train__max_steps=steps, train__learning_rate=1e-2, train__keep="last"
        )
        probes = [b for b in result["baseline"]["all"] if b["what"] == "linear probe"]
        said.append(probes[0]["test"]["metrics"]["loss"]["value"])
    assert said[0] == pytest.approx(said[1], rel=1e-6)


def moved(run: Path, start: Path) -> dict[str, bool]:
    """Which tensors of the backbone the run has changed."""
    from safetensors.numpy import load_file

    before = load_file(start / "model.safetensors")
    after = load_file(run / "model" / "model.safetensors")
    names = {name: name.removeprefix("bert.") for name in after}
    return {
        short: not np.array_equal(after[name], before[short])
        for name, short in names.items()
        if short in before
    }


@pytest.mark.slow
def test_what_is_frozen_stays_and_all_else_learns(trained: Any, tiny_model: Path) -> None:
    """By default the words; with ``model.freeze=2`` the embeddings and the first block."""
    rows = marked(60, 0.1, 12)
    given = {"train__max_steps": 3, "train__learning_rate": 1e-3, "train__keep": "last"}
    words, _ = trained(rows, **given)
    changed = moved(words, tiny_model)
    assert not changed["embeddings.word_embeddings.weight"]
    assert changed["encoder.layer.0.output.dense.weight"]
    first, _ = trained(rows, **given, model__freeze=2)
    changed = moved(first, tiny_model)
    held = ("embeddings.", "encoder.layer.0.")
    assert [name for name, now in changed.items() if now and name.startswith(held)] == []
    assert changed["encoder.layer.1.output.dense.weight"]


def test_lower_layers_move_less_where_their_rate_decays(trained: Any, tiny_model: Path) -> None:
    """Adam's first update has the size of the rate: one update, a tenth of the rate a layer."""
    from safetensors.numpy import load_file

    run, _ = trained(
        marked(60, 0.1, 13),
        train__max_steps=1,
        train__learning_rate=1e-3,
        train__layer_decay=0.1,
        train__warmup=0.0,
        train__weight_decay=0.0,
        train__schedule="constant",
        train__keep="last",
    )
    before, after = (
        load_file(tiny_model / "model.safetensors"),
        load_file(run / "model" / "model.safetensors"),
    )

    def update(name: str) -> float:
        return float(np.median(np.abs(after[f"bert.{name}"] - before[name])))

    name = "encoder.layer.{}.intermediate.dense.weight"
    assert update(name.format(0)) == pytest.approx(0.1 * update(name.format(1)), rel=0.05)


def test_each_phase_has_a_schedule_of_its_own(trained: Any) -> None:
    """Linear to nothing: the last update of a phase of n has 1 ÷ n of its rate."""
    run, _ = trained(
        marked(100, 0.1, 14),
        train__epochs=4,
        train__learning_rate=1e-3,
        train__warmup=0.0,
        methods__contrast__steps=4,
        methods__probe_first=True,
    )
    history = read_evaluations(run / "looks.npz").history
    ends: dict[str, Any] = {}
    for look in history[1:]:
        ends[look.phase] = look
    assert list(ends) == ["contrast", "finetune"]
    steps = ends["finetune"].step - ends["contrast"].step
    assert ends["contrast"].learning_rate == pytest.approx(1e-3 / ends["contrast"].step)
    assert ends["finetune"].learning_rate == pytest.approx(1e-3 / steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"train__max_minutes": 1e-4, "train__epochs": 400}, "train.max_minutes"),
        (
            {
                "control__policy": "stop",
                "control__chance": 0.98,
                "control__worth": 0.5,
                "train__epochs": 40,
            },
            "below 98 %",
        ),
        (
            {
                "control__policy": "stop",
                "control__chance": 0.0,
                "train__patience": 1,
                "train__epochs": 40,
                "train__learning_rate": 1e-2,
            },
            "no improvement of the validation score that early stopping uses, at 1 evaluations",
        ),
    ],
    ids=["minutes", "costs", "patience"],
)
def test_a_run_stops_by_the_setting_that_was_given(
    trained: Any, settings: dict[str, Any], why: str
) -> None:
    _, result = trained(marked(80, 0.1, 15), **settings)
    assert why in result["stopped_because"]
    assert [action["action"] for action in result["actions"]][-1] == "Stop"
