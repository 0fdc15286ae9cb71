"""The 20 top findings of the audit on each real data set, as lines to be judged.

    python benchmarks/findings.py SET [SET]... > lines.jsonl     # what the audit shows
    python benchmarks/findings.py --table lines.jsonl            # findings.md of judged lines

A line is one row, or two rows side by side, of a finding: its set, check, rows, labels and a cut of
the texts (of SAMSum and DialogSum the rows alone, by their licences). The checks take turns, each
with its plainest example first, until 20 lines are there. Somebody then adds ``"sound": true`` or
``false`` and, where it needs one, a ``"why"``. ``findings.md`` is the table of the judged lines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cells import HERE
from peers.rows import data_folder

from holdfast.analyses.audit.audit import Audit
from holdfast.api.commands import audit
from holdfast.core.printable import printable

TOP, CUT = 20, 80
# The first file is audited, the others are what it is held against; then the settings.
SETS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "trec": (("trec/train.csv", "trec/test.csv"), {}),
    "banking77": (("banking77/train.csv", "banking77/test.csv"), {}),
    "cr": (("cr/cr.csv",), {}),
    "mr": (("mr/mr.csv",), {}),
    "samsum": (
        ("samsum/train.jsonl.gz", "samsum/val.jsonl.gz", "samsum/test.jsonl.gz"),
        {"audit.rows": 1000},
    ),
    "dialogsum": (("dialogsum/val.jsonl.gz", "dialogsum/test.jsonl.gz"), {}),
    "mts_dialog": (("mts_dialog/train.jsonl.gz", "mts_dialog/val.jsonl.gz"), {}),
    "instructions": (
        ("instructions/train.jsonl.gz", "instructions/val.jsonl.gz"),
        {"audit.rows": 1000},
    ),
    "essays": (("ai_text/essays.csv.gz",), {"audit.rows": 600}),
    "paired_texts": (("ai_text/paired_texts.csv.gz",), {"audit.rows": 1000}),
    "wikisql": (("text2code/wikisql_train.jsonl.gz", "text2code/wikisql_test.jsonl.gz"), {}),
    "cifar10": (("cifar10/cifar10.zip",), {}),
    "mnist": (("mnist/mnist.zip",), {}),
}
ROWS_ONLY = ("samsum", "dialogsum")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], default=[])
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    if asked.table is not None:
        lines = [json.loads(line) for line in asked.table.read_text("utf-8").splitlines()]
        (HERE / "findings.md").write_text(page(lines), "utf-8")
    for name in asked.sets:
        for line in top(name):
            print(json.dumps(line, ensure_ascii=False), flush=True)


def top(name: str) -> Iterator[dict[str, Any]]:
    """The first lines of a set's audit."""
    files, settings = SETS[name]
    with tempfile.TemporaryDirectory() as folder:
        paths = [_unpacked(data_folder() / file, Path(folder)) for file in files]
        found = audit(paths[0], against=paths[1:], settings=settings)
    by_check = [list(_lines(name, found, place)) for place in range(len(found.findings))]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_check))
    yield from itertools.islice((line for line in turns if line is not None), TOP)


def _lines(name: str, found: Audit, place: int) -> Iterator[dict[str, Any]]:
    finding = found.findings[place]
    about = {"set": name, "check": finding.check, "severity": finding.severity}
    shown = found.examples.get(place, ())
    for one in shown:
        file = Path(one.other_file).name if one.other_file else None
        yield {
            **about,
            "row": one.row,
            "label": one.label,
            "text": _cut(name, one.text),
            "other_row": one.other_row,
            "other_file": file,
            "other_label": one.other_label,
            "other_text": _cut(name, one.other_text),
            "note": one.note,
        }
    if not shown:
        yield {**about, "row": (finding.rows or (None,))[0], "note": finding.because}


def page(lines: list[dict[str, Any]]) -> str:
    """The judged lines as Markdown, and how many are sound by check."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for line in lines:
        counts[line["check"]].append(line["sound"])
    parts = [HEAD, "| Check | Lines | Sound |", "|---|---|---|"]
    for check in sorted(counts):
        parts.append(f"| `{check}` | {len(counts[check])} | {sum(counts[check])} |")
    for name in dict.fromkeys(line["set"] for line in lines):
        parts += ["", f"## {name}", "", "| Check | Rows | What | Judgement |", "|---|---|---|---|"]
        parts += [_row(line) for line in lines if line["set"] == name]
    return "\n".join(parts) + "\n"


HEAD = """# What the audit finds on real data, judged

The 20 top lines of `holdfast audit` on each set (`python benchmarks/findings.py`), read one by one.
*Sound* means that somebody who is shown the line is right to look: the two are copies by meaning,
the label is wrong, the row is damaged. Rows count from 0; texts are cut to 80 characters, and of
SAMSum and DialogSum only row numbers stand here, by their licences. Of most sets no model read the
rows, of CR, TREC and MR 1,000 of them; no line is of wrong labels, since on these rows that check
promises nothing and stays silent.
"""


def _row(line: dict[str, Any]) -> str:
    rows = str(line["row"])
    if line.get("other_row") is not None:
        rows += f" · {line['other_row']}"
        rows += f" of {line['other_file']}" if line.get("other_file") else ""
    texts = [_with_label(line, "text", "label"), _with_label(line, "other_text", "other_label")]
    what = " · ".join(filter(None, texts)) or str(line["note"])[: 2 * CUT]
    sound = ("sound" if line["sound"] else "**unsound**") + (
        f": {line['why']}" if line.get("why") else ""
    )
    return f"| `{line['check']}` | {rows} | {_plain(what)} | {sound} |"


def _with_label(line: dict[str, Any], text: str, label: str) -> str:
    found = line.get(text) or ""
    return f"{found} ({line[label]})" if found and line.get(label) else found


def _plain(text: str) -> str:
    return printable(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")


def _cut(name: str, text: str) -> str:
    if name in ROWS_ONLY or not text:
        return ""
    one = " ".join(text.split())
    return one if len(one) <= CUT else f"{one[: CUT - 1]}…"


def _unpacked(path: Path, folder: Path) -> Path:
    if path.suffix != ".zip":
        return path
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    inner = [entry for entry in folder.iterdir() if entry.is_dir()]
    return inner[0] if len(inner) == 1 else folder


if __name__ == "__main__":
    main()
