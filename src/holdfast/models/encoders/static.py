"""A static classifier: a table of token vectors and small blocks in place of an encoder
(``model.static``).

    logits = W₂ gelu(W₁ m + b₁) + b₂,    m = Σₜ n(hₜ) ÷ T,    n(h) = g · h ÷ √(mean(h²) + 1)

for the T tokens of a text, with a weight g per dimension. h is the token's vector v(xₜ) of width D
after K new attention blocks (``model.layers``), which begin as the identity. With K = 0 no token
reads another one, and a text costs a look-up per token and one product. Transformers' EuroBERT
computes this function, so the saved folder is a plain one.

The vectors begin as the features that an encoder gives for each token alone, on their first D
principal components (after Model2Vec). A token counts less the more frequent it is: its weight is
a ÷ (a + p) (SIF, Arora et al. 2017), p by Zipf's law from its place in the vocabulary, in which
frequent tokens come first. The vector's length carries the weight.

A mean of tokens knows no order of words, which a block reads. Frequent words and phrases of the
texts that the tokenizer splits become tokens too ("how many"), so that the table knows some of it;
the encoder reads each as a whole. They have the weight of their pieces together.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.core.decisions import stage, tick
from holdfast.core.records import Decision, Floats
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import count_phrase
from holdfast.models.base import evaluating
from holdfast.models.encoders.classifier import LoadedClassifier
from holdfast.models.encoders.general import GeneralClassifier, TextNetwork
from holdfast.models.encoders.vocabulary import NewWord, add_words, keeps_spaces, normalize
from holdfast.models.layers import count_parameters
from holdfast.models.loading.tokenizer import accepted_inputs, limit_inputs
from holdfast.models.loading.weights import name_classes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The row of the table of defaults.
DEFAULTS = "static"
WIDTH = 256
# The attention blocks where the recipe names no number, the width of their heads, and the widths of
# their attention and feed-forward layers as parts of the table's: a block of the usual widths would
# take longer than everything else.
BLOCKS, HEAD_WIDTH, ATTENTION, FEED_FORWARD = 1, 32, 2, 4
# Phrases: most words, most phrases, fewest occurrences.
MAX_WORDS, MAX_PHRASES, MIN_COUNT = 3, 2000, 3
SIF = 1e-4
# The root mean square of the table: the norm of each vector (see n above) then changes it little.
SPREAD = 0.5
BATCH = 512
# English contractions are written apart in many data sets: "what 's".
WORD = re.compile(r"['’]?\w+")


def frequent_phrases(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[NewWord]:
    """Words and phrases of ``texts`` that the tokenizer splits, of at most three words and seen
    three times: the ``MAX_PHRASES`` most frequent ones, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        words = normalize(tokenizer, text).split(" ")
        for start in range(len(words)):
            for end in range(start + 1, min(start + MAX_WORDS, len(words)) + 1):
                if not WORD.fullmatch(words[end - 1]):
                    break
                counts[" ".join(words[start:end])] += 1
    frequent = sorted((-count, phrase) for phrase, count in counts.items() if count >= MIN_COUNT)
    phrases: list[NewWord] = []
    for count, phrase in frequent:
        pieces = tuple(tokenizer(phrase, add_special_tokens=False)["input_ids"])
        if len(pieces) > 1 and tokenizer.unk_token_id not in pieces:
            phrases.append(NewWord(phrase, pieces, -count))
        if len(phrases) == MAX_PHRASES:
            break
    return phrases


def token_weights(size: int) -> Floats:
    """The SIF weight of each token [size] by its place in the vocabulary."""
    chances = 1 / np.arange(1, size + 1)
    chances /= chances.sum()
    return np.asarray(SIF / (SIF + chances), dtype=np.float32)


def token_table(features: Floats, weights: Floats, width: int) -> Floats:
    """``features`` [tokens, D] on their first ``width`` principal components, times ``weights``
    [tokens], scaled to the root mean square ``SPREAD``."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    # Eigenvalues ascend.
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :width]
    # The sign of an axis is arbitrary: its largest entry is made positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    table = centred @ axes * weights[:, None]
    scale = SPREAD / max(float(np.sqrt((table**2).mean())), 1e-12)
    return np.asarray(table * scale, dtype=np.float32)


def features_alone(
    network: TextNetwork, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[Sequence[int]]
) -> Floats:
    """The features [n, D] that the network gives for each of ``tokens``, a text of these ids
    between the tokenizer's special tokens."""
    before, after = _special_tokens(tokenizer)
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    found: list[Any] = [None] * len(tokens)
    with stage("token vectors"), evaluating(network):
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            texts = [[*before, *tokens[i], *after] for i in places]
            batch = tokenizer.pad({"input_ids": texts}, return_tensors="pt")
            features = network.features(**batch).float().numpy()
            for place, row in zip(places, features, strict=True):
                found[place] = row
            tick(first + len(places), len(order))
    return np.stack(found)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, marks = encoded["input_ids"], encoded["special_tokens_mask"]
    first = marks.index(0)
    last = len(marks) - marks[::-1].index(0)
    return ids[:first], ids[last:]


