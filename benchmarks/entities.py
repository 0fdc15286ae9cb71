"""Entity F1 on few sentences: Holdfast, its linear probe, and a plain Trainer with early stopping.

    python benchmarks/entities.py               # three seeds
    python benchmarks/entities.py --minutes 10  # start no new cell after ten minutes

Sentences of WikiText-2 whose tags were made from what lower case hides: runs of capitalised words
are NAMEs, months with their days and years DATEs, other numbers NUMBERs; then every word is lower
case, so that a model must know names from their context. 400 sentences to learn from (82 % to
train, 18 % to choose on, the same for both sides), 600 to test on, from other articles.

The trainer fine-tunes the same MiniLM at the same rate (1e-4; at its default of 5e-5 it is slower
to learn), in batches of 16 and at most 10 epochs, with the best state by validation loss and a
patience of 3. Both are scored by seqeval on the tags of their saved model.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, average, melt, paired, pick, runs, table
from peers.script import options, results_path

NAME = "entities"
ROWS, TEST_ROWS = 400, 600
ARMS = ("holdfast", "trainer")
MONTHS = frozenset(
    [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
)
Sentence = tuple[list[str], list[str]]


def main() -> None:
    given = options(__doc__ or "").parse_args()
    todo = grid(seed=[0] if given.quick else [0, 1, 2], rows=[ROWS], arm=ARMS)
    path = results_path(NAME, given.threads, given.quick)
    run_cells(NAME, todo, run_one, path, minutes=given.minutes)


def sentences(part: str) -> Iterator[Sentence]:
    """The sentences of 6 to 40 words without an unknown one, tagged."""
    folder = Path(os.environ.get("HOLDFAST_DATA", "../shared/data")) / "corpus"
    with gzip.open(folder / f"wikitext2_{part}.txt.gz", "rt", encoding="utf-8") as stream:
        lines = [line.split() for line in stream if line.strip() and not line.startswith(" =")]
    counts = Counter(word for line in lines for word in line)
    for line in lines:
        start = 0
        for place, word in enumerate(line):
            if word == "." or place == len(line) - 1:
                words = line[start : place + 1]
                start = place + 1
                if 6 <= len(words) <= 40 and not {"<unk>", "@.@", "@,@", "@-@"} & set(words):
                    yield [word.lower() for word in words], tags_of(words, counts)


def tags_of(words: list[str], counts: Counter[str]) -> list[str]:
    """IOB2 tags by case and digits. A name is a word that the corpus capitalises more often than
    not; a number beside a month belongs to the date."""
    kinds: list[str] = []
    for place, word in enumerate(words):
        if word in MONTHS:
            kinds.append("DATE")
        elif word.isdigit():
            beside = kinds[-1:] == ["DATE"] or (
                words[place + 1 : place + 2] and (words[place + 1] in MONTHS)
            )
            kinds.append("DATE" if beside else "NUMBER")
        else:
            name = word[0].isupper() and counts[word] > counts[word.lower()]
            kinds.append("NAME" if name else "")
    return [
        f"{'I' if place and kinds[place - 1] == kind else 'B'}-{kind}" if kind else "O"
        for place, kind in enumerate(kinds)
    ]


def parts_of(seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """The sentences to learn from and to test on, of other articles."""
    rng = np.random.default_rng(seed)
    learn, test = list(sentences("valid")), list(sentences("test"))
    chosen = rng.permutation(len(learn))[:ROWS]
    return [learn[i] for i in chosen], [test[i] for i in rng.permutation(len(test))[:TEST_ROWS]]


def write(path: Path, rows: list[Sentence]) -> Path:
    lines = (json.dumps({"tokens": words, "tags": tags}) for words, tags in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_one(cell: Cell) -> dict[str, Any]:
    from seqeval.metrics import f1_score

    learn, test = parts_of(cell["seed"])
    with tempfile.TemporaryDirectory() as folder:
        place, start = Path(folder), time.perf_counter()
        run_arm = holdfast_arm if cell["arm"] == "holdfast" else trainer_arm
        answers, more = run_arm(place, learn, test, cell["seed"])
        seconds = time.perf_counter() - start
    truth = [tags for _, tags in test]
    return {"f1": float(f1_score(truth, answers)), "seconds": seconds, **more}


def holdfast_arm(
    place: Path, learn: list[Sentence], test: list[Sentence], seed: int
) -> tuple[list[list[str]], dict[str, Any]]:
    """As a user would: the default recipe; its own numbers stand beside seqeval's."""
    import holdfast

    source, given = write(place / "learn.jsonl", learn), write(place / "test.jsonl", test)
    run = holdfast.train(source, test=given, out=place / "run", seed=seed, quiet=True)
    others = {one["what"]: one["test"]["metrics"] for one in run.result["baseline"]["all"]}
    own = run.result["test"]["metrics"]["entity_f1"]
    return run.predict([words for words, _ in test]), {
        "own_f1": own["value"],
        "low": own["low"],
        "high": own["high"],
        "probe_f1": others["linear probe"]["entity_f1"]["value"],
        "train_s": run.result["timing"]["train_s"],
        "verdict": run.verdict["label"],
    }


