"""What a service keeps of a text: nothing unless asked, then without personal data, for a while."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.plugins.service.observers import masked_row, packed_vector

Make = Callable[..., Any]
TEXT = "write to jo.doe@example.com about 4012 8888 8888 1881"


def test_personal_data_are_taken_out_of_every_text_however_deep() -> None:
    row = {"text": TEXT, "turns": [{"content": TEXT}], "n": 3, "none": None}
    found = masked_row(row)
    assert "jo.doe" not in json.dumps(found)
    assert "8888" not in json.dumps(found)
    assert found["text"] == "write to [EMAIL] about [CARD]"
    assert found["turns"][0]["content"] == found["text"]
    assert (found["n"], found["none"]) == (3, None)
    assert row["text"] == TEXT


def test_vectors_are_kept_in_half_precision() -> None:
    vectors = np.array([[1.0, -2.5], [0.25, 1e9]], dtype=np.float32)
    kept = packed_vector(vectors, 0)
    assert kept is not None
    assert np.frombuffer(kept, "<f2").tolist() == [1.0, -2.5]
    assert packed_vector(None, 0) is None


@pytest.mark.parametrize("masks", [True, False])
def test_texts_are_kept_where_asked_masked_and_with_an_end(serving_of: Make, masks: bool) -> None:
    asked = ["serve.log_texts=true", "serve.retention_days=2", f"serve.mask={str(masks).lower()}"]
    client = serving_of(store=True, settings=asked)
    request = client.post("/predict", json={"text": TEXT}).json()["id"]
    assert client.service.writer.flush(10)
    kept = client.service.store.request(request)
    shown = "write to [EMAIL] about [CARD]" if masks else TEXT
    assert kept.texts[0].row == {"text": shown}
    assert kept.texts[0].expires_at == pytest.approx(kept.at + 2 * 86400)
    assert client.service.store.expire(kept.at + 2 * 86400 + 1) == 1


@pytest.mark.parametrize("texts", [True, False])
def test_no_byte_of_personal_data_is_in_the_store_of_a_model_that_says_it_again(
    serving_of: Make, tmp_path: Path, texts: bool
) -> None:
    import stand_in

    facts = replace(stand_in.FACTS, task="seq2seq", classes=None)
    asked = [f"serve.log_texts={str(texts).lower()}"]
    client = serving_of(stand_in.StandIn(facts), store=True, settings=asked)
    row = {"text": TEXT, "card": 4012888888881881, "more": {"jo@example.com": [1, 2.5, True]}}
    answer = client.post("/predict", json={"rows": [row]}).json()
    assert answer["predictions"][0]["prediction"] == f"{TEXT}!"
    assert client.service.writer.flush(10)
    kept = client.service.store.request(answer["id"])
    assert kept.predictions[0].prediction == "write to [EMAIL] about [CARD]!"
    if texts:
        more = {"[EMAIL]": [1, 2.5, True]}
        assert kept.texts[0].row == {
            "text": kept.predictions[0].prediction[:-1],
            "card": "[CARD]",
        } | {"more": more}
    client.service.close()
    found = b"".join(one.read_bytes() for one in tmp_path.glob("store.db*"))
    assert found
    assert b"example.com" not in found
    assert b"40128888" not in found


def test_a_labelled_row_is_masked_too_and_goes_when_its_time_is_over(serving_of: Make) -> None:
    client = serving_of(store=True)
    request = client.post("/predict", json={"text": TEXT}).json()["id"]
    assert client.service.writer.flush(10)
    assert client.service.store.request(request).texts == ()
    client.post("/feedback", json={"id": request, "label": " GOOD ", "who": "ann"})
    (label,) = client.service.store.feedback()
    assert label.row == {"text": "write to [EMAIL] about [CARD]"}
    assert label.label == "good"
    assert label.expires_at == pytest.approx(label.at + 30 * 86400, abs=60)


@pytest.mark.parametrize("masks", [True, False])
def test_a_corrected_text_is_masked_as_its_row(serving_of: Make, masks: bool) -> None:
    import stand_in

    facts = replace(stand_in.FACTS, task="seq2seq", classes=None)
    asked = [f"serve.mask={str(masks).lower()}"]
    client = serving_of(stand_in.StandIn(facts), store=True, settings=asked)
    request = client.post("/predict", json={"text": TEXT}).json()["id"]
    sent = client.post("/feedback", json={"id": request, "label": TEXT, "who": "ann"})
    assert sent.json()["row"]
    (label,) = client.service.store.feedback()
    shown = "write to [EMAIL] about [CARD]" if masks else TEXT
    assert (label.label, label.row) == (shown, {"text": shown})


def test_a_new_class_is_refused_or_recorded_as_was_asked(serving_of: Make) -> None:
    for asked, status in (([], 400), (["serve.new_classes=true"], 200)):
        client = serving_of(store=True, settings=asked)
        request = client.post("/predict", json={"text": "ab"}).json()["id"]
        answer = client.post("/feedback", json={"id": request, "label": "so-so"})
        assert answer.status_code == status
        assert [one.label for one in client.service.store.feedback()] == (
            ["so-so"] if asked else []
        )


def test_no_label_is_taken_for_a_request_that_was_deleted(serving_of: Make) -> None:
    client = serving_of(store=True)
    request = client.post("/predict", json={"text": "ab"}).json()["id"]
    assert client.service.writer.flush(10)
    client.service.store.delete(1.0, by="request", value=request)
    for said in ({"label": "good"}, {"outcome": 1}):
        answer = client.post("/feedback", json={"id": request, **said})
        assert answer.status_code == 400
        assert "was deleted" in answer.json()["error"]["rule"]
    assert client.service.store.outcomes() == []
