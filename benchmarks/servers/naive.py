"""The server that a person writes first: FastAPI, and a model that is called where it is asked."""

import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

app = FastAPI()


class Body(BaseModel):
    text: str


@app.post("/predict")
async def predict(body: Body) -> dict[str, Any]:
    inputs = app.state.tokenizer(body.text, return_tensors="pt", truncation=True)
    with torch.no_grad():
        chances = app.state.model(**inputs).logits.softmax(-1)[0]
    best = int(chances.argmax())
    return {"label": app.state.model.config.id2label[best], "score": float(chances[best])}


if __name__ == "__main__":
    folder, port = sys.argv[1:]
    app.state.tokenizer = AutoTokenizer.from_pretrained(folder)
    app.state.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    uvicorn.run(app, port=int(port), log_level="error", access_log=False)
