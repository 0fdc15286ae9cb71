"""``holdfast errors``: what the run found of its errors, and what can be asked of it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.analyses.errors.analysis import errors_of, learned_rows
from holdfast.analyses.outputs import written_blocks
from holdfast.analyses.robustness.command import refuse_task, robustness
from holdfast.analyses.slices.analysis import confirm_slices, find_slices, find_topics
from holdfast.analyses.slices.facts import RowFacts
from holdfast.augment.meaning import meaning
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, to_json
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.result_files import EXAMPLES

OLDER = "a version of Holdfast made this run that did not keep what it says of validation rows"


def errors(run: Path, *, robust: bool = False, topics: bool = False) -> dict[str, Any]:
    """The errors of a finished run: ``slices``, ``confusions`` and ``hardest`` rows, as
    ``result.json`` has them; of a run by an older version they are worked out from what it stored.
    ``robust`` asks the model about changed test rows, which opens them again; ``topics`` asks the
    stored answers a second question, about clusters of frozen MiniLM vectors of the texts. Of a
    model that writes there are ``worth`` and ``outputs`` too, of the texts that the run wrote.

    Raises ``RunError`` for a folder that is no finished run, or whose sources have changed where
    their texts are needed; ``RecipeError`` for ``robust`` where a model writes texts.
    """
    again = FinishedRun(run)
    result = again.result
    if robust:
        refuse_task(str(result["task"]))
        if not (result.get("test") or {}).get("n"):
            rule = f"asks about changed test rows, and {run} has none"
            raise RecipeError("--robustness", rule, 0, "Leave it out, or train with test rows.")
    slices, rows = result.get("slices"), result.get("errors")
    if slices is None:
        slices = _slices(again)
    if rows is None:
        rows = _rows(again)
    found = {
        "schema": 1,
        "task": result["task"],
        "slices": slices,
        **{name: value for name, value in rows.items() if name != "schema"},
        **written_blocks(result),
        "topics": _topics(again) if topics else None,
        "robustness": robustness(again) if robust else None,
    }
    document: dict[str, Any] = to_json(found)
    return document


def _slices(again: FinishedRun) -> dict[str, Any]:
    if not again.has("valid") or not again.has("test"):
        return {"why": OLDER}
    notify(Decision("slices", "looked for now", "the run has none stored"))
    valid, seed = again.told("valid"), int(again.result.get("seed") or 0)
    found = find_slices(valid, again.told("train"), again.beside(valid.table), seed)
    if isinstance(found, str):
        return {"why": found}
    test = again.told("test")
    return confirm_slices(found, test, again.beside(test.table), seed)


def _topics(again: FinishedRun) -> dict[str, Any]:
    if not again.has("valid") or not again.has("test"):
        return {"why": OLDER}
    valid, test = again.told("valid"), again.told("test")
    because = "they become vectors of the sentence encoder that comes along (English)"
    notify(Decision("topics", f"{len(valid) + len(test)} texts", because, prominent=True))

    def space(facts: RowFacts) -> Floats:
        return meaning().vectors(facts.texts or ())

    seed = int(again.result.get("seed") or 0)
    found = find_topics(valid, space, seed)
    return {"why": found} if isinstance(found, str) else confirm_slices(found, test, {}, seed)


def _rows(again: FinishedRun) -> dict[str, Any]:
    if not again.has("test"):
        return {"why": "the run stored no answers to test rows", "confusions": [], "hardest": []}
    notify(Decision("hardest rows", "looked up now", "the run has none stored"))
    seed = int(again.result.get("seed") or 0)
    learned = learned_rows(again.table("train"), _kinds(again.run), seed)
    valid = again.told("valid") if again.has("valid") else None
    return errors_of(valid, again.told("test"), learned)


def _kinds(run: Path) -> dict[int, str]:
    """What the data map says of training rows."""
    import pyarrow.parquet as parquet

    path = run / EXAMPLES
    if not path.is_file():
        return {}
    table = parquet.read_table(path, columns=["row", "split", "kind"])
    lines = zip(*(table[name].to_pylist() for name in ("row", "split", "kind")), strict=True)
    return {row: kind for row, split, kind in lines if split == "train"}
