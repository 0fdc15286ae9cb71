"""What a defect of Holdfast's own may cost: a detail, never a trained model.

Where training is over, or is somebody else's, a part that fails is left out and named.
``HOLDFAST_DEFECTS=raise`` lets every defect end the program, as the tests have it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.core.decisions import notify
from holdfast.core.errors import InputError, Interrupted
from holdfast.core.input_errors import lacking
from holdfast.core.records import Decision

REPORT_IT = "a defect in Holdfast, please report it"


def raises_defects() -> bool:
    """Whether a defect is to end the program instead of being named."""
    return os.environ.get("HOLDFAST_DEFECTS") == "raise"


def defect_line(error: BaseException) -> str:
    """What is told of a defect that is survived, in one line."""
    return f"{REPORT_IT}: {type(error).__name__}: {error}"


@contextmanager
def survived(what: str, left: str) -> Iterator[None]:
    """A defect inside ends the block and no more: the decision log says that ``what`` is
    not written, why, and what is ``left``. What the input or the machine is at fault for, and an
    interrupt, is raised."""
    try:
        yield
    except (InputError, Interrupted):
        raise
    except Exception as error:
        if raises_defects() or lacking(error):
            raise
        because = f"{defect_line(error)}; {left}"
        notify(Decision(what, "not written", because, prominent=True))
