"""``TextClassifier``: Holdfast's fine-tuning as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from holdfast.core.errors import DataError
from holdfast.recipe import Recipe, override

if TYPE_CHECKING:
    from sklearn.utils import Tags

    from holdfast.data.table import Splits
    from holdfast.pipeline.ready import Ready
    from holdfast.training.loop import Fitted

TRAIN_SHARE = 0.82


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fine-tune an encoder on texts, keep its best state, calibrated on rows it did not learn.

    ``fit`` divides the texts 82/18 into training and validation rows (copies, and rows of one
    group, on one side), trains as ``holdfast train`` does, and folds the temperature in. It holds
    out no test rows: score the estimator on rows of your own, or use ``cross_val_score``.

    Unlike scikit-learn's linear text models it takes raw strings, needs no vectorizer, and is
    slow: use ``n_jobs=1`` in searches.

    Parameters
    ----------
    model : ``"embedded"`` (MiniLM, English, no download), a Hugging Face name, or a folder.
    settings : recipe keys to values, e.g. ``{"train.epochs": 5}``; see ``docs/recipe.md``.
    random_state : seed of everything random.

    Attributes
    ----------
    classes_ : the labels, sorted; ``n_features_in_`` is not defined, since a text is no vector.
    verdict_ : what the training history showed. ``history_`` : the snapshots.
    network_ : the trained ``torch.nn.Module``.

    Examples
    --------
    >>> from holdfast import TextClassifier
    >>> classifier = TextClassifier().fit(texts, labels)         # doctest: +SKIP
    >>> classifier.predict(["well made and cheap"])              # doctest: +SKIP
    """

    def __init__(
        self, model: str = "embedded", settings: Mapping[str, Any] | None = None,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.model = model
        self.settings = settings
        self.random_state = random_state

    def fit(
        self, X: Sequence[str], y: Sequence[Any], groups: Sequence[Any] | None = None
    ) -> TextClassifier:
        """Train on texts ``X`` [n] and labels ``y`` [n]; ``groups`` [n] stay on one side.

        Raises ``DataError`` (a ``ValueError`` as well) where ``holdfast train`` would exit with 2.
        """
        from holdfast.pipeline.compose import make_accelerator, make_job, make_ready
        from holdfast.training.loop import fit

        texts, labels = _texts(X), np.asarray(y)
        self.classes_ = np.unique(labels)
        splits = self._divide(texts, labels, groups)
        ready = make_ready(self._recipe(), splits)
        accelerator = make_accelerator(str(ready.recipe.train.precision))
        job, _ = make_job(ready, accelerator, None, ())
        fitted = fit(job)
        self._keep(ready, fitted)
        return self

    def predict_proba(self, X: Sequence[str]) -> npt.NDArray[np.float64]:
        """Probabilities [n, classes], in the order of ``classes_``."""
        from holdfast.data.memory import table_from_texts
        from holdfast.evaluate.forward import forward

        check_is_fitted(self, "network_")
        outputs = forward(
            self._scaled, self.tokenizer_, self.max_length_,
            tuple(str(name) for name in self.classes_), table_from_texts(_texts(X)),
        )  # fmt: skip
        return np.asarray(outputs.probabilities[:, self._order], dtype=np.float64)

    def predict(self, X: Sequence[str]) -> npt.NDArray[Any]:
        """The most probable label of each text."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags

    def _recipe(self) -> Recipe:
        given = [f"{key}={value}" for key, value in (self.settings or {}).items()]
        recipe = Recipe(task="text-classification").changed(model={"name": self.model})
        return override(recipe, [f"seed={self.random_state}", *given])

    def _divide(self, texts: list[Any], labels: Any, groups: Sequence[Any] | None) -> Splits:
        from holdfast.data.memory import table_from_texts
        from holdfast.split.divide import divide

        numbers = np.searchsorted(self.classes_, labels)
        table = table_from_texts(
            texts, [str(number) for number in numbers],
            [str(group) for group in groups] if groups is not None else None, rare_below=2,
        )  # fmt: skip
        return divide(table, seed=self.random_state, fractions=(TRAIN_SHARE, 1 - TRAIN_SHARE, 0))

    def _keep(self, ready: Ready, fitted: Fitted) -> None:
        from holdfast.stats.temperature import best_temperature

        best = next(s for s in fitted.history if s.step == fitted.best_step)
        assert best.valid_logits is not None
        self.temperature_, _ = best_temperature(best.valid_logits, ready.valid.labels, smoothing=1)
        self.network_ = ready.loaded.network.cpu().eval()
        self.tokenizer_ = ready.loaded.tokenizer
        self.max_length_ = ready.loaded.max_length
        self.verdict_, self.history_ = fitted.verdict, fitted.history
        # The table sorts its labels as texts of numbers; classes_ are in the order of the labels.
        self._order = np.argsort([int(name) for name in ready.task.classes])

    def _scaled(self, **batch: Any) -> Any:
        return self.network_(**batch) / self.temperature_


def _texts(X: Sequence[Any]) -> list[Any]:
    values = X.tolist() if hasattr(X, "tolist") else list(X)
    if not values:
        raise DataError("X", "holds no texts", None, "Give a list of strings.")
    wrong = next((value for value in values if not isinstance(value, (str, tuple, list))), None)
    if wrong is not None:
        raise DataError("X", "must hold strings (or pairs of strings)", wrong, "Give raw texts.")
    return values
