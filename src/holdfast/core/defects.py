"""What a defect of Holdfast's own may cost: a detail, never a trained model.

Where training is over, or is somebody else's, a part that fails is left out and named.
``HOLDFAST_DEFECTS=raise`` lets every defect end the program, as the tests have it.
"""

from __future__ import annotations

import os

REPORT_IT = "a defect in Holdfast, please report it"


def raises_defects() -> bool:
    """Whether a defect is to end the program instead of being named."""
    return os.environ.get("HOLDFAST_DEFECTS") == "raise"


def defect_line(error: BaseException) -> str:
    """What is told of a defect that is survived, in one line."""
    return f"{REPORT_IT}: {type(error).__name__}: {error}"
