"""``TextClassifier``: Holdfast's fine-tuning as a scikit-learn estimator."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from holdfast.core import shapes
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import DataError, ModelError, RecipeError, RunError, SplitError
from holdfast.core.files import disk_errors, replace_folder, write_json
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Evidence, Remedy, Verdict
from holdfast.core.run_files import check_folder, seal_folder
from holdfast.core.run_shapes import MARK, VERDICT
from holdfast.data.columns.columns import choose_columns
from holdfast.data.limits import check_classes
from holdfast.data.memory.frames import frame_table, is_frame, is_pandas_missing, series_values
from holdfast.data.options import RowOptions
from holdfast.data.raw import store
from holdfast.data.readers.parquet import typed_batch
from holdfast.estimator.settings import refuse_table_settings
from holdfast.recipe import Recipe, as_settings, override

if TYPE_CHECKING:
    from sklearn.utils import Tags

    from holdfast.contract.fit import FittedModel
    from holdfast.models.encoders.checkpoint import PlainClassifier
    from holdfast.models.encoders.general import TextNetwork
    from holdfast.prepare.rows import Divided
    from holdfast.runs.predictor import Predictor

TRAIN_SHARE = 0.82
# The estimator's own parameters and the keys of a recipe that they are.
USUAL = {
    "learning_rate": "train.learning_rate",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "max_length": "model.max_length",
}
# Those that have a parameter of another name, or one value.
OWN = {"seed": "the random_state", "model.name": "the model", "task": "the task"}
# What ``save`` keeps beside the model, read with its types checked.
SAVED = "text_classifier.json"
COPY = "Use a complete copy of what TextClassifier.save wrote."
NEEDED: dict[str, shapes.Shape] = {
    "params": shapes.mapping_of(shapes.anything),
    "classes": shapes.list_of(shapes.anything),
    "max_length": shapes.count,
    "pairs": shapes.boolean,
    "best_step": shapes.count,
    "text_columns": shapes.optional(shapes.list_of(shapes.text)),
    "verdict": VERDICT,
}
FACTS = shapes.record({**NEEDED, "files": shapes.optional(shapes.mapping_of(MARK))}, tuple(NEEDED))


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fine-tune an encoder on texts, and keep its best checkpoint, with calibrated probabilities.

    ``fit`` trains as ``holdfast train --model embedded`` does, with 82 % of the texts for training
    and 18 % for validation (duplicates and rows of one group stay together). Up to 400 texts (200
    for larger encoders) are all trained on, unless epochs or steps are set: stopping, checkpoint
    and temperature then use out-of-fold predictions (``train.folds``). There are no test rows:
    score the estimator on your own rows, or use ``cross_val_score``. Where a rate, epochs or
    another setting of the training plan is given, ``control.policy`` is ``stop`` unless stated, so
    that a search compares these settings and not the default plan in their place.

    Unlike scikit-learn's linear text models, it takes raw strings and needs no vectorizer. It is
    slow: use ``n_jobs=1`` in searches.

    Parameters
    ----------
    model : ``"embedded"`` (MiniLM, English, no download), ``"auto"`` (chosen as by ``holdfast
        train``), a Hugging Face name, or a folder.
    learning_rate, epochs, batch_size, max_length : the settings of a recipe that are searched most,
        under their usual names; ``None``: as ``holdfast train`` chooses for the model and the rows.
    settings : any other recipe keys to values, e.g. ``{"methods.contrast": False}``, or
        ``["methods.contrast=false"]``; see ``docs/recipe.md``.
    random_state : seed of everything random, a non-negative integer: a fit can be repeated exactly.
    verbose : whether ``fit`` prints its progress on standard error.

    Attributes
    ----------
    classes_ : the labels, sorted; ``n_features_in_`` is not defined, because texts are not vectors.
    best_step_ : the step of the checkpoint that was kept.
    verdict_ : what the training history showed.
    history_ : the evaluations during training; ``load`` does not restore them.
    network_ : the trained ``torch.nn.Module``.
    text_columns_ : which columns hold the texts, where ``fit`` was given a data frame.
    pairs_ : whether a row is a pair of texts.

    Examples
    --------
    >>> from holdfast import TextClassifier
    >>> classifier = TextClassifier().fit(texts, labels)         # doctest: +SKIP
    >>> classifier.predict(["well made and cheap"])              # doctest: +SKIP
    """

    def __init__(
        self,
        model: str = "embedded",
        settings: Mapping[str, Any] | Sequence[str] | None = None,
        random_state: int = 0,
        *,
        learning_rate: float | None = None,
        epochs: float | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.max_length = max_length
        self.verbose = verbose
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: Any, y: Sequence[Any], groups: Sequence[Any] | None = None) -> TextClassifier:
        """Train on texts ``X`` [n] (or pairs of texts, or a data frame with a column of texts, see
        ``text_columns_``) and labels ``y`` [n]; each of the ``groups`` [n] stays in one split, and
        a row without one (``None``) is a group of its own.

        Raises ``InputError`` where ``holdfast train`` would exit with 2.
        """
        from holdfast.contract.advice import in_python
        from holdfast.data.memory.texts import refuse_permuted
        from holdfast.fits.row_use import learning_rows
        from holdfast.prepare.base_model import check_candidates
        from holdfast.terminal.watch import showing_progress

        with in_python():
            recipe = self._recipe()
            refuse_table_settings(recipe)
            check_candidates(recipe)
            refuse_permuted(X, {"y": y, "groups": groups})
            text_columns = _text_columns(X)
            texts = _texts(X, text_columns)
            _refuse_missing("X", "texts", texts, empty=True)
            labels = _labels(y)
            classes = np.unique(labels)
            _check_classes(classes)
            with showing_progress(not self.verbose) as (_, display):
                divided = self._divide(recipe, texts, labels, classes, groups)
                learning = learning_rows(recipe, divided, scored=False, folds_first=True)
                self._keep(learning.fit(listeners=(display,)))
            # Together with the model: a fit that fails leaves the earlier one as it was.
            self.text_columns_, self.classes_ = text_columns, classes
            self.pairs_ = divided.table.has_pairs
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probabilities [n, classes], in the order of ``classes_``, for texts or the rows of a data
        frame."""
        from holdfast.contract.advice import in_python
        from holdfast.data.memory.texts import table_from_texts

        check_is_fitted(self, "network_")
        with in_python():
            texts = _texts([X] if isinstance(X, str) else X, self.text_columns_)
            _refuse_missing("X", "texts", texts)
            table = table_from_texts(texts, source="X")
            if table.has_pairs != self.pairs_:
                kinds = {True: "pairs of texts", False: "single texts"}
                rule = f"holds {kinds[table.has_pairs]}, but fit was given {kinds[self.pairs_]}"
                raise DataError("X", rule, texts[0], f"Give {kinds[self.pairs_]}.")
        probabilities = self._predictor.predict_table(table).probabilities
        assert probabilities is not None
        return np.asarray(probabilities, dtype=np.float64)

    @property
    def _predictor(self) -> Predictor:
        """Created at each call, so that a copy or a pickle of the estimator does not contain it."""
        from holdfast.runs.predictor import Predictor
        from holdfast.tasks.classes.answers import FittedText, TextPredictor
        from holdfast.tasks.classes.classifier import Tempered
        from holdfast.tasks.number.losses import Scale

        names = tuple(str(name) for name in self.classes_)
        network = Tempered(self.network_, self.temperature_)
        model = FittedText(network, self.tokenizer_, names, self.max_length_)
        recipe = Recipe(task="text-classification")
        return Predictor(TextPredictor([model], "class", recipe, Scale()), recipe.data)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable label of each text, or of each row of a data frame."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, X: Any, y: Sequence[Any], sample_weight: Any = None) -> float:
        """The accuracy on texts ``X`` [n] and labels ``y`` [n], which are read as by ``fit``."""
        return float(super().score(X, _labels(y), sample_weight))

    def save(self, folder: str | Path) -> None:
        """Write the calibrated model as a plain Hugging Face folder, with a file that ``load``
        needs. Raises ``RunError`` if the folder is not empty."""
        check_is_fitted(self, "network_")
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(str(folder), "is not empty", None, "Choose another folder.")
        facts = {
            "schema": 1,
            "params": {**self.get_params(), "model": str(self.model)},
            "classes": _plain_labels(self.classes_),
            "max_length": self.max_length_,
            "text_columns": self.text_columns_,
            "pairs": self.pairs_,
            "best_step": self.best_step_,
            "verdict": self.verdict_,
        }
        partial_folder = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial_folder, ignore_errors=True)
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._save_network(partial_folder)
        write_json(partial_folder / SAVED, {**facts, "files": seal_folder(partial_folder)})
        replace_folder(partial_folder, folder)

    @classmethod
    def load(cls, folder: str | Path) -> TextClassifier:
        """The fitted estimator that ``save`` wrote. It has no ``history_``; its ``network_`` is
        the plain model. Raises ``ModelError`` if the folder holds no model or a broken one, and
        ``RunError`` if a file is missing or was changed since."""
        from holdfast.models.encoders.checkpoint import load_saved

        path = Path(folder) / SAVED
        if not path.is_file():
            raise ModelError(
                str(folder),
                f"holds no saved TextClassifier: it has no {SAVED}",
                None,
                "Name a folder that TextClassifier.save wrote; holdfast.TrainedRun opens a run.",
            )
        facts = _read_facts(path)
        with reading_errors(
            str(path), ModelError, "does not hold what a TextClassifier is made with", COPY
        ):
            estimator = cls(**facts["params"])
        saved = load_saved(Path(folder))
        estimator.classes_ = np.asarray(facts["classes"])
        if saved.classes != _names(estimator.classes_):
            rule = "has other classes than its model"
            raise ModelError(str(path), rule, ", ".join(saved.classes[:5]), COPY)
        estimator.network_, estimator.tokenizer_ = saved.network, saved.tokenizer
        estimator.max_length_, estimator.temperature_ = int(facts["max_length"]), 1.0
        estimator.text_columns_ = tuple(facts["text_columns"]) if facts["text_columns"] else None
        estimator.pairs_ = facts["pairs"]
        estimator.verdict_, estimator.best_step_ = _verdict(facts["verdict"]), facts["best_step"]
        return estimator

    def _save_network(self, folder: Path) -> None:
        from holdfast.models.encoders.checkpoint import PlainClassifier, save_plain

        if isinstance(self.network_, PlainClassifier):
            save_plain(self.network_, folder, self.tokenizer_)
        else:
            self.network_.save(folder, self.tokenizer_, temperature=self.temperature_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags

    def _recipe(self) -> Recipe:
        from holdfast.fits.plan_trial import plan_settings
        from holdfast.plan.control import STOP

        given = as_settings(self.settings or {})
        settings = {key: getattr(self, name) for name, key in USUAL.items()}
        usual = {key: value for key, value in settings.items() if value is not None}
        keys = {setting.partition("=")[0].strip() for setting in given}
        if own := keys & set(OWN):
            key = min(own)
            raise RecipeError(
                f"settings: {key}", f"is {OWN[key]} of TextClassifier", None, "Remove it."
            )
        if twice := keys & set(usual):
            key = min(twice)
            name = next(name for name, one in USUAL.items() if one == key)
            rule = f"is set both in settings and as {name}="
            raise RecipeError(key, rule, usual[key], "Set it only once.")
        recipe = Recipe(task="text-classification").with_changes(model={"name": str(self.model)})
        seed = self.random_state
        if not isinstance(seed, Integral) or seed < 0:
            rule = "must be a non-negative integer, so that a fit can be repeated exactly"
            raise RecipeError("random_state", rule, seed, "Use 0, for example.")
        recipe = override(recipe, [f"seed={seed}", *as_settings(usual), *given])
        if recipe.control.policy is None and plan_settings(recipe):
            recipe = recipe.with_changes(control={"policy": STOP})
        return recipe

    def _divide(
        self,
        recipe: Recipe,
        texts: list[object],
        labels: npt.NDArray[np.generic],
        classes: npt.NDArray[np.generic],
        groups: Sequence[object] | None,
    ) -> Divided:
        from holdfast.data.memory.texts import table_from_texts
        from holdfast.prepare.rows import Divided
        from holdfast.split.split_table import split_table

        # By number: a table would read labels (merge their spellings, take "n/a" as missing).
        numbers = np.searchsorted(classes, labels)
        table = table_from_texts(
            texts,
            [str(number) for number in numbers],
            None if groups is None else list(map(_group, series_values(groups, "groups"))),
            classes=[str(number) for number in range(len(classes))],
            source="X",
        )
        table = replace(table, classes=_names(classes))
        shares = (TRAIN_SHARE, 1 - TRAIN_SHARE, 0)
        try:
            splits = split_table(table, seed=self.random_state, fractions=shares)
        except SplitError as error:
            remedy = "Add texts, or leave the rows of a small class out of X and y."
            finer = " Finer groups help too." if groups is not None else ""
            raise DataError(error.what, error.rule, error.value, remedy + finer) from error
        return Divided(recipe, table, (), splits, splits.findings, splits.decisions)

    def _keep(self, fitted: FittedModel) -> None:
        from holdfast.models.encoders.general import TextNetwork
        from holdfast.tasks.classes.classifier import kept_temperature

        training_plan = fitted.training_plan
        self.temperature_ = kept_temperature(fitted)
        network, loaded = fitted.network.cpu().eval(), training_plan.loaded
        assert isinstance(network, TextNetwork)
        assert loaded.max_length is not None
        self.network_: TextNetwork | PlainClassifier = network
        self.tokenizer_, self.max_length_ = loaded.tokenizer, loaded.max_length
        self.verdict_, self.history_ = fitted.trained.verdict, fitted.trained.history
        self.best_step_ = fitted.trained.best_step


def _group(group: object) -> str | None:
    """A row of no group is a group of its own."""
    return None if _is_missing(group, empty=True) else str(group)


def _names(classes: npt.NDArray[np.generic]) -> tuple[str, ...]:
    return tuple(str(label) for label in classes.tolist())


def _labels(y: object) -> npt.NDArray[Any]:
    if y is None:
        raise DataError("y", "must be a list of labels", None, "Give one label for each text.")
    values = np.asarray(y, dtype=object).ravel().tolist()
    _refuse_missing("y", "labels", values)
    labels: npt.NDArray[Any] = column_or_1d(np.asarray(y))
    other = [value for value in values if not isinstance(value, (str, bytes))]
    if labels.dtype == object and other:
        labels = _typed(values)
    if labels.dtype.kind in "US" and other:
        rule = "mixes strings with other label types, which NumPy would convert to strings"
        raise DataError("y", rule, other[0], "Give labels of one type.")
    _refuse_unscorable(labels, values)
    return labels


def _typed(values: list[Any]) -> npt.NDArray[Any]:
    """The values in an array of their own type, where NumPy has one."""
    try:
        return np.asarray(values)
    except (ValueError, OverflowError):
        return np.asarray(values, dtype=object)


def _refuse_unscorable(labels: npt.NDArray[Any], values: list[Any]) -> None:
    """Refuse labels that ``score`` and the metrics of scikit-learn do not take as classes."""
    try:
        with warnings.catch_warnings():
            # It warns of many classes, which need not be a mistake.
            warnings.simplefilter("ignore")
            label_type = type_of_target(labels)
    except (TypeError, ValueError):
        label_type = "unknown"
    if label_type not in ("binary", "multiclass"):
        rule = f"holds labels that scikit-learn does not score as classes (type {label_type!r})"
        remedy = "Give strings, integers or booleans, for example [str(label) for label in y]."
        raise DataError("y", rule, values[0], remedy)


def _check_classes(classes: npt.NDArray[np.generic]) -> None:
    if len(classes) < 2:
        rule = "has one class, so there is nothing to learn"
        raise DataError("y", rule, _names(classes)[0], "Give rows of another class too.")
    check_classes("y", len(classes))


def _refuse_missing(name: str, what: str, values: Sequence[Any], *, empty: bool = False) -> None:
    """Refuse missing values (``empty`` texts too): NumPy would turn a missing label into a class
    ``nan``, and each row has to have a prediction."""
    rows = [row for row, value in enumerate(values) if _is_missing(value, empty)]
    if rows:
        rule = (
            f"lacks {len(rows)} of {len(values)} {what}{' (missing or empty)' if empty else ''}, "
            f"the first at index {rows[0]}"
        )
        raise DataError(name, rule, values[rows[0]], "Leave these rows out.")


def _is_missing(value: object, empty: bool) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_is_missing(part, empty) for part in value)
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    is_empty = isinstance(value, str) and empty and not value.strip()
    return value is None or is_empty or is_pandas_missing(value)


def _text_columns(X: object) -> tuple[str, ...] | None:
    """The columns of a data frame that hold the texts: the only one, or those that ``holdfast
    train`` would choose; ``None`` if ``X`` is not a data frame."""
    if not is_frame(X):
        return None
    table = frame_table(X, "X")
    if table.num_columns == 1:
        return (str(table.column_names[0]),)
    raw = store(iter([typed_batch(table)]), "X")
    with decisions_to(None):
        return choose_columns(raw, RowOptions(need_label=False)).text


def _texts(X: object, columns: Sequence[str] | None) -> list[Any]:
    values = _of_frame(X, columns) if is_frame(X) else series_values(X, "X")
    if not values:
        raise DataError("X", "holds no texts", None, "Give a list of strings.")
    return values


def _of_frame(X: object, columns: Sequence[str] | None) -> list[Any]:
    """The texts of a data frame, or its pairs."""
    table = frame_table(X, "X")
    present = tuple(map(str, table.column_names))
    if columns is None and len(present) > 1:
        rule = "has several columns, but fit was given a list of texts"
        raise DataError("X", rule, ", ".join(present), "Give the column of texts: X['text'].")
    names = columns or present
    lacking = [name for name in names if name not in present]
    if lacking:
        rule = f"has no column {', '.join(lacking)}, from which fit took its texts"
        remedy = f"Rename the column, or give a list of texts: X[{present[0]!r}]."
        raise DataError("X", rule, ", ".join(present), remedy)
    found = [table[name].to_pylist() for name in names]
    return found[0] if len(found) == 1 else list(zip(*found, strict=True))


def _read_facts(path: Path) -> dict[str, Any]:
    """Read the file that ``save`` wrote with the model, and check that no file changed since."""
    with reading_errors(str(path), ModelError, remedy=COPY):
        facts = shapes.parse_object(path.read_text("utf-8"))
        FACTS(facts, "")
    if facts.get("files") is None:
        warnings.warn(f"{path} holds no SHA-256, so the model was not checked", stacklevel=3)
    check_folder(path.parent, facts.get("files") or {}, "since it was saved", COPY)
    return facts


def _verdict(facts: Mapping[str, Any]) -> Verdict:
    evidence = tuple(Evidence(**one) for one in facts["evidence"])
    remedies = tuple(Remedy(one["do"], tuple(one["set"])) for one in facts["remedies"])
    return Verdict(**{**facts, "evidence": evidence, "remedies": remedies})


def _plain_labels(classes: npt.NDArray[np.generic]) -> list[Any]:
    """The labels as JSON values."""
    labels: list[Any] = classes.tolist()
    wrong = next((x for x in labels if not isinstance(x, (str, int, float, bool))), None)
    if wrong is not None:
        raise DataError(
            "classes_", "hold labels that JSON cannot", wrong, "Use strings or numbers, or pickle."
        )
    return labels
