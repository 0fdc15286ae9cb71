"""A small residual layer over frozen features that starts as a linear probe: seconds a run.

x → x + W₂ relu(W₁ x), W₂ = 0 at first → a head that is refitted at step 0, so that step 0 is the
probe, as in the default recipe; what follows is as free to overfit as a fine-tuned encoder.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from peers.rows import Parts
from torch import nn

from holdfast.control.choice import lowest
from holdfast.core.records import Floats, Ints, Snapshot
from holdfast.methods.closed_form import HeadRefit
from holdfast.methods.optimizers import build_optimizer, build_schedule
from holdfast.models.probes.probe import Probe, fit_probe
from holdfast.monitor.judge import judge
from holdfast.tasks.classes.encoding import EncodedTexts, TextClassification
from holdfast.training.plan import Phase, Plan, evaluation_points, steps_for
from holdfast.training.run import Job

HIDDEN, BATCH, LOOKS = 64, 16, 20
# Epochs and rate: one that does little harm, and one that overfits.
COURSES = {"layer": (20, 1e-3), "layer-hot": (60, 3e-3)}


class Residual(nn.Module):
    """A row's number → its frozen features → a residual layer → a head."""

    def __init__(self, table: torch.Tensor, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding.from_pretrained(table, freeze=True)
        width = table.shape[1]
        first, last = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, width)
        self.body = nn.Sequential(first, nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, classes)

    def features(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        states: torch.Tensor = self.words(input_ids[:, 0])
        added: torch.Tensor = self.body(states)
        return states + added


@functools.cache
def encoder() -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.compute.processor import use_onednn
    from holdfast.models.loading.packaged import packaged_folder

    model = AutoModel.from_pretrained(packaged_folder(EMBEDDED)).eval()
    use_onednn(model)
    return AutoTokenizer.from_pretrained(packaged_folder(EMBEDDED)), model


KNOWN: dict[str, torch.Tensor] = {}


def embedded(texts: tuple[str, ...]) -> torch.Tensor:
    """The mean over tokens of the untouched encoder's last layer, of each text."""
    new = tuple(dict.fromkeys(text for text in texts if text not in KNOWN))
    KNOWN.update(zip(new, _embedded(new), strict=True))
    return torch.stack([KNOWN[text] for text in texts])


def _embedded(texts: tuple[str, ...]) -> torch.Tensor:
    tokenizer, model = encoder()
    order = np.argsort([len(text) for text in texts], kind="stable")
    out = torch.zeros(len(texts), model.config.hidden_size)
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            batch = tokenizer([texts[i] for i in rows], padding=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None].float()
            states = model(**batch).last_hidden_state
            out[torch.as_tensor(rows)] = (states * mask).sum(1) / mask.sum(1)
    return out


def job_of(cell: Mapping[str, Any], parts: Parts, held: Any) -> Job:
    """The loop's job; ``held`` is the listener, whose ``tested`` is filled in here."""
    from holdfast.training.machine.machine import make_accelerator

    sides = parts.named()
    table = embedded(tuple(text for rows in sides.values() for text in rows.texts))
    table = (table - table.mean(0)) / table.std()
    at = np.cumsum([0, *(len(rows) for rows in sides.values())])
    classes = tuple(parts.classes)
    encoded = {
        name: _encoded(rows.labels, start, classes)
        for (name, rows), start in zip(sides.items(), at, strict=False)
    }
    held.tested = encoded["test"]
    epochs, rate = COURSES[cell["recipe"]]
    steps = steps_for(epochs, len(parts.train), BATCH)
    phase = Phase(
        name="finetune", steps=steps, batch_size=BATCH, learning_rate=rate, head_learning_rate=rate
    )
    # Each look costs nothing here: as many as a long run has.
    looks = sorted({round(steps * i / LOOKS) for i in range(LOOKS + 1)})
    _, probe, _ = evaluation_points((phase,), len(parts.train), len(parts.valid), LOOKS)
    plan = Plan((phase,), tuple(looks), probe, cell["seed"])

    def fit(features: Floats, labels: Ints) -> Probe:
        return fit_probe(features, labels, classes=len(classes), seed=cell["seed"])

    def groups(network: Any, phase: Phase) -> list[dict[str, Any]]:
        learning = [p for p in network.parameters() if p.requires_grad]
        return [
            {"params": learning, "lr": phase.learning_rate, "weight_decay": 0.01, "name": "all"}
        ]

    def refined(snapshot: Snapshot) -> float:
        return snapshot.refined_loss

    # Not all of a ``Network``, but all that the loop needs.
    network: Any = Residual(table, len(classes), cell["seed"])
    return Job(
        network=network,
        task=TextClassification(0, classes),
        train=encoded["train"],
        valid=encoded["valid"],
        plan=plan,
        accelerator=make_accelerator("float32"),
        groups=groups,
        optimizer=build_optimizer,
        schedule=build_schedule,
        choose=lowest(refined),
        monitor=lambda history, kept=None: judge(history, kept_step=kept),
        listeners=(HeadRefit(fit, first=True), held),
    )


def _encoded(labels: tuple[str, ...], start: int, classes: tuple[str, ...]) -> EncodedTexts:
    ids = (start + np.arange(len(labels))).astype(np.int32)
    found = np.array([classes.index(label) for label in labels])
    return EncodedTexts(
        ids, None, np.arange(len(ids) + 1), np.arange(len(ids)), found, np.zeros(len(ids), bool)
    )
