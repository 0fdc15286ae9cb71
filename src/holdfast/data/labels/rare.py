"""Classes too small to divide: refused, dropped or merged.

A stratified division into train, valid and test needs each class on every side, and copies of a
text always fall on one side. So a class needs as many *distinct* texts (after normalising) as there
are sides: three by default, ``rare_below``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from holdfast.core.errors import DataError
from holdfast.core.records import Finding

Rare = Literal["refuse", "drop", "merge"]
OTHER = "other"
# One text for each side of a division.
RARE_BELOW = 3


def treat_rare(
    where: str, counts: Mapping[str, int], texts: Mapping[str, set[str]], *, rare: Rare, below: int
) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """What becomes of each class: its name, ``"other"``, or ``None`` (its rows go); and the rare
    ones. ``counts`` and ``texts`` are by class; a class is rare with fewer than ``below`` texts."""
    small = tuple(name for name in counts if len(texts.get(name, ())) < below)
    if not small:
        return {name: name for name in counts}, ()
    if rare == "refuse":
        raise _too_small(where, counts, texts, small, below)
    becomes = dict.fromkeys(small, None if rare == "drop" else OTHER)
    fates = {name: becomes.get(name, name) for name in counts}
    _check_rest(where, fates, texts, below)
    return fates, small


def _check_rest(
    where: str, fates: Mapping[str, str | None], texts: Mapping[str, set[str]], below: int
) -> None:
    merged = {text for name, fate in fates.items() if fate == OTHER for text in texts.get(name, ())}
    if OTHER in fates.values() and len(merged) < below:
        raise DataError(
            where,
            f"still has a class too small to divide after merging: {OTHER!r}",
            f"{len(merged)} distinct texts",
            "Use --set data.rare=drop, or add rows."
            if len({fate for fate in fates.values() if fate not in (None, OTHER)}) > 1
            else "Add rows.",
        )
    if len({fate for fate in fates.values() if fate is not None}) < 2:
        raise DataError(
            where,
            "has fewer than two classes large enough to divide",
            None,
            f"Each needs {below} distinct texts: add rows, or choose another column with --label.",
        )


def _too_small(
    where: str,
    counts: Mapping[str, int],
    texts: Mapping[str, set[str]],
    small: tuple[str, ...],
    below: int,
) -> DataError:
    shown = ", ".join(f"{name!r}: {_amount(counts[name], len(texts[name]))}" for name in small[:5])
    more = f" and {len(small) - 5} more" if len(small) > 5 else ""
    return DataError(
        where,
        f"has classes too small to divide ({shown}{more}); each needs {below} distinct texts",
        None,
        "Write a label that is another one misspelt as it is meant; else add rows, or use --set "
        f"data.rare=drop (leave them out) or --set data.rare=merge (one class {OTHER!r}).",
    )


def _amount(rows: int, distinct: int) -> str:
    plural = "s" if rows > 1 else ""
    return f"{rows} row{plural}" if rows == distinct else f"{rows} row{plural}, {distinct} distinct"


def rare_finding(
    small: tuple[str, ...], counts: Counter[str], rows: list[int], rare: Rare
) -> Finding:
    """What was done with the small classes. ``rows`` are the first of their rows."""
    count = sum(counts[name] for name in small)
    done = "left out" if rare == "drop" else f"merged into {OTHER!r}"
    shown = ", ".join(map(repr, small[:10])) + (", …" if len(small) > 10 else "")
    share = count / max(1, sum(counts.values()))
    return Finding(
        "rare_classes",
        "warn",
        share,
        count,
        tuple(rows),
        f"{len(small)} class{'es' if len(small) > 1 else ''} too small to divide "
        f"({shown}; {count} rows) {'were' if len(small) > 1 else 'was'} {done}",
        "Add rows of these classes.",
        True,
    )
