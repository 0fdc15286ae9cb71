"""Real runs: is the verdict on a whole run right, when a large pool of unseen rows is the truth?

The runs are those of ``recordings.py``; what is true of them, and which verdicts are right, stands
in ``truth.py``, written before any verdict was made. Runs on which thresholds of the detectors were
set (``SEEN``) are shown apart: only the fresh ones measure anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from peers.tables import markdown
from recorded import plans
from recorded.store import Recording, path_of, read

from holdfast.control.stop_rules import Costs, StoppingRule, planned_learning
from holdfast.core.records import Verdict
from holdfast.core.run_facts import RunFacts
from holdfast.models.probes.head_fit import count_twins, out_of_fold_logits, probe_curve
from holdfast.models.probes.probe import fit_probe
from holdfast.monitor.judge import judge
from holdfast.stats.intervals import clopper_pearson, wilson
from holdfast.tasks.classes.baseline import label_noise
from verdict_parts.truth import OVERFIT, fault_of, is_clear, is_right, state

FAULTY = ("plain", "layers", "faulty", "pictures", "novels")
# Groups and seeds whose verdicts were looked at while thresholds were set.
SEEN = {
    "plain-bert": {0},
    "plain-minilm": {0},
    "plain-pictures": {0, 1},
    "plain-language": {0},
    "layers": {0, 1, 2, 3, 4},
    "features": set(range(10)),
}
# Rates that are known to work, for models that the table of defaults does not know.
USUAL = {"layers": (2e-4, 2e-2), "features": (2e-4, 2e-2)}
DEFAULT_USUAL = {
    "text": (1e-5, 1e-3),
    "pictures": (1e-5, 1e-2),
    "novels": (1e-5, 3e-3),
    "plain-bert": (1e-5, 1e-3),
    "plain-minilm": (1e-5, 1e-3),
    "plain-pictures": (1e-5, 1e-2),
    "plain-language": (1e-5, 3e-3),
}


@dataclass(frozen=True)
class Judged:
    cell: Mapping[str, Any]
    verdict: Verdict
    fault: str
    state: str
    right: bool
    clear: bool
    stopped: tuple[int, int] | None

    @property
    def fresh(self) -> bool:
        return self.cell["seed"] not in SEEN.get(self.cell["family"], set())


def section() -> str:
    faulty = [judged(cell) for group in FAULTY for cell in there(group)]
    cheap = list(map(judged, there("healthy")))
    healthy = [run for run in cheap if run.state not in OVERFIT]
    by_heart = [run for run in cheap if run.state in OVERFIT and run.fresh]
    fresh = [run for run in faulty if run.fresh]
    lines = [
        "### Real runs",
        (__doc__ or "").partition("\n\n")[2].strip(),
        "Faulty runs that the detectors had never seen: "
        + rate(fresh, lambda run: run.right)
        + ". Those seen while thresholds were set: "
        + rate([run for run in faulty if not run.fresh], lambda run: run.right)
        + ".",
        by_fault(fresh),
        plain_words([run for run in fresh if run.fault == "plain"]),
        "Healthy runs (the pool says fit or miscalibrated) called overfit or memorizing, fresh: "
        + false_alarms([run for run in healthy if run.fresh])
        + "; seen: "
        + false_alarms([run for run in healthy if not run.fresh])
        + ". Labels of the fresh ones: "
        + tally(run for run in healthy if run.fresh)
        + ". Those of the same group that the pool calls overfit or memorizing: "
        + rate(by_heart, lambda run: run.right)
        + ".",
        "Wrong, one a line: " + "; ".join(wrong(run) for run in fresh if not run.right) + ".",
        missing(),
    ]
    return "\n\n".join(lines)


def there(group: str) -> list[dict[str, Any]]:
    """The cells of a group whose recording exists."""
    return [cell for cell in plans.GROUPS[group][0]() if path_of(cell).exists()]


def judged(cell: Mapping[str, Any]) -> Judged:
    recording = read(cell)
    verdict = judge(recording.history, run_facts(recording))
    return Judged(
        cell,
        verdict,
        fault_of(recording),
        state(recording),
        is_right(verdict, recording),
        is_clear(recording),
        stop_of(recording) if fault_of(recording) == "plain" else None,
    )


def stop_of(recording: Recording) -> tuple[int, int] | None:
    """The look at which the guard, watching live, would have stopped this run, and how many looks
    that is after the verdict first said overfit or memorizing; ``None`` where it would not."""
    history, known = recording.history, run_facts(recording)
    steps = [snapshot.step for snapshot in history]
    guard = StoppingRule(
        planned_learning(steps, np.ones(steps[-1])), Costs(), None, lambda s: s.refined_loss
    )
    first: int | None = None
    for look in range(len(history)):
        verdict = judge(history[: look + 1], known)
        if first is None and verdict.label in OVERFIT:
            first = look
        if guard.decide(verdict, history[: look + 1]):
            return look, 0 if first is None else look - first
    return None


def plain_words(runs: Sequence[Judged]) -> str:
    """The plain cases by themselves: named, and stopped."""
    named = [run for run in runs if run.state in OVERFIT]
    clear = [run for run in named if run.clear]
    more = [run for run in named if run.cell["rows"] > 60]
    stopped = [run.stopped for run in named if run.stopped is not None]
    late = max((after for _, after in stopped), default=0)
    return (
        "Plain cases that the pool calls overfit or memorizing, fresh: "
        + rate(named, lambda run: run.right)
        + "; of those, clear ones: "
        + rate(clear, lambda run: run.right)
        + "; those with 18 validation rows or more: "
        + rate(more, lambda run: run.right)
        + f". The live guard stopped {len(stopped)} of "
        f"{len(named)} before their end, at most {late} looks after the verdict first said so."
    )


def run_facts(recording: Recording) -> RunFacts:
    """What the pipeline would have told the judge of this run."""
    facts, held = recording.facts, recording.arrays
    family = recording.cell["family"]
    probe: dict[str, Any] = {}
    if "train_features" in held:
        train, valid = (held[f"{side}_features"].astype(np.float32) for side in ("train", "valid"))
        labels, seed = held["train_labels"], int(recording.cell["seed"])
        fitted = fit_probe(train, labels, classes=facts["classes"], seed=seed)
        curve = probe_curve(
            fitted, train, labels, valid, held["valid_labels"], classes=facts["classes"], seed=seed
        )
        probe = {
            "probe_valid_losses": curve.losses,
            "probe_curve": curve.points,
            "copied_valid": count_twins(train, valid),
            "label_noise": label_noise(
                *out_of_fold_logits(fitted, labels, valid, held["valid_labels"])
            ),
        }
    first = np.where(held["first_seen"] >= 0, held["first_seen"] + 1, -1)
    return RunFacts(
        task=facts["task"],
        classes=facts["classes"],
        planned_steps=facts["planned_steps"],
        planned_looks=len(facts["looks_at"]),
        train_rows=facts["train_rows"],
        train_tokens=facts["train_tokens"],
        trainable=facts["trainable"],
        peak_rate=facts.get("rate"),
        usual_rates=USUAL.get(family) or DEFAULT_USUAL.get(family),
        first_seen=first,
        **probe,
    )


def by_fault(runs: Sequence[Judged]) -> str:
    kinds = sorted({(run.cell["family"], str(run.cell.get("fault", "none"))) for run in runs})
    rows = []
    for family, fault in kinds:
        chosen = [
            run
            for run in runs
            if (run.cell["family"], str(run.cell.get("fault", "none"))) == (family, fault)
        ]
        states = Counter(run.state for run in chosen)
        rows.append(
            [
                family,
                fault,
                str(len(chosen)),
                ", ".join(f"{k} {n}" for k, n in states.items()),
                tally(chosen),
                f"{sum(run.right for run in chosen)} of {len(chosen)}",
            ]
        )
    return markdown(["Runs of", "Fault", "Runs", "The pool says", "Verdicts", "Right"], rows)


def tally(runs: Iterable[Judged]) -> str:
    return ", ".join(f"{k} {n}" for k, n in Counter(r.verdict.label for r in runs).most_common())


def rate(runs: Sequence[Judged], holds: Callable[[Judged], bool]) -> str:
    if not runs:
        return "not run"
    hits = sum(map(holds, runs))
    low, high = wilson(hits, len(runs))
    return f"{hits} of {len(runs)} right, {hits / len(runs):.1%} ({low:.1%} to {high:.1%})"


def false_alarms(runs: Sequence[Judged]) -> str:
    if not runs:
        return "not run"
    hits = sum(run.verdict.label in OVERFIT for run in runs)
    low, high = clopper_pearson(hits, len(runs))
    return f"{hits} of {len(runs)}, {hits / len(runs):.1%} ({low:.1%} to {high:.1%})"


def wrong(run: Judged) -> str:
    names = " ".join(str(run.cell[k]) for k in ("family", "data", "fault", "seed") if k in run.cell)
    return f"{names}: {run.verdict.label} ({run.verdict.cause}; the pool: {run.state})"


def missing() -> str:
    parts = []
    for group in (*FAULTY, "healthy"):
        todo = plans.GROUPS[group][0]()
        left = sum(not path_of(cell).exists() for cell in todo)
        parts.append(f"{group} {left} of {len(todo)}")
    return "Not recorded: " + ", ".join(parts) + ". `python benchmarks/recordings.py` goes on."
