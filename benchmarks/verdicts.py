"""Are the verdicts right? One section a part; every part is a file in ``verdict_parts``.

    python benchmarks/verdicts.py                  # every part
    python benchmarks/verdicts.py histories logs   # some

Each part has ``section()``, which runs what is missing and returns what there is to print.
"""

from __future__ import annotations

import importlib
import sys

PARTS = ("histories", "logs", "foreign", "overhead")


def main(wanted: list[str]) -> None:
    unknown = set(wanted) - set(PARTS)
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in wanted or PARTS:
        part = importlib.import_module(f"verdict_parts.{name}")
        print(part.section())


if __name__ == "__main__":
    main(sys.argv[1:])
