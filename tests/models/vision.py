"""Tiny image models of every architecture, randomly initialised, each with a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIDE = 32
SETTINGS: dict[str, dict[str, Any]] = {
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [2, 1],
        "layer_type": "basic",
    },
    "convnext": {"hidden_sizes": [8, 16], "depths": [2, 1], "num_stages": 2, "patch_size": 4},
    "convnextv2": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 4},
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": SIDE,
        "patch_size": 8,
    },
    "swin": {
        "image_size": SIDE,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [2, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "swinv2": {
        "image_size": SIDE,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
}


def tiny_vision(folder: Path, kind: str, **changes: Any) -> Path:
    """Write a tiny model with weights large enough that pictures give unlike logits."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    from transformers.models.vit import ViTImageProcessorPil

    config = AutoConfig.for_model(kind, **(SETTINGS[kind] | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)](config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(3.0 if "classifier" not in name else 1.0)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(std=0.1)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
