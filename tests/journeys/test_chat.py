"""Talking to a run's model beside its start model: on a terminal, in a pipe, in Python."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast as public
from holdfast.core.errors import RecipeError
from holdfast.pipeline.main import train
from holdfast.plugins.chat.talk import ChatSpeaker, Talk, _StreamedText
from holdfast.recipe import Recipe, override

WORDS = ("red", "blue", "green", "old", "new", "big")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "say.jsonl"
    lines = [{"instruction": f"{a} {b}?", "response": f"{b} {a}."} for a in WORDS for b in WORDS]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def make(
    rows: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    def made(*settings: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "run"
        quick = [
            "task=causal-lm",
            f"data.path={rows}",
            f"model.name={tiny_llama}",
            "train.max_steps=8",
            "train.threads=1",
            "train.learning_rate=0.01",
            "train.precision=float32",
            "generate.rows=0",
        ]
        train(override(Recipe(), [*quick, *settings]), folder)
        return folder

    return made


@pytest.fixture(scope="module")
def run(make: Callable[..., Path]) -> Path:
    return make()


def greedy(model: Path, tokenizer: Any, turns: list[dict[str, str]], new: int) -> str:
    """What plain Transformers writes."""
    import transformers as hf

    plain = hf.AutoModelForCausalLM.from_pretrained(model)
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    made = plain.generate(**ids, max_new_tokens=new, do_sample=False, pad_token_id=0)
    written = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(written).partition("</s>")[0].strip()


def test_both_models_answer_as_transformers_does_and_remember_their_own_words(
    run: Path, tiny_llama: Path
) -> None:
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(run / "model")
    talk = public.chat(run, max_tokens=12)
    first, second = talk.ask("red blue?"), talk.ask("new old?")
    for model, said in (
        (run / "model", [first.answer, second.answer]),
        (tiny_llama, [first.start, second.start]),
    ):
        turns = [{"role": "user", "content": "red blue?"}]
        assert said[0] == greedy(model, tokenizer, turns, 12)
        turns += [
            {"role": "assistant", "content": said[0] or ""},
            {"role": "user", "content": "new old?"},
        ]
        assert said[1] == greedy(model, tokenizer, turns, 12)
    assert first.answer != first.start
    talk.reset()
    assert talk.ask("red blue?").answer == first.answer


@pytest.mark.slow
def test_an_adapter_is_switched_off_and_nothing_is_loaded_twice(
    make: Callable[..., Path], tiny_llama: Path
) -> None:
    import transformers as hf

    run = make("model.adapter.kind=lora", "model.adapter.rank=4", "train.learning_rate=0.05")
    talk = Talk.of(run)
    assert isinstance(talk.start_model, ChatSpeaker)
    assert isinstance(talk.tuned, ChatSpeaker)
    assert talk.start_model.model is talk.tuned.model
    reply = talk.ask("red blue?")
    tokenizer = hf.AutoTokenizer.from_pretrained(run / "model")
    turns = [{"role": "user", "content": "red blue?"}]
    assert reply.start == greedy(tiny_llama, tokenizer, turns, 128)
    assert reply.answer != reply.start
    # On again, and as it was.
    talk.reset()
    assert talk.ask("red blue?").answer == reply.answer


def test_a_system_turn_comes_first_and_stays(run: Path, tiny_llama: Path, holdfast: Any) -> None:
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(run / "model")
    talk = public.chat(run, max_tokens=6, system="Be brief.")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "red blue?"}]
    for _ in range(2):
        reply = talk.ask("red blue?")
        assert reply.answer == greedy(run / "model", tokenizer, turns, 6)
        assert reply.start == greedy(tiny_llama, tokenizer, turns, 6)
        talk.reset()
    given = ("--system", "Be brief.", "--message", "red blue?", "--max-tokens", 6)
    assert holdfast("chat", run, *given).out.strip() == reply.answer


def test_lines_are_messages_and_answers_are_those_of_predict(
    run: Path, holdfast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted = holdfast("chat", run, "--message", "red blue?", "--json", "--max-tokens", "9")
    assert predicted.code == 0
    (line,) = [json.loads(one) for one in predicted.out.splitlines()]
    assert set(line) == {"message", "answer"}

    class Piped:
        buffer = io.BytesIO(b"red blue?\n\nnew old?\n")

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Piped())
    done = holdfast("chat", run, "--json", "--max-tokens", "9", "--start")
    made = [json.loads(one) for one in done.out.splitlines()]
    assert [one["message"] for one in made] == ["red blue?", "new old?"]
    assert made[0]["answer"] == line["answer"]
    assert made[0]["start"] != line["answer"]


def test_a_classifier_is_refused_with_the_command_that_asks_it(
    finished_run: Path, holdfast: Callable[..., Any]
) -> None:
    done = holdfast("chat", finished_run, "--message", "hello")
    assert done.code == 2
    assert "text-classification" in done.err
    assert "holdfast predict" in done.err
    with pytest.raises(RecipeError):
        public.chat(finished_run)


@pytest.mark.slow
def test_a_start_model_that_is_gone_is_told_and_the_talk_goes_on(
    make: Callable[..., Path], tiny_llama: Path, tmp_path: Path
) -> None:
    import shutil

    moved = shutil.copytree(tiny_llama, tmp_path / "base")
    run = make(f"model.name={moved}")
    shutil.rmtree(moved)
    talk = Talk.of(run)
    (told,) = talk.decisions
    assert told.what == "base model"
    assert told.chosen == "not loaded"
    assert talk.ask("red blue?").start is None


def test_earlier_messages_that_no_longer_fit_are_counted(run: Path) -> None:
    talk = public.chat(run, start=False, max_tokens=100)
    talk.ask("x" * 60)
    assert talk.ask("y" * 60).forgotten == 1


def test_what_ends_an_answer_is_never_shown() -> None:
    shown: list[str] = []
    said = _StreamedText(shown.append, "</end>")
    for piece in ("  It", " is</", "b></e", "nd> more"):
        said.add(piece, last=False)
    said.add("", last=True)
    assert "".join(shown) == "It is</b>" == said.text


# Takes its standard input for the terminal of its session first.
CHAT = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from holdfast.cli.main import main
main()
"""


