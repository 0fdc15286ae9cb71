"""What a model's written answers show, beside those of the model that it began from: the blocks
that its run stored, or of a run by an older version what its stored texts let be told."""

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

OLD = f"an older version made this run: of its texts the first {SHOWN} of each side are kept"


class GeneratedLine(TypedDict):
    """A row that was written to, as ``generations`` of ``result.json`` has it."""

    row: int
    source: str
    reference: str
    generated: str
    untuned: NotRequired[str | None]


def written_blocks(result: Mapping[str, object]) -> dict[str, Any]:
    """``worth`` and ``outputs`` of ``result.json``; nothing for a task that writes no text.

    A run by an older version kept neither. Of it both are made of the texts that its report shows,
    with what could not be told under ``left_out``; no model is asked.
    """
    if "worth" in result and "outputs" in result:
        return {"worth": result["worth"], "outputs": result["outputs"]}
    shown = result.get("generations")
    if not isinstance(shown, dict):
        return {}
    sides = {side: _generated(shown.get(side) or ()) for side in ("train", "test")}
    why = {"cut": f"{OLD}, not which ended by themselves"}
    outputs = outputs_block([_marked(side, made) for side, made in sides.items()], why)
    return {"worth": _worth(result, sides["test"]), "outputs": outputs}


def _worth(result: Mapping[str, Any], made: Generated) -> dict[str, Any]:
    metric = TEXT_METRICS["rouge_l"]
    why = {"few_shot": OLD, "general": OLD}
    way = Prompting(texts=made.untuned, why=OLD)
    block = worth_block({PLAIN: way}, made, MetricJudge(metric), metric, None, why=why)
    compared = (result.get("baseline") or {}).get("comparison")
    if isinstance(compared, dict):
        losses = {**compared, "shots": 0, "n": result["test"]["n"], "more_rows": None}
        block["start"] |= adjusted({PLAIN: losses})
        told = block["because"].partition(".")[2]
        block["verdict"], because, _ = answer_of(block["start"])
        block["because"] = because + told
    return block


def _generated(lines: Sequence[GeneratedLine]) -> Generated:
    untuned = [line.get("untuned") for line in lines]
    return Generated(
        np.asarray([line["row"] for line in lines], dtype=np.int64),
        [line["source"] for line in lines],
        [line["reference"] for line in lines],
        [line["generated"] for line in lines],
        None if None in untuned else [str(text) for text in untuned],
    )


def _marked(side: str, made: Generated) -> Marked:
    def of(texts: Sequence[str]) -> dict[str, Any]:
        return marks(made.sources, made.references, texts)

    start = None if made.untuned is None else of(made.untuned)
    return Marked(side, made.rows, of(made.texts), start, of(made.references))
