"""What came of letting a model write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats


class Written(NamedTuple):
    """Texts in the order asked for: ``texts`` [n]; ``sure`` [n], the geometric mean of the
    probabilities of each text's tokens (NaN for an empty one); ``ended`` [n], whether the model
    ended the text itself, rather than being stopped at the longest length."""

    texts: Sequence[str]
    sure: Floats
    ended: npt.NDArray[np.bool_]
