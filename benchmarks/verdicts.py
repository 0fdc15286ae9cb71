"""Are the verdicts right? One section a part; every part is a file in ``verdict_parts``.

    python benchmarks/verdicts.py                  # every part
    python benchmarks/verdicts.py histories logs   # some

Each part has ``section()``, which returns the Markdown of its part of RESULTS.md.
"""

from __future__ import annotations

import importlib
import sys

from cells import publish

PARTS = ("histories", "logs", "foreign", "real", "overhead")
OPENING = {"histories": "## Verdicts\n\n`python benchmarks/verdicts.py`: one part a question.\n\n"}


def main(wanted: list[str]) -> None:
    unknown = set(wanted) - set(PARTS)
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in wanted or PARTS:
        part = importlib.import_module(f"verdict_parts.{name}")
        text = OPENING.get(name, "") + part.section()
        print(text)
        publish(f"verdicts_{name}", text)


if __name__ == "__main__":
    main(sys.argv[1:])
