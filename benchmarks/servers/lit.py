"""LitServe with batches of 16 that wait for 10 ms."""

import os
import sys
from typing import Any

import litserve as ls
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Api(ls.LitAPI):  # type: ignore[misc, unused-ignore]
    def setup(self, device: str) -> None:
        folder = os.environ["SERVED_MODEL"]
        torch.set_num_threads(1)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def decode_request(self, request: dict[str, Any]) -> str:
        return str(request["text"])

    def predict(self, texts: list[str]) -> list[tuple[str, float]]:
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            chances = self.model(**inputs).logits.softmax(-1)
        names = self.model.config.id2label
        best = chances.argmax(-1).tolist()
        return [(names[k], float(row[k])) for k, row in zip(best, chances, strict=True)]

    def encode_response(self, output: tuple[str, float]) -> dict[str, Any]:
        return {"label": output[0], "score": output[1]}


if __name__ == "__main__":
    os.environ["SERVED_MODEL"], port = sys.argv[1:]
    server = ls.LitServer(Api(max_batch_size=16, batch_timeout=0.01), accelerator="cpu")
    server.run(port=int(port), log_level="error", generate_client_file=False)
