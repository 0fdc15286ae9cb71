"""Rules that name the state to keep, on recordings of kept_state.py, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.stats.student import paired_t
from holdfast.stats.temperature import best_temperature, losses_at
from recorded import plain
from recorded.store import path_of
from recorded.store import read as read_recording

LOOK, AROUND, HALF = "looks", "averages", "half way"


@dataclass(frozen=True)
class States:
    """Some states of a run: ``losses`` [states, validation rows] after the best temperature of
    each, and the ``hits`` among them; ``nats``, ``refined`` (after the best temperature of the test
    rows themselves) and ``accuracy`` of the saved model on the test rows, by state."""

    losses: Floats
    hits: Floats
    refined: Floats
    nats: Floats
    accuracy: Floats


@dataclass(frozen=True)
class Recorded:
    """A recording; the first look is the linear probe. ``trainer`` is the accuracy of the plain
    fine-tune, where it was run."""

    cell: Mapping[str, Any]
    states: Mapping[str, States]
    trainer: float | None


Rule = Callable[[Recorded], tuple[str, int]]


def read(path: Path, cell: Mapping[str, Any]) -> Recorded:
    with np.load(path) as kept:
        held = {name: kept[name] for name in kept.files}
    marks = held["valid_labels"], held["test_labels"]
    looks = states_of(held["valid_logits"], held["test_logits"], *marks)
    states = {LOOK: looks, HALF: states_of(held["half_valid"], held["half_test"], *marks)}
    if "around_valid" in held:
        beside = states_of(held["around_valid"], held["around_test"], *marks)
        states[AROUND] = States(
            *(
                np.concatenate([getattr(looks, name)[:1], getattr(beside, name)])
                for name in ("losses", "hits", "refined", "nats", "accuracy")
            )
        )
    trainer = None
    if "trainer_test" in held:
        right = held["trainer_test"].argmax(axis=1) == held["trainer_test_labels"]
        trainer = float(right.mean())
    return Recorded(dict(cell), states, trainer)


def states_of(valid: Any, test: Any, marks: Any, answers: Any) -> States:
    """Validation losses at each state's best temperature; test figures of the model that would be
    saved, whose temperature is that of the validation rows and one pseudo-row."""
    losses, hits, refined, nats, accuracy = [], [], [], [], []
    for seen, held in zip(valid, test, strict=True):
        losses.append(losses_at(seen, marks, best_temperature(seen, marks)[0]))
        hits.append((seen.argmax(axis=1) == marks).astype(float))
        refined.append(best_temperature(held, answers)[1])
        saved = best_temperature(seen, marks, smoothing=1)[0]
        nats.append(float(losses_at(held, answers, saved).mean()))
        accuracy.append(float((held.argmax(axis=1) == answers).mean()))
    return States(*map(np.array, (losses, hits, refined, nats, accuracy)))


def probe(run: Recorded) -> tuple[str, int]:
    return LOOK, 0


def last(run: Recorded) -> tuple[str, int]:
    return LOOK, len(run.states[LOOK].nats) - 1


def half_way(run: Recorded) -> tuple[str, int]:
    """The mean of the probe's weights and the last state's."""
    return HALF, 0


def newest(
    worse: float = 0.05,
    better: float | None = None,
    among: str = LOOK,
    answers: bool = True,
    lost: float | None = None,
) -> Rule:
    """The newest not worse than the lowest at p < ``worse``; with ``better``, among those better
    than the probe at p < ``better``, by their losses or (``answers``) by their answers; with
    ``lost`` the lowest is that of the later states, which must not be worse than the probe at
    p < ``lost``."""

    def choose(run: Recorded) -> tuple[str, int]:
        losses, hits = run.states[among].losses, run.states[among].hits
        means, kept, best = losses.mean(axis=1), 0, 0
        for state in range(1, len(means)):
            apart = lost is not None and not best
            best = state if apart or means[state] < means[best] else best
            if above(losses[state], losses[best]) > 1 - worse:
                continue
            if lost is not None and above(losses[state], losses[0]) > 1 - lost:
                continue
            if better is not None:
                sure = above(losses[0], losses[state])
                sure = max(sure, above(hits[state], hits[0])) if answers else sure
                if sure <= 1 - better:
                    continue
            kept = state
        return among, kept

    return choose


def above(high: Floats, low: Floats) -> float:
    """How sure a paired t-test is that ``high`` is above ``low``."""
    if np.ptp(high - low) == 0:
        return float((high - low).mean() > 0)
    return paired_t(high, low).above


def lowest(run: Recorded) -> tuple[str, int]:
    return LOOK, int(run.states[LOOK].losses.mean(axis=1).argmin())


TODAY = "newest unless worse, p < 0.05 (until now)"
NEW = "newest unless worse, p < 0.2"
PROVEN = "the same, proven better than the probe at p < 0.1"
ASIDE = "p < 0.2 among the later ones, the probe only where it is better at p < 0.02"
FIXED: dict[str, Rule] = {
    "linear probe (step 0)": probe,
    "last": last,
    "half way from the probe to the last": half_way,
    "lowest": lowest,
    TODAY: newest(),
    "newest unless worse, p < 0.1": newest(0.1),
    NEW: newest(0.2),
    "averages of looks ± 2, p < 0.05": newest(among=AROUND),
    "averages of looks ± 2, p < 0.2": newest(0.2, among=AROUND),
    PROVEN: newest(0.2, better=0.1),
    ASIDE: newest(0.2, lost=0.02),
}
LEVELS = (0.95, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.05, 0.02)
CLASSES: dict[str, dict[str, Rule]] = {
    "level p against the lowest": {f"{p:g}": newest(p) for p in (0.02, 0.05, 0.1, 0.2, 0.35)},
    "averages of looks ± 2, level p": {
        f"{p:g}": newest(p, among=AROUND) for p in (0.02, 0.05, 0.1, 0.2, 0.35)
    },
    "p < 0.2, proven by losses at q": {
        f"{q:g}": newest(0.2, better=q, answers=False) for q in LEVELS
    },
    "p < 0.2, proven by losses or answers at q": {f"{q:g}": newest(0.2, better=q) for q in LEVELS},
}


# The least level at which a probe is kept of runs that were measured to gain over theirs.
LOST = (0.2, 0.1, 0.05, 0.02, 0.01, 0.0)
DRAWS = 60


def redrawn(path: Path, cell: Mapping[str, Any]) -> list[Recorded]:
    """A recording as often as ``DRAWS`` with other validation rows, as many as it had, drawn from
    its test rows: what luck with few rows does to a rule. A state's test figures are those on all
    test rows, the same in every draw."""
    with np.load(path) as kept:
        held = {name: kept[name] for name in ("test_logits", "test_labels", "valid_labels")}
    logits, labels, found = held["test_logits"], held["test_labels"], []
    whole = states_of(logits, logits, labels, labels)
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        rows = rng.choice(len(labels), len(held["valid_labels"]), replace=False)
        part = states_of(logits[:, rows], logits[:, :1], labels[rows], labels[:1])
        states = replace(whole, losses=part.losses, hits=part.hits)
        found.append(Recorded(dict(cell), {LOOK: states}, None))
    return found


def read_plain() -> list[Recorded]:
    """The classifiers that recordings.py overfitted on purpose, where they are recorded."""
    found = []
    for cell in plain.cells():
        if not path_of(cell).exists():
            continue
        run = read_recording(cell)
        seen = [look.valid_logits for look in run.history]
        if run.pool_logits is None or run.valid_labels is None or any(x is None for x in seen):
            continue
        looks = states_of(np.array(seen), run.pool_logits, run.valid_labels, run.pool_labels)
        named = {**cell, "recipe": "plain", "data": f"{cell['data']} {cell['family']}"}
        found.append(Recorded(named, {LOOK: looks}, None))
    return found


def set_of(run: Recorded) -> str:
    """The set of its rows, whatever the family of the run."""
    return str(run.cell["data"]).partition(" ")[0]


def has_states(runs: Sequence[Recorded], name: str) -> bool:
    """Whether every run has the states that the rule of this name chooses among."""
    first = name.split()[0]
    needed = {"averages": AROUND, "half": HALF}.get(first, LOOK)
    return all(needed in run.states for run in runs)


def figure(run: Recorded, rule: Rule, what: str) -> float:
    family, place = rule(run)
    return float(getattr(run.states[family], what)[place])


def left_out(
    runs: Sequence[Recorded], rules: Mapping[str, Rule]
) -> tuple[dict[str, str], list[Rule]]:
    """For each set the constant with the least mean test loss over the *other* sets, each counting
    the same; and, run by run, the rule with the constant that its own set did not choose."""
    own = np.array([set_of(run) for run in runs])
    sets = sorted(set(own))
    nats = {
        name: np.array([figure(run, rule, "refined") for run in runs])
        for name, rule in rules.items()
    }

    def over_others(name: str, out: str) -> float:
        return float(np.mean([nats[name][own == data].mean() for data in sets if data != out]))

    chosen = {data: min(rules, key=lambda name: over_others(name, data)) for data in sets}
    return chosen, [rules[chosen[set_of(run)]] for run in runs]
