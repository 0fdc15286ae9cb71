"""An audit of chats reads them as they are trained: with answers and template, cut at the limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast.quality.token_rows as token_rows
from holdfast.analyses.audit.audit import audit
from holdfast.core.decisions import record_decisions
from holdfast.core.records import Finding
from holdfast.recipe import Recipe, override

ROWS, FAULTY = 20, range(0, 20, 4)


@pytest.fixture
def findings_of(tmp_path: Path, tiny_llama: Path) -> Callable[..., dict[str, Finding]]:
    """The findings on chats in which the faulty rows have ``turns``."""

    def found(question: str, answer: str, *more: str) -> dict[str, Finding]:
        chats = [
            (question, answer) if at in FAULTY else ("what is {at}?", "it is {at}")
            for at in range(ROWS)
        ]
        lines = [
            {
                "messages": [
                    {"role": "user", "content": asked.format(at=at)},
                    {"role": "assistant", "content": told.format(at=at)},
                ]
            }
            for at, (asked, told) in enumerate(chats)
        ]
        path = tmp_path / "chats.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
        settings = [f"data.path={path}", f"model.name={tiny_llama}", "model.max_length=128"]
        recipe = override(
            Recipe(), ["task=causal-lm", *settings, *(more or ["data.template=plain"])]
        )
        return {one.check: one for one in audit(recipe).findings}

    return found


TOKENS = {"truncated_texts", "answer_cut_off", "answers_cut", "foreign_template", "end_missing"}


def test_an_audit_names_the_checks_of_tokens_that_found_nothing(
    findings_of: Callable[..., dict[str, Finding]],
) -> None:
    with record_decisions() as log:
        found = findings_of("[INST] what is {at}? [/INST]", "it is {at}")
    assert "foreign_template" in found
    (silent,) = [one for one in log if getattr(one, "what", "").startswith("checks of tokens")]
    names = set(silent.chosen.split(", "))
    assert {"answers_cut", "end_missing", "turns_lost", "prompt_trained"} <= names
    assert "foreign_template" not in names
    assert silent.because == "20 of 20 rows were checked"


def test_sound_chats_have_no_fault(findings_of: Callable[..., dict[str, Finding]]) -> None:
    assert not TOKENS & findings_of("what is {at}?", "it is {at}").keys()


def test_a_long_answer_is_truncated(findings_of: Callable[..., dict[str, Finding]]) -> None:
    """The prompts are short: only with their answers are the chats too long."""
    found = findings_of("what is {at}?", "it is {at}, " * 40)
    assert found["truncated_texts"].count == len(FAULTY)
    assert found["answers_cut"].rows == tuple(FAULTY)
    assert "answer_cut_off" not in found


def test_an_answer_after_a_long_prompt_is_lost(
    findings_of: Callable[..., dict[str, Finding]],
) -> None:
    found = findings_of("what is {at} of {at}? " * 20, "it is {at}")
    assert found["answer_cut_off"].rows == tuple(FAULTY)
    assert found["truncated_texts"].count == len(FAULTY)


def test_marks_of_another_template_are_found(
    findings_of: Callable[..., dict[str, Finding]],
) -> None:
    found = findings_of("[INST] what is {at}? [/INST]", "it is {at}")
    assert found["foreign_template"].rows == tuple(FAULTY)


def test_a_model_without_a_template_for_chats_is_an_error(
    findings_of: Callable[..., dict[str, Finding]],
) -> None:
    found = findings_of("what is {at}?", "it is {at}", "seed=1")["unusable_template"]
    assert found.severity == "error"
    assert "has no chat template" in found.because
    assert "data.template=chatml" in found.remedy


@pytest.mark.parametrize("slow", ["messages | length == 1", "add_generation_prompt", "true"])
def test_a_slow_template_ends_whatever_it_is_slow_for(
    slow: str, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template is code of somebody else's."""
    import transformers

    monkeypatch.setattr(token_rows, "LONGEST_S", 0.5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_llama)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    plain = "{% for one in messages %}<{{ one.role }}>{{ one.content }}</s>{% endfor %}"
    tokenizer.chat_template = f"{{% if {slow} %}}{endless}{{% endif %}}{plain}"
    assert token_rows._openings(tokenizer) is None
    tokenizer.chat_template = plain
    assert token_rows._openings(tokenizer) is not None
