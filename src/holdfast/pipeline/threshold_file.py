"""``threshold.json`` of a run: written, read and checked, and who answers by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.core.door import door
from holdfast.core.errors import RunError
from holdfast.core.files import refuse_link, write_json
from holdfast.core.records import Decision
from holdfast.core.run_files import MODEL
from holdfast.core.run_shapes import SEAL
from holdfast.know.threshold.rule import Rule
from holdfast.pipeline.folder import open_run

FILE = "threshold.json"
TAKE_AWAY = f"Take {FILE} away: every row is answered then; or choose it again with --force."


def write_threshold(run: Path, document: Mapping[str, Any]) -> None:
    """The document (plain JSON) with the sum of what it says, whole or not at all."""
    refuse_link(run / FILE)
    write_json(run / FILE, {**document, "sha256": _mark(document)})


def refuse_second(run: Path) -> None:
    """Raise ``RunError`` where a threshold is stored."""
    path = run / FILE
    if not path.exists() and not path.is_symlink():
        return
    refuse_link(path)
    with door(str(path), RunError, remedy=TAKE_AWAY):
        found = json.loads(path.read_text("utf-8"))
        asked = f"{found.get('by')} {found.get('asked')}"
    raise RunError(str(path), "holds a threshold already", asked, "Choose anew with --force.")


def model_mark(result: Mapping[str, Any]) -> str | None:
    """What tells the model that a threshold was chosen for: the sums of its files, ``None`` where
    the run has no seal."""
    files = (result.get(SEAL) or {}).get("files") or {}
    model = {name: mark for name, mark in files.items() if name.startswith(f"{MODEL}/")}
    return hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest() if model else None


def _mark(document: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_threshold(run: Path) -> Rule | None:
    """The rule that a run answers by, ``None`` where no threshold was set. Raises ``RunError``
    where the file was changed, or belongs to another model."""
    path = run / FILE
    if not path.exists() and not path.is_symlink():
        return None
    refuse_link(path)
    with door(str(path), RunError, "cannot be read", TAKE_AWAY):
        found = json.loads(path.read_text("utf-8"))
        changed = found.get("sha256") != _mark(found)
        rule = None if changed else Rule.of(found["rule"])
    if rule is None:
        raise RunError(str(path), "was changed since it was chosen", None, TAKE_AWAY)
    result = open_run(run)
    mark = model_mark(result)
    others = rule.matrix is not None and [*rule.matrix.names] != [*(result.get("classes") or ())]
    if others or (mark is not None and found.get("model") != mark):
        raise RunError(str(path), "was chosen for another model", None, TAKE_AWAY)
    return rule


def rule_of(runs: Sequence[Path]) -> tuple[Rule | None, tuple[Decision, ...]]:
    """The rule of one run; the average of several has other certainties, so theirs are not
    applied, which is said."""
    if len(runs) == 1:
        rule = read_threshold(runs[0])
        if rule is None:
            return None, ()
        said = f"{rule.threshold:.4g}" if rule.threshold is not None else "by cost"
        because = f"{runs[0] / FILE} was chosen with `holdfast threshold`"
        return rule, (Decision("threshold", said, because),)
    bearing = [str(run) for run in runs if (run / FILE).exists()]
    if not bearing:
        return None, ()
    because = f"the average of several runs is not what {', '.join(bearing)} was chosen for"
    return None, (Decision("threshold", "not applied", because, prominent=True),)