def static_classifier(
    loaded: LoadedClassifier, texts: Sequence[str], seed: int, blocks: int | None = None
) -> LoadedClassifier:
    """A static classifier of the same classes, with the token vectors of ``loaded`` and so many
    attention ``blocks`` (by default ``BLOCKS``); its phrases are those of ``texts``."""
    network, tokenizer = loaded.network, copy.deepcopy(loaded.tokenizer)
    # A space that is part of a token would be lost before a phrase.
    spaced = keeps_spaces(tokenizer)
    phrases = [] if spaced else frequent_phrases(tokenizer, texts)
    add_words(tokenizer, phrases)
    size = len(tokenizer)
    pieces: list[tuple[int, ...]] = [(i,) for i in range(size)]
    for one in phrases:
        pieces[tokenizer.convert_tokens_to_ids(one.token)] = one.pieces
    features = features_alone(network, loaded.tokenizer, pieces)
    weights = token_weights(len(loaded.tokenizer))
    table = token_table(
        features,
        np.array([weights[list(one)].sum() for one in pieces], dtype=np.float32),
        min(WIDTH, features.shape[1]),
    )
    # They are in every text alike.
    table[[i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]] = 0
    blocks = BLOCKS if blocks is None else blocks
    made = _network(table, loaded, tokenizer, seed, blocks)
    limit_inputs(tokenizer, accepted_inputs(made.config))
    total, trainable = count_parameters(made)
    facts = {
        **loaded.facts,
        "architecture": "static token vectors",
        "parameters": total,
        "trainable": trainable,
        "layers": len(made.layers()),
        "hidden_size": table.shape[1],
    }
    because = f"model.static: features of {loaded.facts['architecture']} for each token alone; "
    because += (
        "no phrases: spaces are part of this tokenizer's tokens"
        if spaced
        else f"{len(phrases):,} frequent phrases of {len(texts):,} texts are tokens"
    )
    after = f", and {count_phrase(blocks, 'attention block')}" if blocks else ""
    decision = Decision("token vectors", f"{size:,} of width {table.shape[1]}{after}", because)
    return replace(
        loaded,
        network=made,
        tokenizer=tokenizer,
        facts=facts,
        decisions=(*loaded.decisions, decision),
        defaults=DEFAULTS,
    )


def _network(
    table: Floats,
    loaded: LoadedClassifier,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    blocks: int,
) -> GeneralClassifier:
    """The network of a table [tokens, D] in Transformers' EuroBERT with so many blocks."""
    from transformers import EuroBertConfig, EuroBertForSequenceClassification

    size, width = table.shape
    heads = max(1, width // ATTENTION // HEAD_WIDTH)
    classes = loaded.network.classes
    config = EuroBertConfig(
        vocab_size=size,
        hidden_size=width,
        num_hidden_layers=blocks,
        intermediate_size=max(1, width // FEED_FORWARD),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_WIDTH,
        max_position_embeddings=loaded.max_length,
        rms_norm_eps=1.0,
        classifier_pooling="mean",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        mask_token_id=tokenizer.mask_token_id,
    )
    name_classes(config, classes)
    # The global generator stays as it is.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "static blocks"))
        plain: Any = EuroBertForSequenceClassification(config)
    generator = torch.Generator().manual_seed(derive_seed(seed, "static"))
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    with torch.no_grad():
        plain.model.embed_tokens.weight.copy_(torch.from_numpy(table))
        plain.dense.weight.copy_(rotation)
        starting_as_identity = [
            last
            for block in plain.model.layers
            for last in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight)
        ]
        head = (plain.dense.bias, plain.classifier.weight, plain.classifier.bias)
        for zeros in (*head, *starting_as_identity):
            zeros.zero_()
    return GeneralClassifier(plain, "classifier", classes, loaded.network.problem, seed).eval()
