"""Results of a monitored run: the checkpoint that another trainer's run ends with, and
``result.json``, as far as the guard knows what the report needs.

The guard compares *calibrated* losses, after temperature scaling of each checkpoint, but the model
that it returns is the user's own, without a temperature. Wherever a calibrated loss is reported, it
is named as such and the loss of the unscaled model is given too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from holdfast._version import __version__
from holdfast.contract import result as outcome
from holdfast.control.choice import explain_choice, lowest_calibrated
from holdfast.control.record import control_block
from holdfast.core.curves import Curves
from holdfast.core.records import (
    TOKEN,
    Decision,
    Estimate,
    Floats,
    Outputs,
    Remedy,
    Scores,
    Snapshot,
    to_json,
)
from holdfast.core.run_files import write_result as write_result_file
from holdfast.core.seeds import generator
from holdfast.metrics.score import score
from holdfast.monitor.curves.remedies import in_their_words
from holdfast.plugins.trainers.watch import TrainerRun
from holdfast.stats.paired_tests import loss_rows, paired_bootstrap
from holdfast.stats.temperature import recover_labels
from holdfast.training.evaluation_file import EVALUATIONS_FILE, write_evaluations

NO_TEST = "the guard has no test rows; score the restored model on rows of your own"
CALIBRATION_NOTE = (
    "the guard leaves the trainer's model unchanged and does not divide its logits. "
    "The validation scores are those of {whose} without scaling; a calibrated loss "
    "is a loss after temperature scaling, by which checkpoints are compared"
)


def decide_checkpoint(
    watch: TrainerRun, choose: Callable[[Sequence[Snapshot]], int], *, restored: bool
) -> None:
    """Report the best checkpoint and why it was chosen, with its figures and those of the last
    evaluation and of the lowest losses; and how calibration changes its figures.
    """
    history, best_step = watch.engine.history, watch.engine.best.step
    position, best = next(
        (i, snapshot) for i, snapshot in enumerate(history) if snapshot.step == best_step
    )
    last = history[-1].step
    choice = f"step {best_step} of {last}"
    if not restored:
        choice += "; the guard only observes, so the final weights are the trainer's"
    because = "the rule that was given, Guard(choose=…)"
    if choose is lowest_calibrated:
        because = explain_choice(history, position)
    watch.decide(last, Decision("best checkpoint", choice, because))
    temperature_scaling = calibration(best, restored=restored)
    if temperature_scaling is not None:
        choice = (
            f"not in the saved model; the validation loss of {_model_words(best, restored)} is "
            f"{temperature_scaling['loss']:.4g}, and with its logits divided by "
            f"{temperature_scaling['temperature']:.3g} it "
            f"would be {temperature_scaling['calibrated_loss']:.4g}"
        )
        watch.decide(last, Decision("temperature", choice, temperature_scaling["because"]))


def calibration(best: Snapshot, *, restored: bool) -> dict[str, Any] | None:
    """What temperature scaling would do to the best checkpoint on its validation rows; ``None`` for
    a model without class logits. ``restored``: whether the final model is this checkpoint.
    """
    if best.valid_logits is None or not best.valid_losses.size or not np.isfinite(best.temperature):
        return None
    return {
        "in_saved_model": False,
        "temperature": float(best.temperature),
        "loss": float(best.valid_loss),
        "calibrated_loss": float(best.refined_loss),
        "because": CALIBRATION_NOTE.format(whose=_model_words(best, restored)),
    }


def _model_words(best: Snapshot, restored: bool) -> str:
    if restored:
        return "the model"
    return f"the checkpoint of step {best.step}, which the guard does not restore,"


def write_result(
    watch: TrainerRun, policy: str, seed: int, choose: Callable[[Sequence[Snapshot]], int]
) -> tuple[Decision, ...]:
    """Write ``result.json``, schema 1, from the evaluations so far, and return what was left out.

    ``policy`` is what decided, ``choose`` the rule for the best checkpoint. That one was chosen on
    these rows, which biases its score upwards, so ``test`` stays empty.
    """
    engine, foreign_run, facts = watch.engine, watch.foreign_run, watch.foreign_run.run_facts
    history, best_step = engine.history, engine.best.step
    best = next((s for s in history if s.step == best_step), history[-1])
    assert engine.verdict is not None
    write_evaluations(watch.folder / EVALUATIONS_FILE, history, facts, best_step, __version__)
    # In the trainer's words, without settings, since Holdfast sets nothing in it.
    log = Curves(foreign_run.log, "step", planned_end=facts.planned_steps)
    remedies = tuple(Remedy(one.do) for one in in_their_words(engine.verdict.remedies, log))
    valid = score_checkpoint(best, foreign_run.classes, seed)
    unknown = Estimate(None, why=NO_TEST).to_json()
    n, total = best.valid_losses.size, watch.seconds

    def observed(_: object) -> Estimate:
        return Estimate(None, why=NO_TEST)

    rows = {"train": facts.train_rows, "valid": n, "test": 0}
    probe_losses = loss_rows(best.train_losses, best.train_tokens)
    probe = Scores(probe_losses.size, _estimates(probe_losses, best.train_metrics, seed))
    return write_result_file(
        watch.folder,
        {
            "schema": 1,
            "holdfast": __version__,
            "task": facts.task,
            "model": foreign_run.name,
            "trainer": foreign_run.trainer,
            "policy": policy,
            "seed": seed,
            "classes": list(foreign_run.classes) or None,
            "data": {"rows": None, **rows, "used": (facts.train_rows or 0) + n, "findings": []},
            "test": {"n": 0, "metrics": dict.fromkeys(valid.metrics, unknown)},
            "valid": valid.to_json(),
            "train_probe": probe.to_json(),
            "calibration": calibration(best, restored=policy != "off"),
            "baseline": {"what": None, "test": None},
            **({} if best.valid_tokens is None else {"loss_unit": TOKEN}),
            "verdict": to_json(replace(engine.verdict, remedies=remedies)),
            "best_step": best_step,
            "last_step": history[-1].step,
            "stopped_because": engine.stop_because or "the trainer ended the run",
            "actions": outcome.actions_block(engine.actions),
            "control": control_block(
                policy,
                engine.snapshots,
                engine.rules.advisor,
                # The optimism of another rule is not known.
                observed if choose is lowest_calibrated else None,
                last_step=history[-1].step,
                planned_steps=facts.planned_steps,
                seed=seed,
                history=history,
            ),
            "probes": {"memorization": None, "forgetting": None},
            "timing": {
                **dict.fromkeys(("total_s", "train_s"), round(total, 3)),
                "evaluate_s": round(engine.evaluate_s, 3),
                "guard_s": round(engine.guard_s, 4),
                "examples_per_s": round(history[-1].examples_seen / total, 3) if total else 0.0,
            },
            "peak_memory_mb": outcome.peak_memory_mb(),
            "decisions": to_json(watch.decisions),
            **outcome.surroundings(torch.get_num_threads(), watch.device),
        },
    )


def score_checkpoint(best: Snapshot, classes: tuple[str, ...], seed: int) -> Scores:
    """The scores of the best checkpoint on the evaluation rows, with intervals; every metric for a
    classifier.
    """
    losses, logits = best.valid_losses, best.valid_logits
    if logits is None or not classes or not np.isfinite(logits).all():
        row_losses = loss_rows(losses, best.valid_tokens)
        return Scores(losses.size, _estimates(row_losses, best.valid_metrics, seed))
    labels = recover_labels(logits, losses)
    scored = score(Outputs(np.arange(losses.size), labels, logits, losses), classes, seed=seed)
    return Scores(scored.n, scored.metrics)


def _estimates(losses: Floats, metrics: dict[str, float], seed: int) -> dict[str, Estimate]:
    """The mean loss with its interval over rows, and metrics as they were measured."""
    # The difference to zero in each row is the loss itself.
    loss_interval = paired_bootstrap(
        losses, np.zeros_like(losses), seed=generator(seed, "guard", "loss")
    )
    metric_estimates = {name: _estimate(value, "no interval") for name, value in metrics.items()}
    mean = _estimate(loss_interval.value, "BCa over rows")
    if (
        mean.value is not None
        and np.isfinite(loss_interval.low)
        and np.isfinite(loss_interval.high)
    ):
        mean = replace(mean, low=loss_interval.low, high=loss_interval.high)
    return {**metric_estimates, "loss": mean}


def _estimate(value: float, note: str) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, why="it is not a number")
    return Estimate(float(value), note=note)
