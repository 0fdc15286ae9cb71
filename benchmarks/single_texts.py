"""The audit's checks of single texts: what they report of rows as they are, and of planted faults.

    python benchmarks/single_texts.py --jobs 2

Up to 2,000 rows of eleven sets. "As they are" is the share of rows that a check reports in them;
many of these rows really have what it looks for (dialogues with links, translated texts). Then one
row in twenty, at least 40, gets the fault (wrong decoding, an invisible character, markup, an
address or phone number, letters of another script, repetition, 400 times the length, another
language, a signature, a template), with two seeds.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import random
import time
from collections.abc import Callable
from typing import Any

from cells import Cell, Result, grid, run_command
from claims import Claim, Lines, average, counts, described, rate, share, table
from peers.rows import data_folder

from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.checks import all_checks
from holdfast.quality.views import TableRows, ThoroughRows

NAME = "single_texts"
ROWS, SEEDS = 2000, 2
DISGUISED = ["p\u0430ypal", "fre\u0435", "\u0441redit"]
FOREIGN = [
    "Der Film war viel zu lang, und die Schauspieler wirkten die ganze Zeit über gelangweilt.",
    "El servicio fue muy lento y la comida llegó fría, así que no pensamos volver nunca más.",
    "Je voudrais savoir pourquoi mon paiement a été refusé alors que le solde est suffisant.",
    "Il telefono si scarica in poche ore e l'assistenza non ha mai risposto alle mie domande.",
    "Vad heter den högsta byggnaden i landet, och vilket år blev den egentligen färdigbyggd?",
    "Почему мой перевод до сих пор не дошёл, хотя деньги были списаны ещё на прошлой неделе?",
    "Quanto tempo demora a entrega do cartão novo, e como posso acompanhar o envio dele?",
    "Hoe kan ik mijn rekening sluiten zonder dat ik eerst naar het kantoor moet gaan?",
]


def _random_digits(rng: random.Random, count: int) -> str:
    return "".join(str(rng.randint(0, 9)) for _ in range(count))


def _personal(text: str, rng: random.Random) -> str:
    name = "".join(rng.choice("abcdefghijklmnop") for _ in range(7))
    area, last = rng.randint(201, 989), _random_digits(rng, 4)
    value = rng.choice(
        [
            f"write to {name}@{name[:4]}.com",
            f"my phone is 0{_random_digits(rng, 4)} {_random_digits(rng, 6)}",
            f"({area}) {rng.randint(200, 989)}-{last}",
            f"+49 30 {_random_digits(rng, 7)}",
        ]
    )
    return f"{text} {value}"


FAULTS: dict[str, Callable[[str, random.Random], str]] = {
    "encoding_damage": lambda text, rng: (
        (f"{text} {rng.choice(['für', 'déjà', 'naïve', 'señor', '“so”', 'it’s', '– so', '£5'])} x")
        .encode()
        .decode(rng.choice(["cp1252", "latin-1"]), errors="replace")
    ),
    "control_characters": lambda text, rng: text.replace(
        " ", rng.choice(["\x00", "\x07", "\u200b", "\ufeff", "\u00ad"]) + " ", 1
    ),
    "markup": lambda text, rng: rng.choice(
        [f"<p>{text}</p>", f"{text}<br />", f"{text} &amp; so", f'<a href="x">{text}</a>']
    ),
    "personal_data": _personal,
    "mixed_scripts": lambda text, rng: f"{text} {rng.choice(DISGUISED)}",
    "repetition": lambda text, rng: rng.choice(
        ["\n".join([text] * 4), f"{text} {' very' * 8}", " ".join([text] * 8)]
    ),
    "text_lengths": lambda text, rng: " ".join([text] * 400),
    "wrong_language": lambda text, rng: rng.choice(FOREIGN),
    "boilerplate": lambda text, rng: f"{text}\nSent from my telephone, excuse the brevity",
    "template_rows": lambda text, rng: (
        f"Your order {rng.randint(1000, 9999)} was shipped on day {rng.randint(1, 365)}"
    ),
}
SHARE = 0.05


def _cells(path: str, *columns: str) -> list[str]:
    file = data_folder() / path
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream) if ".csv" in file.name else map(json.loads, stream)
        return ["\n".join(str(row[name]) for name in columns if row.get(name)) for row in rows]


def _novels() -> list[str]:
    text = gzip.decompress((data_folder() / "corpus/novels_val.txt.gz").read_bytes()).decode()
    return [part for part in text.split("\n\n") if part.strip()]


TEXTS: dict[str, tuple[str, ...]] = {
    "cr": ("cr/cr.csv", "text"),
    "mr": ("mr/mr.csv", "text"),
    "trec": ("trec/train.csv", "text"),
    "banking77": ("banking77/train.csv", "text"),
    "ai_text": ("ai_text/paired_texts.csv.gz", "text"),
    "essays": ("ai_text/essays.csv.gz", "text"),
    "samsum": ("samsum/train.jsonl.gz", "dialogue"),
    "dialogsum": ("dialogsum/val.jsonl.gz", "dialogue"),
    "instructions": ("instructions/train.jsonl.gz", "instruction", "input", "output"),
    "text2code": ("text2code/wikisql_train.jsonl.gz", "question"),
    "novels": (),
}


@functools.cache
def real_texts(data: str) -> list[str]:
    csv.field_size_limit(10**9)
    return _cells(*TEXTS[data]) if TEXTS[data] else _novels()


def cells() -> list[dict[str, Any]]:
    return grid(check=list(FAULTS), data=list(TEXTS))


def run_one(cell: Cell) -> Result:
    """How many rows the check reports as they are, and of the planted and of the other rows."""
    name, texts = cell["check"], real_texts(cell["data"])
    texts = random.Random(99).sample(texts, min(ROWS, len(texts)))
    started = time.process_time()
    before, _ = _reported(name, texts)
    seconds = time.process_time() - started
    found = planted = others = 0
    for seed in range(SEEDS):
        rng = random.Random(seed)
        chosen = set(rng.sample(range(len(texts)), max(40, int(SHARE * len(texts)))))
        damaged = [FAULTS[name](t, rng) if n in chosen else t for n, t in enumerate(texts)]
        count, listed = _reported(name, damaged)
        # A finding counts all rows and lists the first of them.
        hits = min(len(chosen), round(count * len(listed & chosen) / max(1, len(listed))))
        found, planted, others = found + hits, planted + len(chosen), others + count - hits
    return {
        "rows": len(texts),
        "before": before,
        "found": found,
        "planted": planted,
        "others": others,
        "microseconds": 1e6 * seconds / len(texts),
    }


def _reported(name: str, texts: list[str]) -> tuple[int, set[int]]:
    """How many rows a check reports, and the rows that it lists."""
    check, rows = all_checks()[name], TableRows(table_from_texts(texts))
    assert len(rows.ids) == len(rows.sampled)
    result = check(ThoroughRows(rows) if check.view_type is ThoroughRows else rows)
    return (result.finding.count, set(result.finding.rows)) if result else (0, set())


def finding(lines: Lines) -> str:
    if not lines:
        return ""
    return (
        f"Of planted faults, the {len(FAULTS)} checks find "
        f"{share(*counts(lines, 'found', 'planted'), long=True)}."
    )


CLAIM = Claim(
    NAME,
    "Data",
    "The audit's checks of single rows",
    described(__doc__),
    cells,
    finding,
    [
        table(
            {"check": "Check"},
            {
                "Planted rows found, %": rate("found", "planted"),
                "Reported as they are, %": rate("before", "rows"),
                "Microseconds a row": average("microseconds", digits=0, limits=False),
            },
        )
    ],
    """\
Rows of one set are alike: the intervals are for other rows of these sets, not for other sets.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
