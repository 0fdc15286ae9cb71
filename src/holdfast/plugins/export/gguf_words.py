"""A tokenizer as GGUF holds it: tokens, what kind each is, merges, and how texts are cut first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.core.errors import ModelError

# gguf.TokenType, which llama.cpp numbers.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
OTHER = "llama.cpp's own converter knows more tokenizers: convert_hf_to_gguf.py RUN/model."
# llama.cpp's names of how a byte-level tokenizer cuts a text, by the regular expression.
CUTS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}


@dataclass(frozen=True)
class GgufTokenizer:
    """``model`` is ``gpt2`` (byte-level) or ``llama`` (SentencePiece's), ``cut`` llama.cpp's name
    of how texts are cut; ``special`` the ids of the named tokens."""

    model: str
    cut: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]
    begins: bool
    ends: bool
    template: str | None

    def write(self, writer: Any) -> None:
        """Put all of it into a ``gguf.GGUFWriter``."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.cut)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.kinds))
        if self.model == "llama":
            # Merges are tried by the score of what they make, in the order of the vocabulary.
            writer.add_token_scores([-float(i) for i in range(len(self.tokens))])
        writer.add_token_merges(list(self.merges))
        for name, number in self.special.items():
            getattr(writer, f"add_{name}_token_id")(number)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(self.ends)
        if self.template:
            writer.add_chat_template(self.template)


def words_of(tokenizer: Any, size: int) -> GgufTokenizer:
    """What GGUF holds of a tokenizer, filled up to the ``size`` of the model's table with tokens
    that are not used. Raises ``ModelError`` for one that llama.cpp would read otherwise."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "the tokenizer", "is not of the fast kind", type(tokenizer).__name__, OTHER
        )
    whole = json.loads(backend.to_str())
    model = whole["model"]
    if model["type"] != "BPE":
        raise ModelError("the tokenizer", "is no BPE", model["type"], OTHER)
    if not model["merges"]:
        raise ModelError("the tokenizer", "merges nothing, and llama.cpp reads none without merges")
    pieces = bool(model.get("byte_fallback"))
    cut = "default" if pieces else _cut(whole)
    added = {int(one["id"]): one for one in whole.get("added_tokens", ())}
    named = {**{i: t for t, i in model["vocab"].items()}}
    named |= {number: one["content"] for number, one in added.items()}
    unknown = getattr(tokenizer, "unk_token_id", None)
    tokens, kinds = [], []
    for number in range(max(size, max(named) + 1)):
        tokens.append(named.get(number, f"[PAD{number}]"))
        kinds.append(_kind(number, named, added, unknown if pieces else None))
    ids = tokenizer("a")["input_ids"]
    # The named tokens that there are, by GGUF's names for them.
    names = {"bos": "bos", "eos": "eos", "unk": "unk", "pad": "pad"}
    found = {name: getattr(tokenizer, f"{own}_token_id", None) for name, own in names.items()}
    special = {name: int(number) for name, number in found.items() if number is not None}
    return GgufTokenizer(
        "llama" if pieces else "gpt2",
        cut,
        tuple(tokens),
        tuple(kinds),
        tuple(one if isinstance(one, str) else " ".join(one) for one in model["merges"]),
        special,
        bool(ids) and ids[0] == tokenizer.bos_token_id,
        bool(ids) and ids[-1] == tokenizer.eos_token_id,
        _template(tokenizer),
    )


def _kind(
    number: int, named: Mapping[int, str], added: Mapping[int, Any], unknown: int | None
) -> int:
    if number not in named:
        return UNUSED
    if number == unknown:
        return UNKNOWN
    if number in added:
        return CONTROL if added[number]["special"] else USER
    token = named[number]
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return BYTE if is_byte else NORMAL


def _cut(whole: Mapping[str, Any]) -> str:
    """llama.cpp's name of how a byte-level tokenizer cuts."""
    before = whole.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    kinds = [str(one.get("type")) for one in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        found = CUTS.get(str((steps[0].get("pattern") or {}).get("Regex")))
        if found:
            return found
    raise ModelError("the tokenizer", "cuts texts in a way that has no name here", kinds, OTHER)


def _template(tokenizer: Any) -> str | None:
    own = tokenizer.chat_template
    # Some tokenizers have several templates by name.
    found = own.get("default") if isinstance(own, dict) else own
    return str(found) if found else None
