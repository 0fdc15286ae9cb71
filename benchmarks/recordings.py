"""Real runs with the truth beside them, recorded once for verdicts.py and stopping.py.

    python benchmarks/recordings.py                    # every group, in order
    python benchmarks/recordings.py --group stopping   # one group
    python benchmarks/recordings.py --minutes 60       # start no new run after an hour

Each run is the real loop to its planned end, never stopped, with about 20 looks; at each look the
losses of 1,000 rows are measured that nothing in the run ever sees. Kept in the cache beside the
base models; a run that is there is not made again. Groups:

- ``faulty``: MiniLM on CR, MR and TREC, 200 training and 200 validation rows, with one fault each
- ``healthy``: a linear or a small hidden layer on MiniLM's frozen features
- ``stopping``: MiniLM, 100 to 1,600 labelled rows, many epochs
- ``pictures``, ``novels``: a small ResNet, a small Llama, with the faults that fit them
"""

from __future__ import annotations

import argparse
import os
import time
import traceback
from typing import Any

from recorded import plans
from recorded.store import path_of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--group", choices=sorted(plans.GROUPS), action="append")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--list", action="store_true", help="what is there and what is not")
    chosen = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    deadline = time.monotonic() + 60 * chosen.minutes
    for name in chosen.group or plans.GROUPS:
        cells, make = plans.GROUPS[name]
        todo = cells()
        left = [cell for cell in todo if not path_of(cell).exists()]
        print(f"{name}: {len(todo) - len(left)} of {len(todo)} are there", flush=True)
        for cell in [] if chosen.list else left:
            if time.monotonic() < deadline:
                _one(cell, make)


def _one(cell: dict[str, Any], make: Any) -> None:
    start = time.perf_counter()
    try:
        make(cell)
    except Exception:
        traceback.print_exc()
        print(f"{cell}: failed, not recorded", flush=True)
        return
    print(f"{time.perf_counter() - start:.0f} s  {cell}", flush=True)


if __name__ == "__main__":
    main()
