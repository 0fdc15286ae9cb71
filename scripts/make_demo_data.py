"""Make the demo's data from the package metadata of a Debian system.

What it does, in order:

1. reads every binary package that ``apt-cache dumpavail`` names;
2. takes the long English description from apt's translation lists where they are present
   (``apt-get update -o Acquire::Languages=en`` fetches them), else the one-line synopsis;
3. keeps the sections in ``SECTIONS``, and of their *source* packages one in ``--keep``, chosen by
   a hash of the source's name: whole sources, so that siblings (``foo``, ``foo-data``, ``foo-doc``)
   stay together, and the sections keep their natural, skewed sizes;
4. writes ``package, source, section, text`` as gzipped CSV, byte for byte the same for the same
   metadata.

Nothing is cleaned: siblings that share a description, and sections that a reader would doubt,
are what the demo is about.

    python scripts/make_demo_data.py                       # the system's own lists
    python scripts/make_demo_data.py --lists /tmp/lists    # lists fetched into another folder
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SECTIONS = (
    "database",
    "doc",
    "editors",
    "electronics",
    "games",
    "graphics",
    "hamradio",
    "mail",
    "math",
    "sound",
    "video",
    "web",
)
ALONGSIDE = ("doc",)  # kept only where a package of another section comes from the same source
OUT = Path(__file__).resolve().parents[1] / "src" / "holdfast" / "demo" / "packages.csv.gz"
Row = tuple[str, str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lists", default="/var/lib/apt/lists", help="folder of apt's lists")
    parser.add_argument("--keep", type=int, default=2, help="keep one source package in so many")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = sample(packages(options.lists), options.keep)
    write(rows, options.out)
    describe(rows, options.out)


def packages(lists: str) -> Iterator[Row]:
    """Every binary package once, in the order of its name: package, source, section, text."""
    long = translations(lists)
    dump = run("apt-cache", "-o", f"Dir::State::lists={lists}", "dumpavail")
    records = {record["Package"]: record for record in stanzas(dump)}  # the last version wins
    for name, record in sorted(records.items()):
        source = record.get("Source", name).split(" ")[0]
        section = record.get("Section", "").split("/")[-1]
        text = long.get(record.get("Description-md5", ""), record.get("Description", ""))
        yield name, source, section, plain(text)


def translations(lists: str) -> dict[str, str]:
    """Long descriptions by their MD5; empty where apt fetched no translation lists."""
    found: dict[str, str] = {}
    for path in sorted(Path(lists).glob("*_i18n_Translation-en*")):
        for record in stanzas(run("/usr/lib/apt/apt-helper", "cat-file", str(path))):
            found[record["Description-md5"]] = record["Description-en"]
    return found


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The records of a Debian control file; continuation lines keep their line break."""
    for block in text.split("\n\n"):
        record: dict[str, str] = {}
        key = ""
        for line in filter(None, block.split("\n")):
            if line[0] in " \t":
                record[key] += "\n" + line[1:]
            else:
                key, _, value = line.partition(":")
                record[key] = value.strip()
        if record:
            yield record


def plain(description: str) -> str:
    """The synopsis, then the paragraphs; a line of one dot is Debian's blank line."""
    lines = ("" if line.strip() == "." else line for line in description.split("\n"))
    return "\n".join(lines).strip()


def sample(rows: Iterator[Row], keep: int) -> list[Row]:
    wanted = [row for row in rows if row[2] in SECTIONS and row[3] and chosen(row[1], keep)]
    lead = {row[1] for row in wanted if row[2] not in ALONGSIDE}
    return [row for row in wanted if row[1] in lead]


def chosen(source: str, keep: int) -> bool:
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big") % keep == 0


def write(rows: list[Row], out: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("package", "source", "section", "text"))
    writer.writerows(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    # No name and no time in the header: the same rows give the same bytes.
    out.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))


def describe(rows: list[Row], out: Path) -> None:
    print(
        f"{len(rows)} rows of {len({row[1] for row in rows})} sources, {out.stat().st_size} bytes"
    )
    for section, count in Counter(row[2] for row in rows).most_common():
        print(f"{count:6d}  {section}")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


if __name__ == "__main__":
    main()
