"""Which checkpoint to keep: every rule on recorded runs, scored by rows that chose nothing.

    python benchmarks/kept_state.py --record --jobs 16       # record what is missing; resumable
    python benchmarks/kept_state.py                          # compare the rules on what is there

``--out FOLDER`` says where recordings lie, ``--recipe``, ``--set`` and ``--rows`` (as often as
wanted) and ``--seeds N`` which are meant, ``--minutes M`` when none is begun any more.

A recording is one run that is never stopped, on one of ten sets of nine kinds, with 60 to 400
labelled rows (82 % training, 18 % validation), as ``recorded/kept_runs.py`` lists them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import grid
from peers.sets import SETS
from recorded import kept_runs

NAME = "kept_state"
SIZES = (100, 60, 200, 400)


def cells(seeds: int, recipes: Sequence[str]) -> list[dict[str, Any]]:
    """By seed, then size, so that what is there is always balanced over the sets."""
    return grid(seed=range(seeds), rows=SIZES, recipe=recipes, data=SETS)


def main(words: Sequence[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="record runs that are not there")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--out", type=Path, default=kept_runs.usual_folder(), help="recordings")
    parser.add_argument("--recipe", action="append", choices=kept_runs.RECIPES)
    parser.add_argument("--set", action="append", choices=SETS, help="these sets alone")
    parser.add_argument("--rows", action="append", type=int, choices=SIZES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="start no new run after this time")
    parser.add_argument("--child", type=Path, help="(one run, started by this script)")
    chosen = parser.parse_args(words)
    if chosen.child:
        kept_runs.child(chosen.child)
        return 0
    todo = cells(chosen.seeds, chosen.recipe or kept_runs.RECIPES)
    todo = [cell for cell in todo if cell["data"] in (chosen.set or SETS)]
    todo = [cell for cell in todo if cell["rows"] in (chosen.rows or SIZES)]
    folder = chosen.out.resolve()
    if chosen.record:
        script = Path(__file__).resolve()
        return kept_runs.record_all(todo, folder, script, chosen.jobs, chosen.minutes) > 0
    if not any(kept_runs.path_of(folder, cell).exists() for cell in todo):
        print(f"{NAME}: not run, no recordings in {folder}")
        return 0
    from recorded.kept_tables import report

    text = report(todo, folder, (__doc__ or "").partition("\n\n")[2].strip())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
