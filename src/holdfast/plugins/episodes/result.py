"""Results of a meta run: scores on the episodes of the test tasks, their predictions, and the
blocks of ``result.json``.

Episodes of the test tasks take the place of ``train``'s test rows, and ``test`` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast._version import __version__
from holdfast.contract import result as outcome
from holdfast.core.discovery import user_path
from holdfast.core.records import Decision, Estimate, Floats, Verdict, to_json
from holdfast.models.probes.logistic import softmax_losses
from holdfast.plugins.episodes.choice import FROZEN, MetaBench, MethodChoice
from holdfast.plugins.episodes.methods import BASELINE, EpisodeScores, FeatureReader, score_episodes
from holdfast.plugins.episodes.rows import SPLITS, MetaRows
from holdfast.plugins.episodes.tasks import Episode
from holdfast.recipe import Recipe
from holdfast.stats.folds import mean_over_units
from holdfast.stats.paired_tests import Difference

# ±1.96 standard errors over episodes, as papers report it: it treats each episode as a new task.
Z_95 = 1.959963984540054
COLUMNS = ("episode", "row", "label", "prediction", "loss", "shares", "classes")


@dataclass(frozen=True, slots=True)
class TestEpisodes:
    """The test episodes with the scores of the selected model and of each baseline."""

    episodes: list[Episode]
    selected: EpisodeScores
    baselines: dict[str, EpisodeScores]
    members: Floats
    unit: str
    opened_at: str

    def block(self, scores: EpisodeScores) -> dict[str, Any]:
        """The block of ``result.json`` with one of the scores."""
        return _score_block(scores, self.members, self.unit)


def score_tests(bench: MetaBench, choice: MethodChoice, reader: FeatureReader) -> TestEpisodes:
    """Score the test episodes once with the selected model and the baselines."""
    test, rows, meta = bench.rows.pools[2], bench.rows, bench.recipe.meta
    opened_at = outcome.now()
    episodes = test.episodes(rows.shape, meta.test_episodes, bench.recipe.seed, "test")
    reader.network.to(reader.device)
    selected = score_episodes(choice.selected.method, reader, episodes)
    baselines = {}
    for candidate in choice.candidates[:2]:
        candidate_reader = reader
        if candidate is not choice.selected:
            candidate_reader = bench.reader(
                candidate.training.state if candidate.training else None
            )
        baselines[candidate.name] = (
            selected
            if candidate_reader is reader
            else score_episodes(candidate.method, candidate_reader, episodes)
        )
    members, unit = test.unit_membership(episodes)
    return TestEpisodes(episodes, selected, baselines, members, unit, opened_at)


def write_predictions(run: Path, rows: MetaRows, test: TestEpisodes) -> None:
    """Write a line for each query row of each episode.

    The episode's classes are in ``classes``, and the selected model's probability of each in
    ``shares``; ``probabilities`` would be of the run's own classes.
    """
    import pyarrow as pa
    from scipy.special import softmax

    ids = np.asarray(rows.table.column("row"))
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    tasks = rows.pools[2].tasks
    for at, (episode, episode_logits) in enumerate(
        zip(test.episodes, test.selected.logits, strict=True)
    ):
        logits = np.asarray(episode_logits, dtype=np.float64)
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


def result_document(
    rows: MetaRows,
    recipe: Recipe,
    choice: MethodChoice,
    test: TestEpisodes,
    verdict: Verdict,
    decisions: Sequence[Decision],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """``result.json`` without the hashes of its files and the machine.

    ``seconds`` are those of the run (``total``), of the methods' training (``train``) and of the
    test (``score``).
    """
    training = choice.selected.training
    # The units of the selected method's validation episodes.
    valid, count = rows.pools[1], len(choice.selected.validation.accuracy)
    valid_units = valid.unit_membership(valid.episodes(rows.shape, count, recipe.seed, "valid"))
    counts = {name: int((rows.split == at).sum()) for at, name in enumerate(SPLITS)}
    return {
        "schema": 1,
        "holdfast": __version__,
        "task": recipe.task,
        "model": recipe.model.name,
        "classes": list(rows.head),
        "seed": recipe.seed,
        "data": {
            "files": [t.source for t in rows.sources if user_path(t.source).exists()],
            "rows": sum(table.source_rows for table in rows.sources),
            "used": sum(counts.values()),
            **counts,
            "findings": to_json(list(rows.findings)),
        },
        "test": {**test.block(test.selected), "opened_at": test.opened_at},
        "valid": _score_block(choice.selected.validation, *valid_units),
        "train_probe": {"n": 0, "metrics": {}},
        "baseline": {"what": "linear probe", "test": test.block(test.baselines[FROZEN])},
        "meta": _meta_block(rows, recipe.meta.method, choice, test),
        "verdict": to_json(verdict),
        "best_step": training.best_step if training else 0,
        "last_step": choice.last_step,
        "stopped_because": f"the {recipe.meta.episodes} planned episodes are done",
        "actions": [],
        "probes": {"memorization": None, "forgetting": None},
        "timing": _timing_block(choice, seconds),
        "peak_memory_mb": outcome.peak_memory_mb(),
        "decisions": to_json(list(decisions)),
        "settings": recipe.public_settings(),
    }


def _timing_block(choice: MethodChoice, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds, and how many rows per second the methods learned from."""
    trainings = [arm.training for arm in choice.candidates if arm.training]
    rows_learned = sum(training.evaluations[-1].rows for training in trainings)
    rate = rows_learned / seconds["train"] if seconds["train"] else 0.0
    return {
        "total_s": round(seconds["total"], 3),
        "train_s": round(seconds["train"], 3),
        "evaluate_s": 0.0,
        "guard_s": 0.0,
        "examples_per_s": round(rate, 3),
        "score_s": round(seconds["score"], 3),
    }


