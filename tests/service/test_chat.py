"""Conversations over HTTP: answers as ``chat`` and ``predict`` give them, in the shapes that
OpenAI's clients read, several at once, within bounds."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx2")
pytest.importorskip("jsonschema")

import httpx2 as httpx
import jsonschema
import torch
import uvicorn
from stand_in import StandIn
from tests.chats import write_chats

from holdfast.core.errors import DataError
from holdfast.pipeline.main import train
from holdfast.plugins.chat.talk import ChatOptions, Talk
from holdfast.plugins.service.chat.conversations import ChatLimits, Chats, Conversation
from holdfast.plugins.service.chat.decoder import (
    DecodedText,
    PaddedBatch,
    TextPieces,
    UncachedDecoder,
    decoder_of,
    token_chooser,
)
from holdfast.plugins.service.engine.open import open_engine
from holdfast.plugins.service.engine.rows import prediction_request, required_columns
from holdfast.plugins.service.live.router import EngineRouter
from holdfast.plugins.service.records import EngineFacts
from holdfast.plugins.service.routes import ENDPOINTS
from holdfast.plugins.service.service import ServedChats, Service
from holdfast.plugins.service.settings import serving
from holdfast.plugins.service.web.application import Application
from holdfast.plugins.service.web.guard import AccessRules
from holdfast.recipe import Recipe, override
from holdfast.runs.predictor import Predictor
from holdfast.tasks.generation.token_scores import drawing
from holdfast.tasks.lm.answers import CausalLMPredictor

HERE = "http://127.0.0.1"
WORDS = ("red", "blue", "green", "old", "new", "big")
ASKED = ["red blue?", "new old? and green blue?", "?", "big", "old " * 12, "green, red, big?"]

NUMBERS = {"type": "integer", "minimum": 0}
USAGE = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": dict.fromkeys(("prompt_tokens", "completion_tokens"), NUMBERS),
}
HEAD = {
    "id": {"type": "string", "pattern": "^chatcmpl-"},
    "created": {"type": "integer"},
    "model": {"type": "string"},
}
REASON = {"enum": ["stop", "length"]}


def document(kind: str, choice: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document with one choice, as OpenAI's reference has it."""
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", *more],
        "properties": {
            **HEAD,
            "object": {"const": kind},
            "choices": {"type": "array", "minItems": 1, "maxItems": 1, "items": choice},
            **more,
        },
    }


WHOLE = document(
    "chat.completion",
    {
        "type": "object",
        "required": ["index", "message", "finish_reason", "logprobs"],
        "properties": {
            "index": {"const": 0},
            "finish_reason": REASON,
            "message": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"role": {"const": "assistant"}, "content": {"type": "string"}},
            },
        },
    },
    usage=USAGE,
)
CHUNK = document(
    "chat.completion.chunk",
    {
        "type": "object",
        "required": ["index", "delta", "finish_reason"],
        "properties": {
            "delta": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"role": {"const": "assistant"}, "content": {"type": "string"}},
            },
            "finish_reason": {"enum": ["stop", "length", None]},
        },
    },
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    return trained(tmp_path_factory.mktemp("chat"), tiny_llama)


def trained(folder: Path, model: Path, *settings: str) -> Path:
    rows = folder / "say.jsonl"
    lines = [{"instruction": f"{a} {b}?", "response": f"{b} {a}."} for a in WORDS for b in WORDS]
    rows.write_text("\n".join(map(json.dumps, lines)))
    quick = [
        "task=causal-lm",
        f"data.path={rows}",
        f"model.name={model}",
        "train.max_steps=8",
        "train.threads=1",
        "train.learning_rate=0.01",
        "train.precision=float32",
        "generate.rows=0",
    ]
    train(override(Recipe(), [*quick, *settings]), folder / "say")
    return folder / "say"


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return Predictor.load(run)


def chats_of(use: Any, name: str, **more: Any) -> Chats:
    """Conversations with a model that nothing else uses."""
    return Chats(use, name, run_exclusively=lambda job: job(), **more)


