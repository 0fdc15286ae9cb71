"""What becomes of a run: is somebody at it, did it end, did it stop half-way?"""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Literal

from holdfast.core.lock import NAME as LOCK
from holdfast.core.run_files import EVENTS, RESULT
from holdfast.plugins.dashboard.inside import read_end

State = Literal["running", "finished", "interrupted", "damaged"]
RECIPE, CHECKPOINTS = "recipe.yaml", "checkpoints"
# One of them makes a folder that of a run.
MARKS = frozenset({RESULT, EVENTS, RECIPE})
# Between two clocks of one machine: a process begins before it writes its name.
SLACK_S = 2.0


def is_written(run: Path) -> bool:
    """Whether a process that lives holds the run, by the name that it left in the folder's lock.

    The lock itself is not asked: for the moment of the question it would be taken, and a training
    that begins just then be refused. A number that another process got since is known by the time
    at which that process began. What is held from another machine is believed.
    """
    try:
        holder = json.loads(read_end(run / LOCK, 1_000))
        pid, host = int(holder["pid"]), str(holder["host"])
        since = datetime.fromisoformat(holder["since"]).timestamp()
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return False
    return host != socket.gethostname() or _lives(pid, since)


def _lives(pid: int, since: float) -> bool:
    import psutil

    try:
        return pid == os.getpid() or psutil.Process(pid).create_time() <= since + SLACK_S
    except (psutil.Error, ValueError, OverflowError):
        return False


def state_of(run: Path, names: frozenset[str]) -> State:
    """The state by what lies in the folder; whether its files can be read is another question."""
    if RESULT in names and CHECKPOINTS not in names:
        return "finished"
    if LOCK in names and is_written(run):
        return "running"
    return "interrupted"
