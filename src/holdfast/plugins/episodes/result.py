"""What a start leaves: what it scores on the episodes of the test tasks, their predictions, and the
blocks of ``result.json``.

Episodes of the test tasks stand where ``train`` has test rows, and ``test`` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast._version import __version__
from holdfast.contract import result as outcome
from holdfast.core.records import Decision, Estimate, Floats, Verdict, to_json
from holdfast.models.probes.logistic import softmax_losses
from holdfast.plugins.episodes.choice import FROZEN, MetaBench, MethodChoice
from holdfast.plugins.episodes.methods import BASELINE, EpisodeScores, FeatureReader, score
from holdfast.plugins.episodes.rows import SIDES, MetaRows
from holdfast.plugins.episodes.tasks import Episode
from holdfast.recipe import Recipe
from holdfast.stats.folds import mean_over_units
from holdfast.stats.paired_tests import Difference

# ±1.96 standard errors over episodes, as papers give it: it takes each for a new task.
PLAIN = 1.959963984540054
COLUMNS = ("episode", "row", "label", "prediction", "loss", "shares", "classes")


@dataclass(frozen=True, slots=True)
class TestEpisodes:
    """The test episodes and what was made of them: by the kept start, and by each baseline."""

    episodes: list[Episode]
    kept: EpisodeScores
    baselines: dict[str, EpisodeScores]
    members: Floats
    unit: str
    opened_at: str

    def block(self, scores: EpisodeScores) -> dict[str, Any]:
        """The block of ``result.json`` with one of the scores."""
        return _side(scores, self.members, self.unit)


def score_tests(bench: MetaBench, chosen: MethodChoice, reader: FeatureReader) -> TestEpisodes:
    """The test episodes, met once by the start that is kept and by the baselines."""
    test, rows, meta = bench.rows.pools[2], bench.rows, bench.recipe.meta
    opened_at = outcome.now()
    episodes = test.episodes(rows.shape, meta.test_episodes, bench.recipe.seed, "test")
    reader.network.to(reader.device)
    kept = score(chosen.kept.method, reader, episodes)
    others = {}
    for arm in chosen.arms[:2]:
        own = reader
        if arm is not chosen.kept:
            own = bench.reader(arm.learned.state if arm.learned else None)
        others[arm.name] = kept if own is reader else score(arm.method, own, episodes)
    members, unit = test.members(episodes)
    return TestEpisodes(episodes, kept, others, members, unit, opened_at)


def write_predictions(run: Path, rows: MetaRows, test: TestEpisodes) -> None:
    """A line for each query row of each episode: the episode's classes in ``classes``, and how
    probable the kept start holds each, in ``shares``; ``probabilities`` would be of the run's own
    classes."""
    import pyarrow as pa
    from scipy.special import softmax

    ids = np.asarray(rows.table.column("row"))
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    tasks = rows.pools[2].tasks
    for at, (episode, kept) in enumerate(zip(test.episodes, test.kept.logits, strict=True)):
        logits = np.asarray(kept, dtype=np.float64)
        names = [tasks[episode.task].classes[c] for c in episode.classes.tolist()]
        labels = episode.query_labels
        columns["episode"] += [at] * len(labels)
        columns["row"] += ids[episode.query.ravel()].tolist()
        columns["label"] += [names[i] for i in labels.tolist()]
        columns["prediction"] += [names[i] for i in logits.argmax(axis=1).tolist()]
        columns["loss"] += softmax_losses(logits, labels).tolist()
        columns["shares"] += softmax(logits, axis=1).tolist()
        columns["classes"] += [names] * len(labels)
    outcome.write_parquet(run / "predictions.parquet", pa.table(columns))


def result_of(
    rows: MetaRows,
    recipe: Recipe,
    chosen: MethodChoice,
    test: TestEpisodes,
    verdict: Verdict,
    decisions: Sequence[Decision],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """``result.json`` but for the marks of its files and where it ran. ``seconds`` are those of the
    whole (``total``), of the methods that learned (``train``) and of the test (``score``)."""
    learned = chosen.kept.learned
    # The units of the validation episodes that the kept method met.
    valid, count = rows.pools[1], len(chosen.kept.judged.accuracy)
    judged = valid.members(valid.episodes(rows.shape, count, recipe.seed, "valid"))
    counts = {name: int((rows.side == at).sum()) for at, name in enumerate(SIDES)}
    passed = sum(arm.learned.looks[-1].rows for arm in chosen.arms if arm.learned)
    return {
        "schema": 1,
        "holdfast": __version__,
        "task": recipe.task,
        "model": recipe.model.name,
        "classes": list(rows.head),
        "seed": recipe.seed,
        "data": {
            "files": [t.source for t in rows.sources if Path(t.source).expanduser().exists()],
            "rows": sum(table.source_rows for table in rows.sources),
            "used": sum(counts.values()),
            **counts,
            "findings": to_json(list(rows.findings)),
        },
        "test": {**test.block(test.kept), "opened_at": test.opened_at},
        "valid": _side(chosen.kept.judged, *judged),
        "train_probe": {"n": 0, "metrics": {}},
        "baseline": {"what": "linear probe", "test": test.block(test.baselines[FROZEN])},
        "meta": _meta_block(rows, recipe.meta.method, chosen, test),
        "verdict": to_json(verdict),
        "best_step": learned.best if learned else 0,
        "last_step": chosen.last_step,
        "stopped_because": f"the {recipe.meta.episodes} planned episodes are done",
        "actions": [],
        "probes": {"memorization": None, "forgetting": None},
        "timing": {
            "total_s": round(seconds["total"], 3),
            "train_s": round(seconds["train"], 3),
            **dict.fromkeys(("evaluate_s", "guard_s"), 0.0),
            "examples_per_s": round(passed / seconds["train"], 3) if seconds["train"] else 0.0,
            "score_s": round(seconds["score"], 3),
        },
        "peak_memory_mb": outcome.peak_memory_mb(),
        "decisions": to_json(list(decisions)),
        "settings": recipe.public_settings(),
    }


def _meta_block(
    rows: MetaRows, asked: str | None, chosen: MethodChoice, test: TestEpisodes
) -> dict[str, Any]:
    """What was tried and kept, and the score with what it is held against."""
    members, unit, baseline = test.members, test.unit, chosen.baseline.name
    right = test.kept.accuracy
    difference = mean_over_units(right - test.baselines[baseline].accuracy, members)
    return {
        "method": BASELINE if chosen.kept.name in test.baselines else chosen.kept.name,
        "asked": asked,
        "kept": chosen.kept.name,
        "because": chosen.because,
        "ways": rows.shape.ways,
        "shots": rows.shape.shots,
        "queries": rows.shape.queries,
        "episodes": len(test.episodes),
        "by": rows.by,
        "tasks": {
            name: [len(pool.tasks), sum(len(t.classes) for t in pool.tasks)]
            for name, pool in zip(SIDES, rows.pools, strict=True)
        },
        "accuracy": _estimate(right, members, unit, 1.0),
        "interval": {
            "over": unit,
            "units": int(members.any(axis=0).sum()),
            "plain_half": PLAIN * float(right.std(ddof=1)) / len(right) ** 0.5,
        },
        "baselines": {
            arm.name: {
                "readout": arm.method.inner["readout"],
                "accuracy": _estimate(test.baselines[arm.name].accuracy, members, unit, 1.0),
            }
            for arm in chosen.arms[:2]
        },
        "against": {"baseline": baseline, **_gap(difference)},
        "tried": [
            {
                "method": arm.name,
                "accuracy": arm.accuracy,
                "episodes": len(arm.judged.accuracy),
                "difference": _gap(gap) if (gap := chosen.against.get(arm.name)) else None,
                "best_step": arm.learned.best if arm.learned else None,
                "seconds": round(arm.seconds, 3),
                **arm.method.inner,
            }
            for arm in chosen.arms
        ],
        "per_task": _per_task(rows, test),
    }


def _estimate(values: Floats, members: Floats, unit: str, most: float = np.inf) -> dict[str, Any]:
    """A mean over episodes, which is ``most`` at most, with its interval over other tasks or
    classes of their kind."""
    found, units = mean_over_units(values, members), f"{unit}es"
    if not np.isfinite(found.low):
        why = f"every episode has the same {units}: nothing says how others differ"
        return Estimate(found.value, why=why).to_json()
    note = f"over {members.shape[1]} {units if unit == 'class' else f'{unit}s'}"
    ends = max(0.0, found.low), min(most, found.high)
    return Estimate(found.value, *ends, note=note).to_json()


def _side(scores: EpisodeScores, members: Floats, unit: str) -> dict[str, Any]:
    accuracy = _estimate(scores.accuracy, members, unit, 1.0)
    metrics = {"accuracy": accuracy, "loss": _estimate(scores.loss, members, unit)}
    return {"n": len(scores.accuracy), "unit": "episodes", "metrics": metrics}


def _per_task(rows: MetaRows, test: TestEpisodes) -> list[dict[str, Any]]:
    """Accuracy by test task; where there is one alone, by its classes (of query rows of each)."""
    tasks, kept = rows.pools[2].tasks, test.kept
    if len(tasks) > 1:
        sizes = {task.name: len(task.classes) for task in tasks}
        names = [task.name for task in tasks]
    else:
        names = list(tasks[0].classes)
        sizes = dict.fromkeys(names, 1)
    hits: list[list[float]] = [[] for _ in names]
    for at, (episode, logits) in enumerate(zip(test.episodes, kept.logits, strict=True)):
        if len(tasks) > 1:
            hits[episode.task].append(float(kept.accuracy[at]))
            continue
        right = (logits.argmax(axis=1) == episode.query_labels).reshape(episode.query.shape)
        for one, share in zip(episode.classes.tolist(), right.mean(axis=1), strict=True):
            hits[one].append(float(share))
    return [
        {
            "task": name,
            "classes": sizes[name],
            "episodes": len(found),
            "accuracy": float(np.mean(found)) if found else None,
        }
        for name, found in zip(names, hits, strict=True)
    ]


def _gap(gap: Difference) -> dict[str, Any]:
    low, high = (gap.low, gap.high) if np.isfinite(gap.low) else (None, None)
    return {"value": gap.value, "low": low, "high": high, "episodes": gap.n}
