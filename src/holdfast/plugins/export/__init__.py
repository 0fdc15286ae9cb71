"""A finished model in other formats, proven to be the same model: ONNX, OpenVINO, GGUF."""
