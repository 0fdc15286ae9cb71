"""A classifier that a user names, asked which of some texts it flags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.door import door
from holdfast.core.errors import ModelError, RecipeError
from holdfast.models.quiet import quiet_transformers
from holdfast.models.source import find_model

KEY = "probes.classifier"
TOGETHER, LONGEST = 16, 512
_BAD = re.compile(
    r"toxic|hate|offens|abus|insult|obscene|threat|nsfw|harm|hostile|unsafe|spam", re.I
)
_GOOD = re.compile(r"^(?:non|not|no|un)[-_ ]?(?:toxic|hate|offens|abus|insult|harm|hostile)", re.I)


def spec_of(given: str) -> tuple[str, str | None]:
    """A model and the label that is looked for, of ``NAME`` or ``NAME:LABEL``."""
    name, _, label = given.rpartition(":")
    # A colon of a drive or in a path is no label's.
    return (name, label) if name and "/" not in label and "\\" not in label else (given, None)


def check_classifier(given: str) -> list[int]:
    """The numbers of the labels that flag a text, by the model's ``config.json`` alone.

    Raises ``ModelError`` where there is no such model, ``RecipeError`` where none of its labels can
    be told to be the one that is looked for.
    """
    name, label = spec_of(given)
    config = find_model(name).config
    held = config.get("id2label") or {}
    labels = {int(number): str(text) for number, text in held.items()}
    chosen = [
        number
        for number, text in labels.items()
        if (text == label if label else _BAD.search(text) and not _GOOD.search(text))
    ]
    if not chosen:
        raise RecipeError(
            KEY,
            "names a classifier of which no label can be told to be the one that is looked for"
            if label is None
            else "names a label that the classifier does not have",
            given,
            f"Write NAME:LABEL with one of {', '.join(labels.values()) or 'no labels at all'}.",
        )
    return chosen


class Flags:
    """The classifier, loaded once, and which texts it flags."""

    def __init__(self, given: str, device: Any = "cpu") -> None:
        import transformers as hf

        name, _ = spec_of(given)
        self.given, self._labels, self._device = given, check_classifier(given), device
        folder = find_model(name).folder
        with door(name, ModelError, "cannot be loaded as a classifier"), quiet_transformers():
            model = hf.AutoModelForSequenceClassification.from_pretrained(
                folder, trust_remote_code=False
            )
            self._tokenizer: Any = hf.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._model: Any = model.eval().to(device)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether a text bears a label that is looked for with a probability of a half or more,
        [n]; an empty one does not."""
        import torch

        flagged = np.zeros(len(texts), dtype=bool)
        given = [at for at, text in enumerate(texts) if text.strip()]
        config = self._model.config
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        with torch.inference_mode(), quiet_transformers():
            for start in range(0, len(given), TOGETHER):
                chosen = given[start : start + TOGETHER]
                batch = self._tokenizer(
                    [texts[at] for at in chosen],
                    padding=True,
                    truncation=True,
                    max_length=self._longest,
                    return_tensors="pt",
                ).to(self._device)
                logits = self._model(**batch).logits.float()
                sure = torch.sigmoid(logits) if several else torch.softmax(logits, dim=-1)
                of_labels = sure[:, self._labels]
                bad = of_labels.amax(dim=-1) if several else of_labels.sum(dim=-1)
                flagged[chosen] = (bad >= 0.5).cpu().numpy()
        return flagged

    @property
    def _longest(self) -> int:
        positions = getattr(self._model.config, "max_position_embeddings", None) or LONGEST
        return min(LONGEST, int(positions), int(self._tokenizer.model_max_length))
