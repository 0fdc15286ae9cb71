"""The number of a run that a person is told, with its baselines, and the sentence that tells it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.core.records import Estimate
from holdfast.report.numbers import estimate, metric_name, metrics, plural

FEW = 100
THINGS = {"image-classification": "picture"}
# What each baseline is called: in the list, and as the other side of a comparison.
GUESSES = {"majority class": "guessing the commonest class", "training mean": "always the mean"}
PHRASES = {
    **GUESSES,
    "linear probe": "the linear probe (baseline)",
    "untuned model": "the untuned model",
}
WRITTEN = ("execution", "exact_match", "rouge_l")
FALLING = ("mae", "rmse", "loss", "token_loss", "perplexity")


@dataclass(frozen=True, slots=True)
class Score:
    """One number of the test rows, ``others`` its baselines' by name; ``say`` writes the headline
    after "Right on …"."""

    name: str
    value: Estimate
    others: Mapping[str, float]
    say: Callable[[], str]

    def beaten_by(self) -> list[str]:
        """The baselines that do at least as well, those that read nothing first."""
        value = self.value.value
        if value is None:
            return []
        sign = -1.0 if self.name in FALLING else 1.0
        found = [what for what, other in self.others.items() if sign * value <= sign * other]
        return sorted(found, key=lambda what: what not in GUESSES)


def score_of(result: Mapping[str, Any]) -> Score | None:
    """The number of the task's kind; ``None`` where the test rows have no metric at all."""
    found = metrics(result.get("test") or {})
    if "entity_f1" in found:
        return _entities(result, found)
    if "accuracy" in found:
        return _right(result, "accuracy", found, "Right on")
    if "f1_micro" in found:
        return _label_sets(result, found)
    if "mae" in found:
        return _error(result, found)
    if is_written(result):
        return _writing(result, found)
    name = next(iter(found), None)
    return None if name is None else _right(result, name, found, f"{metric_name(name)}:")


def _right(
    result: Mapping[str, Any], name: str, found: Mapping[str, Estimate], start: str, end: str = ""
) -> Score:
    """A share of the rows, said of 100 of them."""
    value, others = found[name], _others(result, name)
    shown = _of_100(value, others.values())

    def say() -> str:
        assert value.value is not None
        of = f"{start} {shown(value.value)} of 100 new {_things(result)}"
        return f"{of}{_span(value, shown, result)}{_list(others, shown)}.{end}"

    return Score(name, value, others, say)


def _label_sets(result: Mapping[str, Any], found: Mapping[str, Estimate]) -> Score:
    """Judged by micro F1, told by what F1 is made of."""
    given, seen = found.get("precision_micro"), found.get("recall_micro")
    parts = ""
    if given and seen and given.value is not None and seen.value is not None:
        parts = (
            f" Of 100 labels that it gives {_of_100(given, ())(given.value)} are right; "
            f"of 100 that it should give it finds {_of_100(seen, ())(seen.value)}."
        )
    whole = _right(result, "exact_match", found, "All labels right on", parts)
    return Score("f1_micro", found["f1_micro"], _others(result, "f1_micro"), whole.say)


def _entities(result: Mapping[str, Any], found: Mapping[str, Estimate]) -> Score:
    """Judged by entity F1, told by what it is made of."""
    value, others = found["entity_f1"], _others(result, "entity_f1")
    shown = _of_100(value, others.values())
    given, seen = found.get("entity_precision"), found.get("entity_recall")

    def say() -> str:
        assert value.value is not None
        end = "."
        if given and seen and given.value is not None and seen.value is not None:
            end = (
                f". Of 100 entities that it names {_of_100(given, ())(given.value)} are right; "
                f"of 100 that are there it finds {_of_100(seen, ())(seen.value)}."
            )
        of = f"Entity F1 {shown(value.value)} of 100 on new {_things(result)}"
        return f"{of}{_span(value, shown, result)}{_list(others, shown)}{end}"

    return Score("entity_f1", value, others, say)


def _error(result: Mapping[str, Any], found: Mapping[str, Estimate]) -> Score:
    value, others = found["mae"], _others(result, "mae")
    shown = _measured([value.value, *others.values()])

    def say() -> str:
        assert value.value is not None
        of = f"Off by {shown(value.value)} on average on new {_things(result)}"
        return f"{of}{_span(value, shown, result)}{_list(others, shown)}."

    return Score("mae", value, others, say)


