"""What came of letting a model write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats

# Below it the likeliest token is always drawn, and the quotients are no numbers any more.
COLDEST = 1e-6


def drawing(temperature: float, top_p: float = 1.0) -> dict[str, Any]:
    """What ``generate`` of Transformers is told to take the likeliest token, or above
    ``temperature`` 0 to draw one; without what a model's own settings would add."""
    if temperature < COLDEST:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": None}


class Written(NamedTuple):
    """Texts in the order asked for: ``texts`` [n]; ``sure`` [n], the geometric mean of the
    probabilities of each text's tokens (NaN for an empty one); ``ended`` [n], whether the model
    ended the text itself, rather than being stopped at the longest length."""

    texts: Sequence[str]
    sure: Floats
    ended: npt.NDArray[np.bool_]
