"""Checks of single texts on real sets: what they say of the rows as they are, and how many of the
faults that are planted into one row in twenty they find.

``python benchmarks/single_texts.py [--seeds 3]`` with HOLDFAST_DATA set. Prints a line a check and
set: rows accused of a thousand as they are, recall of planted rows, others accused with them, and
microseconds a row.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.check import CheckResult
from holdfast.quality.checks import all_checks
from holdfast.quality.views import TableRows, ThoroughRows

DATA = Path(os.environ.get("HOLDFAST_DATA", "shared/data"))
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
    file = DATA / path
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream) if ".csv" in file.name else map(json.loads, stream)
        return ["\n".join(str(row[name]) for name in columns if row.get(name)) for row in rows]


def real_sets() -> dict[str, list[str]]:
    """The texts of each set by its name."""
    csv.field_size_limit(10**9)
    novels = gzip.decompress((DATA / "corpus/novels_val.txt.gz").read_bytes()).decode()
    return {
        "cr": _cells("cr/cr.csv", "text"),
        "mr": _cells("mr/mr.csv", "text"),
        "trec": _cells("trec/train.csv", "text"),
        "banking77": _cells("banking77/train.csv", "text"),
        "ai_text": _cells("ai_text/paired_texts.csv.gz", "text"),
        "essays": _cells("ai_text/essays.csv.gz", "text"),
        "samsum": _cells("samsum/train.jsonl.gz", "dialogue"),
        "dialogsum": _cells("dialogsum/val.jsonl.gz", "dialogue"),
        "instructions": _cells("instructions/train.jsonl.gz", "instruction", "input", "output"),
        "text2code": _cells("text2code/wikisql_train.jsonl.gz", "question"),
        "novels": [part for part in novels.split("\n\n") if part.strip()],
    }


def _see(name: str, texts: list[str]) -> tuple[CheckResult | None, float]:
    check = all_checks()[name]
    rows = TableRows(table_from_texts(texts))
    assert len(rows.ids) == len(rows.sampled)
    start = time.perf_counter()
    found = check(ThoroughRows(rows) if check.view_type is ThoroughRows else rows)
    return found, (time.perf_counter() - start) / len(texts) * 1e6


def measure(name: str, texts: list[str], seeds: int) -> tuple[float, float, float, float]:
    """Accused of a thousand as they are; recall of planted rows; accused of a thousand others then;
    microseconds a row."""
    plain, seconds = _see(name, texts)
    before = plain.finding.count if plain else 0
    hits = planted = others = 0
    for seed in range(seeds):
        rng = random.Random(seed)
        chosen = set(rng.sample(range(len(texts)), max(40, int(SHARE * len(texts)))))
        fault = FAULTS[name]
        damaged = [fault(text, rng) if n in chosen else text for n, text in enumerate(texts)]
        found, _ = _see(name, damaged)
        # Rows that had the fault before are found among the planted ones as well.
        seen = found.finding.count if found else 0
        accused = set(found.finding.rows) if found else set()
        share = len(accused & chosen) / max(1, len(accused))
        hits += min(len(chosen), round(seen * share)) if seen > 100 else len(accused & chosen)
        planted += len(chosen)
        others += round(seen * (1 - share))
    return (1000 * before / len(texts), hits / planted, 1000 * others / seeds / len(texts), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--checks", nargs="*", default=list(FAULTS))
    given = parser.parse_args()
    for name in given.checks:
        for where, texts in real_sets().items():
            some = random.Random(99).sample(texts, min(given.rows, len(texts)))
            accused, recall, others, cost = measure(name, some, given.seeds)
            print(
                f"{name:20s} {where:13s} accused {accused:6.2f} ‰  recall {recall:.3f}  "
                f"others {others:6.2f} ‰  {cost:7.1f} µs a row",
                flush=True,
            )


if __name__ == "__main__":
    main()
