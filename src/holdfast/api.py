"""``holdfast.train`` and ``holdfast.diagnose``: the commands as functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.core.records import Verdict
    from holdfast.models.saved import SavedClassifier


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: ``folder`` holds everything, the attributes read from it."""

    folder: Path

    @cached_property
    def result(self) -> dict[str, Any]:
        """``result.json``."""
        read: dict[str, Any] = json.loads((self.folder / "result.json").read_text("utf-8"))
        return read

    @property
    def verdict(self) -> dict[str, Any]:
        """What the training history showed: ``label``, ``because``, ``remedies`` and more."""
        found: dict[str, Any] = self.result["verdict"]
        return found

    @cached_property
    def _saved(self) -> SavedClassifier:
        from holdfast.models.saved import load_saved

        return load_saved(self.folder / "model")

    @property
    def model(self) -> Any:
        """The saved model, a plain ``transformers`` model in evaluation mode."""
        if self.result["task"] == "image-classification":
            from holdfast.models.vision_saved import load_saved_vision

            return load_saved_vision(self.folder / "model").network.model
        if self.result["task"] == "seq2seq":
            from holdfast.models.seq2seq_network import load_saved_seq2seq

            return load_saved_seq2seq(self.folder / "model")[0].plain
        if self.result["task"] == "causal-lm":
            from holdfast.models.causal import load_saved_causal

            return load_saved_causal(self.folder / "model")[0].plain
        return self._saved.network.model

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[str]:
        """The most probable class of each text (or pair of texts), or of each picture by its path;
        what a model that writes text writes for each."""
        if self.result["task"] != "text-classification":
            from holdfast.pipeline.use import predict_lines

            lines = predict_lines([self.folder], [str(path) for path in texts])
            return [json.loads(line)["prediction"] for line in lines]
        from holdfast.data.memory import table_from_texts
        from holdfast.evaluate.forward import answer

        outputs = answer(self._saved, table_from_texts(list(texts)))
        return [self._saved.classes[int(k)] for k in outputs.predictions]


def train(
    source: str | Path, *, out: str | Path | None = None, model: str | None = None,
    text: str | Sequence[str] | None = None, label: str | None = None, group: str | None = None,
    test: str | Path | None = None, seed: int | None = None, settings: Sequence[str] = (),
    resume: bool = False, quiet: bool = False,
) -> TrainedRun:  # fmt: skip
    """Do what ``holdfast train`` does, and return the finished run.

    Parameters
    ----------
    source : a recipe, a data file, or a hub data set.
    settings : ``"key=value"`` strings as for ``--set``, e.g. ``["train.epochs=5"]``.
    quiet : no progress on standard error.

    Others as the options of the command. Raises ``holdfast.core.errors.InputError`` where the
    command would exit with 2.
    """
    from holdfast.cli.train import build_recipe, execute

    columns = [text] if isinstance(text, str) else list(text or [])
    recipe = build_recipe(
        str(source), model=model, task=None, text=columns or None, label=label, group=group,
        test=str(test) if test is not None else None, seed=seed, settings=list(settings),
    )  # fmt: skip
    _, folder = execute(recipe, str(source), Path(out) if out else None, resume, quiet)
    return TrainedRun(folder)


def diagnose(path: str | Path, *, train: str | None = None, valid: str | None = None) -> Verdict:
    """Do what ``holdfast diagnose`` does, and return the verdict.

    Parameters
    ----------
    path : a training log, a file or a folder, of any program that ``docs/diagnose.md`` lists.
    train, valid : the names of the columns to read; found by name where left out.

    Raises ``holdfast.core.errors.InputError`` where the command would exit with 2.
    """
    from holdfast.integrations.logs.read import read_verdict

    named = {"train": train, "valid": valid}
    return read_verdict(Path(path), {k: v for k, v in named.items() if v is not None})[1]
