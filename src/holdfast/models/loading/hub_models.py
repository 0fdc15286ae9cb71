"""A short list of encoders of the Hugging Face hub by language and task. ``--download`` adds them
to the candidates for a base model; without it none is downloaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubModel:
    """An encoder of the hub: its ``languages`` (codes; empty: many), its ``task``, its millions of
    parameters, its ``licence``, the tokens that it reads, and a published ``score`` in percent, by
    which those for one task and language are ranked."""

    name: str
    languages: tuple[str, ...]
    task: str
    millions: int
    licence: str
    max_length: int
    score: float


TEXTS, TAGS = "text-classification", "token-classification"
HUB_MODELS = (
    # Mean accuracy on the 12 English classification sets of MTEB (2309.07597).
    HubModel("BAAI/bge-base-en-v1.5", ("en",), TEXTS, 109, "MIT", 512, 75.5),
    HubModel("BAAI/bge-small-en-v1.5", ("en",), TEXTS, 33, "MIT", 512, 74.1),
    # Mean accuracy on the Chinese classification sets of C-MTEB (2309.07597).
    HubModel("BAAI/bge-base-zh-v1.5", ("zh",), TEXTS, 102, "MIT", 512, 68.1),
    HubModel("intfloat/multilingual-e5-base", (), TEXTS, 278, "MIT", 512, 65.4),
    # F1 on the test rows of CoNLL-2003 (1810.04805).
    HubModel("google-bert/bert-base-cased", ("en",), TAGS, 108, "Apache-2.0", 512, 92.4),
)


def hub_models(task: str | None, language: str | None) -> tuple[HubModel, ...]:
    """The encoders for rows of a ``task`` in a ``language`` (``None``: unknown), only
    those for that language if there are any, otherwise the multilingual ones."""
    of_task = [one for one in HUB_MODELS if one.task == task]
    own = [one for one in of_task if language in one.languages]
    return tuple(own or [one for one in of_task if not one.languages])
