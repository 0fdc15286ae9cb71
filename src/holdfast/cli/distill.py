"""``holdfast distill``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from holdfast.cli.options import Helps, Resume, RunOptions, RunOutput
from holdfast.core.machine import refuse_low_memory
from holdfast.terminal.layout import entries, entry

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class StudentOptions:
    """The student model, and unlabelled texts to train it on."""

    student: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The student: a Hugging Face name or a folder."),
    ] = None
    layers: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Instead of --student: K layers of the teacher. Default: half of them.",
        ),
    ] = None
    to: Annotated[
        str | None,
        typer.Option(
            metavar="static",
            help="Instead of --layers: a table of token vectors, for speed. Texts with one class.",
        ),
    ] = None
    unlabelled: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Unlabelled texts; the teacher predicts their labels."),
    ] = None


RUN = Helps(
    out="The folder to write the student's run to.",
    set_="Set a key of the recipe, e.g. distill.temperature=4.",
)


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="The teacher; several are averaged.")
    ],
    student: StudentOptions,
    run: Annotated[RunOptions, RUN],
    resume: Resume = False,
    *,
    output: RunOutput,
) -> None:
    """Train a smaller model (the student) to predict as RUN does, on the run's rows and split."""
    refuse_low_memory("torch")
    from holdfast.contract.request import TrainingRequest
    from holdfast.contract.run_folder import is_main_process
    from holdfast.search.student import folder_name, student_recipe
    from holdfast.terminal.watch import train_with_progress

    recipe = student_recipe(runs, **asdict(student), seed=run.seed, settings=run.set_ or [])
    request = TrainingRequest(folder_name(runs), out=run.out, resume=resume)
    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose, command="distill"
    )
    if is_main_process():
        output.show(result, lambda columns: _shown(result, folder, columns, output.verbose))


def _shown(result: Mapping[str, Any], folder: Path, columns: int, verbose: bool) -> str:
    from holdfast.cli.summary import summary

    lines = summary(result, folder, columns, verbose)
    return "\n".join([*lines, "", *distillation_lines(result.get("distilled") or {}, columns)])


class Sized(TypedDict, total=False):
    """A model with its number of parameters, where that is known."""

    parameters: int | None


def distillation_lines(block: Mapping[str, Any], columns: int) -> list[str]:
    """Which model was saved, compared with the teacher and with a student trained without it."""
    if "because" not in block:
        return entry("Distilled", str(block.get("why") or "unknown"), columns)
    metric = block["metric"].replace("_", " ")
    teacher, student, alone = block["teacher"], block["student"], block["alone"]
    lines = [
        ("Distilled", block["because"]),
        (
            "Teacher",
            f"{metric} {teacher['value']:.4g}{_size(teacher)}: {', '.join(teacher['runs'])}",
        ),
        ("Student", f"{metric} {student['value']:.4g}{_size(student)}: {student['model']}"),
    ]
    agreement = block["agreement"]
    if agreement["value"] is not None:
        meaning = "correlation of predictions" if "what" in agreement else "same prediction"
        lines.append(("Agreement", f"{agreement['value']:.3g} ({meaning})"))
    lines.append(("No teacher", str(alone.get("because") or alone.get("why"))))
    return entries(lines, columns)


def _size(one: Sized) -> str:
    count = one.get("parameters")
    return f", {count / 1e6:,.1f} million parameters" if count else ""
