"""Synthetic run folders for tests: any number of classes, hostile names and texts, nulls.

``make_run(folder, classes=6)`` writes every file of a finished run; ``edit`` changes the result
before it is written. Nothing here imports the report.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE = (
    "<script>alert('class')</script>",
    "</style><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "שלום עולם",
    "🔥🏳️‍🌈 mood & “quotes”",
    "w" * 180,
    "a\u202egnp.exe",
    'x" onload="alert(1)',
    "nul\x00bell\x07",
    "lone \ud800 surrogate",
    "javascript:alert(1)",
    "--> ]]> &amp; &lt;",
)
BLOCKS = json.loads(Path(__file__).with_name("run_blocks.json").read_text(encoding="utf-8"))
WORDS = ("a", "plain", "review", "of", "the", "film", "which", "was", "long", "and", "kind")


def make_run(
    folder: Path,
    *,
    classes: int = 6,
    names: tuple[str, ...] | None = None,
    n_test: int = 400,
    looks: int = 20,
    valid: bool = True,
    verdict: str = "healthy",
    seed: int = 0,
    careless: bool = True,
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write a run folder and return it. ``valid=False`` leaves validation empty."""
    rng = np.random.default_rng(seed)
    labels = names or tuple(f"class-{i:02d}" for i in range(classes))
    truth, answers, probabilities = _answers(rng, len(labels), n_test)
    snapshots = _snapshots(looks, valid)
    best = snapshots[max(0, (2 * looks) // 3 - 1)]["step"] if snapshots else 0
    result = _result(rng, labels, truth, answers, probabilities, best, snapshots, valid, verdict)
    result = copy.deepcopy(result)  # an edit must not reach the next run
    result["careless"] = _careless() if careless else None
    if edit:
        edit(result)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    _events(folder, snapshots, verdict, best)
    _recipe(folder, result.get("settings") or {})
    _splits(folder, len(labels), n_test)
    _predictions(folder, labels, truth, answers, probabilities)
    return folder


def bare_result() -> dict[str, Any]:
    """The least that an older or partial run can hold."""
    return {"schema": 1, "task": "text-classification", "model": "embedded", "classes": ["a", "b"]}


def estimate(value: float, half: float = 0.03) -> dict[str, Any]:
    low, high = max(0.0, value - half), min(1.0, value + half * 0.8)
    return {"value": value, "low": low, "high": high, "level": 0.95}


def undefined(why: str) -> dict[str, Any]:
    return {"value": None, "low": None, "high": None, "why": why}


def _answers(
    rng: np.random.Generator, classes: int, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), truth] += 3.2
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return truth, probabilities.argmax(axis=1), probabilities


def _snapshots(looks: int, valid: bool) -> list[dict[str, Any]]:
    return [_snapshot(i, i / max(looks - 1, 1), valid) for i in range(looks)]


def _snapshot(i: int, t: float, valid: bool) -> dict[str, Any]:
    train = 1.7 * math.exp(-4 * t) + 0.02
    held = 1.72 * math.exp(-3.6 * t) + 0.28 + 0.34 * max(0, t - 0.6)
    return {
        "event": "snapshot",
        "step": 25 * i,
        "epoch": round(4.75 * t, 4),
        "examples_seen": 400 * i,
        "phase": "probe" if i < 2 else "fine-tune",
        "train_loss": train,
        "valid_loss": held if valid else None,
        "temperature": 1 + 0.6 * t,
        "refined_loss": held - 0.12 * max(0, t - 0.5) if valid else None,
        "train_metrics": {"accuracy": 1 - 0.75 * math.exp(-4 * t)},
        "valid_metrics": {"accuracy": 0.9 - 0.66 * math.exp(-4 * t)} if valid else {},
        "learning_rate": 2e-5 * (1 - t),
        "gradient_norm": 1.2,
        "relative_update": 1e-3,
        "distance": 0.01 * t,
        "seconds": 0.4,
        "train_rows": 300,
        "valid_rows": 600 if valid else 0,
    }


def _result(
    rng: np.random.Generator,
    names: tuple[str, ...],
    truth: np.ndarray,
    answers: np.ndarray,
    probabilities: np.ndarray,
    best: int,
    snapshots: list[dict[str, Any]],
    valid: bool,
    verdict: str,
) -> dict[str, Any]:
    n = len(truth)
    last = snapshots[-1]["step"] if snapshots else 0
    accuracy = float((truth == answers).mean())
    return {
        "schema": 1,
        "holdfast": "0.1.0",
        "task": "text-classification",
        "model": "embedded",
        "classes": list(names),
        "seed": 0,
        "created": "2026-01-02T03:04:05+00:00",
        "data": {
            "rows": 2907,
            "used": 2880,
            "train": 1866,
            "valid": 600 if valid else 0,
            "test": n,
            "findings": BLOCKS["findings"],
        },
        "test": {
            "n": n,
            "metrics": _metrics(accuracy),
            "opened_at": "2026-01-02T03:10:11+00:00",
            "confusion": {"classes": list(names), "counts": _counts(truth, answers, names)},
            "reliability": {"bins": _bins(truth, answers, probabilities)},
            "per_class": {
                name: {
                    "n": int((truth == i).sum()),
                    "precision": estimate(0.9, 0.06),
                    "recall": estimate(0.88, 0.07),
                    "f1": estimate(0.89, 0.06),
                }
                for i, name in enumerate(names)
            },
        },
        "valid": {"n": 600, "metrics": _metrics(accuracy + 0.012)}
        if valid
        else {"n": 0, "metrics": {"accuracy": undefined("there are no validation rows")}},
        "train_probe": {"n": 300, "metrics": _metrics(0.985)},
        "baseline": _baseline(accuracy),
        "verdict": _verdict(verdict, best),
        "best_step": best,
        "last_step": last,
        "stopped_because": "Validation was not better for 5 looks.",
        "actions": [{"step": last, "action": "Stop", "because": "No look was better."}],
        "probes": {"memorization": None, "forgetting": None},
        "timing": {
            "total_s": 214.31,
            "train_s": 151.2,
            "evaluate_s": 14.9,
            "guard_s": 0.8,
            "examples_per_s": 49.37,
        },
        "peak_memory_mb": 1312,
        "decisions": BLOCKS["decisions"],
        "division": _division(names, truth, valid),
        "hardest": _hardest(rng, names, truth, answers, probabilities),
        "model_facts": {
            "name": "embedded",
            "architecture": "BertForSequenceClassification",
            "parameters": 22713216,
            "trainable": 10795008,
            "pooling": "mean",
            "precision": "bfloat16",
            "temperature": 1.3127,
            "max_length": 128,
        },
        "settings": BLOCKS["settings"],
        "versions": {
            "holdfast": "0.1.0",
            "python": "3.11.9",
            "torch": "2.9.0",
            "transformers": "5.1.0",
        },
        "machine": {
            "cpu": "Some Processor @ 2.10 GHz",
            "threads": 2,
            "device": "cpu",
            "system": "Linux x86_64",
        },
    }


def _metrics(accuracy: float) -> dict[str, Any]:
    return {
        "accuracy": estimate(accuracy),
        "f1_macro": estimate(accuracy - 0.0113, 0.035),
        "f1_weighted": estimate(accuracy - 0.002),
        "loss": estimate(0.3127, 0.05),
        "ece": estimate(0.0314, 0.01),
        "roc_auc": undefined("it is defined for two classes only"),
    }


def _baseline(accuracy: float) -> dict[str, Any]:
    probe = {"what": "linear probe", "test": {"n": 400, "metrics": _metrics(accuracy - 0.052)}}
    majority = {
        "what": "majority class",
        "test": {"n": 400, "metrics": {"accuracy": estimate(0.231, 0.04)}},
    }
    comparison = {
        "difference": {"value": 0.052, "low": 0.0213, "high": 0.0832, "level": 0.95},
        "p_value": 0.00214,
        "because": "Of 400 test rows, 31 were right only with the fine-tuned model "
        "and 10 only with the probe (exact McNemar test).",
    }
    return {**probe, "all": [probe, majority], "comparison": comparison}


def _verdict(label: str, best: int) -> dict[str, Any]:
    return {
        "label": label,
        "since_step": best,
        "confidence": 0.93,
        "cause": None,
        "because": f"Against its best at step {best}, the last state is not worse on validation "
        "beyond chance (paired bootstrap, 2,000 resamples), and the train probe has levelled off.",
        "evidence": [
            {
                "name": "refined_loss_change",
                "value": 0.0123,
                "low": -0.008,
                "high": 0.034,
                "at_step": best,
            },
            {"name": "probe_slope", "value": -0.00002, "low": None, "high": None, "at_step": None},
        ],
        "remedies": [
            {"do": "Label more rows of the classes that are confused.", "set": []},
            {"do": "Decay the weights more.", "set": ["train.weight_decay=0.1"]},
        ],
    }


def _careless() -> dict[str, Any]:
    return {
        "what": "linear probe",
        "random_split": estimate(0.934, 0.02),
        "honest": estimate(0.861, 0.03),
        "because": "212 test rows of the random division have a near-copy in its training "
        "part; the honest division has none.",
    }


def _division(names: tuple[str, ...], truth: np.ndarray, valid: bool) -> dict[str, Any]:
    held = 600 if valid else 0
    per_class = {
        name: {
            "train": 1866 // len(names) + 7 * i % 40,
            "valid": held // len(names),
            "test": int((truth == i).sum()),
        }
        for i, name in enumerate(names)
    }
    return {
        "train": 1866,
        "valid": held,
        "test": len(truth),
        "dropped": 14,
        "moved": 41,
        "copy_groups": 88,
        "rows_in_copies": 212,
        "per_class": per_class,
        "notes": ["1 chain of near-copies was cut at a similarity of 0.82."],
    }


def _hardest(
    rng: np.random.Generator,
    names: tuple[str, ...],
    truth: np.ndarray,
    answers: np.ndarray,
    probabilities: np.ndarray,
) -> dict[str, Any]:
    losses = -np.log(probabilities[np.arange(len(truth)), truth])
    sure = probabilities.max(axis=1)

    def line(i: int, k: int) -> dict[str, Any]:
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(6, 60))))
        text = HOSTILE[k % len(HOSTILE)] + " " + text if k < len(HOSTILE) else text
        return {
            "row": int(7 * i),
            "text": text,
            "label": names[truth[i]],
            "prediction": names[answers[i]],
            "confidence": float(sure[i]),
            "loss": float(losses[i]),
        }

    wrong = [int(i) for i in np.argsort(-sure) if truth[i] != answers[i]][:20]
    return {
        "loss": [line(int(i), k) for k, i in enumerate(np.argsort(-losses)[:20])],
        "confidently_wrong": [line(i, k) for k, i in enumerate(wrong)],
    }


