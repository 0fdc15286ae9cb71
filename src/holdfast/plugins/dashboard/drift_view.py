"""What the watch for drift of a service says, from its store: alarms, what is new, how right the
model is by estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.core.records import Estimate
from holdfast.plugins.dashboard.pages import plain
from holdfast.report.numbers import count, interval, number

if TYPE_CHECKING:
    from holdfast.plugins.store.records import Event

# Kinds of events: rows that are not like the old ones, what the new ones are like, answers that are
# worse than was promised.
ALARM, REGIME, HARM = "drift", "drift regime", "harm"
MOST_ALARMS, MOST_TERMS, MOST_EXAMPLES = 10, 16, 5


@dataclass(frozen=True, slots=True)
class TermView:
    """A word with its share of the new rows and of the old, as text."""

    word: str
    now: str
    then: str


@dataclass(frozen=True, slots=True)
class DriftView:
    """``tone`` and ``verdict`` say whether there was an alarm; ``terms`` tell the newest new rows
    from the old, ``examples`` are some of them, where the service may keep texts."""

    tone: str
    verdict: str
    because: str
    facts: tuple[tuple[str, str], ...]
    alarms: tuple[tuple[float, str], ...]
    terms: tuple[TermView, ...]
    examples: tuple[str, ...]


def drift_view(said: Mapping[str, Any] | None, events: Sequence[Event]) -> DriftView | None:
    """The drift of a service by what the watch ``said`` last and the events so far; ``None`` where
    nothing was ever watched."""
    alarms = [one for one in events if one.kind in (ALARM, HARM)]
    if said is None and not alarms:
        return None
    said = said or {}
    regimes = [one for one in events if one.kind == REGIME]
    new = regimes[-1].body if regimes else {}
    rows, between = said.get("rows"), said.get("between_alarms")
    if alarms:
        because = _words(alarms[-1])
    elif said.get("why"):
        because = plain(said["why"], 300)
    else:
        because = f"{count(rows)} rows are like those that the model was judged by"
    watching = bool(rows)
    return DriftView(
        tone="bad" if alarms else "good" if watching else "unsure",
        verdict=f"{len(alarms)} alarm{'s' * (len(alarms) != 1)}" if alarms else "no alarm",
        because=because,
        facts=tuple(_facts(said, rows, between)),
        alarms=tuple((one.at, _words(one)) for one in reversed(alarms))[:MOST_ALARMS],
        terms=tuple(_terms(new.get("terms")))[:MOST_TERMS],
        examples=tuple(_examples(new.get("examples")))[:MOST_EXAMPLES],
    )


def _words(event: Event) -> str:
    if event.body.get("because"):
        return plain(event.body["because"], 600)
    if event.kind == HARM:
        body = event.body
        return (
            f"its answers are worse than was promised: {count(body.get('labels'))} labels of rows "
            f"drawn evenly, of which {number(_share(body.get('wrong')), 'error')} wrong"
            if _share(body.get("wrong")) is not None
            else "its answers are worse than was promised"
        )
    return plain(event.kind)


def _facts(said: Mapping[str, Any], rows: Any, between: Any) -> Iterator[tuple[str, str]]:
    if rows is not None:
        yield "Rows watched", count(rows)
    if between is not None:
        yield "Clean rows between false alarms, at least on average", count(between)
    if "accuracy_estimated" in said:
        found = Estimate(
            said["accuracy_estimated"], said.get("accuracy_low"), said.get("accuracy_high")
        )
        why = f"cannot be said: {plain(said.get('accuracy_why') or 'not known', 200)}"
        yield "Right, by estimate without labels", why if found.value is None else _told(found)
    if said.get("accuracy_labelled") is not None:
        low, high = (said.get(f"accuracy_labelled_{end}") for end in ("low", "high"))
        yield "Right, by labels", _told(Estimate(said["accuracy_labelled"], low, high))
    if said.get("labels") is not None:
        yield "Labels of rows drawn evenly", count(said["labels"])


def _told(found: Estimate) -> str:
    span = interval(found, "accuracy")
    return number(found.value, "accuracy") + (f" ({span})" if span else "")


def _terms(terms: Any) -> Iterator[TermView]:
    for one in terms if isinstance(terms, list) else ():
        if isinstance(one, Mapping):
            now, then = (number(_share(one.get(key)), "accuracy") for key in ("now", "then"))
            yield TermView(plain(one.get("word"), 60), now, then)


def _examples(examples: Any) -> Iterator[str]:
    for one in examples if isinstance(examples, list) else ():
        if isinstance(one, Mapping) and one.get("text"):
            yield plain(one["text"], 300)


def _share(value: Any) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and 0 <= value <= 1 else None
