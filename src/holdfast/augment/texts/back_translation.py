"""Back-translation: into another language and back (1511.06709, as augmentation 1904.12848).

``apertium:PAIR`` translates by the rules of Apertium, without a network, some thousand sentences a
second (``en-eo`` and back keeps meaning best of those tried); any other name is a translation model
of Transformers, a folder or a name on the hub. A text has one such form, which no chance changes.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.augment.registry import enrichment, setting
from holdfast.augment.texts.base import TextEnrichment, load_pretrained
from holdfast.core.errors import MachineError, RecipeError

APERTIUM = "apertium:"
SETTING = "enrich.back_translation"
LINES = re.compile(r"\s*\n\s*")
BATCH, TOKENS = 16, 256


def translated(texts: Sequence[str], through: str) -> list[str]:
    """The texts in the language that ``through`` leads to.

    Raises ``MachineError`` where Apertium or the pair is not installed, ``ModelError`` where a
    model cannot be loaded.
    """
    if through.startswith(APERTIUM):
        return _by_apertium(texts, through.removeprefix(APERTIUM))
    import torch

    tokenizer, model = _model(through)
    found: list[str] = []
    for start in range(0, len(texts), BATCH):
        part = list(texts[start : start + BATCH])
        batch = tokenizer(
            part, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            written = model.generate(**batch, max_new_tokens=TOKENS, num_beams=1, do_sample=False)
        found += tokenizer.batch_decode(written, skip_special_tokens=True)
    return found


def _by_apertium(texts: Sequence[str], pair: str) -> list[str]:
    check_pair(pair)
    # A paragraph a text: nothing is translated across an empty line.
    joined = "\n\n".join(LINES.sub(" ", text).strip() or "." for text in texts)
    done = subprocess.run(
        ["apertium", "-u", pair], input=joined, capture_output=True, text=True, check=False
    )
    found = [LINES.sub(" ", part).strip() for part in re.split(r"\n\s*\n", done.stdout)]
    if done.returncode or len(found) != len(texts):
        if len(texts) > 1 and not done.returncode:
            # A text that holds what Apertium takes for formatting may eat the empty line.
            half = len(texts) // 2
            return _by_apertium(texts[:half], pair) + _by_apertium(texts[half:], pair)
        if not done.returncode:
            return list(texts)
        raise MachineError(
            f"apertium {pair}", "failed", done.stderr.strip()[:200], "Try it on the command line."
        )
    return found


@functools.cache
def check_pair(pair: str) -> None:
    """Refuse a pair of languages that Apertium does not have here."""
    if shutil.which("apertium") is None:
        raise MachineError(
            SETTING,
            "needs Apertium, which is not installed",
            None,
            "Install it: apt-get install apertium apertium-eo-en; or name translation models "
            f"({SETTING}.there, {SETTING}.back).",
        )
    listed = subprocess.run(["apertium", "-l"], capture_output=True, text=True, check=False)
    known = listed.stdout.split()
    if pair not in known:
        raise MachineError(
            SETTING,
            "names a pair of languages that is not installed",
            pair,
            f"Here: {', '.join(known) or 'none'}. Others: apt-get install apertium-….",
        )


@functools.cache
def _model(name: str) -> tuple[Any, Any]:
    remedy = f"Give {SETTING}.there and {SETTING}.back a folder or a name on the hub, or "
    return load_pretrained(
        "AutoModelForSeq2SeqLM", name, "a translation model", f"{remedy}{APERTIUM}PAIR."
    )


def like_first(text: str, form: str) -> str:
    """The form with its first letter in the case of the text's."""
    if text[:1].islower() and form[:1].isupper() and not form[1:2].isupper():
        return form[:1].lower() + form[1:]
    return form


@enrichment(
    "back_translation",
    "text",
    "gains with unlabelled rows and consistency (1904.12848), none for tuned transformers "
    "(2010.01764)",
)
@dataclass(frozen=True)
class BackTranslation(TextEnrichment):
    """``there`` and ``back`` translate: ``apertium:PAIR`` or a model of Transformers."""

    copies: int = setting(1, least=1, most=1)
    similarity: float = setting(0.8, least=0, most=1)
    there: str = setting(f"{APERTIUM}en-eo")
    back: str = setting(f"{APERTIUM}eo-en")

    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Each text there and back; no chance is in it."""
        new = sorted({text for text in texts if text.strip()})
        known = dict(zip(new, translated(translated(new, self.there), self.back), strict=True))
        return [like_first(text, known.get(text, text)) for text in texts]

    def ready(self) -> None:
        """Raises ``MachineError`` or ``ModelError`` where what translates is missing, and
        ``RecipeError`` where one of the two ways leads nowhere."""
        for name in (self.there, self.back):
            if name.startswith(APERTIUM):
                check_pair(name.removeprefix(APERTIUM))
            else:
                _model(name)
        if self.there == self.back:
            rule = "must name two ways: there and back"
            raise RecipeError(SETTING, rule, self.there, "E.g. apertium:en-eo and apertium:eo-en.")
