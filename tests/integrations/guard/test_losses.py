"""Losses row by row against the models' own losses of one row, and which formula is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from holdfast.core.errors import DataError
from holdfast.plugins.trainers.losses import aligned_formula, find_formula

IGNORED = -100


def tiny(kind: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model of each kind with random weights, and a batch of five rows of unequal length."""
    import transformers as hf

    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": 30,
    }
    torch.manual_seed(0)
    tokens = torch.randint(3, 30, (5, 8))
    mask = (torch.arange(8)[None] < torch.tensor([8, 3, 5, 8, 2])[:, None]).long()
    batch = {"input_ids": tokens, "attention_mask": mask}
    words = torch.where(mask.bool(), tokens, IGNORED)
    problems = {
        "classes": "single_label_classification",
        "number": "regression",
        "several": "multi_label_classification",
    }
    if kind in problems:
        labels = {
            "classes": torch.tensor([0, 2, 1, 1, 0]),
            "number": torch.randn(5),
            "several": torch.randint(0, 2, (5, 3)).float(),
        }[kind]
        config = hf.BertConfig(
            num_labels=1 if kind == "number" else 3, problem_type=problems[kind], **small
        )
        return hf.BertForSequenceClassification(config).eval(), {**batch, "labels": labels}
    if kind == "next tokens":
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**small))
        return model.eval(), {**batch, "labels": words}
    if kind == "tokens of a tagger":
        marks = torch.where(mask.bool(), tokens % 3, IGNORED)
        tagger = hf.BertForTokenClassification(hf.BertConfig(num_labels=3, **small))
        return tagger.eval(), {**batch, "labels": marks}
    config = hf.T5Config(
        vocab_size=30,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return hf.T5ForConditionalGeneration(config).eval(), {
        **batch,
        "labels": words[:, :6].contiguous(),
    }


@pytest.mark.parametrize(
    "kind", ["classes", "number", "several", "next tokens", "tokens of a tagger", "tokens of a T5"]
)
def test_a_rows_loss_is_the_models_own_loss_of_that_row_alone(kind: str) -> None:
    model, batch = tiny(kind)
    with torch.no_grad():
        output = model(**batch)
        alone = [float(model(**{k: v[i : i + 1] for k, v in batch.items()}).loss) for i in range(5)]
    formula = find_formula(output.logits, batch["labels"], float(output.loss))
    assert formula is not None
    assert kind.startswith(formula.name)
    losses = formula.losses(output.logits, batch["labels"])
    assert losses.numpy() == pytest.approx(np.array(alone), abs=1e-5)
    assert formula.mean(output.logits, batch["labels"]) == pytest.approx(float(output.loss))


def test_a_loss_of_another_kind_fits_no_formula() -> None:
    model, batch = tiny("classes")
    with torch.no_grad():
        logits = model(**batch).logits
    weighted = functional.cross_entropy(logits, batch["labels"], torch.tensor([1.0, 5.0, 9.0]))
    assert find_formula(logits, batch["labels"], float(weighted)) is None
    assert find_formula(logits, batch["labels"], float("nan")) is None
    assert find_formula((logits,), batch["labels"], 1.0) is None


def test_half_precision_may_differ_by_its_rounding() -> None:
    logits, labels = torch.randn(64, 4, dtype=torch.bfloat16), torch.randint(0, 4, (64,))
    own = float(functional.cross_entropy(logits, labels))
    found = find_formula(logits, labels, own)
    assert found is not None
    assert found.name == "classes"


@pytest.mark.parametrize(
    ("logits", "labels", "name"),
    [
        (torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), "classes"),
        (torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float(), "several"),
        (torch.randn(4, 3), torch.randint(0, 2, (4, 3)), "several"),
        (torch.randn(4, 3), torch.randn(4, 3), "number"),
        (torch.randn(4, 1), torch.randn(4), "number"),
        (torch.randn(4, 6, 9), torch.randint(0, 9, (4, 6)), "tokens"),
    ],
)
def test_without_the_models_own_loss_the_shapes_decide(
    logits: torch.Tensor, labels: torch.Tensor, name: str
) -> None:
    assert aligned_formula(logits, labels).name == name


def test_shapes_that_fit_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="do not fit any loss"):
        aligned_formula(torch.randn(4, 3), torch.randn(5))


def test_numbers_of_no_rows_are_not_numbers() -> None:
    formula = aligned_formula(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    measured = formula.measure(np.zeros(0), np.zeros((0, 3)))
    assert np.isnan(measured.refined_loss)
    assert np.isnan(measured.metrics["accuracy"])