def trainer_arm(
    place: Path, learn: list[Sentence], test: list[Sentence], seed: int
) -> tuple[list[list[str]], dict[str, Any]]:
    """Transformers' Trainer on the same model, the rows divided 82 to 18."""
    import transformers
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.loading.packaged import packaged_folder

    base, names = packaged_folder(EMBEDDED), sorted({tag for _, tags in learn for tag in tags})
    tokenizer = AutoTokenizer.from_pretrained(base, model_max_length=512)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    order = np.random.default_rng(seed).permutation(len(learn))
    cut = round(0.82 * len(learn))
    sides = [
        [encoded(learn[i], tokenizer, names) for i in part] for part in (order[:cut], order[cut:])
    ]
    model = AutoModelForTokenClassification.from_pretrained(base, num_labels=len(names))
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            str(place / "out"),
            num_train_epochs=10,
            per_device_train_batch_size=16,
            learning_rate=1e-4,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            report_to=[],
            seed=seed,
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=sides[0],
        eval_dataset=sides[1],
        data_collator=transformers.DataCollatorForTokenClassification(tokenizer),
        callbacks=[transformers.EarlyStoppingCallback(3)],
    )
    start = time.perf_counter()
    trainer.train()
    train_s = time.perf_counter() - start
    model.eval()
    answers = [tagged(model, tokenizer, words, names) for words, _ in test]
    return answers, {"train_s": train_s, "epochs": float(trainer.state.epoch or 0)}


def encoded(row: Sentence, tokenizer: Any, names: list[str]) -> dict[str, Any]:
    words, tags = row
    made = tokenizer(words, is_split_into_words=True)
    before, labels = None, []
    for word in made.word_ids():
        labels.append(names.index(tags[word]) if word is not None and word != before else -100)
        before = word
    return {
        "input_ids": made["input_ids"],
        "attention_mask": made["attention_mask"],
        "labels": labels,
    }


def tagged(model: Any, tokenizer: Any, words: list[str], names: list[str]) -> list[str]:
    import torch

    made = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        best = model(**made).logits[0].argmax(-1).tolist()
    tags, before = ["O"] * len(words), None
    for place, word in enumerate(made.word_ids(0)):
        if word is not None and word != before:
            tags[word] = names[best[place]]
        before = word
    return tags


def finding(lines: Lines) -> str:
    gap = paired(lines, "f1", "holdfast", "trainer")
    time = paired(lines, "train_s", "holdfast", "trainer", times=True)
    if not gap or not time:
        return ""
    return (
        f"With {ROWS} labelled sentences Holdfast's entity F1 minus that of Trainer with early "
        f"stopping is {gap.words(100, 1, ' points')}; its training time is "
        f"{time.words(1, 2, ' times', sign=False)} that of Trainer."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Named entities in few sentences",
    """\
Sentences of WikiText-2 in lower case, tagged by what the case of the original shows: names,
dates, numbers. 400 labelled sentences (82 % training, 18 % validation, the same for both
systems), 600 test sentences from other articles. "Trainer" has early stopping. The linear probe is
part of Holdfast's run, whose time it is shown with.""",
    lambda: grid(seed=range(3), rows=[ROWS], arm=ARMS),
    finding,
    [
        lambda lines: table(
            {"arm": "System"},
            {
                "Runs": runs,
                "Entity F1, %": average("f1", 100, limits=False),
                "Training, s": average("train_s", limits=False),
            },
        )([*lines, *melt(pick(lines, arm="holdfast"), {"linear probe": "probe_f1"}, "f1")])
    ],
    "No difference in F1 is shown. The tags are made by a rule, not by annotators.",
)


if __name__ == "__main__":
    main()
