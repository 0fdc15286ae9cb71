"""``holdfast distill``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import Helps, Resume, RunOptions, RunOutput


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
            help="Instead of --student: K layers of the teacher. Default: half of them. With "
            "--to static: K new layers, by default 1.",
        ),
    ] = None
    to: Annotated[
        str | None,
        typer.Option(
            metavar="static",
            help="A table of token vectors and one small layer, for speed. Texts with one class.",
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
    from holdfast.contract.request import TrainingRequest
    from holdfast.contract.run_folder import is_main_process, need_run

    for one in runs:
        need_run(one)
    from holdfast.search.student import folder_name, student_recipe
    from holdfast.terminal.summary import summary
    from holdfast.terminal.watch import train_with_progress

    recipe = student_recipe(runs, **asdict(student), seed=run.seed, settings=run.set_ or [])
    request = TrainingRequest(folder_name(runs), out=run.out, resume=resume)
    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose, command="distill"
    )
    if is_main_process():
        output.show(result, partial(summary, result, folder, verbose=output.verbose))
