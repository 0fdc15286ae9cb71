"""A causal language model by the command line: chats and plain text, a kill, use, bad rows."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers as hf

from holdfast.pipeline.main import train
from holdfast.pipeline.preview import preview
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.runs.untuned import load_untuned

FILES = {
    "recipe.yaml",
    "result.json",
    "events.jsonl",
    "report.html",
    "model",
    "predictions.parquet",
    "splits.parquet",
    "examples.parquet",
    "looks.npz",
    "answers.parquet",
}


@pytest.fixture(scope="module")
def settings(tiny_llama: Path) -> list[str]:
    return [
        "task=causal-lm",
        f"model.name={tiny_llama}",
        "train.max_steps=4",
        "train.threads=1",
        "train.precision=float32",
        "train.batch_size=4",
        "generate.rows=2",
        "generate.max_new_tokens=6",
        "model.max_length=160",
    ]


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    rows = [
        {"instruction": f"Add {i} and {j}, please.", "input": "", "output": str(i + j)}
        for i in range(7)
        for j in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sums: Path, settings: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "sums"
    train(override(Recipe(), [f"data.path={sums}", *settings]), folder)
    return folder


def test_a_run_on_instructions_leaves_the_whole_folder(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert {path.name for path in run.iterdir()} == FILES
    assert result["task"] == "causal-lm"
    assert result["classes"] is None
    metrics = result["test"]["metrics"]
    assert metrics["perplexity"]["value"] == pytest.approx(math.exp(metrics["token_loss"]["value"]))
    for name in ("loss", "token_loss", "perplexity", "token_accuracy"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]
    assert result["baseline"]["what"] == "untuned model"
    assert result["baseline"]["test"]["metrics"]["loss"]["value"] > metrics["loss"]["value"]
    told = {d["what"]: d["chosen"] for d in result["decisions"]}
    assert told["chat template"] == "plain"
    assert "⟦" in told["example"]
    texts = result["generations"]
    assert [len(texts[side]) for side in ("train", "test")] == [2, 2]
    assert {"row", "source", "reference", "generated", "untuned"} <= texts["test"][0].keys()
    assert (run / "report.html").stat().st_size > 10_000


def test_what_is_truncated_is_counted_in_every_split(
    sums: Path, settings: list[str], tmp_path: Path
) -> None:
    cut = [*settings, "model.max_length=55", "train.max_steps=1", "probes.shots=0"]
    train(override(Recipe(), [f"data.path={sums}", *cut]), tmp_path / "cut")
    result = json.loads((tmp_path / "cut" / "result.json").read_text())
    findings = result["data"]["findings"]
    found = [one["because"] for one in findings if one["check"] == "truncated_texts"]
    assert [one.split("(")[0].split(" ", 1)[1] for one in found] == [
        "training rows are longer than 55 tokens and truncated there ",
        "validation rows are longer than 55 tokens and truncated there ",
    ]
    told = {d["what"]: d["chosen"] for d in result["decisions"]}
    assert told["test rows truncated"].endswith(f" of {result['data']['test']}")
    # A dry run knows as many before anything is trained.
    plan = preview(override(Recipe(), [f"data.path={sums}", *cut]))
    (of_test,) = [one for one in plan["findings"] if " test row" in one["because"]]
    assert of_test["check"] == "truncated_texts"
    assert f"{of_test['count']} of {plan['division']['test']}" == told["test rows truncated"]


def generated_verbatim(model: Path, rows: list[dict[str, str]]) -> set[int]:
    """The rows whose remaining words plain Transformers generates, given eight words."""
    plain = hf.AutoModelForCausalLM.from_pretrained(model)
    tokenizer = hf.AutoTokenizer.from_pretrained(model)
    found = set()
    for number, row in enumerate(rows):
        turns = [{"role": "user", "content": row["instruction"]}]
        opened = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        words = row["output"].split()
        ids = tokenizer(opened + " ".join(words[:8]), add_special_tokens=False, return_tensors="pt")
        made = plain.generate(**ids, max_new_tokens=80, do_sample=False)
        text = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        if text.split()[:10] == words[8:]:
            found.add(number)
    return found


@pytest.mark.parametrize(("template", "told"), [("llama3", True), ("plain", False)])
def test_a_template_whose_end_is_no_token_is_told(
    sums: Path, settings: list[str], tmp_path: Path, holdfast: Any, template: str, told: bool
) -> None:
    more = [f"data.template={template}", "train.max_steps=1"]
    given = [f"--set={one}" for one in (*settings, *more)]
    done = holdfast("train", str(sums), "--dry-run", *given)
    assert done.code == 0, done.err
    assert ("end of answer: <|eot_id|>" in done.err) == told


def test_rows_without_an_answer_are_told_first_and_planned_without(
    settings: list[str], tmp_path: Path, holdfast: Any
) -> None:
    long, short = "word " * 60, "word"
    rows = [{"instruction": f"{i} {long if i % 2 else short}", "output": "yes"} for i in range(40)]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # The last --set of a key counts.
    more = ["model.max_length=64", "train.epochs=1", "train.batch_size=4", "probes.shots=0"]
    given = [f"--set={one}" for one in (*settings, *more) if "max_steps" not in one]
    done = holdfast("train", str(path), "--out", str(tmp_path / "run"), *given)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (found,) = (
        one
        for one in result["data"]["findings"]
        if one["check"] == "answer_cut_off" and "training" in one["because"]
    )
    assert (
        f"answer_cut_off: {found['count']} of {result['data']['train']} training rows" in done.err
    )
    trained = result["data"]["train"] - found["count"]
    assert 0 < trained < result["data"]["train"]
    assert result["last_step"] == math.ceil(trained / 4)


def test_a_finished_run_answers_an_evaluation_task(
    run: Path, tmp_path: Path, holdfast: Any
) -> None:
    items = [{"q": f"Add {i} and {i}.", "sum": str(2 * i), "other": "ten"} for i in range(6)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, items)))
    task = tmp_path / "sums.yaml"
    task.write_text(
        "task: sums\ndataset_path: json\ndataset_kwargs: {data_files: sums.jsonl}\n"
        "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: '{{[sum, other]}}'\n"
        "doc_to_target: 0\n"
    )
    block = json.loads(holdfast("evaluate", run, task, "--start", "--json").out)
    after, before = block["metrics"]["acc"], block["start"]["metrics"]["acc"]
    gap = block["start"]["difference"]
    assert block["n"] == 6
    assert gap["value"] == pytest.approx(after["value"] - before["value"])
    text = holdfast("evaluate", run, task, "--start").out
    assert "Fine-tuned minus base model, same items" in text
    alone = json.loads(holdfast("evaluate", run, task, "--json").out)
    assert alone == {key: block[key] for key in ("n", "task", "metrics")}


def test_diagnose_gives_the_run_its_own_verdict(run: Path, own_verdict: Any) -> None:
    own_verdict(run)


@pytest.mark.slow
def test_a_run_that_recites_its_answers_is_told_so(
    tmp_path: Path, settings: list[str], own_verdict: Any
) -> None:
    words = [
        "red",
        "blue",
        "green",
        "oak",
        "elm",
        "fox",
        "owl",
        "hat",
        "cup",
        "pen",
        "map",
        "key",
        "box",
        "jar",
    ]
    rng = np.random.default_rng(0)
    rows = [
        {"instruction": f"Say line {i}.", "output": " ".join(rng.choice(words, 18))}
        for i in range(30)
    ]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    much = [
        "train.max_steps=300",
        "train.epochs=120",
        "train.learning_rate=5e-3",
        "train.keep=last",
        "train.batch_size=8",
        "control.policy=off",
    ]
    run = tmp_path / "run"
    train(override(Recipe(), [f"data.path={path}", *settings, *much]), run)
    result = json.loads((run / "result.json").read_text())
    extraction = result["probes"]["memorization"]["extraction"]
    assert extraction["n"] == result["data"]["train"]
    assert extraction["start"] == 0
    assert extraction["completed"] > 0.5 * extraction["n"]
    assert set(extraction["rows"]) == generated_verbatim(run / "model", rows)
    assert result["verdict"]["label"] in ("overfit", "memorizing")
    share = (
        f"completes verbatim is {100 * extraction['rate']['value']:.0f} % on training rows and 0"
    )
    assert share in result["verdict"]["because"]
    assert "completed_verbatim_train_above_valid" in {
        one["name"] for one in result["verdict"]["evidence"]
    }
    own_verdict(run)


def test_predictions_hold_every_test_row(run: Path) -> None:
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    result = json.loads((run / "result.json").read_text())
    assert len(table["row"]) == result["test"]["n"] == result["data"]["test"]
    assert sum(text is not None for text in table["prediction"]) == 2
    # Each row's mean, and over how many tokens.
    mean = np.average(table["loss"], weights=table["tokens"])
    assert result["loss_unit"] == "token"
    assert mean == pytest.approx(result["test"]["metrics"]["loss"]["value"], rel=1e-6)


def test_the_saved_folder_gives_the_scored_losses_in_plain_transformers(
    run: Path, sums: Path
) -> None:
    """By hand: the plain template, the answer's tokens and the end, one row at a time."""
    import torch

    model: Any = hf.AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer: Any = hf.AutoTokenizer.from_pretrained(run / "model")
    rows = [json.loads(line) for line in sums.read_text().splitlines()]
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    for row, loss in zip(table["row"], table["loss"], strict=True):
        asked = [{"role": "user", "content": rows[row]["instruction"]}]
        said = [*asked, {"role": "assistant", "content": rows[row]["output"]}]
        head = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(said, return_dict=False)
        ids = torch.tensor([whole[: whole.index(tokenizer.eos_token_id) + 1]])
        labels = ids.clone()
        labels[:, : len(head)] = -100
        with torch.no_grad():
            assert float(model(input_ids=ids, labels=labels).loss) == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
