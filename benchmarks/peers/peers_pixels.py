"""Pictures → what a Transformers model reads, by its own processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pixels(model: str, paths: Sequence[str]) -> Any:
    """[n, channels, height, width] in float32."""
    import torch
    import transformers
    from PIL import Image

    processor = transformers.AutoImageProcessor.from_pretrained(model)
    parts = []
    for start in range(0, len(paths), 100):
        opened = [Image.open(path).convert("RGB") for path in paths[start : start + 100]]
        parts.append(processor(opened, return_tensors="pt")["pixel_values"])
    return torch.cat(parts)
