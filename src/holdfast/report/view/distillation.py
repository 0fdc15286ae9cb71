"""What a student keeps of its teacher: from ``distilled`` of result.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.report.numbers import count, estimate, interval, metric_name, number
from holdfast.report.run_files import RunFiles
from holdfast.report.view.base_model import BesideStart, Lines


def distilled(run: RunFiles) -> BesideStart | None:
    """``None`` where the run had no teacher."""
    raw = run.part("distilled")
    if not raw:
        return None
    if "because" not in raw:
        return BesideStart(f"It is not known: {raw.get('why')}.", (), (), ())
    teacher, student, alone = (_table(raw, name) for name in ("teacher", "student", "alone"))
    kept, agreement = estimate(raw.get("kept")), estimate(raw.get("agreement"))
    speed = _table(raw, "speed")
    lines = [
        ("Teacher", number(_number(teacher)), _size(teacher), _time(speed, "teacher_ms")),
        ("Student", number(_number(student)), _size(student), _time(speed, "student_ms")),
    ]
    if "value" in alone:
        alike = "as the student"
        lines.append(("Student without a teacher", number(_number(alone)), alike, alike))
    name = metric_name(str(raw.get("metric")))
    tables = [
        Lines(
            f"On {count(raw.get('n'))} test rows",
            ("Model", name, "Parameters", "Milliseconds a row"),
            tuple(lines),
        ),
        Lines(
            "One beside the other, with 95 % intervals",
            ("What", "Value", "Interval"),
            (
                ("Student's score ÷ teacher's", number(kept.value), interval(kept)),
                ("Says what the teacher says", number(agreement.value), interval(agreement)),
                _difference("Student less teacher", _table(raw, "against_teacher")),
                *([_difference("With a teacher minus without", alone)] if "value" in alone else []),
            ),
        ),
    ]
    notes = [str(alone["why"])] if "why" in alone else []
    runs = ", ".join(map(str, teacher.get("runs") or ()))
    return BesideStart(str(raw["because"]), (f"Its teacher: {runs}.",), tuple(tables), tuple(notes))


def _table(raw: Mapping[str, object], name: str) -> dict[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def _number(part: Mapping[str, object]) -> float | None:
    value = part.get("value")
    return float(value) if isinstance(value, (int, float)) else None


def _size(part: Mapping[str, object]) -> str:
    return count(part["parameters"]) if isinstance(part.get("parameters"), int) else "not known"


def _time(speed: Mapping[str, object], name: str) -> str:
    found = speed.get(name)
    return f"{found:.3g}" if isinstance(found, (int, float)) else "not timed"


def _difference(name: str, part: Mapping[str, object]) -> tuple[str, str, str]:
    found = estimate(part.get("difference"))
    return name, number(found.value), interval(found)
