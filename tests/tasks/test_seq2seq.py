"""Pairs to batches, losses and numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.updates import ForwardPass
from holdfast.data.pairs import ALL
from holdfast.data.table import Columns, Table
from holdfast.methods.losses import LabelSmoothing
from holdfast.tasks.generation.losses import measure_tokens
from holdfast.tasks.seq2seq.losses import EncodedPairs, SequenceToSequence, encode_pairs

WORDS = ["<pad>", "</s>", "<unk>", *"abcdefghij"]
END = 1


def tokenizer(end: bool = True) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end:
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", END)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def table(pairs: list[tuple[str, str]]) -> Table:
    import datasets

    columns = {
        "row": np.arange(10, 10 + len(pairs)),
        "text": [s for s, _ in pairs],
        "target": [t for _, t in pairs],
        "label": np.zeros(len(pairs), dtype=np.int64),
    }
    return Table(
        datasets.Dataset.from_dict(columns), (ALL,), Columns(("text",), None), "m", len(pairs)
    )


def encoded(pairs: list[tuple[str, str]], limit: int = 8, end: bool = True) -> EncodedPairs:
    return encode_pairs(table(pairs), tokenizer(end), limit, limit, END)


PAIRS = [("a b c", "d"), ("e", "f g h"), ("a a a a a", "b b")]


def test_batches_pad_both_sides_with_their_own_padding() -> None:
    batch = SequenceToSequence(0).collate(encoded(PAIRS), [0, 1])
    assert batch["input_ids"].tolist() == [[3, 4, 5, 1], [7, 1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[6, 1, -100, -100], [8, 9, 10, 1]]
    assert batch["where"].tolist() == [0, 1, 4, 5, 6, 7]
    assert batch["counts"].tolist() == [2, 4]


def test_lengths_weights_and_rows() -> None:
    examples = encoded(PAIRS)
    assert examples.lengths.tolist() == [6, 6, 9]
    assert SequenceToSequence(0).weights(examples, [2, 0]).tolist() == [3, 2]
    assert examples.rows.tolist() == [10, 11, 12]


def test_what_is_cut_is_counted_and_still_ends() -> None:
    examples = encoded([("a b c d e", "a"), ("a", "a b c d e f"), ("a b c", "a b c")], limit=4)
    assert (examples.source_cut.sum(), examples.target_cut.sum()) == (1, 1)
    cut = examples.target_ids[examples.target_offsets[1] : examples.target_offsets[2]]
    assert cut.tolist() == [3, 4, 5, END]


def test_an_end_is_added_where_the_tokenizer_adds_none() -> None:
    examples = encoded([("a", "b c"), ("a", "a b c d e")], limit=4, end=False)
    assert examples.target_ids.tolist() == [4, 5, END, 3, 4, 5, END]
    assert examples.target_cut.sum() == 1


def test_a_row_without_a_target_token_is_left_out_and_named() -> None:
    examples = encoded([("a", "b"), ("a", " "), ("c", "d")])
    assert examples.left_out == (11,)
    assert examples.rows.tolist() == [10, 12]
    assert examples.kept.tolist() == [0, 2]


def laid_out(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    given = labels != -100
    return {"labels": labels, "where": given.flatten().nonzero()[:, 0], "counts": given.sum(1)}


def test_losses_are_the_mean_over_a_rows_tokens() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5)
    rows = laid_out(torch.tensor([[1, 2, -100], [3, 4, 0]]))
    losses = SequenceToSequence(0).losses(logits.flatten(0, 1)[rows["where"]], rows)
    for i, row in enumerate(rows["labels"]):
        own = [-logits[i, t].log_softmax(0)[k] for t, k in enumerate(row.tolist()) if k != -100]
        assert losses[i].item() == pytest.approx(torch.stack(own).mean().item(), rel=1e-5)


def test_right_tokens_leave_padding_out() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = logits[0, 1, 1] = logits[0, 2, 0] = 1
    rows = laid_out(torch.tensor([[2, 3, -100]]))
    kept = SequenceToSequence(0).keep(logits.flatten(0, 1)[rows["where"]], rows)
    assert kept.tolist() == [[2.0, 1.0]]


def test_a_snapshot_holds_token_numbers() -> None:
    found = measure_tokens(np.array([1.0, 3.0]), np.array([[3, 2], [1, 0]]))
    assert found.refined_loss == 1.5
    assert found.metrics["token_loss"] == 1.5
    assert found.metrics["perplexity"] == pytest.approx(math.exp(1.5))
    assert found.metrics["token_accuracy"] == 0.5
    assert math.isnan(measure_tokens(np.zeros(0), np.zeros((0, 2))).refined_loss)
    # More than the run's files hold, and more than float64 does.
    for loss, expected in ((345.0, math.exp(345)), (346.0, math.inf), (1e4, math.inf)):
        found = measure_tokens(np.array([loss]), np.array([[3, 2]]))
        assert found.metrics["perplexity"] == pytest.approx(expected)


def test_smoothing_is_torchs_own_per_token() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 3, 7), torch.tensor([[1, 2, 3], [4, 5, -100]])
    rows = laid_out(labels)
    wanted = logits.flatten(0, 1)[rows["where"]]
    smoothed = LabelSmoothing(0.1)(
        ForwardPass(np.arange(2), rows, wanted), SequenceToSequence(0).losses(wanted, rows)
    )
    oracle = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1, reduction="none"
    ).view(2, 3)
    assert smoothed[0].item() == pytest.approx(oracle[0].mean().item(), rel=1e-5)
    assert smoothed[1].item() == pytest.approx(oracle[1, :2].mean().item(), rel=1e-5)


def test_encoding_nothing_gives_nothing(tmp_path: Path) -> None:
    examples = encode_pairs(table(PAIRS).take([]), tokenizer(), 8, 8, END)
    assert len(examples) == 0
    assert examples.lengths.tolist() == []
