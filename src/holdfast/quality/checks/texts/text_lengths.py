"""Texts far shorter or longer than the others."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from holdfast.core.wording import counted
from holdfast.quality.check import CheckResult, check, with_texts
from holdfast.quality.single import single_finding
from holdfast.quality.views import TableRows

_LEAST_ROWS = 100
# A median absolute deviation times this estimates a standard deviation of normal values.
_NORMAL = 1.4826
_FAR, _FACTOR = 6.0, 20.0


@check(
    TableRows,
    cannot_see="A text that is cut but not short; whether a short one says enough.",
    error_rate="Eleven real sets: a text of 400 copies of itself is found in all of nine sets "
    "of even lengths, in 0.71 and 0.44 of two uneven ones, and in none where "
    "lengths differ most (novels); as they are it names 6 rows in 56,000.",
    holds_for=with_texts,
)
def text_lengths(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose number of characters is more than 6 robust standard deviations (of its
    logarithm, around the median) and 20 times from the usual one. Fewer than 100 rows: silent.
    Score: their share of the rows."""
    if len(rows.sample) < _LEAST_ROWS:
        return None
    lengths = pc.utf8_length(rows.sampled).to_numpy().astype(float)
    logs = np.log(np.maximum(lengths, 1))
    usual = float(np.median(logs))
    spread = _NORMAL * float(np.median(np.abs(logs - usual)))
    far = np.abs(logs - usual)
    places = np.flatnonzero((far > _FAR * spread) & (far > np.log(_FACTOR)))
    order = places[np.argsort(-far[places], kind="stable")]
    typical = round(float(np.exp(usual)))
    short = int((logs[places] < usual).sum())
    found = [(int(rows.sample[at]), counted(int(lengths[at]), "character")) for at in order]
    return single_finding(
        rows,
        found,
        f"texts of a length far from the usual {typical} characters ({short} shorter, "
        f"{len(places) - short} longer)",
        "Look at them: a short one may be cut or empty of meaning, a long one several rows that a "
        "missing quote has joined. `treat.rows` leaves rows out.",
        "info",
    )
