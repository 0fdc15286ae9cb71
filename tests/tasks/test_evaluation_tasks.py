"""Evaluation tasks: what is read from a file, and answers against plain Transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from holdfast.core.errors import HoldfastError, RecipeError
from holdfast.core.machine import OverrunError
from holdfast.data.texts.evaluation_tasks import EvaluationTask, Question, normalized, read_task
from holdfast.models.generators.causal import LoadedCausal, load_causal
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.tasks.generation.general_tasks import tasks_block
from holdfast.tasks.lm.evaluation_tasks import encoded_pair, log_likelihoods, right_answers

Write = Callable[..., Path]
ITEMS: list[dict[str, Any]] = [
    {"q": "Two and two?", "options": ["four", "five", "a hat"], "answer": 0},
    {"q": "The sky? ", "options": ["green", "blue", "seven hundred"], "answer": 1},
]
CHOICE = {
    "task": "sums",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": "items.jsonl"},
    "output_type": "multiple_choice",
    "doc_to_text": "Q: {{q}}\nA:",
    "doc_to_choice": "options",
    "doc_to_target": "answer",
}
GENERATION = {
    **{key: CHOICE[key] for key in ("task", "dataset_path", "dataset_kwargs", "doc_to_text")},
    "doc_to_target": "{{options[answer]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5},
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(task: dict[str, Any], items: list[dict[str, Any]] = ITEMS, **more: Any) -> Path:
        (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
        path = tmp_path / "task.yaml"
        path.write_text(yaml.safe_dump({**task, **more}))
        return path

    return written


@pytest.fixture(scope="module")
def loaded(tiny_llama: Path) -> LoadedCausal:
    return load_causal(str(tiny_llama))


def test_a_task_is_read_with_its_templates(write: Write) -> None:
    task = read_task(write(CHOICE, description="Answer. "))
    assert (task.name, task.metric, task.delimiter) == ("sums", "acc", " ")
    assert task.questions[0] == Question(
        "Answer. Q: Two and two?\nA:", ("four", "five", "a hat"), (0,)
    )
    named = read_task(write(CHOICE, doc_to_target="{{options[1]}}", doc_to_choice="{{options}}"))
    assert [one.right for one in named.questions] == [(1,), (1,)]
    fixed = read_task(write(CHOICE, doc_to_choice=["no", "yes"], doc_to_target=1))
    assert fixed.questions[1].choices == ("no", "yes")


def test_a_task_may_include_another_file(write: Write, tmp_path: Path) -> None:
    base = write(CHOICE)
    base.rename(tmp_path / "base.yaml")
    path = write({"include": "base.yaml", "metric_list": [{"metric": "acc_norm"}]})
    assert read_task(path).metric == "acc_norm"
    with pytest.raises(HoldfastError, match="includes itself"):
        read_task(write({"include": "task.yaml"}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_fewshot": 5}, "must be 0"),
        ({"dataset_path": "hellaswag"}, "must be json: plain files"),
        ({"process_docs": "clean"}, "is not supported, and may change the score"),
        ({"output_type": "loglikelihood_rolling"}, "multiple_choice or generate_until"),
        ({"doc_to_choice": None}, "is missing"),
        ({"doc_to_target": 7}, "item 1: does not fit the templates: .* none of its 3 choices"),
        ({"doc_to_text": "{{nothing}}"}, "'nothing' is undefined"),
        ({"doc_to_text": "{{q.__class__.__mro__}}"}, "item 1: does not fit the templates"),
        ({"dataset_kwargs": {"data_files": "no.jsonl"}}, "does not exist"),
        ({"metric_list": [{"metric": "f1"}]}, "names none of acc, acc_norm"),
        ({"metric_list": "acc"}, "is not a task"),
        ({"dataset_kwargs": {"data_files": 5}}, "is not a task"),
        ({"generation_kwargs": {"num_beams": 4}}, "generation_kwargs.num_beams: is not supported"),
        ({"generation_kwargs": {"temperature": 0.7}}, "must be false or 0"),
        ({"generation_kwargs": {"until": ["x" * 101]}}, "must be texts of 1 to 100 characters"),
        ({"generation_kwargs": {"max_gen_toks": 0}}, "must be a whole number above 0"),
        (
            {
                "filter_list": [{"filter": [{"function": "custom"}]}],
                **GENERATION,
                "output_type": "generate_until",
                "doc_to_choice": None,
            },
            "names an unsupported filter",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(
    write: Write, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(HoldfastError, match=told) as caught:
        read_task(write({**CHOICE, **change}))
    assert caught.value.exit_code == 2


def test_a_field_without_a_value_is_no_text(write: Write) -> None:
    without = [{**ITEMS[0]}, {"options": ["a", "b"], "answer": 0}]
    with pytest.raises(HoldfastError, match="item 2: does not fit the templates: its field q has"):
        read_task(write(CHOICE, without, doc_to_text="q"))


def test_texts_end_as_in_the_harness(write: Write) -> None:
    plain = {key: value for key, value in GENERATION.items() if key != "generation_kwargs"}
    assert read_task(write(plain)).until == ("\n\n",)
    assert read_task(write(plain, fewshot_delimiter="\n")).until == ("\n",)


def test_a_regular_expression_that_never_ends_leaves_its_task_out(
    write: Write, loaded: LoadedCausal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.data.texts import evaluation_tasks

    monkeypatch.setattr(evaluation_tasks, "LONGEST_S", 0.2)
    slow = {"function": "regex", "regex_pattern": r"(\w+\s?)+:\s*(\d+)"}
    task = read_task(write(GENERATION, filter_list=[{"filter": [slow]}]))
    with pytest.raises(OverrunError):
        task.matches(
            "a plain sentence of many words without any number at all " * 2, task.questions[0]
        )
    long = EvaluationTask("long", task.questions, "exact_match", new_tokens=256)
    with pytest.raises(HoldfastError, match="the model has 256 positions"):
        right_answers([long], loaded.network, loaded.tokenizer, torch.device("cpu"))


def test_python_functions_are_refused(write: Write) -> None:
    path = write(CHOICE)
    path.write_text(path.read_text() + "process_docs: !function utils.clean\n")
    with pytest.raises(HoldfastError, match="calls Python code, which is not run"):
        read_task(path)


def plain_score(loaded: LoadedCausal, before: list[int], after: list[int]) -> float:
    ids = torch.tensor([[*before, *after]])
    with torch.inference_mode():
        logits = loaded.network.plain(ids[:, :-1]).logits[0].double().log_softmax(-1)
    start = len(before)
    return float(sum(logits[start + i - 1, token] for i, token in enumerate(after)))


def test_choices_are_scored_as_plain_transformers_do(write: Write, loaded: LoadedCausal) -> None:
    tokenizer, cpu = loaded.tokenizer, torch.device("cpu")
    # The context of the second item ends with a space, which belongs to the choice.
    task = read_task(write(CHOICE, doc_to_text="q"))
    expected, norm = [], []
    for one in task.questions:
        stripped = one.context.rstrip()
        before = tokenizer(stripped)["input_ids"]
        scores = []
        for choice in one.choices:
            whole = tokenizer(f"{one.context} {choice}")["input_ids"]
            assert encoded_pair(tokenizer, one.context, f" {choice}") == (
                before,
                whole[len(before) :],
            )
            scores.append(plain_score(loaded, before, whole[len(before) :]))
        expected += scores
        norm.append(int(np.argmax([s / len(c) for s, c in zip(scores, one.choices, strict=True)])))
    pairs = [
        encoded_pair(tokenizer, one.context, f" {choice}")
        for one in task.questions
        for choice in one.choices
    ]
    found = log_likelihoods(loaded.network, tokenizer, pairs, cpu)
    assert found == pytest.approx(expected, abs=1e-4)
    best = [int(np.argmax(expected[start : start + 3])) for start in (0, 3)]
    for metric, chosen in (("acc", best), ("acc_norm", norm)):
        # The model's own choice is declared right: every answer is.
        questions = [
            Question(one.context, one.choices, (place,))
            for one, place in zip(task.questions, chosen, strict=True)
        ]
        own = EvaluationTask("own", tuple(questions), metric)  # type: ignore[arg-type]
        assert right_answers([own], loaded.network, tokenizer, cpu)["own"].all()
    assert norm != best


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_context_is_the_token_that_begins_a_text(loaded: LoadedCausal, blank: str) -> None:
    before, after = encoded_pair(loaded.tokenizer, blank, "one")
    assert before == [loaded.tokenizer.bos_token_id]
    assert loaded.tokenizer.decode(after) == f"{blank}one"
    empty = EvaluationTask(
        "empty", (Question(blank, references=("x",)),), "exact_match", until=("\n",), new_tokens=3
    )
    found = right_answers([empty], loaded.network, loaded.tokenizer, torch.device("cpu"))
    assert found["empty"].shape == (1,)


def test_a_long_context_is_cut_at_its_beginning(loaded: LoadedCausal) -> None:
    before, after = encoded_pair(loaded.tokenizer, "x" * 400, " end")
    [found] = log_likelihoods(
        loaded.network, loaded.tokenizer, [(before, after)], torch.device("cpu")
    )
    assert found == pytest.approx(
        plain_score(loaded, before[-(257 - len(after)) :], after), abs=1e-4
    )


def greedy(loaded: LoadedCausal, ids: list[int], new: int) -> str:
    made: list[int] = []
    for _ in range(new):
        with torch.inference_mode():
            made.append(
                int(loaded.network.plain(torch.tensor([[*ids, *made]])).logits[0, -1].argmax())
            )
    return loaded.tokenizer.decode(made, skip_special_tokens=True)


def test_generated_answers_are_cut_and_compared(write: Write, loaded: LoadedCausal) -> None:
    task = read_task(write(GENERATION))
    assert (task.until, task.new_tokens, task.metric) == (("\n",), 5, "exact_match")
    texts = [
        greedy(loaded, loaded.tokenizer(one.context)["input_ids"], 5) for one in task.questions
    ]
    texts = [text.partition("\n")[0] for text in texts]
    questions = [
        Question(task.questions[0].context, references=("other", texts[0])),
        Question(task.questions[1].context, references=("other",)),
    ]
    own = EvaluationTask("own", tuple(questions), "exact_match", until=task.until, new_tokens=5)
    found = right_answers([own], loaded.network, loaded.tokenizer, torch.device("cpu"))["own"]
    assert found.tolist() == [True, texts[1] == "other"]


def test_filters_and_exact_match_follow_their_settings(write: Write) -> None:
    pattern = {"function": "regex", "regex_pattern": r"(\d+)|none", "group_select": -1}
    lists = [{"name": "number", "filter": [pattern, {"function": "take_first"}]}]
    task = read_task(write(GENERATION, filter_list=lists, doc_to_target="7"))
    right = task.questions[0]
    assert task.matches("3, then 7", right)
    assert not task.matches("7, then 3", right)
    assert not task.matches("nothing", right)
    assert normalized("It's 4!", {"ignore_case": True, "ignore_punctuation": True}) == "its 4"
    assert normalized("a1, b", {"ignore_numbers": True, "regexes_to_ignore": [","]}) == "a b"


def test_equal_models_seldom_raise_an_alarm() -> None:
    rng = np.random.default_rng(0)
    tasks = [EvaluationTask(name, ()) for name in "abcde"]
    alarms, runs = 0, 400
    for _ in range(runs):
        # Two models that are right equally often, on items of which half move by chance.
        known = {one.name: rng.random(80) for one in tasks}
        pair = [
            {name: ability + rng.normal(0, 0.3, 80) > 0.5 for name, ability in known.items()}
            for _ in range(2)
        ]
        block = tasks_block(tasks, *pair)
        alarms += "No change can be shown" not in block["because"]
    assert alarms / runs <= 0.05
    lost = {**pair[0], "a": pair[0]["a"] & (np.arange(80) > 40)}
    assert "Accuracy on a fell from" in tasks_block(tasks, pair[0], lost)["because"]


def test_a_run_tells_what_became_of_its_tasks(
    write: Write, tiny_llama: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "say.jsonl"
    lines = [{"instruction": f"Say {i}.", "response": f"It is {i}."} for i in range(40)]
    rows.write_text("\n".join(map(json.dumps, lines)))
    settings = [
        "task=causal-lm",
        f"data.path={rows}",
        f"model.name={tiny_llama}",
        "train.max_steps=4",
        "train.threads=1",
        "train.precision=float32",
        "generate.rows=2",
        "generate.max_new_tokens=6",
        f"probes.tasks={write(CHOICE)}",
    ]
    broken = tmp_path / "broken.yaml"
    broken.write_text(write({**CHOICE, "task": "gone"}).read_text())
    write(CHOICE)
    settings[-1] = f"probes.tasks=[{tmp_path / 'task.yaml'},{broken}]"

    class Break:
        """A task file that is damaged while the run trains costs nothing else."""

        name = "break"

        def run_end(self, run: Any) -> None:
            broken.write_text("task: [")

    result = train(override(Recipe(), settings), tmp_path / "run", listeners=[Break()])
    assert "is not valid YAML" in result["worth"]["left_out"][str(broken)]
    [line] = result["worth"]["tasks"]["sets"]
    assert (line["name"], line["n"], line["metric"]) == ("sums", 2, "acc")
    assert (
        "No change can be shown on 1 evaluation task" in (tmp_path / "run/report.html").read_text()
    )
    twice = f"probes.tasks=[{tmp_path / 'task.yaml'},{tmp_path / 'task.yaml'}]"
    with pytest.raises(RecipeError, match=r"probes\.tasks: has 2 tasks with the name 'sums'"):
        train(override(Recipe(), [*settings, twice]), tmp_path / "twice")
    classes = tmp_path / "rows.csv"
    classes.write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    other = [f"data.path={classes}", f"probes.tasks={tmp_path / 'task.yaml'}"]
    with pytest.raises(RecipeError, match=r"probes\.tasks: applies only to causal-lm"):
        train(override(Recipe(), other), tmp_path / "classes")
