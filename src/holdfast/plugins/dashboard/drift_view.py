"""What the watch for drift of a service says, from its store: alarms, what is new, how right the
model is by estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.core.records import Estimate
from holdfast.plugins.dashboard.pages import plain
from holdfast.report.numbers import count, interval, number

if TYPE_CHECKING:
    from holdfast.plugins.store.records import Event

# Kinds of events: rows that are not like the old ones, what the new ones are like, answers that are
# worse than was promised.
ALARM, REGIME, HARM = "drift", "drift regime", "harm"
UNKNOWN = number(None, "error")
MOST_ALARMS, MOST_TERMS, MOST_EXAMPLES = 10, 16, 5


def drift_view(said: Mapping[str, Any] | None, events: Sequence[Event]) -> Mapping[str, Any] | None:
    """The drift of a service by what the watch ``said`` last and the events so far, by its name in
    the template; ``None`` where nothing was ever watched. ``terms`` tell the newest new rows from
    the old, ``examples`` are some of them, where the service may keep texts."""
    alarms = [one for one in events if one.kind in (ALARM, HARM)]
    if said is None and not alarms:
        return None
    said = said or {}
    regimes = [one for one in events if one.kind == REGIME]
    new = regimes[-1].body if regimes else {}
    rows = said.get("rows")
    if alarms:
        because = _words(alarms[-1])
    elif said.get("why"):
        because = plain(said["why"], 300)
    else:
        because = f"{count(rows)} rows are like those that the model was judged by"
    terms = [
        (plain(one.get("word"), 60), *(_rate(one.get(key), "accuracy") for key in ("now", "then")))
        for one in _objects(new.get("terms"))
    ]
    texts = [one["text"] for one in _objects(new.get("examples")) if one.get("text")]
    return {
        "tone": "bad" if alarms else "good" if rows else "unsure",
        "verdict": f"{len(alarms)} alarm{'s' * (len(alarms) != 1)}" if alarms else "no alarm",
        "because": because,
        "facts": tuple(_facts(said)),
        "alarms": [(one.at, _words(one)) for one in reversed(alarms)][:MOST_ALARMS],
        "terms": terms[:MOST_TERMS],
        "examples": [plain(text, 300) for text in texts[:MOST_EXAMPLES]],
    }


def _words(event: Event) -> str:
    body = event.body
    if body.get("because"):
        return plain(body["because"], 600)
    if event.kind != HARM:
        return plain(event.kind)
    worse, wrong = "its answers are worse than was promised", _rate(body.get("wrong"), "error")
    if wrong == UNKNOWN:
        return worse
    return (
        f"{worse}: {count(body.get('labels'))} labels of rows drawn evenly, of which {wrong} wrong"
    )


def _facts(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if said.get("rows") is not None:
        yield "Rows watched", count(said["rows"])
    if said.get("between_alarms") is not None:
        between = count(said["between_alarms"])
        yield "Clean rows between false alarms, at least on average", between
    if "accuracy_estimated" in said:
        why = f"cannot be said: {plain(said.get('accuracy_why') or 'not known', 200)}"
        known = said["accuracy_estimated"] is not None
        told = _estimate(said, "accuracy_estimated", "accuracy") if known else why
        yield "Right, by estimate without labels", told
    if said.get("accuracy_labelled") is not None:
        yield "Right, by labels", _estimate(said, "accuracy_labelled", "accuracy_labelled")
    if said.get("labels") is not None:
        yield "Labels of rows drawn evenly", count(said["labels"])


def _estimate(said: Mapping[str, Any], name: str, ends: str) -> str:
    found = Estimate(said[name], said.get(f"{ends}_low"), said.get(f"{ends}_high"))
    span = interval(found, "accuracy")
    return number(found.value, "accuracy") + (f" ({span})" if span else "")


def _objects(found: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a list that anybody may have written."""
    for one in found if isinstance(found, list) else ():
        if isinstance(one, Mapping):
            yield one


def _rate(value: Any, metric: str) -> str:
    """A share as text; ``UNKNOWN`` for what is none."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number(float(value) if known and 0 <= value <= 1 else None, metric)
