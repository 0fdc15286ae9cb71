"""A short list of encoders of the Hugging Face hub by language and task. ``--download`` adds them
to the candidates for a base model; without it none is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

MTEB = "mean accuracy on the 12 English classification sets of MTEB, 2309.07597"
C_MTEB = "mean accuracy on the Chinese classification sets of C-MTEB, 2309.07597"
CONLL = "F1 on the test rows of CoNLL-2003, 1810.04805"


@dataclass(frozen=True, slots=True)
class HubModel:
    """An encoder of the hub: its ``languages`` (codes; empty: many), its ``task``, its millions of
    parameters, its ``licence``, the tokens that it reads, and a published ``score`` in percent with
    what it is and its source."""

    name: str
    languages: tuple[str, ...]
    task: str
    millions: int
    licence: str
    max_length: int
    score: float
    measured: str


TEXTS, TAGS = "text-classification", "token-classification"
HUB_MODELS = (
    HubModel("BAAI/bge-base-en-v1.5", ("en",), TEXTS, 109, "MIT", 512, 75.53, MTEB),
    HubModel("BAAI/bge-small-en-v1.5", ("en",), TEXTS, 33, "MIT", 512, 74.14, MTEB),
    HubModel("BAAI/bge-base-zh-v1.5", ("zh",), TEXTS, 102, "MIT", 512, 68.07, C_MTEB),
    HubModel("intfloat/multilingual-e5-base", (), TEXTS, 278, "MIT", 512, 65.35, C_MTEB),
    HubModel("google-bert/bert-base-cased", ("en",), TAGS, 108, "Apache-2.0", 512, 92.4, CONLL),
)


def hub_models(task: str | None, language: str | None) -> tuple[HubModel, ...]:
    """The encoders for rows of a ``task`` in a ``language`` (``None``: unknown), only
    those for that language if there are any, otherwise the multilingual ones."""
    of_task = [one for one in HUB_MODELS if one.task == task]
    own = [one for one in of_task if language in one.languages]
    return tuple(own or [one for one in of_task if not one.languages])
