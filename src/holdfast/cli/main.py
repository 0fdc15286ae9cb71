"""``holdfast``: the commands, and what an error looks like."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer

from holdfast._version import __version__
from holdfast.cli import (
    audit,
    chat,
    choose,
    compare,
    cv,
    dashboard,
    demo,
    diagnose,
    distill,
    drift,
    errors,
    evaluate,
    explain,
    export,
    fairness,
    forget,
    lr,
    meta,
    predict,
    probe,
    promote,
    report,
    serve,
    threshold,
    train,
    tune,
    update,
)
from holdfast.cli.net import check_arguments, check_folder, fault_of
from holdfast.cli.words import Command, Group
from holdfast.core.door import PANIC
from holdfast.core.errors import DataError, HoldfastError, Interrupted, ModelError, RunError
from holdfast.core.lacking import lacking
from holdfast.core.machine import refuse_threads
from holdfast.core.processes import check_launch
from holdfast.core.shown import printable
from holdfast.terminal.streams import drop, flush, prepare
from holdfast.training.signals import terminate_like_interrupt

# Whose message would send a person to mend a file that is whole.
BLAMED = (DataError, ModelError, RunError)

app = typer.Typer(
    name="holdfast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=Group,
    # Help drawn with Rich takes twice the time to start.
    rich_markup_mode=None,
    help="Fine-tune pretrained models so that they hold up on data they have never seen.",
    epilog="\b\nExit codes:\n"
    "  0    done\n"
    "  1    a defect in Holdfast\n"
    "  2    the input is at fault\n"
    "  3    the files are complete, and what was asked for is not reached: a\n"
    "       --fail-on verdict, drift, an update that is rejected or\n"
    "       inconclusive, a threshold that cannot be promised\n"
    "  130  interrupted; --resume continues",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune pretrained models so that they hold up on data they have never seen."""


def _add(name: str, command: Callable[..., None], short: str, *examples: str) -> None:
    """A command with its line in the list and what a person may type."""
    lines = "\n".join(f"  {example}" for example in examples)
    app.command(name, cls=Command, short_help=short, epilog=f"\b\nExamples:\n{lines}")(command)


