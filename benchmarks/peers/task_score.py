"""The test loss of a saved model, the same way for every system: a script of its own process.

Reads ``job.json`` and the folder that it is given; writes ``score.json``: ``loss``, in nats, the
mean over target tokens (pictures: over pictures), in float32, and ``accuracy`` of the tokens
(pictures); of a language model also ``general_loss``, that of the tokens of general passages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, saved: Path) -> None:
    import torch

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with torch.inference_mode():
        told = images(job, saved) if job["job"] == "pictures" else texts(job, saved)
    (folder / "score.json").write_text(json.dumps(told), encoding="utf-8")


def texts(job: dict[str, Any], saved: Path) -> dict[str, float]:
    model = language_model(job, saved).eval()
    told = score(model, job["rows"]["test"], 0 if job["job"] == "summaries" else 1)
    if job["rows"].get("general"):
        told["general_loss"] = score(model, job["rows"]["general"], 1)["test_loss"]
    return told


def score(model: Any, rows: list[dict[str, Any]], shift: int) -> dict[str, float]:
    import torch

    loss = right = count = 0.0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        logits = model(input_ids=ids, labels=labels).logits[0].float()
        logits, wanted = logits[: len(logits) - shift], labels[0, shift:]
        logits, wanted = logits[wanted != -100], wanted[wanted != -100]
        loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
        right += float((logits.argmax(-1) == wanted).sum())
        count += len(wanted)
    return {"test_loss": loss / count, "test_accuracy": right / count}


def language_model(job: dict[str, Any], saved: Path) -> Any:
    import torch
    import transformers as hf

    kind = hf.AutoModelForSeq2SeqLM if job["job"] == "summaries" else hf.AutoModelForCausalLM
    if (saved / "adapter_config.json").exists():
        import peft

        base = kind.from_pretrained(job["model"], dtype=torch.float32)
        return peft.PeftModel.from_pretrained(base, str(saved))
    return kind.from_pretrained(saved, dtype=torch.float32)


def images(job: dict[str, Any], saved: Path) -> dict[str, float]:
    import torch
    import transformers as hf
    from peers_pixels import pixels

    model = hf.AutoModelForImageClassification.from_pretrained(saved).eval()
    names = {str(name): int(place) for place, name in model.config.id2label.items()}
    rows = job["rows"]["test"]
    wanted = torch.tensor([names[row["label"]] for row in rows])
    inputs = pixels(str(saved), [row["path"] for row in rows])
    logits = torch.cat([model(pixel_values=part).logits for part in inputs.split(100)])
    loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
    return {
        "test_loss": float(loss),
        "test_accuracy": float((logits.argmax(-1) == wanted).float().mean()),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
