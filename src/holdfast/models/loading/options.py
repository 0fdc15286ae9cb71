"""How a pretrained model is loaded: the options of every loader."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.models.adapters.adapter import PROMPT_VECTORS
from holdfast.models.adapters.quantize import QuantizeSpec
from holdfast.models.base import AdapterSpec
from holdfast.models.loading.tokenizer import DEFAULT_MAX_LENGTH


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """``revision`` is a branch, tag or commit of a hub model. ``trust_remote_code`` allows the code
    that a model's folder brings for its tokenizer to run, and loads a model that brings code for
    its layers into Transformers' own layers. ``max_length`` are the tokens that a text is cut to;
    ``None`` chooses, at most ``most``. ``dropout`` is one rate in [0, 1) for hidden states,
    attention and head; ``None`` leaves the model's. ``seed`` is that of every weight that is new.

    ``adapter`` is put on an encoder's backbone: only it, the own pooling and the head then learn. A
    generator gets its adapter later, and leaves places for a soft prompt. ``quantize`` and
    ``dtype`` say how a generator's weights are held.
    """

    revision: str | None = None
    trust_remote_code: bool = False
    max_length: int | None = None
    dropout: float | None = None
    seed: int = 0
    adapter: AdapterSpec | None = None
    quantize: QuantizeSpec | None = None
    dtype: str = "float32"
    most: int = DEFAULT_MAX_LENGTH

    @property
    def prompt_places(self) -> int:
        """Places that a soft prompt takes from the text."""
        if self.adapter is None or self.adapter.kind != "prompt":
            return 0
        return self.adapter.rank or PROMPT_VECTORS


DEFAULT_LOAD_OPTIONS = LoadOptions()