_add(
    "train",
    train.command,
    "From labelled rows to a scored model and a report.",
    "holdfast train reviews.csv",
    "holdfast train reviews.csv --text body --label stars --group author",
    "holdfast train reviews.csv --dry-run",
    "holdfast train pictures/ --model microsoft/resnet-50 --set train.epochs=5",
    "holdfast train runs/reviews-1/recipe.yaml --seed 1 --fail-on overfit",
)
_add(
    "audit",
    audit.command,
    "What in the data would spoil a training.",
    "holdfast audit reviews.csv",
    "holdfast audit reviews.csv --against test.csv --html audit.html",
    "holdfast audit reviews.csv --label stars --group author --json",
)
_add(
    "diagnose",
    diagnose.command,
    "What somebody's training log shows, and what to do.",
    "holdfast diagnose trainer_state.json",
    "holdfast diagnose history.csv --set train=loss --set valid=dev_loss",
    "holdfast diagnose runs/reviews-1 --html diagnosis.html",
)
_add(
    "distill",
    distill.command,
    "A smaller model that answers as a run does.",
    "holdfast distill runs/reviews-1 --layers 3",
    "holdfast distill runs/reviews-1 --layers 3 --unlabelled more.csv",
    "holdfast distill runs/seed-0 runs/seed-1 --student distilbert-base-uncased",
)
_add(
    "evaluate",
    evaluate.command,
    "Score a run on other labelled rows.",
    "holdfast evaluate runs/reviews-1 march.csv",
    "holdfast evaluate runs/seed-0 runs/seed-1 march.csv --text body --json",
)
_add(
    "fairness",
    fairness.command,
    "Is a run as good for everybody, about everybody?",
    "holdfast fairness runs/reviews-1",
    "holdfast fairness runs/reviews-1 --group country --insert",
    "holdfast fairness runs/reweighed --against runs/reviews-1 --group country",
)
_add(
    "predict",
    predict.command,
    "Answers for new rows, from a run or several.",
    "holdfast predict runs/reviews-1 new.csv --out answers.csv",
    "echo 'It broke after a week.' | holdfast predict runs/reviews-1 -",
    "holdfast predict runs/seed-0 runs/seed-1 new.csv",
)
_add(
    "threshold",
    threshold.command,
    "From which certainty on a run answers, with a promise.",
    "holdfast threshold runs/reviews-1 --precision 0.95",
    "holdfast threshold runs/reviews-1 --coverage 0.8 --json",
    "holdfast threshold runs/reviews-1 --cost costs.csv --force",
)
_add(
    "serve",
    serve.command,
    "A run over HTTP, for other programs.",
    "holdfast serve runs/reviews-1",
    "holdfast serve runs/reviews-1 --store service.db --precision auto",
    "holdfast serve runs/reviews-1 --host 0.0.0.0 --token-file token.txt",
)
_add(
    "promote",
    promote.command,
    "A run takes the place of the model in service.",
    "holdfast promote runs/reviews-2 --store service.db",
    "holdfast promote runs/reviews-2 --store service.db --undo",
)
_add(
    "compare",
    compare.command,
    "Is one model better than another, on the same rows?",
    "holdfast compare runs/reviews-2 runs/reviews-1 march.csv",
    "holdfast compare runs/small runs/large --margin 0.5",
    "holdfast compare runs/reviews-2 old_answers.jsonl march.csv --json",
)
_add(
    "drift",
    drift.command,
    "Are new rows like those that a run was judged by?",
    "holdfast drift runs/reviews-1 march.csv",
    "holdfast drift runs/reviews-1 march.csv --label stars --json",
    "holdfast drift runs/reviews-1 today.jsonl --fail-on harmful",
)
_add(
    "explain",
    explain.command,
    "Why a run says what it says of rows.",
    "holdfast explain runs/reviews-1 new.csv --out why.html",
    "echo 'It broke after a week.' | holdfast explain runs/reviews-1 -",
)
_add(
    "chat",
    chat.command,
    "Talk to a language model and its start model.",
    "holdfast chat runs/helper-1",
    "holdfast chat runs/helper-1 --message 'How do I reset it?' --start",
    "holdfast chat runs/helper-1 --json < questions.txt",
)
_add(
    "cv",
    cv.command,
    "How sure is the score? Folds, and a model of all rows.",
    "holdfast cv reviews.csv",
    "holdfast cv reviews.csv --folds 10 --repeats 2 --group author",
    "holdfast cv chats.jsonl --model my-llama --set model.adapter.kind=lora",
)
_add(
    "lr",
    lr.command,
    "Which learning rate suits rows and model.",
    "holdfast lr reviews.csv",
    "holdfast lr reviews.csv --model bert-base-uncased --json",
)
_add(
    "choose",
    choose.command,
    "Which of several models to fine-tune on rows.",
    "holdfast choose reviews.csv --models embedded,bert-base-uncased",
    "holdfast choose chats.jsonl --models gpt2,HuggingFaceTB/SmolLM2-135M --json",
)
_add(
    "meta",
    meta.command,
    "From many small tasks to a start that adapts fast.",
    "holdfast meta intents.csv",
    "holdfast meta reviews.csv --task-column product --set meta.shots=10",
    "holdfast meta alphabets/ --model my-resnet/ --set meta.method=prototypes",
)
_add(
    "tune",
    tune.command,
    "Search settings, and keep what holds up.",
    "holdfast tune reviews.csv --trials 16",
    "holdfast tune recipe.yaml --minutes 30 --set search.folds=5",
    "holdfast tune reviews.csv --set 'train.epochs={range: [2, 12], step: 2}'",
)
_add(
    "probe",
    probe.command,
    "What a model remembers of its rows, and forgot.",
    "holdfast probe runs/reviews-1",
    "holdfast probe my-model/ --members train.csv --others new.csv --json",
)
_add(
    "export",
    export.command,
    "A run's model as ONNX, OpenVINO or GGUF.",
    "holdfast export runs/reviews-1 --to onnx --int8",
    "holdfast export runs/chat-1 --to gguf --out chat-gguf",
    "holdfast export runs/reviews-1 --to onnx --push ada/reviews --space",
)
_add(
    "errors",
    errors.command,
    "Where a run fails: slices, confusions, hardest rows.",
    "holdfast errors runs/reviews-1",
    "holdfast errors runs/reviews-1 --robustness --json",
)
_add(
    "dashboard",
    dashboard.command,
    "Runs and a service, as pages in a browser.",
    "holdfast dashboard",
    "holdfast dashboard experiments/ --port 0",
    "holdfast dashboard runs --store service.db",
)
_add(
    "update",
    update.command,
    "Learn from feedback, behind a gate.",
    "holdfast update runs/reviews-1 --feedback corrected.csv",
    "holdfast update runs/reviews-1 --feedback service.db --margin 2",
    "holdfast update runs/reviews-1 --feedback service.db --every 1d --out new/",
)
_add(
    "forget",
    forget.command,
    "Delete what a request or a person left in a store.",
    "holdfast forget --store service.db --request 019a1ff678fcf46c",
    "holdfast forget --store postgresql://me@db/reviews --user anna",
)
_add(
    "report",
    report.command,
    "Write a run's report again, or a page of its recorded answers.",
    "holdfast report runs/reviews-1",
    "holdfast report runs/reviews-1 --page answers.html",
)
_add(
    "demo",
    demo.command,
    "The main job, on data that ships with Holdfast.",
    "holdfast demo",
    "holdfast demo --out runs/first",
)