def _counts(truth: np.ndarray, answers: np.ndarray, names: tuple[str, ...]) -> list[list[int]]:
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (truth, answers), 1)
    return counts.tolist()  # type: ignore[no-any-return]


def _bins(
    truth: np.ndarray, answers: np.ndarray, probabilities: np.ndarray
) -> list[dict[str, Any]]:
    sure, right = probabilities.max(axis=1), truth == answers
    bins = []
    for i in range(10):
        inside = (sure > i / 10) & (sure <= (i + 1) / 10)
        n = int(inside.sum())
        bins.append(
            {
                "low": i / 10,
                "high": (i + 1) / 10,
                "n": n,
                "confidence": float(sure[inside].mean()) if n else None,
                "accuracy": float(right[inside].mean()) if n else None,
            }
        )
    return bins


def _events(folder: Path, snapshots: list[dict[str, Any]], verdict: str, best: int) -> None:
    lines: list[dict[str, Any]] = [
        {"event": "note", "step": 0, "what": "rate", "because": "2e-05 suits a full fine-tune."}
    ]
    for look in snapshots:
        lines.append(look)
        label = "learning" if look["step"] <= best else verdict
        lines.append(
            {
                "event": "verdict",
                "step": look["step"],
                "label": label,
                "because": f"Seen at step {look['step']}.",
                "confidence": 0.9,
            }
        )
    last = snapshots[-1]["step"] if snapshots else 0
    lines.append(
        {"event": "action", "step": last, "action": "Stop", "because": "No look was better."}
    )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "events.jsonl").write_text(text, encoding="utf-8")