def _writing(result: Mapping[str, Any], found: Mapping[str, Estimate]) -> Score | None:
    """The strictest score of written texts that any row reaches; without texts, perplexity."""
    generated = (result.get("generations") or {}).get("scores") or {}
    texts = {**found, **metrics({"metrics": generated.get("test") or {}})}
    for name in WRITTEN:
        value = texts.get(name)
        if value is None or value.value is None or (name != "rouge_l" and not value.value):
            continue
        if name == "rouge_l":
            return _overlap(result, value)
        how = "Code that runs to the right answer on" if name == "execution" else "Word for word"
        start = how if name == "execution" else f"{how} right on"
        return _right(result, name, {name: value}, start)
    if "perplexity" not in found:
        return None
    return _perplexity(result, found["perplexity"])


def _overlap(result: Mapping[str, Any], value: Estimate) -> Score:
    others = _others(result, "rouge_l")
    shown = _of_100(value, others.values())

    def say() -> str:
        assert value.value is not None
        of = f"Its texts agree with the references to {shown(value.value)} of 100 by ROUGE-L"
        return f"{of}{_span(value, shown, result)}{_list(others, shown)}."

    return Score("rouge_l", value, others, say)


def _perplexity(result: Mapping[str, Any], value: Estimate) -> Score:
    others = _others(result, "perplexity")
    shown = _measured([value.value, *others.values()])

    def say() -> str:
        assert value.value is not None
        of = f"Perplexity {shown(value.value)}{_span(value, shown, result)}"
        return f"{of}, as if it guessed among that many tokens{_list(others, shown)}."

    return Score("perplexity", value, others, say)


def _others(result: Mapping[str, Any], name: str) -> dict[str, float]:
    """The baselines' numbers by the baseline's name, the best first."""
    block = result.get("baseline") or {}
    listed = block.get("all") or ([block] if block.get("what") else [])
    found = {str(one.get("what")): _metric(one, name) for one in listed if one}
    untuned = ((result.get("generations") or {}).get("scores") or {}).get("test_untuned") or {}
    if name in untuned:
        found.setdefault("untuned model", estimate(untuned[name]))
        if found["untuned model"].value is None:
            found["untuned model"] = estimate(untuned[name])
    known = {what: one.value for what, one in found.items() if one.value is not None}
    sign = 1.0 if name in FALLING else -1.0
    return dict(sorted(known.items(), key=lambda pair: sign * pair[1]))


def _metric(one: Mapping[str, Any], name: str) -> Estimate:
    return estimate(((one.get("test") or {}).get("metrics") or {}).get(name))


def is_written(result: Mapping[str, Any]) -> bool:
    """Whether the task writes text, so that the untuned model is what stands beside it."""
    task = result.get("task")
    return task in ("seq2seq", "causal-lm") or bool(result.get("generations"))


def _things(result: Mapping[str, Any]) -> str:
    return f"{THINGS.get(str(result.get('task')), 'text')}s"


def rows_of(result: Mapping[str, Any]) -> str:
    """``30 test rows``; ``30 rows out of fold`` where none were set aside; ``30 test episodes``."""
    test = result.get("test") or {}
    if test.get("out_of_fold"):
        return f"{plural(test.get('n') or 0, 'row')} out of fold"
    if test.get("unit") == "episodes":
        return plural(test.get("n") or 0, "test episode")
    return plural(test.get("n") or 0, "test row")


def _span(value: Estimate, shown: Callable[[float], str], result: Mapping[str, Any]) -> str:
    """``(84–91)``, naming the rows where they are few, or why there is no interval."""
    n = (result.get("test") or {}).get("n") or 0
    few = f"from {rows_of(result)}" if 0 < n < FEW else ""
    if value.low is None or value.high is None:
        why = value.why or value.note or "no interval"
        parts = [few, why if "no interval" in why else f"no interval: {why}"]
    else:
        parts = [f"{shown(value.low)}–{shown(value.high)}", few]
    return f" ({', '.join(part for part in parts if part)})"


def _list(others: Mapping[str, float], shown: Callable[[float], str]) -> str:
    return "".join(f"; {PHRASES.get(what, what)} {shown(v)}" for what, v in others.items())


def _of_100(value: Estimate, others: Any) -> Callable[[float], str]:
    """Whole numbers of 100, or one decimal where whole ones would mislead."""
    known = [v for v in (value.value, *others) if v is not None]
    hidden = any(a != b and round(100 * a) == round(100 * b) for a in known for b in known)
    ends = any(round(100 * v) in (0, 100) and v not in (0.0, 1.0) for v in known)
    digits = 1 if hidden or ends else 0
    return lambda v: f"{100 * v:.{digits}f}"


def _measured(values: Sequence[float | None]) -> Callable[[float], str]:
    """Three figures of the first of the numbers, and as many decimals for the others."""
    first = next((abs(v) for v in values if v), 1.0)
    digits = min(12, max(0, 2 - math.floor(math.log10(first))))
    return lambda v: f"{v:,.{digits}f}"