def main() -> None:
    """The console script: ``run``, and an end that no thread can spoil."""
    status: int | str | None = 1

    def end() -> None:
        # A daemon thread in PyTorch's code (a server is told to end while it loads another model)
        # would abort the process where Python takes its interpreter down.
        if any(thread.daemon for thread in threading.enumerate()):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status if isinstance(status, int) else status is not None)

    # Registered first, so called last, after all that libraries do at the end.
    atexit.register(end)
    try:
        run()
    except SystemExit as leaving:
        status = leaving.code
        raise
    except KeyboardInterrupt:
        status = Interrupted.exit_code
        raise


def run() -> None:
    """Run the command of ``sys.argv``; every error becomes its message and exit code."""
    prepare()
    # Bars are ours, on a terminal; that of datasets would stand in every log.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    code = _run()
    unwritten = flush()
    if unwritten is not None and code == 0:
        code = _unforeseen(unwritten)
    sys.exit(code)


@functools.cache
def _command() -> Any:
    """Typer reads the options of all commands, a tenth of a second each time."""
    return typer.main.get_command(app)


def _run() -> int | str | None:
    try:
        with terminate_like_interrupt():
            check_arguments(sys.argv[1:])
            check_folder()
            # Bars of a library about its own files, on what may be no terminal.
            os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
            refuse_threads(os.environ)
            if sys.platform == "darwin":
                # Read by PyTorch when it is loaded: what Apple's GPUs lack runs on the processor.
                os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
            check_launch()
            _command()()
    except HoldfastError as error:
        return _refuse(_machine_s(error))
    except SystemExit as leaving:
        return _leave(leaving)
    except Exception as error:
        return _unforeseen(error)
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        return _defect(error)
    return 0


def _machine_s(error: HoldfastError) -> HoldfastError:
    """A file that could not be read for lack of memory is not at fault."""
    found = lacking(error) if type(error) in BLAMED else None
    if found is None:
        return error
    found.__cause__ = error
    return found


def _unforeseen(error: Exception) -> int:
    """The input's or the machine's fault where it can be nobody else's; else a defect."""
    if isinstance(error, BrokenPipeError):
        drop()
        return 0
    fault = lacking(error) or fault_of(error)
    if fault is None:
        return _defect(error)
    fault.__cause__ = error
    return _refuse(fault)


def _leave(leaving: SystemExit) -> int | str | None:
    """Typer has already turned an interrupt and a broken pipe into exits without a word."""
    if _because_of(leaving, KeyboardInterrupt):
        _say("\nholdfast: interrupted")
    if _because_of(leaving, BrokenPipeError):
        # The reader of the pipe had enough; Python would complain again when it flushes at exit.
        drop()
        return 0
    return leaving.code


def _because_of(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _refuse(error: HoldfastError) -> int:
    if os.environ.get("HOLDFAST_TRACEBACK") == "1":
        raise error
    _say(_fitted(f"holdfast: {error}"))
    return error.exit_code


def _say(text: str) -> None:
    """On standard error, where anybody still listens: a closed terminal changes no exit code."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def _fitted(text: str) -> str:
    """Broken between words on a terminal; in a file a line stays whole, so that it can be found."""
    if not sys.stderr.isatty():
        return text
    import textwrap

    from holdfast.terminal.say import width

    return "\n".join(
        textwrap.fill(
            line, width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for line in text.splitlines()
    )


def _defect(error: BaseException) -> int:
    if os.environ.get("HOLDFAST_TRACEBACK") == "1":
        raise error
    _say(
        "holdfast: a defect in Holdfast, not in your input: "
        f"{type(error).__name__}: {printable(str(error), 1000)}\n"
        "  Set HOLDFAST_TRACEBACK=1 to see where, and please report it."
    )
    return 1
