"""The report section on distillation, student and teacher: ``distilled`` of result.json."""

from __future__ import annotations

from holdfast.core.metric_names import metric_name
from holdfast.report.document import Document, DocumentTable
from holdfast.report.numbers import count, interval, number
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.section import Section


def distilled(run: RunFiles) -> Document | None:
    """``None`` for a run without a teacher."""
    raw = run.part("distilled")
    if not raw:
        return None
    if "because" not in raw:
        return Document.of(f"Not known: {raw.get('why')}.")
    teacher, student, alone = (raw.block(name) for name in ("teacher", "student", "alone"))
    speed = raw.block("speed")
    lines = [
        (
            name,
            number(one.number("value")),
            "unknown" if one.whole("parameters") is None else count(one["parameters"]),
            "not measured" if (time_ms := speed.number(time)) is None else f"{time_ms:.3g}",
        )
        for name, one, time in (
            ("Teacher", teacher, "teacher_ms"),
            ("Student", student, "student_ms"),
        )
    ]
    comparisons = [
        _comparison_row("Student's score ÷ teacher's", raw, "kept"),
        _comparison_row("Same prediction as the teacher", raw, "agreement"),
        _comparison_row("Student minus teacher", raw.block("against_teacher"), "difference"),
    ]
    if "value" in alone:
        alike = "same as the student"
        score = number(alone.number("value"))
        lines.append(("Student trained without a teacher", score, alike, alike))
        comparisons.append(_comparison_row("With a teacher minus without", alone, "difference"))
    name = metric_name(str(raw.get("metric")))
    tables = (
        DocumentTable(
            f"On {count(raw.get('n'))} test rows",
            ("Model", name, "Parameters", "Milliseconds per row"),
            tuple(lines),
        ),
        DocumentTable("Comparisons", ("Comparison", "Value", "95 % CI"), tuple(comparisons)),
    )
    notes = (str(alone["why"]),) if "why" in alone else ()
    runs = ", ".join(teacher.texts("runs"))
    return Document.of(str(raw["because"]), (f"Teacher: {runs}.",), tables, notes)


def _comparison_row(name: str, block: Block, key: str) -> tuple[str, str, str]:
    estimate = block.estimate(key)
    return name, number(estimate.value), interval(estimate)


SECTIONS = (Section("distilled", "Student and teacher", distilled),)
