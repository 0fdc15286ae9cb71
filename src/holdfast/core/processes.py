"""How many processes a launcher started to train together, and which of them this one is."""

from __future__ import annotations

import os

from holdfast.core.errors import MachineError

MEETING = ("MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """How many train together: ``WORLD_SIZE``, 1 where no launcher set it. Raises as ``rank``."""
    return _launched()[1]


def rank() -> int:
    """The number of this one among them: ``RANK``, from 0.

    Raises ``MachineError`` where the environment holds no such pair: a process that is taken for a
    second one leaves the writing, and the lock of its folder, to a first that is not there.
    """
    return _launched()[0]


def check_launch() -> None:
    """Raise ``MachineError`` where the environment speaks of several processes that could not find
    each other, or of no such pair as ``rank`` needs."""
    _, count = _launched()
    missing = [name for name in MEETING if not os.environ.get(name)]
    if count > 1 and missing:
        raise MachineError(
            f"WORLD_SIZE={count}",
            f"stands without {' and '.join(missing)}, where the processes meet",
            None,
            "Start several processes with torchrun or accelerate launch; for a single one unset "
            "RANK and WORLD_SIZE.",
        )


def _launched() -> tuple[int, int]:
    number, count = _whole("RANK", 0), _whole("WORLD_SIZE", 1)
    if count < 1 or number >= count:
        raise MachineError(
            "RANK and WORLD_SIZE",
            "are not the number of a process among several",
            f"{number} of {count}",
            "Start several processes with torchrun or accelerate launch; for a single one unset "
            "both.",
        )
    return number, count


def _whole(name: str, default: int) -> int:
    given = os.environ.get(name, "").strip()
    if not given:
        return default
    # Bounded, as Python refuses to convert thousands of digits with an error of its own.
    if given.isdecimal() and len(given) <= len(str(2**31)):
        return int(given)
    raise MachineError(
        name,
        "is no whole number of processes",
        given,
        "torchrun and accelerate launch set it; for a single process unset it.",
    )
