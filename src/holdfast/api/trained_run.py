"""``TrainedRun``: a finished run in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.api.arguments import Settings, options_of
from holdfast.contract.advice import in_python
from holdfast.core.discovery import short_path, user_path
from holdfast.core.errors import DataError, InputError, RunError
from holdfast.core.input_errors import reading_errors
from holdfast.core.printable import brief_repr
from holdfast.core.tasks import IMAGE_TASKS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from holdfast.api.command_result import CommandResult
    from holdfast.contract.inference import InferenceOptions
    from holdfast.runs.prediction_file import Predicted, Prediction
    from holdfast.runs.predictor import Predictor


def run_folder(run: str | Path | TrainedRun) -> Path:
    """The folder of a run that is given by its name or as a ``TrainedRun``."""
    if not isinstance(run, (str, Path, TrainedRun)):
        from holdfast.core.errors import RunError

        rule = "must be the folder of a run or a TrainedRun"
        raise RunError("the run", rule, type(run).__name__, "Name its folder.")
    return run.folder if isinstance(run, TrainedRun) else user_path(run)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run; its attributes are read from ``folder``.

    ``TrainedRun("runs/reviews-1")`` opens a run that was trained before. A notebook shows its
    scores, its verdict and the path of its report.
    """

    folder: Path

    def __post_init__(self) -> None:
        # Absolute: a notebook may change its current folder while the run is in use.
        object.__setattr__(self, "folder", user_path(self.folder).absolute())

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy (in another process, for example) loads its own model: a model in use has a lock.
        return type(self), (self.folder,)

    @cached_property
    def result(self) -> dict[str, Any]:
        """``result.json``. Raises ``RunError`` if the folder is not a finished run."""
        from holdfast.contract.run_folder import need_run
        from holdfast.core.run_files import read_result

        need_run(self.folder)
        return read_result(self.folder)

    @property
    def verdict(self) -> dict[str, Any]:
        """The verdict on the training: ``label``, ``because``, ``remedies`` and more."""
        verdict: dict[str, Any] = self.result["verdict"]
        return verdict

    @property
    def classes(self) -> list[Any] | None:
        """The classes (or labels), in the order of ``predict_proba``; ``None`` for other tasks."""
        return [self._label_values.get(name, name) for name in self.predictor.names] or None

    @cached_property
    def _label_values(self) -> dict[str, Any]:
        """Each class's name to the label that rows in memory had: a number, true or false. Empty
        for texts, for rows from a file, and where a class is not a label of the rows (merged
        ones)."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        from holdfast.data.cells import cell_text

        stored, label = self.folder / "data.parquet", self.predictor.part.label
        if not self.predictor.names or label is None or not stored.is_file():
            return {}
        with reading_errors(str(stored), RunError, remedy="Restore the file."):
            column = parquet.read_table(stored, columns=[label])[label]
        if not (pa.types.is_primitive(column.type) and not pa.types.is_temporal(column.type)):
            return {}
        values = {str(cell_text(value)): value for value in column.unique().to_pylist()}
        return values if set(self.predictor.names) <= values.keys() else {}

    @cached_property
    def predictor(self) -> Predictor:
        """The run's model for predictions, loaded at the first use and cached."""
        from holdfast.runs.predictor import Predictor

        self._warn_unsealed()
        return Predictor.load(self.folder)

    @property
    def model(self) -> Any:
        """The saved model, a plain ``transformers`` model in evaluation mode."""
        from holdfast.tasks import task_definition

        model = task_definition(self.result["task"]).load_plain_model(self.folder)
        self._warn_unsealed()
        return model

    def report(self, *, show: bool = False) -> Path:
        """The path of the run's report, which is written if it is missing; ``show`` opens it in a
        browser. Raises ``RunError`` if the folder is not a finished run."""
        import webbrowser

        from holdfast.contract.run_folder import need_run
        from holdfast.report.page import write_report

        need_run(self.folder)
        page = self.folder / "report.html"
        page = page if page.is_file() else write_report(self.folder)
        if show:
            webbrowser.open(page.resolve().as_uri())
        return page

    def __repr__(self) -> str:
        from holdfast.report.answer.answer import answer

        try:
            sentence = answer(self.result)
        except InputError as error:
            return brief_repr("TrainedRun", short_path(self.folder), error.rule)
        label = (self.result.get("verdict") or {}).get("label")
        where = short_path(self.folder)
        return brief_repr("TrainedRun", where, f"verdict {label}", sentence.headline)

    def _warn_unsealed(self) -> None:
        """Warn about files that changed since training, which a command would print."""
        import warnings

        from holdfast.contract.run_folder import unsealed_decisions

        for decision in unsealed_decisions([self.folder]):
            warnings.warn(f"{decision.what} {decision.chosen}: {decision.because}", stacklevel=3)

    @in_python()
    def predict(
        self,
        data: Any,
        *,
        text: str | Sequence[str] | None = None,
        encoding: str | None = None,
        settings: Settings = (),
    ) -> list[Any]:
        """One prediction per row: the most probable class, a number, a list of labels, a list of
        tags (one per word), or a generated text. If the run was trained on rows in memory,
        classes have the type of their labels (1, not ``"1"``). If it was trained on a file, or if
        classes were merged, they are strings. For a row without text: ``""`` (``None`` for numbers
        and lists). ``None``: below the threshold that ``holdfast threshold`` set.

        Parameters
        ----------
        data : a text; a list, array or series of texts (or of pairs of texts); a data frame; or a
            file, as a ``Path`` (the name of a file as a string is refused). For tags also lists of
            words; for images a path, a list of paths, or a folder as a ``Path``.
        text, encoding : for a data frame or file, as the options of the command.
        settings : limits of the size of the data, if they differ from those of the run:
            ``{"data.limits.cell_mb": 50}``.

        A single text gives a list of one prediction. ``predictions`` also gives probabilities.
        ``holdfast predict`` averages several runs.
        """
        predicted = self._predicted(data, text, encoding, settings)
        values = self._label_values
        return [
            values.get(str(answer), answer) if values else answer
            for part in predicted.parts()
            for answer in part.predictions
        ]

    @in_python()
    def predictions(
        self,
        data: Any,
        *,
        text: str | Sequence[str] | None = None,
        encoding: str | None = None,
        settings: Settings = (),
    ) -> list[Prediction]:
        """One record per row: ``row``, ``prediction``, ``confidence``, ``probabilities`` by class
        (``None`` if the task has none) and ``because``. Parameters as for ``predict``."""
        several = bool(self.predictor.names)
        return list(self._predicted(data, text, encoding, settings, several))

    @in_python()
    def predict_proba(
        self,
        data: Any,
        *,
        text: str | Sequence[str] | None = None,
        encoding: str | None = None,
        settings: Settings = (),
    ) -> npt.NDArray[np.float64]:
        """The probabilities [n, classes] in the order of ``classes``; NaN for a row without text.

        Parameters as for ``predict``. Raises ``RecipeError`` if the run has no classes.
        """
        import numpy as np

        predicted = self._predicted(data, text, encoding, settings, probabilities=True)
        parts = [part.probabilities for part in predicted.parts()]
        probabilities = [one for one in parts if one is not None]
        return (
            np.concatenate(probabilities) if probabilities else np.empty((0, len(predicted.names)))
        )

    @in_python()
    def evaluate(
        self,
        data: Any,
        labels: Any = None,
        *,
        text: str | Sequence[str] | None = None,
        label: str | None = None,
        encoding: str | None = None,
        settings: Settings = (),
    ) -> CommandResult:
        """The document of ``holdfast evaluate --json``: ``n`` and ``metrics`` with confidence
        intervals for these labelled rows, and which of them were seen in training. A notebook shows
        what the command prints.

        Parameters
        ----------
        data : a file or hub data set (by its name), a data frame, or texts with their ``labels``.
        text, label, encoding : as the options of the command.
        settings : as for ``predict``.
        """
        from functools import partial

        from holdfast.api.command_result import CommandResult
        from holdfast.terminal.results.evaluate import evaluate_text

        block = self._evaluated(data, labels, options_of(text, label, encoding, settings))
        name = str(data) if isinstance(data, (str, Path)) else "the data"
        return CommandResult(block, partial(evaluate_text, data=name))

    def _evaluated(self, data: object, labels: object, options: InferenceOptions) -> dict[str, Any]:
        from holdfast.analyses.evaluation import evaluation_block
        from holdfast.data.memory.frames import frame_file, is_frame, series_values
        from holdfast.data.memory.texts import labelled_rows, naming_data_frame, refuse_permuted

        part = self.predictor.part
        if labels is not None:
            refuse_permuted(data, {"labels": labels})
            names = part.text or ("text",)
            rows = labelled_rows(series_values(data), labels, None, names, part.label or "label")
            data = rows
        if isinstance(data, (str, Path)):
            return evaluation_block(self.predictor, str(data), options)
        if not is_frame(data):
            rule, remedy = "have no labels", "Give them: run.evaluate(texts, labels)."
            raise DataError("the texts", rule, type(data).__name__, remedy)
        path = frame_file(data)
        try:
            with naming_data_frame(path):
                return evaluation_block(self.predictor, str(path), options)
        finally:
            path.unlink(missing_ok=True)

    def _predicted(
        self,
        data: Any,
        text: str | Sequence[str] | None,
        encoding: str | None,
        settings: Settings,
        probabilities: bool = False,
    ) -> Predicted:
        from holdfast.data.images.decode import is_image_name
        from holdfast.data.memory.frames import frame_file, frame_table, is_frame, series_values
        from holdfast.data.memory.texts import naming_data_frame
        from holdfast.data.scratch import remove_with
        from holdfast.data.source import is_file_name

        options = options_of(text, None, encoding, settings)
        if isinstance(data, str):
            if not self._reads_pictures and is_file_name(data):
                rule = "could be a text or the name of a file"
                remedy = (
                    f"To predict the rows of the file, give Path({data!r}); to predict this text, "
                    f"give [{data!r}]."
                )
                raise DataError("the data", rule, data, remedy)
            data = [data]
        elif isinstance(data, Path):
            # An image is one row; a folder or any other file holds rows.
            data = [str(data)] if is_image_name(data.name) and self._reads_pictures else str(data)
        elif is_frame(data):
            table = frame_table(data)
            if self._reads_pictures:
                # Paths in a frame are relative to the current folder, like those in a list.
                data, options = self._paths(table, options.text), replace(options, text=None)
            else:
                path = frame_file(table)
                with naming_data_frame(path):
                    predictions = self.predictor.predict(
                        str(path), options, probabilities=probabilities
                    )
                # The predictions read the file in parts, one after the other.
                remove_with(predictions, path)
                return predictions
        else:
            data = series_values(data)
        return self.predictor.predict(data, options, probabilities=probabilities)

    @property
    def _reads_pictures(self) -> bool:
        return self.result["task"] in IMAGE_TASKS

    def _paths(self, table: pa.Table, text: tuple[str, ...] | None) -> list[Any]:
        from holdfast.data.images.table import PATH

        names = text or self.predictor.part.text or (PATH,)
        paths: list[Any] = table[names[0]].to_pylist()
        return paths

    def _repr_html_(self) -> str:
        from holdfast.report.snippet import run_snippet

        return run_snippet(self.folder)
