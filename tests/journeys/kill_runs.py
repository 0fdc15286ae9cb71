"""Started by ``test_kill_and_resume.py``: runs that are killed with SIGKILL, then resumed.

It imports everything once and forks a process for each run, before any thread is started.
Arguments: a folder, then settings. Prints one line a run: its name, how it was
killed, the exit of the resume.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holdfast.core.files as files
import holdfast.pipeline.main as main
import holdfast.runs.scoring as result_files
import holdfast.runs.start as run_folder
import holdfast.tasks.classes.task as text_classification
import holdfast.tasks.seq2seq.scores as seq2seq
import holdfast.training.checkpoint as checkpoint
from holdfast.plugins.sandbox.fork import fork
from holdfast.recipe import Recipe, override


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class At:
    """Dies at the n-th time an event is heard."""

    name = "die"

    def __init__(self, event: str, count: int) -> None:
        self.left = count
        setattr(self, event, self.hear)

    def hear(self, run: Any) -> None:
        self.left -= 1
        if self.left == 0:
            die()


def half_a_checkpoint() -> None:
    write, saved = checkpoint.write_sealed, [0]

    def half(path: Path, state: dict[str, Any], mark: str) -> None:
        write(path, state, mark)
        saved[0] += 1
        if saved[0] == 4:
            os.truncate(path, path.stat().st_size // 2)
            die()

    checkpoint.write_sealed = half


def patched(module: Any, name: str) -> Callable[[], None]:
    return lambda: setattr(module, name, die)


KILLS: dict[str, tuple[list[Any], Callable[[], None]]] = {
    "before-recipe": ([], patched(run_folder, "record_start")),
    "step": ([At("gradients_ready", 6)], lambda: None),
    "checkpoint": ([], half_a_checkpoint),
    "model": ([], patched(files, "replace_folder")),
    "scoring": ([], lambda: before_scoring()),
    "result": ([], lambda: before_result()),
    "report": ([], patched(main, "write_pages")),
}


def before_scoring() -> None:
    text_classification.load_saved = die
    seq2seq.load_saved_seq2seq = die


def before_result() -> None:
    result_files.write_result = lambda *_: die()


def one(settings: list[str], folder: Path, resume: bool, name: str | None) -> int:
    """The wait status of a run in a process of its own."""
    child = fork()
    if child == 0:
        listeners: list[Any] = []
        if name is not None:
            listeners, prepare = KILLS[name]
            prepare()
        try:
            main.train(
                override(Recipe(), settings),
                folder,
                resume=resume,
                listeners=listeners,
                checkpoint_every_s=0.0,
            )
        except BaseException as error:
            print(f"{name}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    folder, settings = Path(sys.argv[1]), sys.argv[2:]
    print("undisturbed", one(settings, folder / "undisturbed", False, None), 0, flush=True)
    for name in KILLS:
        died = one(settings, folder / name, False, name)
        print(name, died, one(settings, folder / name, True, None), flush=True)
