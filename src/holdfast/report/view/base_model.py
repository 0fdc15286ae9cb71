"""Was tuning a writer worth it, and what do its answers show: beside the model that it began
from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.core.wording import way_words
from holdfast.report.numbers import count, estimate, interval, metric_name, number, p_value, points
from holdfast.report.run_files import RunFiles

SIDES = {"test": "Test prompts", "train": "Training prompts"}
VERDICTS = {
    "more": "more often",
    "fewer": "less often",
    "not shown": "no difference shown",
    "not asked": "start model not asked",
}
SETS = {
    "grammar": "grammar",
    "facts": "facts",
    "opposites": "opposites",
    "sense": "common sense",
    "all": "all together",
}


@dataclass(frozen=True, slots=True)
class Lines:
    """A table: its caption, the names of its columns, and its lines."""

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class BesideStart:
    """A section: ``sentence`` answers in plain words, ``more`` are sentences beside it, ``tables``
    hold the numbers, ``notes`` say what was not done and why."""

    sentence: str
    more: tuple[str, ...]
    tables: tuple[Lines, ...]
    notes: tuple[str, ...]


def worth(run: RunFiles) -> BesideStart | None:
    """From ``worth`` of result.json; ``None`` where the task writes no text."""
    raw = run.part("worth")
    if not raw:
        return None
    start, rates, texts = _table(raw, "start"), _table(raw, "win_rate"), _table(raw, "texts")
    general = _table(raw, "general")
    tables = [_losses(start, texts)]
    if any(one.get("n") for one in rates.values() if isinstance(one, dict)):
        tables.append(_rates(rates, start, str(raw.get("judge") or "")))
    if general:
        tables.append(_general(general))
    notes = [
        f"{way_words(name, one)}: {one['why']}" for name, one in start.items() if one.get("why")
    ]
    notes += [
        f"{way_words(name, start.get(name, {}))}: {one['why']}"
        for name, one in rates.items()
        if one.get("why") and one.get("value") is None
    ]
    notes += [str(why) for why in _table(raw, "left_out").values()]
    ability = _table(raw, "judge_ability")
    more = [str(ability["because"])] if ability.get("able") else []
    more = [f"The judge was tried first: {said}." for said in more]
    more += [str(general["because"])] if general.get("because") else []
    more += [str(raw["false_alarms"])] if raw.get("false_alarms") else []
    return BesideStart(str(raw.get("because") or ""), tuple(more), tuple(tables), _sentences(notes))


def outputs(run: RunFiles) -> BesideStart | None:
    """From ``outputs`` of result.json; ``None`` where nothing was written."""
    raw = run.part("outputs")
    shares = [one for one in raw.get("shares") or () if isinstance(one, dict) and one.get("n")]
    if not shares:
        return None
    meaning = _table(raw, "meaning")
    tables = [
        _shares(name, [one for one in shares if one.get("side") == side], meaning)
        for side, name in SIDES.items()
        if any(one.get("side") == side for one in shares)
    ]
    notes = [str(why) for why in _table(raw, "left_out").values()]
    alarms = str(raw.get("false_alarms") or "")
    more = (
        "Words are looked for in small English lists, which see no irony and no quotation; the "
        "words themselves are not shown here.",
        *([alarms] if alarms else []),
    )
    return BesideStart(str(raw.get("because") or ""), more, tuple(tables), _sentences(notes))


def _losses(start: Mapping[str, Any], texts: Mapping[str, Any]) -> Lines:
    metric = str(texts.get("metric") or "")
    lines = []
    for name, one in start.items():
        if not one.get("n"):
            continue
        gap = estimate(one.get("difference"))
        lines.append(
            (
                f"The start model, {way_words(name, one)}",
                count(one["n"]),
                number(one.get("loss")),
                number(one.get("tuned_loss")),
                f"{number(gap.value)} {interval(gap)}".strip(),
                p_value(one.get("p_value")),
                number(texts.get(name)),
                number(texts.get("tuned")),
            )
        )
    columns = (
        "Against",
        "rows",
        "its loss",
        "this model's loss",
        "difference",
        "p (paired bootstrap)",
        f"its {metric_name(metric)}" if metric else "its texts",
        f"this model's {metric_name(metric)}" if metric else "this model's texts",
    )
    return Lines("Loss on the answers, and the texts written", columns, tuple(lines))


def _rates(
    rates: Mapping[str, Any], start: Mapping[str, Mapping[str, object]], judge: str
) -> Lines:
    lines = []
    for name, one in rates.items():
        if not one.get("n"):
            continue
        rate = estimate(one)
        lines.append(
            (
                f"The start model, {way_words(name, start.get(name, {}))}",
                count(one.get("wins")),
                count(one.get("ties")),
                count(one.get("losses")),
                f"{number(rate.value, 'accuracy')} {interval(rate, 'accuracy')}".strip(),
                p_value(one.get("p_adjusted")),
            )
        )
    columns = (
        "Against",
        "wins",
        "ties",
        "losses",
        "win rate, ties half",
        "p (exact sign test, Holm)",
    )
    return Lines(f"Whose answer is better, judged by {judge}", columns, tuple(lines))


def _general(raw: Mapping[str, Any]) -> Lines:
    whole = raw.get("all")
    sets = [*(raw.get("sets") or ()), *([whole] if isinstance(whole, dict) else [])]
    lines = tuple(
        (
            SETS.get(str(one.get("name")), str(one.get("name"))),
            count(one.get("n")),
            number(estimate(one.get("before")).value, "accuracy"),
            number(estimate(one.get("after")).value, "accuracy"),
            _gap(one.get("difference")),
            str(one.get("verdict") or ""),
        )
        for one in sets
    )
    columns = ("Set", "pairs", "before", "after", "difference", "")
    return Lines("Pairs of short English sentences: the right one is likelier", columns, lines)


def _shares(name: str, shares: list[dict[str, Any]], meaning: Mapping[str, object]) -> Lines:
    lines = tuple(
        (
            str(meaning.get(str(one.get("mark"))) or one.get("mark")),
            number(estimate(one.get("tuned")).value, "accuracy"),
            number(estimate(one.get("start")).value, "accuracy"),
            number(estimate(one.get("references")).value, "accuracy"),
            _gap(one.get("difference")),
            p_value(one.get("p_adjusted")),
            VERDICTS.get(str(one.get("verdict")), "") + _more(one.get("more_rows")),
            ", ".join(str(row) for row in (one.get("rows") or ())[:5]),
        )
        for one in shares
    )
    columns = (
        "Answers that",
        "this model",
        "start model",
        "references",
        "difference",
        "p (McNemar’s exact test, Holm)",
        "",
        "rows",
    )
    return Lines(f"{name} ({count(shares[0].get('n'))})", columns, lines)


def _gap(raw: object) -> str:
    found = estimate(raw)
    if found.value is None:
        return "–"
    return f"{points(found.value)} ({points(found.low)} to {points(found.high)})"


def _more(rows: object) -> str:
    return f"; about {count(rows)} more rows would settle it" if rows else ""


def _table(raw: Mapping[str, object], name: str) -> dict[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def _sentences(notes: list[str]) -> tuple[str, ...]:
    return tuple(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in dict.fromkeys(notes))
