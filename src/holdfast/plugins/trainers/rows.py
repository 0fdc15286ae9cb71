"""The rows a guard looks at: a fixed sample of the training rows, and rows held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.core.errors import DataError
from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.training.plan import MOST_PROBE_ROWS, TELLING_PROBE_ROWS

LABELS = ("label", "labels", "label_ids")
LEAST_ROWS = 2
# Characters of what is compared, each read once before the first step: some seconds.
MOST_COMPARED = 50_000_000
# Values whose text is all that they hold.
PLAIN = {str, bytes, bool, int, float, complex, type(None)}


def probe_rows(train: int, valid: int, wanted: int | None, seed: int) -> Ints:
    """Positions of the train probe, rising: as many as there are evaluation rows, but at least
    ``TELLING_PROBE_ROWS`` and at most ``MOST_PROBE_ROWS``, as ``train`` has it, unless ``wanted``
    says how many; the same for the same seed."""
    usual = min(max(valid, TELLING_PROBE_ROWS), MOST_PROBE_ROWS)
    count = min(train, wanted or usual)
    return np.sort(generator(seed, "train_probe").permutation(train)[:count])


def looks_at(steps: int, wanted: int) -> frozenset[int]:
    """About ``wanted`` steps, evenly over ``steps``, the last among them."""
    # Of more looks than steps some round to 0, where the baseline look is.
    return frozenset(round((i + 1) * steps / wanted) for i in range(wanted)) - {0}


def counted(dataset: Any, what: str) -> int:
    """How many rows it has; refuses one that cannot be counted and read by position.

    >>> counted([1, 2, 3], "the training rows")
    3
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        rule = "stream, so that no fixed sample of them can be measured again"
        remedy = "Give rows that have a length and are read by position, e.g. a `datasets.Dataset`."
        raise DataError(what, rule, type(dataset).__name__, remedy)
    return len(dataset)


def copied_rows(train: Any, valid: Any) -> tuple[int, int] | None:
    """How many evaluation rows stand among the training rows too, whatever their labels, and of how
    many; ``None`` where reading them all would take too long, by the size of the first, or where a
    row holds an object of which it cannot be told what is in it."""
    first = _contents(valid[0]) if len(valid) else None
    if first is None or len(first) * (len(train) + len(valid)) > MOST_COMPARED:
        return None
    known, seen = ([row_key(rows[i]) for i in range(len(rows))] for rows in (train, valid))
    if None in known or None in seen:
        return None
    keys = set(known)
    return sum(key in keys for key in seen), len(valid)


def hold_out(dataset: Any, share: float, seed: int) -> tuple[Any, Any]:
    """``(training rows, held-out rows)``; exact copies stay on one side.

    Whole groups of copies, in an order drawn from ``seed``, are held out until ``share`` of the
    rows is reached; the labels take no part in the comparison, so that a text with two labels is a
    copy of itself. What comes back is of the same kind where it is a ``datasets.Dataset``, else a
    ``torch.utils.data.Subset``. Raises ``DataError`` where one side would have fewer than two rows.
    """
    count = counted(dataset, "the training rows")
    # A row of which it cannot be told what is in it is nobody's copy.
    keys = [row_key(dataset[i]) or str(i).encode() for i in range(count)]
    held = held_positions(keys, share, seed)
    kept = np.setdiff1d(np.arange(count), held)
    if min(len(held), len(kept)) < LEAST_ROWS:
        rule = f"leave fewer than {LEAST_ROWS} rows on a side when {share:g} of them are held out "
        rule += "by whole groups of copies"
        remedy = "Give evaluation rows (`eval_dataset=`), or more training rows."
        raise DataError("the training rows", rule, count, remedy)
    if hasattr(dataset, "select"):
        return dataset.select(kept.tolist()), dataset.select(held.tolist())
    from torch.utils.data import Subset

    return Subset(dataset, kept.tolist()), Subset(dataset, held.tolist())


def held_positions(keys: Sequence[bytes], share: float, seed: int) -> Ints:
    """Positions [n] to hold out, rising; equal keys are all in or all out."""
    _, group = np.unique(np.array(keys, dtype="S16"), return_inverse=True)
    sizes = np.bincount(group)
    order = generator(seed, "hold_out").permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = order[before < share * len(keys)]
    return np.flatnonzero(np.isin(group, chosen))


def row_key(row: Any) -> bytes | None:
    """A digest of what a row holds beside its labels; ``None`` where that cannot be told."""
    found = _contents(row)
    if found is None:
        return None
    plain = found.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(plain, digest_size=8).hexdigest().encode()


def _contents(row: Any) -> str | None:
    """All that a row holds beside its labels; ``None`` where a part of it cannot be told."""
    if isinstance(row, Mapping):
        inputs = [(str(k), v) for k, v in row.items() if k not in LABELS]
        parts = sorted(inputs, key=lambda item: item[0]) or list(row.items())
    elif isinstance(row, (tuple, list)) and len(row) > 1:
        # By the custom of PyTorch's data sets the label comes last.
        parts = [(str(i), value) for i, value in enumerate(row[:-1])]
    else:
        parts = [("row", row)]
    found = [(name, _text_of(value)) for name, value in parts]
    if any(text is None for _, text in found):
        return None
    return "".join(f"{name}={text};" for name, text in found)


def _text_of(value: Any) -> str | None:
    """All that a value holds, which its own text may not say: an array's leaves the middle out,
    that of an object is a place in memory."""
    if type(value) in PLAIN:
        return repr(value)
    if hasattr(value, "tolist"):
        return _text_of(value.tolist())
    if isinstance(value, Mapping):
        value = sorted(([str(key), one] for key, one in value.items()), key=lambda pair: pair[0])
    if isinstance(value, (list, tuple)):
        if set(map(type, value)) <= PLAIN:
            return repr(list(value))
        parts = [_text_of(one) for one in value]
        joined = [one for one in parts if one is not None]
        return f"[{', '.join(joined)}]" if len(joined) == len(parts) else None
    if all(hasattr(value, name) for name in ("tobytes", "mode", "size")):
        # An image of PIL.
        return f"{value.mode}{value.size}{value.tobytes()!r}"
    return None