@pytest.fixture
def open_chats(predictor: Predictor, run: Path) -> Iterator[Callable[..., Chats]]:
    made: list[Chats] = []

    def opened(**bounds: Any) -> Chats:
        chats = chats_of(predictor.model, run.name, limits=ChatLimits(**bounds))
        chats.warm()
        made.append(chats)
        return chats

    yield opened
    for chats in made:
        chats.drain()


def application(chats: Chats | None, task: str = "causal-lm") -> Application:
    facts = EngineFacts(task, "say@0123abcd", Path("say"), ("text",), None, "float32", "it is")
    service = Service(serving(), AccessRules.for_server("127.0.0.1", None, ()))
    engine = EngineRouter(StandIn(facts))
    service.begin(engine, (), ServedChats(engine, service.settings, chats))
    return Application(service, ENDPOINTS)


@contextmanager
def asking(chats: Chats | None, task: str = "causal-lm") -> Iterator[Callable[..., Any]]:
    """Many requests at once to the application, without a socket."""
    app = application(chats, task)

    def ask(*bodies: Any, path: str = "/v1/chat/completions", method: str = "POST") -> Any:
        async def all_of_them() -> list[Any]:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                calls = [
                    client.request(method, path, content=body)
                    if isinstance(body, (bytes, str))
                    else client.request(method, path, json=body)
                    for body in bodies
                ]
                return await asyncio.gather(*calls)

        answers = asyncio.run(all_of_them())
        return answers[0] if len(bodies) == 1 else answers

    yield ask
    assert app.service.observer_thread is not None
    app.service.observer_thread.close(5)


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "say", "messages": [{"role": "user", "content": text}], **more}


def said(answer: Any) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def events(text: str) -> list[Any]:
    lines = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to be")