def _recipe(folder: Path, settings: dict[str, Any]) -> None:
    import yaml

    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def _splits(folder: Path, classes: int, n_test: int) -> None:
    import polars

    parts = ["train"] * 1866 + ["valid"] * 600 + ["test"] * n_test + ["dropped"] * 14
    notes = ["moved to stay with its copies" if i % 70 == 0 else "" for i in range(len(parts))]
    notes = [
        "no text" if part == "dropped" else note for part, note in zip(parts, notes, strict=True)
    ]
    polars.DataFrame(
        {
            "file": "reviews.csv",
            "row": range(len(parts)),
            "split": parts,
            "group": [f"g{i // 2}" for i in range(len(parts))],
            "note": notes,
        }
    ).write_parquet(folder / "splits.parquet")


def _predictions(
    folder: Path,
    names: tuple[str, ...],
    truth: np.ndarray,
    answers: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    import polars

    safe = [name.encode("utf-8", "replace").decode() for name in names]
    losses = -np.log(probabilities[np.arange(len(truth)), truth])
    polars.DataFrame(
        {
            "row": 7 * np.arange(len(truth)),
            "label": [safe[i] for i in truth],
            "prediction": [safe[i] for i in answers],
            "loss": losses,
            "probabilities": probabilities.tolist(),
        }
    ).write_parquet(folder / "predictions.parquet")