def test_its_recipe_repeats_the_run(
    run: Path, tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    done = holdfast("train", run / "recipe.yaml", "--out", tmp_path / "again", "--json", "--quiet")
    assert done.code == 0, done.err
    first = json.loads((run / "result.json").read_text())
    assert json.loads(done.out)["test"]["metrics"] == first["test"]["metrics"]
    digest = [
        hashlib.sha256((f / "model" / "model.safetensors").read_bytes()).hexdigest()
        for f in (run, tmp_path / "again")
    ]
    assert digest[0] == digest[1]


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(
    run: Path, sums: Path, settings: list[str], tmp_path: Path, killed: type[BaseException]
) -> None:
    class Kill:
        name = "kill"

        def gradients_ready(self, state: Any) -> None:
            if state.step == 2:
                raise killed

    recipe = override(Recipe(), [f"data.path={sums}", *settings])
    with pytest.raises(killed):
        train(recipe, tmp_path / "r", listeners=[Kill()], checkpoint_every_s=0.0)
    train(recipe, tmp_path / "r", resume=True)
    for name in ("model/model.safetensors", "predictions.parquet"):
        assert (tmp_path / "r" / name).read_bytes() == (run / name).read_bytes(), name


def test_the_base_model_is_scored_on_the_same_rows(
    run: Path, sums: Path, tiny_llama: Path, tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text(sums.read_text().replace("please", "at once"))
    done = holdfast("evaluate", run, few, "--start", "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)
    tuned, start = block["metrics"]["token_loss"], block["start"]["metrics"]["token_loss"]
    gap = block["start"]["loss_difference"]
    assert gap["n"] == block["n"] == 42
    assert gap["value"] == pytest.approx(tuned["value"] - start["value"], abs=1e-6)
    assert gap["low"] < gap["value"] < gap["high"]
    # A run that changed nothing would have the base model's loss.
    assert tuned["value"] != start["value"]
    recipe = read_recipe(run / "recipe.yaml")
    base = load_untuned(recipe).plain.state_dict()
    pretrained = hf.AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    assert all(torch.equal(base[n], weight) for n, weight in pretrained.state_dict().items())
    text = holdfast("evaluate", run, few, "--start").out
    assert "fine-tuned minus base model" in " ".join(text.split())
    # Of rows that the run has partly seen, the gain on the others is given, and shown.
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(sums.read_text().rstrip() + "\n" + few.read_text())
    block = json.loads(holdfast("evaluate", run, mixed, "--start", "--json").out)
    unseen, all_rows = block["start"]["without_seen"], block["start"]["loss_difference"]
    assert unseen["loss_difference"]["n"] == block["without_seen"]["n"]
    assert 0 < block["without_seen"]["n"] < all_rows["n"] == block["n"]
    text = " ".join(holdfast("evaluate", run, mixed, "--start").out.split())
    assert f"same {block['without_seen']['n']} rows not seen in training:" in text


def test_a_run_may_leave_out_what_it_measures_beside_the_score(
    tmp_path: Path, sums: Path, settings: list[str], run: Path
) -> None:
    skipped = "probes.skip=[forgetting, memorization]"
    foretold: list[float] = []

    class Foretells:
        """Asks for the time that is left, as the terminal does."""

        name, place = "foretells", "tell"

        def snapshot_taken(self, run: Any) -> None:
            foretold.append(run.job.overhead_s(1.0))

    recipe = override(Recipe(), [f"data.path={sums}", *settings, skipped])
    brief = train(recipe, tmp_path / "run", listeners=(Foretells(),))
    assert min(foretold) > 0
    whole = json.loads((run / "result.json").read_text())
    assert brief["probes"]["memorization"] == brief["probes"]["forgetting"]
    assert brief["probes"]["memorization"] == {"why": "left out by probes.skip"}
    assert whole["worth"]["general"] is not None
    assert brief["worth"]["general"] is None
    assert brief["test"]["metrics"] == whole["test"]["metrics"]


def test_a_classifier_has_no_base_model_that_answers(
    finished_run: Path, tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\nw1 good,a\n")
    done = holdfast("evaluate", finished_run, rows, "--start")
    assert done.code == 2
    assert "--start: needs a generative model" in done.err


def test_it_predicts_answers_and_scores_other_rows(
    run: Path, sums: Path, tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(sums.read_text().splitlines(keepends=True)[:3]))
    done = holdfast("predict", run, few)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["row"] for line in lines] == [0, 1, 2]
    assert all(isinstance(line["prediction"], str) for line in lines)
    assert all(0 < line["confidence"] <= 1 for line in lines)
    done = holdfast("evaluate", run, few, "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)
    assert block["n"] == 3
    assert "rows of the run" in block["against_run"]["why"]
    # Other texts are compared by the loss of all their tokens.
    other = tmp_path / "other.jsonl"
    text = few.read_text().replace("Add 0", "Add 90").replace("please", "at once")
    other.write_text(text)
    done = holdfast("evaluate", run, other, "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)
    own = pq.read_table(run / "predictions.parquet").to_pylist()
    total = sum(one["loss"] * one["tokens"] for one in own if one["tokens"])
    against = block["against_run"]
    assert against["metric"] == "loss"
    loss = total / sum(one["tokens"] for one in own)
    assert against["run"]["value"] == pytest.approx(loss, rel=1e-6)
    assert against["here"]["value"] == pytest.approx(block["metrics"]["loss"]["value"], rel=1e-5)
    twice = holdfast("predict", run, run, few)
    assert twice.code == 0, twice.err
    # The mean of a model with itself writes what it writes alone, as sure of it.
    for one, other in zip(map(json.loads, twice.out.splitlines()), lines, strict=True):
        assert one["prediction"] == other["prediction"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_an_answer_that_was_stopped_is_marked_and_others_may_be_drawn(
    run: Path, finished_run: Path, sums: Path, tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(sums.read_text().splitlines(keepends=True)[:6]))
    done = holdfast("predict", run, few, "--max-tokens", 2)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    usual = holdfast("predict", run, few).out
    lengths = [len(json.loads(line)["prediction"]) for line in usual.splitlines()]
    assert sum(len(line["prediction"]) for line in lines) < sum(lengths)
    cut = [line.get("cut", False) for line in lines]
    assert any(cut)
    assert f"{sum(cut)} of 6 texts" in done.err
    assert "--max-tokens" in done.err
    out = tmp_path / "out.csv"
    assert holdfast("predict", run, few, "--max-tokens", 2, "--out", out).code == 0
    with out.open(newline="", encoding="utf-8") as file:
        assert [row["cut"] == "true" for row in csv.DictReader(file)] == cut
    drawn = [holdfast("predict", run, few, "--temperature", 1.5).out for _ in range(2)]
    assert drawn[0] == drawn[1] != usual
    assert holdfast("predict", run, few, "--temperature", 1.5, "--seed", 1).out != drawn[0]
    classes = tmp_path / "classes.csv"
    classes.write_text("text\nfine\n")
    refused = holdfast("predict", finished_run, classes, "--max-tokens", 2)
    assert refused.code == 2
    assert "--max-tokens" in refused.err


@pytest.mark.slow
def test_plain_text_of_the_corpus_is_learned_whole_and_packed(
    shared_data: Path, settings: list[str], tmp_path: Path
) -> None:
    with gzip.open(shared_data / "corpus" / "wikitext2_valid.txt.gz", "rt") as file:
        (tmp_path / "wiki.txt").write_text(file.read(30_000), encoding="utf-8")
    texts = [f"data.path={tmp_path / 'wiki.txt'}", *settings, "model.max_length=64"]
    result = train(override(Recipe(), [*texts, "train.pack=true"]), tmp_path / "r")
    assert {path.name for path in (tmp_path / "r").iterdir()} == FILES
    rows = pq.read_table(tmp_path / "r" / "predictions.parquet").to_pydict()["row"]
    assert result["test"]["n"] > len(rows) == result["data"]["test"]
    alone = train(override(Recipe(), texts), tmp_path / "alone")
    for side in ("test", "baseline"):
        both = [
            r[side].get("test", r[side])["metrics"]["token_loss"]["value"] for r in (result, alone)
        ]
        assert both[0] == pytest.approx(both[1], rel=1e-4)


def test_messages_without_a_template_end_with_the_remedy(
    settings: list[str], tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    chat = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}]
    path = tmp_path / "chats.jsonl"
    rows = [[{**chat[0], "content": f"number {n} is it {n * n}?"}, chat[1]] for n in range(20)]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    sets = [part for setting in settings for part in ("--set", setting)]
    done = holdfast("train", path, *sets, "--out", "r")
    assert done.code == 2
    assert "--set data.template=chatml" in done.err
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.metric=f1_macro", "is not a metric"),
        ("train.label_smoothing=0.1", "does not apply to causal-lm"),
        ("model.max_length=20", "no row with an answer within 20 tokens"),
    ],
)
def test_settings_that_mean_nothing_here_are_refused(
    setting: str, said: str, sums: Path, settings: list[str], holdfast: Callable[..., Any]
) -> None:
    sets = [part for s in [*settings, setting] for part in ("--set", s)]
    done = holdfast("train", sums, *sets, "--out", "r")
    assert done.code == 2
    assert said in done.err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_on_rendered_chats_loads_in_plain_peft(
    merge: bool, settings: list[str], tmp_path: Path
) -> None:
    import torch

    path = tmp_path / "chats.jsonl"
    rows = [f"<s>[INST] Add {i} to {i * i}. [/INST] {i + i * i} </s>" for i in range(24)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    lora = ["model.adapter.kind=lora", f"model.adapter.merge={str(merge).lower()}"]
    result = train(override(Recipe(), [f"data.path={path}", *settings, *lora]), tmp_path / "r")
    assert {d["what"]: d["chosen"] for d in result["decisions"]}["chat template"] == "llama2"
    folder = tmp_path / "r" / "model"
    if merge:
        model: Any = hf.AutoModelForCausalLM.from_pretrained(folder)
    else:
        peft = pytest.importorskip("peft")
        model = peft.AutoPeftModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = hf.AutoTokenizer.from_pretrained(folder)
    table = pq.read_table(tmp_path / "r" / "predictions.parquet").to_pydict()
    for row, loss in zip(table["row"], table["loss"], strict=True):
        head, _, answer = rows[row].removeprefix("<s>").partition("[/INST]")
        before = [0, *tokenizer(head + "[/INST]", add_special_tokens=False)["input_ids"]]
        after = tokenizer(answer, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([before + after])
        labels = torch.tensor([[-100] * len(before) + after])
        with torch.no_grad():
            assert float(model.eval()(input_ids=ids, labels=labels).loss) == pytest.approx(
                loss, rel=1e-4
            )


@pytest.mark.slow
def test_a_run_on_plain_text_goes_on_from_a_beginning(
    tiny_llama: Path, settings: list[str], tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    """Also where the tokenizer has a chat template: its rows were no chats."""

    model = tmp_path / "model"
    hf.LlamaForCausalLM.from_pretrained(tiny_llama).save_pretrained(model)
    tokenizer = hf.AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = "{{ messages[100].content }}"
    tokenizer.save_pretrained(model)
    (tmp_path / "book.txt").write_text("\n\n".join(f"Page {n} of {n * n}." for n in range(30)))
    train(
        override(
            Recipe(), [f"data.path={tmp_path / 'book.txt'}", *settings, f"model.name={model}"]
        ),
        tmp_path / "r",
    )
    (tmp_path / "more.txt").write_text("Page 7\n\nPage 8")
    done = holdfast("predict", tmp_path / "r", tmp_path / "more.txt")
    assert done.code == 0, done.err
    assert [json.loads(line)["row"] for line in done.out.splitlines()] == [0, 1]
    (tmp_path / "blank.csv").write_text('text\n" "\n')
    done = holdfast("predict", tmp_path / "r", tmp_path / "blank.csv")
    assert done.code == 0, done.err
    assert json.loads(done.out)["prediction"] == ""