def _meta_block(
    rows: MetaRows, requested: str | None, choice: MethodChoice, test: TestEpisodes
) -> dict[str, Any]:
    """What was tried and selected, and the score with its comparisons."""
    members, unit, baseline = test.members, test.unit, choice.baseline.name
    accuracy = test.selected.accuracy
    difference = mean_over_units(accuracy - test.baselines[baseline].accuracy, members)
    return {
        "method": BASELINE if choice.selected.name in test.baselines else choice.selected.name,
        "asked": requested,
        "kept": choice.selected.name,
        "because": choice.because,
        "ways": rows.shape.ways,
        "shots": rows.shape.shots,
        "queries": rows.shape.queries,
        "episodes": len(test.episodes),
        "by": rows.by,
        "tasks": {
            name: [len(pool.tasks), sum(len(t.classes) for t in pool.tasks)]
            for name, pool in zip(SPLITS, rows.pools, strict=True)
        },
        "accuracy": _estimate(accuracy, members, unit, 1.0),
        "interval": {
            "over": unit,
            "units": int(members.any(axis=0).sum()),
            "plain_half": Z_95 * float(accuracy.std(ddof=1)) / len(accuracy) ** 0.5,
        },
        "baselines": {
            arm.name: {
                "readout": arm.method.hyperparameters["readout"],
                "accuracy": _estimate(test.baselines[arm.name].accuracy, members, unit, 1.0),
            }
            for arm in choice.candidates[:2]
        },
        "against": {"baseline": baseline, **_difference_block(difference)},
        "tried": [
            {
                "method": arm.name,
                "accuracy": arm.accuracy,
                "episodes": len(arm.validation.accuracy),
                "difference": _difference_block(gap)
                if (gap := choice.differences.get(arm.name))
                else None,
                "best_step": arm.training.best_step if arm.training else None,
                "seconds": round(arm.seconds, 3),
                **arm.method.hyperparameters,
            }
            for arm in choice.candidates
        ],
        "per_task": _per_task(rows, test),
    }


def _estimate(
    values: Floats, members: Floats, unit: str, upper_bound: float = np.inf
) -> dict[str, Any]:
    """A mean over episodes, which is ``upper_bound`` at most, with its interval over other tasks or
    classes of their kind.
    """
    mean, units = mean_over_units(values, members), f"{unit}es"
    if not np.isfinite(mean.low):
        why = f"every episode has the same {units}, so the variation between others is unknown"
        return Estimate(mean.value, why=why).to_json()
    note = f"over {members.shape[1]} {units if unit == 'class' else f'{unit}s'}"
    limits = max(0.0, mean.low), min(upper_bound, mean.high)
    return Estimate(mean.value, *limits, note=note).to_json()


def _score_block(scores: EpisodeScores, members: Floats, unit: str) -> dict[str, Any]:
    accuracy = _estimate(scores.accuracy, members, unit, 1.0)
    metrics = {"accuracy": accuracy, "loss": _estimate(scores.loss, members, unit)}
    return {"n": len(scores.accuracy), "unit": "episodes", "metrics": metrics}


def _per_task(rows: MetaRows, test: TestEpisodes) -> list[dict[str, Any]]:
    """Accuracy by test task; with a single test task, by its classes (and the query rows of
    each).
    """
    tasks, selected = rows.pools[2].tasks, test.selected
    if len(tasks) > 1:
        sizes = {task.name: len(task.classes) for task in tasks}
        names = [task.name for task in tasks]
    else:
        names = list(tasks[0].classes)
        sizes = dict.fromkeys(names, 1)
    hits: list[list[float]] = [[] for _ in names]
    for at, (episode, logits) in enumerate(zip(test.episodes, selected.logits, strict=True)):
        if len(tasks) > 1:
            hits[episode.task].append(float(selected.accuracy[at]))
            continue
        correct = (logits.argmax(axis=1) == episode.query_labels).reshape(episode.query.shape)
        for one, share in zip(episode.classes.tolist(), correct.mean(axis=1), strict=True):
            hits[one].append(float(share))
    return [
        {
            "task": name,
            "classes": sizes[name],
            "episodes": len(accuracies),
            "accuracy": float(np.mean(accuracies)) if accuracies else None,
        }
        for name, accuracies in zip(names, hits, strict=True)
    ]


def _difference_block(gap: Difference) -> dict[str, Any]:
    low, high = (gap.low, gap.high) if np.isfinite(gap.low) else (None, None)
    return {"value": gap.value, "low": low, "high": high, "episodes": gap.n}
