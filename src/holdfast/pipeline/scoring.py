"""The end of a run: save the model, reload it as anybody would, score the test rows once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.files import disk_errors, replace_folder
from holdfast.core.records import Decision, Floats, Outputs, Scores, to_json
from holdfast.data.table import Splits, Table
from holdfast.evaluate.baseline import MAJORITY, PROBE, choose_baseline, majority_outputs
from holdfast.evaluate.compare import compare
from holdfast.evaluate.forward import answer, forward
from holdfast.evaluate.hardest import hardest
from holdfast.evaluate.score import score
from holdfast.models.layers import count_parameters
from holdfast.models.onednn import use_onednn
from holdfast.models.saved import load_saved
from holdfast.pipeline.compose import Ready
from holdfast.pipeline.folder import MODEL
from holdfast.pipeline.outcome import now, scores_block
from holdfast.stats.temperature import best_temperature, losses_at
from holdfast.train.journal import Journal
from holdfast.train.loop import Fitted
from holdfast.train.observe import Observer
from holdfast.train.run import Job

if TYPE_CHECKING:
    from holdfast.methods.head_refit import HeadRefit

Answer = Callable[[Table], Outputs]
OPENED = "test rows opened"


@dataclass(frozen=True, slots=True)
class Scored:
    """The honest number and what stands beside it: ``blocks`` go into ``result.json``."""

    outputs: Outputs
    blocks: dict[str, Any]
    decisions: tuple[Decision, ...]
    seconds: dict[str, float]
    device: str


def save_model(run: Path, ready: Ready, fitted: Fitted) -> float:
    """Write the model folder whole or not at all; returns the temperature folded into it.

    The temperature is fitted on the validation rows of the best state, with one pseudo-row, so
    that a perfectly separated handful of rows does not make the model certain of everything.
    """
    best = next(s for s in fitted.history if s.step == fitted.best_step)
    assert best.valid_logits is not None
    temperature, _ = best_temperature(best.valid_logits, ready.valid.labels, smoothing=1)
    beside = run / ".model.partial"
    shutil.rmtree(beside, ignore_errors=True)
    with disk_errors(run / MODEL):
        ready.loaded.network.cpu()
        ready.loaded.network.save(beside, ready.loaded.tokenizer, temperature=temperature)
    replace_folder(beside, run / MODEL)
    return temperature


def opened_before(journal: Journal) -> str | None:
    """When an earlier, unfinished scoring of this run opened the test rows, if one did."""
    notes = [line for line in journal.lines() if line.get("what") == OPENED]
    return str(notes[-1]["at"]) if notes else None


def score_once(
    run: Path, ready: Ready, splits: Splits, fitted: Fitted, refit: HeadRefit, job: Job,
    temperature: float, before: str | None,
) -> Scored:  # fmt: skip
    """Score the reloaded model on the test rows, beside the baselines fitted on training rows."""
    start, opened_at = time.perf_counter(), now()
    step = job.plan.steps
    again = f"; a killed run had opened them at {before}" if before else ""
    job.journal.note(step, OPENED, f"the run is complete and is scored{again}", at=opened_at)
    table = splits.test.open()
    saved = load_saved(run / MODEL)
    if ready.recipe.train.matmul == "onednn":
        use_onednn(saved.network)
    outputs = answer(saved, table)
    del saved
    test = _score(ready, outputs)
    score_s = time.perf_counter() - start
    valid, probe = _other_rows(ready, job, temperature)
    baseline, chosen = _baseline(ready, splits, _probe(ready, fitted, refit, job), table, outputs)
    blocks = {
        "test": scores_block(test, opened_at), "valid": scores_block(_score(ready, valid)),
        "train_probe": scores_block(_score(ready, probe)), "baseline": baseline,
        "hardest": hardest(outputs, _texts(table), ready.task.classes),
        "model_facts": _facts(ready, temperature), "careless": None,
    }  # fmt: skip
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    decisions = (chosen, Decision("temperature", f"{temperature:.3f}",
                 "fitted on the validation rows and folded into the last layer"))  # fmt: skip
    return Scored(outputs, blocks, decisions, seconds, str(job.accelerator.device))


def _baseline(
    ready: Ready, splits: Splits, probe: Answer, table: Table, outputs: Outputs
) -> tuple[dict[str, Any], Decision]:
    labels, classes = ready.train.labels, ready.task.classes
    on_test = {MAJORITY: majority_outputs(labels, len(classes), outputs)}
    valid = splits.valid.table
    on_test[PROBE] = replace(probe(table), groups=outputs.groups)
    valid_probe = probe(valid)
    on_valid = {PROBE: valid_probe, MAJORITY: majority_outputs(labels, len(classes), valid_probe)}
    chosen = choose_baseline(on_valid)
    shown = [{"what": name, "test": _brief(score(o, classes))} for name, o in on_test.items()]
    comparison = compare(outputs, on_test[PROBE])
    block = {
        "what": chosen.chosen,
        "test": next(entry["test"] for entry in shown if entry["what"] == chosen.chosen),
        "all": shown, "comparison": to_json(comparison),
    }  # fmt: skip
    return block, chosen


def _probe(ready: Ready, fitted: Fitted, refit: HeadRefit, job: Job) -> Answer:
    """The untouched backbone with the linear probe on it, in the precision of the training.

    It is put back into the network, whose trained state is on disk by now: a second copy of a
    model is the largest thing that a run could still ask memory for.
    """
    import torch

    assert refit.baseline is not None
    network = ready.loaded.network.to(job.accelerator.device).eval()
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, tensor in fitted.start.items():
            parameters[name].copy_(tensor)
        network.head.weight.copy_(refit.baseline["weight"])
        network.head.bias.copy_(refit.baseline["bias"])

    def logits(**batch: torch.Tensor) -> torch.Tensor:
        batch = {name: value.to(job.accelerator.device) for name, value in batch.items()}
        with job.accelerator.autocast():
            features = network.features(**batch)
        answers: torch.Tensor = network.head(features.float())
        return answers.cpu()

    tokenizer, length = ready.loaded.tokenizer, ready.loaded.max_length
    return lambda table: forward(logits, tokenizer, length, ready.task.classes, table)


def _other_rows(ready: Ready, job: Job, temperature: float) -> tuple[Outputs, Outputs]:
    """Validation rows and train probe, through the restored best state."""
    from holdfast.train.batches import probe_positions

    network = job.network.to(job.accelerator.device)
    observer = Observer(job.accelerator, job.task, alone=True)
    everything = np.arange(len(ready.valid))
    probe = probe_positions(ready.train.rows, job.plan.probe_rows, job.plan.seed)
    _, valid_logits = observer.measure(network, ready.valid, everything)
    _, probe_logits = observer.measure(network, ready.train, probe)
    valid = _outputs(ready.valid.rows, ready.valid.labels, valid_logits / temperature)
    train = _outputs(ready.train.rows[probe], ready.train.labels[probe], probe_logits / temperature)
    return valid, train


def _outputs(rows: Any, labels: Any, logits: Floats) -> Outputs:
    return Outputs(rows, labels, logits, losses_at(logits, labels, 1.0))


def _score(ready: Ready, outputs: Outputs) -> Scores:
    own = ready.metric
    extra = (own,) if own is not None and ready.own_metric else ()
    return score(outputs, ready.task.classes, extra_metrics=extra)


def _brief(scores: Scores) -> dict[str, Any]:
    """A baseline's metrics without the tables."""
    return {"n": scores.n, "metrics": scores.to_json()["metrics"]}


def _texts(table: Table) -> list[str]:
    texts: list[str] = table.column("text")
    if not table.has_pairs:
        return texts
    return [f"{one} ⟂ {two}" for one, two in zip(texts, table.column("text_pair"), strict=True)]


def _facts(ready: Ready, temperature: float) -> dict[str, Any]:
    total, trainable = count_parameters(ready.loaded.network)
    return {
        **ready.loaded.facts, "parameters": total, "trainable": trainable,
        "precision": ready.recipe.train.precision, "temperature": temperature,
        "max_length": ready.loaded.max_length,
    }  # fmt: skip
