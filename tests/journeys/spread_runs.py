"""What two processes do for ``test_spread.py``: ``spread_runs.py PLAN``, started by a launcher.

The plan is a JSON list of runs, one after the other: ``settings``, ``folder``, ``resume``; and
``kill``, ``{"step": n, "ranks": [...]}``: these processes end as by ``kill -9`` in that step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


class Kill:
    name = "kill"

    def __init__(self, step: int, ranks: list[int]) -> None:
        self._step, self._dies = step, int(os.environ["RANK"]) in ranks

    def gradients_ready(self, run: Any) -> None:
        if self._dies and run.step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(plan: Path) -> None:
    for one in json.loads(plan.read_text("utf-8")):
        listeners = [Kill(**one["kill"])] if one.get("kill") else []
        recipe = override(Recipe(), one["settings"])
        resume = one.get("resume", False)
        train(recipe, Path(one["folder"]), resume=resume, listeners=listeners)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