@pytest.mark.slow
def test_answers_that_are_written_at_once_are_those_of_chat_and_of_predict(
    open_chats: Callable[..., Chats],
    predictor: Predictor,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chats = open_chats(max_running=4)
    assert chats.decisions[0].chosen == "in one batch"
    alone = []
    for text in ASKED:
        talk = Talk.of(run, ChatOptions(), start=False)
        alone.append(talk.ask(text).answer)
    model = predictor.model
    assert isinstance(model, CausalLMPredictor)
    assert [p.prediction for p in predictor.predict(ASKED)] == alone
    over: list[Conversation] = []
    keep = chats._finish
    monkeypatch.setattr(chats, "_finish", lambda one, why: (keep(one, why), over.append(one)))
    with asking(chats) as ask:
        answers = ask(*[user(text) for text in ASKED])
    assert [answer.status_code for answer in answers] == [200] * len(ASKED)
    assert [said(answer) for answer in answers] == alone
    assert len(set(alone)) > 2
    known = zip(ASKED, (p.confidence for p in predictor.predict(ASKED)), strict=True)
    sure = {one.request.turns[0]["content"]: one.result.confidence for one in over if one.result}
    assert sure == pytest.approx(dict(known), abs=1e-4)
    for answer in answers:
        jsonschema.validate(answer.json(), WHOLE)


def test_a_text_for_a_model_of_messages_is_the_user_s_turn(
    tmp_path: Path, tiny_llama: Path
) -> None:
    chats = write_chats(tmp_path / "chats.jsonl")
    run = trained(tmp_path, tiny_llama, f"data.path={chats}", "data.template=chatml")
    asked = Predictor.load(run)
    turns = [{"role": "user", "content": "red blue?"}]
    (column,) = required_columns(asked)
    requests = [
        prediction_request(asked, [{column: "red blue?"}]),
        *(prediction_request(asked, [{"messages": one}]) for one in (turns, json.dumps(turns))),
    ]
    assert len({str(asked.predict_table(one.table)) for one in requests}) == 1
    with pytest.raises(DataError, match="without a list of turns"):
        prediction_request(asked, [{"messages": "[1, 2]"}])


def test_a_stream_is_the_same_answer_in_pieces(open_chats: Callable[..., Chats]) -> None:
    chats = open_chats()
    drawn = {"temperature": 1.5, "seed": 3, "max_tokens": 40}
    more = {**drawn, "stream": True, "stream_options": {"include_usage": True}}
    with asking(chats) as ask:
        whole = ask(user(ASKED[1], **drawn))
        stream = ask(user(ASKED[1], **more))
        plain = ask(user(ASKED[1], stream=True))
    assert stream.headers["content-type"].startswith("text/event-stream")
    *chunks, numbers = events(stream.text)
    for chunk in chunks:
        jsonschema.validate(chunk, CHUNK)
        assert chunk["usage"] is None
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert deltas[-1] == {}
    assert len(deltas) > 3
    assert "".join(delta.get("content", "") for delta in deltas) == said(whole)
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == whole.json()["choices"][0]["finish_reason"]
    assert numbers["choices"] == []
    assert numbers["usage"] == whole.json()["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in events(plain.text))


def test_a_drawn_answer_is_that_of_chat_whoever_else_is_answered(
    open_chats: Callable[..., Chats], run: Path
) -> None:
    chats = open_chats()
    talk = Talk.of(run, ChatOptions(max_tokens=20, temperature=0.9, seed=7), start=False)
    drawn = {"temperature": 0.9, "seed": 7, "max_tokens": 20}
    with asking(chats) as ask:
        among = ask(*[user(text, temperature=1.0) for text in ASKED], user(ASKED[0], **drawn))[-1]
        other = ask(user(ASKED[0], **{**drawn, "seed": 8}))
        narrow = ask(user(ASKED[0], **drawn, top_p=0.001))
        likeliest = ask(user(ASKED[0], max_tokens=20))
    assert said(among) == talk.ask(ASKED[0]).answer
    assert said(other) != said(among)
    assert said(narrow) == said(likeliest) != said(among)


def test_an_answer_ends_at_a_limit_or_at_a_text_and_says_so(
    open_chats: Callable[..., Chats],
) -> None:
    chats = open_chats()
    with asking(chats) as ask:
        whole = said(ask(user("red blue?", max_tokens=40)))
        short = ask(user("red blue?", max_completion_tokens=5)).json()
        assert short["choices"][0]["finish_reason"] == "length"
        assert short["usage"]["completion_tokens"] == 5
        assert whole.startswith(short["choices"][0]["message"]["content"])
        end = whole[6:9]
        stopped = ask(user("red blue?", max_tokens=40, stop=["no such words", end])).json()
        stream = events(ask(user("red blue?", max_tokens=40, stop=end, stream=True)).text)
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["choices"][0]["message"]["content"] == whole[: whole.find(end)].strip()
    assert stopped["usage"]["completion_tokens"] < 40
    told = "".join(c["choices"][0]["delta"].get("content", "") for c in stream)
    assert told == stopped["choices"][0]["message"]["content"]


BAD: list[tuple[Any, int, str | None]] = [
    (b"{", 400, None),
    (b"\xff\xfe", 400, None),
    (b'{"messages": NaN}', 400, None),
    ("[" * 100_000, 400, None),
    ([], 400, None),
    ({"model": "say"}, 400, "messages"),
    (user("?", n=2), 400, "n"),
    (user("?", n=True), 400, "n"),
    (user("?", logprobs=True), 400, "logprobs"),
    (user("?", tools=[{"type": "function"}]), 400, "tools"),
    (user("?", response_format={"type": "json_object"}), 400, "response_format"),
    (user("?", presence_penalty=0.5), 400, "presence_penalty"),
    (user("?", temperatur=0.5), 400, "temperatur"),
    (user("?", temperature=3), 400, "temperature"),
    (user("?", temperature="1"), 400, "temperature"),
    (user("?", top_p=0), 400, "top_p"),
    (user("?", max_tokens=0), 400, "max_tokens"),
    (user("?", max_tokens=2, max_completion_tokens=2), 400, "max_tokens"),
    (user("?", stop=["a"] * 5), 400, "stop"),
    (user("?", stop=[""]), 400, "stop.0"),
    ({**user("?"), "model": "gpt-5"}, 404, "model"),
    ({"messages": []}, 400, "messages"),
    ({"messages": [{"role": "user"}]}, 400, "messages.0"),
    ({"messages": [{"role": "boss", "content": "?"}]}, 400, "messages.0"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0"),
    ({"messages": [{"role": "assistant", "content": "hm"}]}, 400, "messages"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, None),
    ({"messages": [{"role": "user", "content": None}]}, 400, "messages.0"),
    ({"messages": [{"role": "USER", "content": "?"}]}, 400, "messages.0"),
]


def test_what_cannot_be_answered_is_refused_by_name_and_nothing_else_is(
    open_chats: Callable[..., Chats],
) -> None:
    chats = open_chats()
    with asking(chats) as ask:
        answers = ask(*[body for body, _, _ in BAD])
        for answer, (body, status, param) in zip(answers, BAD, strict=True):
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (status, param), body
            assert set(error) == {"message", "type", "param", "code"}
            assert len(error["message"]) < 600
        # What clients send as a matter of course changes nothing.
        usual = {
            "n": 1,
            "logprobs": False,
            "presence_penalty": 0.0,
            "tools": [],
            "store": False,
            "response_format": {"type": "text"},
            "metadata": {"a": "b"},
            "user": "me",
            "stop": None,
            "stream": False,
            "service_tier": "auto",
            "logit_bias": None,
        }
        assert ask(user("red?", **usual)).status_code == 200
        parts = [{"type": "text", "text": "red "}, {"type": "text", "text": "blue?"}]
        in_parts = {"messages": [{"role": "user", "content": parts}]}
        for role in ("system", "developer", "assistant", "tool", "function"):
            before = {"messages": [{"role": role, "content": "x"}, *user("?")["messages"]]}
            assert ask(before).status_code == 200, role
        assert said(ask(in_parts)) == said(ask(user("red blue?")))
        assert ask(b"x" * (17 * 2**20)).status_code == 413


def test_more_than_the_model_reads_is_refused_with_both_lengths(
    open_chats: Callable[..., Chats],
) -> None:
    chats = open_chats()
    with asking(chats) as ask:
        long = ask(user("red " * 100))
        many = ask(user("red?", max_tokens=250))
        huge = ask(user("r" * 100_000))
        fits = ask(user("red?", max_tokens=150))
    assert fits.status_code == 200
    for answer in (long, many, huge):
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert "256 tokens" in answer.json()["error"]["message"]
    prompt = ask_tokens(chats, "red?")
    assert (
        f"the prompt has {prompt}, which leaves no room for an answer of up to 250"
        in many.json()["error"]["message"]
    )


def ask_tokens(chats: Chats, text: str) -> int:
    turns = [{"role": "user", "content": text}]
    rendered = chats._tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    return len(chats._tokenizer(rendered, add_special_tokens=False)["input_ids"])


class Held:
    """A decoder that takes a step only when it is let; one that is made of a model is plain."""

    def __new__(cls, inner: Any) -> Any:
        return object.__new__(cls) if isinstance(inner, PaddedBatch) else PaddedBatch(inner)

    def __init__(self, inner: Any) -> None:
        self.inner, self.free = inner, threading.Semaphore(0)
        self.broken = False

    @property
    def rows(self) -> Any:
        return self.inner.rows

    def join(self, row: DecodedText) -> int:
        return int(self.inner.join(row))

    def step(self) -> Any:
        assert self.free.acquire(timeout=100)
        if self.broken:
            raise RuntimeError("out of memory")
        return self.inner.step()

    def leave(self, row: DecodedText) -> None:
        self.inner.leave(row)


def test_who_finds_it_full_is_told_at_once_and_nobody_else_loses_an_answer(
    open_chats: Callable[..., Chats],
) -> None:
    chats = open_chats(max_running=1, max_waiting=1)
    held = Held(chats._decoder)
    chats._decoder = held
    answers: list[Any] = []

    def send() -> None:
        with asking(chats) as ask:
            answers.append(ask(user("red blue?", max_tokens=8)))

    threads = [threading.Thread(target=send) for _ in range(2)]
    threads[0].start()
    wait_for(lambda: len(chats._running) == 1)
    threads[1].start()
    wait_for(lambda: chats.figures()["waiting"] == 1)
    with asking(chats) as ask:
        refused = ask(user("red?"))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert answers == []
    held.free.release(100)
    for thread in threads:
        thread.join(100)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert said(answers[0]) == said(answers[1])
    assert chats.counts["refused_full"] == 1


def test_an_ending_server_takes_nothing_on_and_finishes_what_it_took(
    open_chats: Callable[..., Chats],
) -> None:
    chats = open_chats(max_running=1)
    held = Held(chats._decoder)
    chats._decoder = held
    answers: list[Any] = []

    def send() -> None:
        with asking(chats) as ask:
            answers.extend(ask(user("red blue?", max_tokens=8), user("old?", max_tokens=8)))

    thread = threading.Thread(target=send)
    thread.start()
    wait_for(lambda: chats.figures()["running"] + chats.figures()["waiting"] == 2)
    ending = threading.Thread(target=chats.drain)
    ending.start()
    wait_for(lambda: chats._draining)
    with asking(chats) as ask:
        assert ask(user("new?")).status_code == 503
    held.free.release(100)
    ending.join(100)
    thread.join(100)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert all(said(answer) for answer in answers)


def test_who_is_still_being_read_when_the_server_ends_is_answered_too(
    open_chats: Callable[..., Chats], monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = open_chats()
    reading, read_on = threading.Event(), threading.Event()
    rendered = chats._tokenize

    def slowly(ask: Any) -> list[int]:
        reading.set()
        assert read_on.wait(100)
        return rendered(ask)

    monkeypatch.setattr(chats, "_tokenize", slowly)
    answers: list[Any] = []

    def send() -> None:
        with asking(chats) as ask:
            answers.append(ask(user("red blue?", max_tokens=8)))

    thread = threading.Thread(target=send)
    thread.start()
    assert reading.wait(100)
    ending = threading.Thread(target=chats.drain)
    ending.start()
    wait_for(lambda: chats._draining)
    time.sleep(0.05)
    read_on.set()
    thread.join(100)
    ending.join(100)
    assert [answer.status_code for answer in answers] == [200]


def test_what_was_answered_is_recorded_and_counted_and_what_was_not_is_not(
    open_chats: Callable[..., Chats],
) -> None:
    chats = open_chats()
    app = application(chats)
    seen: list[Any] = []
    app.service.finish_request = lambda served, seconds, size: seen.append(served)  # type: ignore[method-assign]

    async def calls() -> Any:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            path = "/v1/chat/completions"
            one = await client.post(path, json=user("red?", user="ada"))
            await client.post(path, json=user("old?", stream=True))
            await client.post(path, json=user("red " * 100))
            await client.post("/v1/completions", json={"prompt": "red"})
            turns = [*user("a")["messages"], {"role": "assistant", "content": "b"}]
            await client.post(path, json={"messages": [*turns, *user("c")["messages"]]})
            return one.json(), (await client.get("/metrics")).text

    one, metrics = asyncio.run(calls())
    assert [served.rows[0] for served in seen] == [
        {"text": "red?"},
        {"text": "old?"},
        {"text": "red"},
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
            ]
        },
    ]
    assert one["id"] == f"chatcmpl-{seen[0].request}"
    (answer,) = seen[0].predictions.answers
    assert answer.prediction == one["choices"][0]["message"]["content"]
    assert 0 < answer.confidence < 1
    assert seen[0].user not in (None, "ada")
    assert seen[1].user is None
    assert "holdfast_chat_taken_total 4.0" in metrics
    assert "holdfast_chat_running 0.0" in metrics
    assert "context_length_exceeded" in metrics


def test_a_step_that_breaks_is_told_and_the_next_conversation_is_answered(
    open_chats: Callable[..., Chats], caplog: pytest.LogCaptureFixture
) -> None:
    chats = open_chats()
    with asking(chats) as ask:
        right = said(ask(user("red blue?", max_tokens=8)))
        held = Held(chats._decoder)
        held.free.release(1)
        held.broken = True
        chats._decoder = held
        failed = ask(user("red blue?", max_tokens=8))
        assert failed.status_code == 500
        assert failed.json()["error"]["code"] == "failed"
        assert said(ask(user("red blue?", max_tokens=8))) == right
    assert "conversations failed" in caplog.text
    assert chats.counts["failed"] == 1


def test_an_answer_that_takes_too_long_ends_with_its_reason(
    open_chats: Callable[..., Chats],
) -> None:
    chats = open_chats(deadline_s=0.3)
    held = Held(chats._decoder)
    chats._decoder = held
    timer = threading.Timer(0.6, held.free.release, [1])
    timer.start()
    with asking(chats) as ask:
        late = ask(user("red blue?", max_tokens=100))
    timer.join()
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "deadline"
    assert chats.counts["deadline"] == 1
    assert chats.figures()["running"] == 0


@contextmanager
def on_a_socket(chats: Chats) -> Iterator[int]:
    app = application(chats)
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(100)
        bound.close()


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_ends_when_its_reader_has_left(
    open_chats: Callable[..., Chats], stream: bool
) -> None:
    chats = open_chats()
    held = Held(chats._decoder)
    chats._decoder = held
    body = json.dumps(user("red blue?", max_tokens=150, stream=stream)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with on_a_socket(chats) as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(head.encode() + body)
        wait_for(lambda: len(chats._running) == 1)
        if stream:
            held.free.release(5)
            got = b""
            while b"assistant" not in got:
                got += client.recv(4096)
        (one,) = chats._running
        client.close()
        wait_for(lambda: one.abandoned)
        held.free.release(3)
        wait_for(lambda: chats.counts["gone"] == 1)
        assert len(one.decoded.written) < 20
        assert chats.figures()["running"] == 0
        # The next one is answered.
        held.free.release(400)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        assert httpx.post(url, json=user("old?", max_tokens=5)).status_code == 200


def test_models_are_listed_and_plain_texts_are_gone_on_with(
    open_chats: Callable[..., Chats], tiny_llama: Path
) -> None:
    import transformers as hf

    chats = open_chats()
    with asking(chats) as ask:
        (one,) = ask(None, path="/v1/models", method="GET").json()["data"]
        assert one["id"] == "say"
        assert one["object"] == "model"
        assert one["max_model_len"] == 256
        assert ask(None, path="/v1/models/say", method="GET").json() == one
        assert ask(None, path="/v1/models/else", method="GET").status_code == 404
    plain = hf.AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(tiny_llama)
    network = SimpleNamespace(to=lambda _: SimpleNamespace(plain=plain))
    recipe = override(Recipe(), ["task=causal-lm", "generate.max_new_tokens=12"])
    use = SimpleNamespace(network=network, tokenizer=tokenizer, of_text=True, recipe=recipe)
    texts = chats_of(use, "texts")
    texts.warm()
    try:
        with asking(texts) as ask:
            made = ask({"prompt": "a film"}, path="/v1/completions").json()
            stream = ask({"prompt": "a film", "stream": True}, path="/v1/completions")
            turn = ask({"messages": [{"role": "user", "content": "a film"}]})
            two = ask({"messages": [{"role": "system", "content": "x"}, *user("?")["messages"]]})
    finally:
        texts.drain()
    ids = tokenizer("a film", return_tensors="pt")
    ids = plain.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0]
    expected = tokenizer.decode(ids[len("a film") + 1 :], skip_special_tokens=True).strip()
    assert made["object"] == "text_completion"
    assert made["choices"][0]["text"] == expected == said(turn)
    assert "".join(c["choices"][0]["text"] for c in events(stream.text)) == expected
    assert two.status_code == 400
    assert "plain text" in two.json()["error"]["message"]


def test_a_run_that_is_no_language_model_names_what_to_ask_instead() -> None:
    with asking(None, "seq2seq") as ask:
        for path in ("/v1/chat/completions", "/v1/completions"):
            told = ask(user("?"), path=path)
            assert told.status_code == 404
            assert "seq2seq" in told.json()["error"]["message"]
            assert "/predict" in told.json()["error"]["message"]
        assert ask(None, path="/v1/models", method="GET").status_code == 404


def test_only_a_language_model_has_conversations(finished_run: Path) -> None:
    engine = EngineRouter(open_engine(finished_run, threads=1))
    try:
        served = ServedChats(engine, serving())
        served.warm()
        assert asyncio.run(served.current()) is None
    finally:
        engine.close()


def small(kind: str) -> Any:
    import transformers as hf

    shared = {
        "vocab_size": 120,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "window":
            more = {"num_key_value_heads": 1, "sliding_window": 6}
            return hf.MistralForCausalLM(hf.MistralConfig(**shared, **more)).eval()
        if kind == "bloom":
            sizes = {"n_layer": 2, "n_head": 2}
            config = hf.BloomConfig(vocab_size=120, hidden_size=32, initializer_range=0.3, **sizes)
            return hf.BloomForCausalLM(config).eval()
        return hf.GPT2LMHeadModel(
            hf.GPT2Config(
                vocab_size=120,
                n_embd=32,
                n_layer=2,
                n_head=2,
                n_positions=128,
                initializer_range=0.3,
                bos_token_id=0,
                eos_token_id=1,
            )
        ).eval()


def alone(plain: Any, prompt: list[int], new: int) -> list[int]:
    given = torch.tensor([prompt])
    made = plain.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return [int(token) for token in made[0, len(prompt) :]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["window", "bloom", "gpt2"])
@pytest.mark.parametrize("make", [PaddedBatch, UncachedDecoder])
def test_texts_that_join_and_leave_are_written_as_each_alone(kind: str, make: Any) -> None:
    plain = small(kind)
    draw = torch.Generator().manual_seed(3)
    prompts = [torch.randint(2, 120, (n,), generator=draw).tolist() for n in (20, 3, 9, 14)]
    lengths = [15, 4, 12, 9]
    settings = {"pad_token_id": 0, "eos_token_id": None, "seed": 0, **drawing(0.0)}
    rows = [DecodedText(p, token_chooser(plain, p, max_new_tokens=15, **settings)) for p in prompts]
    decoder, waiting = make(plain), list(zip(rows, lengths, strict=True))
    running: list[tuple[DecodedText, int]] = []
    steps = 0
    while waiting or running:
        if waiting and steps % 2 == 0:
            running.append(waiting.pop(0))
            decoder.join(running[-1][0])
        elif running:
            decoder.step()
        for row, length in list(running):
            if len(row.written) >= length:
                decoder.leave(row)
                running.remove((row, length))
        steps += 1
    for row, prompt, length in zip(rows, prompts, lengths, strict=True):
        assert row.written == alone(plain, prompt, length)


def test_the_models_own_settings_of_generation_are_kept() -> None:
    plain = small("gpt2")
    plain.generation_config.repetition_penalty = 1.8
    prompt = [5, 9, 5, 9, 5, 9]
    settings = {"pad_token_id": 0, "eos_token_id": None, "seed": 0, **drawing(0.0)}
    row = DecodedText(prompt, token_chooser(plain, prompt, max_new_tokens=12, **settings))
    decoder, _ = decoder_of(plain)
    decoder.join(row)
    while len(row.written) < 12:
        decoder.step()
    assert row.written == alone(plain, prompt, 12)
    plain.generation_config.repetition_penalty = 1.0
    assert row.written != alone(plain, prompt, 12)


def test_a_model_whose_answers_differ_beside_others_is_asked_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = small("gpt2")
    assert isinstance(decoder_of(plain)[0], PaddedBatch)
    # A model that takes the padding of others for words.
    forward = type(plain).forward

    def careless(self: Any, *given: Any, attention_mask: Any = None, **more: Any) -> Any:
        ones = None if attention_mask is None else torch.ones_like(attention_mask)
        return forward(self, *given, attention_mask=ones, **more)

    monkeypatch.setattr(type(plain), "forward", careless)
    decoder, why = decoder_of(plain)
    assert isinstance(decoder, UncachedDecoder)
    assert why.chosen == "in turns"
    assert "logits differ" in why.because


@pytest.mark.slow
def test_a_learnt_prompt_is_written_after_as_chat_does(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path
) -> None:
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("prompt")
    run = trained(folder, tiny_llama, "model.adapter.kind=prompt", "model.adapter.rank=4")
    predictor = Predictor.load(run)
    chats = chats_of(predictor.model, run.name)
    chats.warm()
    try:
        with asking(chats) as ask:
            answers = ask(*[user(text, max_tokens=9) for text in ASKED[:3]])
    finally:
        chats.drain()
    assert chats.decisions[0].chosen == "in turns"
    talks = [Talk.of(run, ChatOptions(max_tokens=9), start=False) for _ in ASKED[:3]]
    assert [said(a) for a in answers] == [
        talk.ask(text).answer for talk, text in zip(talks, ASKED[:3], strict=True)
    ]


def of_bytes(tokens: Any) -> str:
    return bytes(tokens).decode("utf-8", errors="replace")


def test_pieces_never_break_a_character_nor_take_anything_back() -> None:
    draw = torch.Generator().manual_seed(0)
    texts = [
        "  a 🏳️‍🌈 flag,\n\n ok. ",
        "Ünïcödé \ufffd stays",
        "no end",
        " \n ",
        "end<end>more",
        "nearly <en",
        "a<<end>",
    ]
    noise = [torch.randint(0, 256, (40,), generator=draw).tolist() for _ in range(200)]
    for tokens in [*(list(text.encode()) for text in texts), *noise]:
        for ends in ((), ("<end>",), ("<end>", "e", "\n\n")):
            pieces = TextPieces(of_bytes, ends)
            told = []
            for place, token in enumerate(tokens):
                told.append(pieces.add(token, last=place == len(tokens) - 1))
                if pieces.ended:
                    break
            # A plain loop: the first beginning in which an end stands is all that was written.
            whole = of_bytes(tokens)
            for length in range(1, len(tokens) + 1):
                if any(end in of_bytes(tokens[:length]) for end in ends):
                    whole = of_bytes(tokens[:length])
                    break
            at = min((whole.find(end) for end in ends if end in whole), default=len(whole))
            assert "".join(told) == pieces.text == whole[:at].strip()


def test_conversations_follow_the_model_that_is_promoted_and_end_with_the_one_before(
    run: Path, predictor: Predictor
) -> None:
    engines = [open_engine(run, threads=1) for _ in range(2)]
    lineup = EngineRouter(engines[0])
    service = Service(serving(), AccessRules.for_server("127.0.0.1", None, ()))
    following = ServedChats(lineup, service.settings)
    service.begin(lineup, (), following)
    app = Application(service, ENDPOINTS)
    lineup.warm()
    following.warm()
    first = following._chats
    assert first is not None
    held = Held(first._decoder)
    first._decoder = held
    engines[1].warm()

    async def calls() -> list[Any]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            path, body = "/v1/chat/completions", user("red blue?", max_tokens=8)
            before = asyncio.create_task(client.post(path, json=body))
            while not first._running:
                await asyncio.sleep(0.01)
            (taken_off,) = lineup.take_over(engines[1])
            retired = asyncio.create_task(asyncio.to_thread(lineup.retire, taken_off))
            after = await client.post(path, json=body)
            assert not retired.done()
            held.free.release(100)
            rows = await client.post("/predict", json={"texts": ["red blue?"]})
            answers = [await before, after, rows]
            await retired
            return answers

    try:
        before, after, rows = asyncio.run(calls())
    finally:
        held.free.release(100)
        service.close()
    assert following._chats is not first
    assert said(before) == said(after)
    (answer,) = predictor.predict(["red blue?"])
    assert rows.json()["predictions"][0]["prediction"] == answer.prediction
    assert answer.prediction.startswith(said(after)[:3])
