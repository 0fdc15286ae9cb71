"""A small network on MiniLM's frozen features, for jobs of the real loop."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from peers.rows import clean_set
from torch import nn

from holdfast.control.choice import lowest
from holdfast.core.events import Listener
from holdfast.core.records import Snapshot
from holdfast.methods.optimizers import build_optimizer, build_schedule
from holdfast.monitor.judge import judge
from holdfast.tasks.classes.encoding import EncodedTexts, TextClassification
from holdfast.training.plan import Phase, Plan
from holdfast.training.run import Job
from recorded.store import folder


class Small(nn.Module):
    """A row's number → its frozen features → dropout → a hidden layer, if any → a head."""

    def __init__(self, table: torch.Tensor, hidden: int, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding.from_pretrained(table, freeze=True)
        width = table.shape[1]
        self.body = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(hidden or width, classes)

    def features(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        states: torch.Tensor = self.body(self.words(input_ids[:, 0]))
        return states


@functools.cache
def table_of(data: str) -> tuple[torch.Tensor, dict[str, int]]:
    """The features of every text of a set, scaled to a variance of 1 a dimension, and where each
    stands."""
    from transformers import AutoModel, AutoTokenizer

    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.loading.packaged import packaged_folder

    texts = list(clean_set(data).texts)
    where = {text: i for i, text in enumerate(texts)}
    kept = folder() / f"features-{data}.npy"
    if kept.exists():
        return torch.from_numpy(np.load(kept)), where
    tokenizer = AutoTokenizer.from_pretrained(packaged_folder(EMBEDDED))
    model = AutoModel.from_pretrained(packaged_folder(EMBEDDED)).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    out = torch.zeros(len(texts), model.config.hidden_size)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            batch = tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            mask = batch["attention_mask"][..., None].float()
            states = model(**batch).last_hidden_state
            out[torch.as_tensor(rows)] = (states * mask).sum(1) / mask.sum(1)
    table = (out - out.mean(0)) / out.std()
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, table.numpy())
    return table, where


def encoded(rows: Any, where: dict[str, int], classes: tuple[str, ...]) -> EncodedTexts:
    ids = np.array([where[text] for text in rows.texts], dtype=np.int32)
    labels = np.array([classes.index(label) for label in rows.labels])
    return EncodedTexts(
        ids, None, np.arange(len(ids) + 1), np.arange(len(ids)), labels, np.zeros(len(ids), bool)
    )


def job_of(
    network: Any, classes: tuple[str, ...], sides: dict[str, Any], plan: Plan, watch: Listener
) -> Job:
    """``network`` is a ``Small``: not all of a ``Network``, but all that the loop needs."""
    from holdfast.training.machine.machine import make_accelerator

    def groups(net: Any, phase: Phase) -> list[dict[str, Any]]:
        learning = [p for p in net.parameters() if p.requires_grad]
        return [
            {"params": learning, "lr": phase.learning_rate, "weight_decay": 0.01, "name": "all"}
        ]

    def refined(snapshot: Snapshot) -> float:
        return snapshot.refined_loss

    return Job(
        network=network,
        task=TextClassification(0, classes),
        train=sides["train"],
        valid=sides["valid"],
        plan=plan,
        accelerator=make_accelerator("float32"),
        groups=groups,
        optimizer=build_optimizer,
        schedule=build_schedule,
        choose=lowest(refined),
        monitor=lambda history, kept=None: judge(history, kept_step=kept),
        listeners=(watch,),
    )
