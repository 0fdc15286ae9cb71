"""The outputs of a generative model compared with those of its base model: the blocks that the run
stored, or, for a run of an older version, what can be computed from its stored texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from holdfast.metrics import TEXT_METRICS
from holdfast.tasks.generation.judge import MetricJudge
from holdfast.tasks.generation.mark_shares import Marked, outputs_block
from holdfast.tasks.generation.marks import marks
from holdfast.tasks.generation.text_scores import SHOWN, Generated
from holdfast.tasks.generation.worth import PLAIN, Prompting, adjusted, answer_of, worth_block

OLDER_VERSION = (
    f"an older version trained this run and stored only the first {SHOWN} texts of each split"
)


class GeneratedLine(TypedDict):
    """A row with generated text, as in ``generations`` of ``result.json``."""

    row: int
    source: str
    reference: str
    generated: str
    untuned: NotRequired[str | None]


def generation_blocks(result: Mapping[str, object]) -> dict[str, Any]:
    """``worth`` and ``outputs`` of ``result.json``; empty for a task that generates no text.

    Runs by older versions have neither. For them, both are computed from the texts of the report;
    ``left_out`` names what could not be computed. No model is run.
    """
    if "worth" in result and "outputs" in result:
        return {"worth": result["worth"], "outputs": result["outputs"]}
    stored = result.get("generations")
    if not isinstance(stored, dict):
        return {}
    by_split = {split: _read_generated(stored.get(split) or ()) for split in ("train", "test")}
    why = {"cut": f"{OLDER_VERSION}, without whether they reached their end token"}
    outputs = outputs_block(
        [_mark_texts(split, generated) for split, generated in by_split.items()], why
    )
    return {"worth": _worth_block(result, by_split["test"]), "outputs": outputs}


def _worth_block(result: Mapping[str, Any], generated: Generated) -> dict[str, Any]:
    metric = TEXT_METRICS["rouge_l"]
    why = {"few_shot": OLDER_VERSION, "general": OLDER_VERSION}
    prompting = Prompting(texts=generated.untuned, why=OLDER_VERSION)
    block = worth_block({PLAIN: prompting}, generated, MetricJudge(metric), metric, None, why=why)
    comparison = (result.get("baseline") or {}).get("comparison")
    if isinstance(comparison, dict):
        losses = {**comparison, "shots": 0, "n": result["test"]["n"], "more_rows": None}
        block["start"] |= adjusted({PLAIN: losses})
        details = block["because"].partition(".")[2]
        block["verdict"], because, _ = answer_of(block["start"], block["texts"])
        block["because"] = because + details
    return block


def _read_generated(lines: Sequence[GeneratedLine]) -> Generated:
    untuned = [line.get("untuned") for line in lines]
    return Generated(
        np.asarray([line["row"] for line in lines], dtype=np.int64),
        [line["source"] for line in lines],
        [line["reference"] for line in lines],
        [line["generated"] for line in lines],
        None if None in untuned else [str(text) for text in untuned],
    )


def _mark_texts(split: str, generated: Generated) -> Marked:
    def mark(texts: Sequence[str]) -> dict[str, Any]:
        return marks(generated.sources, generated.references, texts)

    untuned = None if generated.untuned is None else mark(generated.untuned)
    return Marked(split, generated.rows, mark(generated.texts), untuned, mark(generated.references))
