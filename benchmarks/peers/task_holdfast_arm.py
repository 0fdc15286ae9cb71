"""``holdfast`` with the words of the command line, and the processor time of its training written
down: a script of its own process.

Writes ``answer.json``: ``train_cpu_s``, the processor time of what ``timing.train_s`` is the wall
time of, from the loaded model to the restored best state. On a machine that others use too, the
wall time is also theirs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from holdfast.cli.main import run
from holdfast.fits import fit as fits
from holdfast.plan.adapters import with_adapter
from holdfast.prepare import model


def watch(folder: Path) -> None:
    """Read the clock where the model has been loaded, and where the fit ends."""
    clock: dict[str, float] = {}
    fit_ready = fits.run_fit

    def loaded(*given: Any) -> Any:
        network = with_adapter(*given)
        clock["start"] = time.process_time()
        return network

    def fitted(*given: Any, **named: Any) -> Any:
        done = fit_ready(*given, **named)
        seconds = time.process_time() - clock["start"]
        told = {"train_cpu_s": round(seconds, 3)}
        (folder / "answer.json").write_text(json.dumps(told), encoding="utf-8")
        return done

    mock.patch.object(model, "with_adapter", loaded).start()
    mock.patch.object(fits, "run_fit", fitted).start()


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    run()
