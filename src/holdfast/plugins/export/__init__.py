"""Export of a finished model to ONNX, OpenVINO or GGUF, verified against the saved model."""

from __future__ import annotations

from holdfast.core.discovery import Entry

EXPORT = Entry(
    "holdfast.plugins.export.command",
    "Export a run's model as ONNX, OpenVINO or GGUF",
    "holdfast export runs/reviews-1 --to onnx --int8",
    "holdfast export runs/chat-1 --to gguf --out chat-gguf",
    "holdfast export runs/reviews-1 --to onnx --push ada/reviews --space",
    imports="torch",
)