class Terminal:
    """``holdfast chat`` at a pseudo-terminal."""

    def __init__(self, *arguments: object) -> None:
        self.parent, child = pty.openpty()
        command = [sys.executable, "-c", CHAT, "chat"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "80"},
        )
        os.close(child)
        self.seen = ""

    def until(self, text: str, seconds: float = 60.0, again: str = "") -> str:
        """What was shown until this text, the text with it; ``again`` is typed until it is: a key
        that comes between two reads is not seen."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            self.type(again)
            if select.select([self.parent], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.parent, 4096).decode("utf-8", "replace")
                except OSError:
                    break
        before, found, self.seen = self.seen.partition(text)
        return before + found

    def type(self, text: str) -> None:
        if text:
            os.write(self.parent, text.encode())


@pytest.fixture
def terminal(run: Path) -> Iterator[Terminal]:
    made = Terminal(run, "--max-tokens", 100)
    yield made
    made.process.kill()
    made.process.wait()
    os.close(made.parent)


@pytest.mark.slow
def test_a_person_talks_at_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until("you > ")
    terminal.type("/help\n")
    assert "/save FILE" in terminal.until("you > ")
    terminal.type("red blue?\n")
    shown = terminal.until("you > ")
    assert "tuned | " in shown
    assert "base | " in shown
    assert all(len(line) <= 80 for line in shown.replace("\r", "").splitlines())
    terminal.type("/start\n")
    terminal.until("answers are off")
    terminal.until("you > ")
    terminal.type(f"/save {tmp_path / 'talk.jsonl'}\n")
    terminal.until("1 messages were written")
    terminal.until("you > ")
    terminal.type(f"/save {tmp_path / 'talk.jsonl'}\n")
    terminal.until("already exists")
    terminal.until("you > ")
    terminal.until("(Ctrl-D ends the chat)", again="\x03")
    terminal.until("you > ")
    terminal.type(f"/save {tmp_path / 'nowhere' / 'talk.jsonl'}\n")
    terminal.until("nowhere")
    terminal.until("you > ")
    terminal.type("/nothing\n")
    terminal.until("is not a command")
    terminal.until("you > ")
    terminal.type("\x04")
    assert terminal.process.wait(100) == 0
    (line,) = (tmp_path / "talk.jsonl").read_text().splitlines()
    assert json.loads(line)["message"] == "red blue?"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", 2**70],
        ["--seed", -1],
        ["--max-tokens", 10**9],
        ["--temperature", -1],
        ["--temperature", "nan"],
    ],
)
def test_a_manner_that_is_none_is_refused(arguments: list[Any], holdfast: Any, run: Path) -> None:
    done = holdfast("chat", run, "--message", "red?", *arguments)
    assert done.code == 2
    assert arguments[0] in done.err


def test_almost_no_temperature_takes_the_likeliest_word(run: Path) -> None:
    """A quotient by it is infinite."""
    cold = public.chat(run, start=False, max_tokens=5, temperature=1e-300)
    sure = public.chat(run, start=False, max_tokens=5)
    assert cold.ask("red blue?").answer == sure.ask("red blue?").answer


@pytest.mark.slow
def test_a_mark_before_the_first_line_is_no_part_of_it(shell: Any, run: Path) -> None:
    done = shell("chat", run, "--json", "--max-tokens", 2, cwd=run, text="\ufeffred?\r\n")
    assert done.code == 0
    assert json.loads(done.out)["message"] == "red?"


@pytest.mark.slow
def test_a_request_to_end_ends_the_talk(terminal: Terminal) -> None:
    terminal.until("you > ")
    # A signal between two reads is seen at the next one; one while Python ends has no handler.
    for _ in range(4):
        terminal.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            terminal.process.wait(10)
            break
    assert terminal.process.returncode in (130, -signal.SIGTERM)


def test_a_hangup_that_is_ignored_ends_no_talk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``nohup`` means it, where SIGTERM still ends it."""
    from holdfast.plugins.chat.command import _chat_loop

    def hang_up(_: str) -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        raise EOFError

    monkeypatch.setattr("builtins.input", hang_up)
    end = signal.getsignal(signal.SIGTERM)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _chat_loop(public.chat(run, start=False, max_tokens=5))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not end
    finally:
        signal.signal(signal.SIGHUP, hangup)
        signal.signal(signal.SIGTERM, end)


def test_an_interrupt_stops_an_answer_and_not_the_talk(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = public.chat(run, start=True, max_tokens=50)
    pieces: list[str] = []

    def enough(text: str) -> None:
        pieces.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talk.ask("red blue?", enough)
    assert talk.replies[-1].answer.startswith("".join(pieces).strip()[:1])
    assert talk.replies[-1].start is None
    assert talk.ask("red blue?").start is not None
