"""Write docs/checks.md: every check of the audit, as the registry has it.

python scripts/make_checks_page.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from holdfast.quality.check import Check
from holdfast.quality.checks import all_checks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "checks.md"
HEAD = """# The checks of an audit

```text
$ holdfast audit train.csv --set audit.rows=0
…
     near_duplicates: 33 rows are near-duplicates of another row: at most one
     word in eight differs (18 pairs of texts).
     → Review the examples. train assigns near-duplicates to the same split. A
       random split would not. audit --fix removes those with the same label
       only with --set clean.copies.same=near.
…
No findings: boilerplate, label_variants, missing_as_class, conflicting_labels,
…
Skipped (no other file is given: --against FILE): contained_rows, leaks,
  time_order.
…
```

This page describes the checks of `holdfast audit`, except those of [rows that were tokenised
elsewhere](tasks.md#rows-that-were-tokenised-elsewhere): what each reports, what it cannot see, and
how often it is wrong. *Score* (`score` in the JSON) says how severe a finding is, from 0 to 1.
`python scripts/make_checks_page.py` writes the page from the checks themselves.
`holdfast train` also runs the checks of single rows and of pixels at its start. The other checks
need input that only an audit computes. CR, MR, TREC and BANKING77 are public data sets: customer
reviews, movie reviews, questions (6 classes) and banking requests (77 classes).

These measurements can be repeated from stored results: [planted
faults](../benchmarks/results/audit.md), [near-duplicates](../benchmarks/results/near_duplicates.md)
and [wrong labels, shortcuts, outliers](../benchmarks/results/labels.md). Other figures on this page
were counted once, when the check was written, and have no interval.
"""
# The views in the order of a reader's interest, each with what it contains.
VIEWS = {
    "TableRows": ("Single rows", "the rows of the table"),
    "ThoroughRows": (
        "Single rows, slower checks",
        "the rows of the table; too slow for the start of `train`",
    ),
    "TableCopies": (
        "Duplicates and leakage",
        "the duplicates and near-duplicates in the table and in the files of `--against`",
    ),
    "Embedded": ("Embeddings", "the rows as vectors of the model (at most `audit.rows` rows)"),
    "Tokenized": ("Tokens", "the rows as the model's tokens"),
    "Images": ("Images", "the image files"),
    "ImageSample": ("Pixels", "the decoded pixels of at most 1,000 images; `train` runs them too"),
    "Watched": ("After a run", "the losses of training rows in a finished run"),
}


def page() -> str:
    """The whole page."""
    by_view: dict[str, list[Check]] = {}
    for check in all_checks().values():
        by_view.setdefault(check.view_type.__name__, []).append(check)
    names = [name for name in VIEWS if name in by_view]
    names += sorted(set(by_view) - set(names))
    parts = [section(name, sorted(by_view[name], key=lambda c: c.name)) for name in names]
    return "\n".join([HEAD, *parts])


def section(view: str, checks: list[Check]) -> str:
    title, what = VIEWS.get(view, (view, view))
    return f"## {title}\n\nInput: {what}.\n\n" + "\n".join(map(entry, checks))


def entry(check: Check) -> str:
    return (
        f"### `{check.name}`\n\n{told(check)}\n\n"
        f"- **It cannot see:** {check.cannot_see}\n"
        f"- **How often it is wrong:** {check.error_rate}\n"
    )


def told(check: Check) -> str:
    """The first paragraph of the check's docstring, in Markdown."""
    text = inspect.getdoc(check.run) or ""
    text = " ".join(text.split("\n\n")[0].split())
    return re.sub(r"``([^`]+)``", r"`\1`", text)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE)
