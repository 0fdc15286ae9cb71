"""Small pretrained models for the generation benchmarks, trained from plain English novels.

    python benchmarks/make_base_models.py                 # a Llama decoder and a T5
    python benchmarks/make_base_models.py --only llama    # one of them
    python benchmarks/make_base_models.py --steps 3       # a smoke test, nothing is kept

There are no pretrained generators on a machine without a network, so these are trained honestly
from ``corpus/novels_train.txt.gz`` beside the project (``HOLDFAST_DATA``): one byte-level BPE
tokenizer of 4,096 tokens, a Llama of 4 million parameters on next tokens, a T5 of 5 million on
masked spans (1910.10683: 15 % of the tokens, spans of 3 on average), in bfloat16 where the
processor has it in hardware. Everything is seeded; the number of steps is fixed, so that the same
machine makes the same weights. The last loss is on ``novels_val``, whose authors are not in the
training file. Kept in ``HOLDFAST_CACHE``, else in ``~/.cache/holdfast/base_models``, never in the
repository; a model that is there is not made again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdfast.training.machine.machine import has_fast_bfloat16

SEED = 0
WORDS = 4096
SENTINELS = 64
LENGTH = 128
BATCH = 32
STEPS = {"llama": 800, "t5": 700}
RATE = {"llama": 2e-3, "t5": 2e-3}
NOISE, SPAN = 0.15, 3.0
PAD, END, START, UNKNOWN = "<pad>", "</s>", "<s>", "<unk>"
SPECIAL = [PAD, END, START, UNKNOWN, *(f"<extra_id_{n}>" for n in range(SENTINELS))]
VALID_BATCHES = 20

Batch = dict[str, torch.Tensor]


def data_folder() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("HOLDFAST_DATA", beside)) / "corpus"


def cache_folder() -> Path:
    return Path(
        os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache" / "holdfast" / "base_models")
    )


def paragraphs(name: str, share: float = 1.0) -> list[str]:
    """The paragraphs of a file of novels; the first ``share`` of them."""
    with gzip.open(data_folder() / name, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    kept = [line for line in lines if line]
    return kept[: max(1, int(share * len(kept)))]


def make_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE that puts the end token behind every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, SPECIAL.index(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        bos_token=START,
        unk_token=UNKNOWN,
        additional_special_tokens=SPECIAL[4:],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def tokens(texts: list[str], tokenizer: Any) -> np.ndarray:
    """All texts, one after the other, each with its end token."""
    parts = []
    for start in range(0, len(texts), 2000):
        parts += tokenizer(texts[start : start + 2000], verbose=False)["input_ids"]
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])


def windows(stream: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Random windows [batch, length] of the stream, without end."""
    rng = np.random.default_rng(seed)
    while True:
        starts = rng.integers(0, len(stream) - LENGTH, BATCH)
        yield np.stack([stream[s : s + LENGTH] for s in starts])


def next_tokens(window: np.ndarray, rng: np.random.Generator) -> Batch:
    ids = torch.from_numpy(window)
    return {"input_ids": ids, "labels": ids}


def masked_spans(window: np.ndarray, rng: np.random.Generator) -> Batch:
    """Spans of each row are replaced by sentinels; the target names each and what it hid."""
    made = [_corrupt(row, rng) for row in window]
    inputs, targets = ([pair[side] for pair in made] for side in (0, 1))
    ids, labels = _padded(inputs, 0), _padded(targets, -100)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def _corrupt(row: np.ndarray, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    hidden = max(1, round(NOISE * len(row)))
    spans = min(SENTINELS - 1, max(1, round(hidden / SPAN)))
    noise = _lengths(hidden, spans, rng)
    rest = _lengths(len(row) - hidden, spans, rng)
    source: list[int] = []
    target: list[int] = []
    at = 0
    for number, (keep, hide) in enumerate(zip(rest, noise, strict=True)):
        sentinel = SPECIAL.index(f"<extra_id_{number}>")
        source += [*row[at : at + keep].tolist(), sentinel]
        target += [sentinel, *row[at + keep : at + keep + hide].tolist()]
        at += keep + hide
    end = SPECIAL.index(END)
    return [*source, end], [*target, end]


def _lengths(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """``parts`` whole numbers of at least 1 that sum to ``total``, at random."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], cuts, [total]])).tolist()
    return lengths


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
    )


def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(  # type: ignore[call-arg]
            vocab_size=WORDS,
            d_model=256,
            d_kv=64,
            d_ff=640,
            num_layers=3,
            num_decoder_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


MAKE: dict[str, tuple[Callable[[], Any], Callable[..., Batch]]] = {
    "llama": (llama, next_tokens),
    "t5": (t5, masked_spans),
}


def train(
    name: str, stream: np.ndarray, valid: np.ndarray, steps: int
) -> tuple[Any, dict[str, Any]]:
    """AdamW with a warm-up of a twentieth and a cosine to a tenth of the rate."""
    torch.manual_seed(SEED)
    build, batch_of = MAKE[name]
    model = build()
    size = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE[name], weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _scale(step, steps))
    rng, start = np.random.default_rng(SEED), time.perf_counter()
    half, _ = has_fast_bfloat16("cpu")
    model.train()
    for step, window in zip(range(1, steps + 1), windows(stream, SEED), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(**batch_of(window, rng)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(
                f"{name} step {step}/{steps}: loss {loss.item():.3f}, "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )
    seconds = time.perf_counter() - start
    lost = validate(model, valid, batch_of)
    return model, {
        "parameters": size,
        "steps": steps,
        "tokens": steps * BATCH * LENGTH,
        "seed": SEED,
        "precision": "bfloat16" if half else "float32",
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "valid_loss": lost,
        "valid_perplexity": math.exp(lost),
    }


def _scale(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def validate(model: Any, stream: np.ndarray, batch_of: Callable[..., Batch]) -> float:
    """Mean loss on windows of authors that training never saw."""
    model.eval()
    rng, losses = np.random.default_rng(SEED), []
    with torch.inference_mode():
        for _, window in zip(range(VALID_BATCHES), windows(stream, SEED + 1), strict=False):
            losses.append(float(model(**batch_of(window, rng)).loss))
    return float(np.mean(losses))


def make(name: str, steps: int, folder: Path, share: float) -> dict[str, Any]:
    texts = paragraphs("novels_train.txt.gz", share)
    tokenizer = make_tokenizer(texts[:: max(1, len(texts) // 40_000)])
    held = paragraphs("novels_val.txt.gz", 0.2)
    model, told = train(name, tokens(texts, tokenizer), tokens(held, tokenizer), steps)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "made.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
    shown = f"validation loss {told['valid_loss']:.3f}, perplexity {told['valid_perplexity']:.1f}"
    print(f"{name}: {told['parameters']:,} parameters, {told['seconds']:.0f} s, {shown} → {folder}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(MAKE))
    parser.add_argument("--steps", type=int, help="fewer steps: a smoke test, nothing is kept")
    chosen = parser.parse_args()
    for name in [chosen.only] if chosen.only else sorted(MAKE):
        folder = cache_folder() / name
        if chosen.steps is not None:
            with tempfile.TemporaryDirectory() as scratch:
                make(name, chosen.steps, Path(scratch), 0.01)
        elif (folder / "made.json").is_file():
            print(f"{name}: {folder} is there")
        else:
            make(name, STEPS[name], folder, 1.0)


if __name__ == "__main__":
    main()
