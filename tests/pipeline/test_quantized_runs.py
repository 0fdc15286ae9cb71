"""Whole runs in 4 and 8 bits on a processor: kill and resume, checkpoints, plain reload, merge."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers as hf

from holdfast.core.errors import RecipeError
from holdfast.fits.compose import make_training_plan
from holdfast.models.adapters.quantize import quantized_layers, weight_bytes
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.pipeline.main import train
from holdfast.plan import chunks
from holdfast.plan.adapters import resolve_dtype
from holdfast.plan.memory import _remedy, estimate, possible_reductions, quantizable_mb
from holdfast.prepare.model import prepare_divided
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")
FOUR = ("model.quantize=4bit", "model.adapter.kind=lora")


@pytest.fixture(scope="module")
def llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of a shape that every kernel of bitsandbytes takes."""
    folder = tmp_path_factory.mktemp("fitting") / "llama"
    shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("*.safetensors", "config*"))
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(3)
        hf.LlamaForCausalLM(
            hf.LlamaConfig(
                vocab_size=258,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=256,
                initializer_range=0.2,
                bos_token_id=0,
                eos_token_id=1,
            )
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    rows = [
        {"instruction": f"Add {i} and {j}, please.", "output": str(i + j)}
        for i in range(7)
        for j in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "task=causal-lm",
        f"data.path={path}",
        f"model.name={llama}",
        "train.max_steps=4",
        "train.threads=1",
        "train.precision=float32",
        "train.matmul=default",
        "train.batch_size=4",
        "generate.rows=1",
        "generate.max_new_tokens=3",
        "train.evaluations=2",
    ]


def make(base: list[str], *settings: str) -> Recipe:
    return override(Recipe(), [*base, *settings])


def hand_losses(run: Path, model: Any) -> list[float]:
    """The loss of each test row by hand: the plain template, the answer's tokens and the end."""
    tokenizer: Any = hf.AutoTokenizer.from_pretrained(run / "model")
    rows = [
        json.loads(line)
        for line in Path(json.loads((run / "result.json").read_text())["settings"]["data"]["path"])
        .read_text()
        .splitlines()
    ]
    losses = []
    for row in pq.read_table(run / "predictions.parquet").to_pydict()["row"]:
        asked = [{"role": "user", "content": rows[row]["instruction"]}]
        said = [*asked, {"role": "assistant", "content": rows[row]["output"]}]
        head = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(said, return_dict=False)
        ids = torch.tensor([whole[: whole.index(tokenizer.eos_token_id) + 1]])
        labels = ids.clone()
        labels[:, : len(head)] = -100
        with torch.no_grad():
            losses.append(float(model(input_ids=ids, labels=labels).loss))
    return losses


def by_its_card(run: Path) -> Any:
    """The model as the card says to load it: the lines themselves are run."""
    text = (run / "model" / "README.md").read_text("utf-8")
    lines = text.partition("```python\n")[2].partition("```")[0]
    lines = (
        lines.partition("turns =")[0]
        .partition("inputs =")[0]
        .replace("path/to/this/folder", str(run / "model"))
    )
    found: dict[str, Any] = {}
    with quiet_transformers():
        exec(lines, found)
    return found["model"].eval()


def check_kill_and_resume(
    recipe: Recipe, folder: Path, killed: type[BaseException], files: tuple[str, ...]
) -> Path:
    """Killed in its third step and resumed, the run ends as one that was left alone; its
    checkpoint holds what learns alone. Gives the folder of the undisturbed one."""

    class Kill:
        name = "kill"

        def gradients_ready(self, state: Any) -> None:
            if state.step == 2:
                raise killed

    train(recipe, folder / "whole")
    with pytest.raises(killed):
        train(recipe, folder / "cut", listeners=[Kill()], checkpoint_every_s=0.0)
    newest = max((folder / "cut" / "checkpoints").glob("step-*.pt"))
    state = torch.load(newest, weights_only=True)
    assert state["now"]["weights"][1]
    assert all("lora_" in name for name in state["now"]["weights"][1])
    assert {one.dtype for one in state["now"]["weights"][1].values()} == {torch.float32}
    train(recipe, folder / "cut", resume=True)
    for name in files:
        one, two = ((folder / run / name).read_bytes() for run in ("whole", "cut"))
        assert one == two, name
    return folder / "whole"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # in PEFT
@pytest.mark.parametrize("bits", ["4bit", pytest.param("8bit", marks=pytest.mark.slow)])
def test_killed_resumed_and_reloaded_in_plain_libraries(
    base: list[str], bits: str, tmp_path: Path, killed: type[BaseException]
) -> None:
    recipe = make(base, f"model.quantize={bits}", "model.adapter.kind=lora")
    run = check_kill_and_resume(
        recipe, tmp_path, killed, ("model/adapter_model.safetensors", "predictions.parquet")
    )
    result = json.loads((run / "result.json").read_text())
    assert (
        result["test"]["metrics"]["loss"]["value"]
        < (result["baseline"]["test"]["metrics"]["loss"]["value"])
    )
    model = result["settings"]["model"]
    assert (model["quant_type"], model["double_quant"]) == (
        ("nf4", True) if bits == "4bit" else (None, None)
    )
    scored = pq.read_table(run / "predictions.parquet").to_pydict()["loss"]
    # In 8 bits columns above 6 in any row of the batch are taken apart: alone it is another batch.
    near = 1e-4 if bits == "4bit" else 1e-2
    assert hand_losses(run, by_its_card(run)) == pytest.approx(scored, rel=near)


@pytest.mark.slow
def test_it_is_judged_against_the_unquantised_model_and_the_quantised_one_stands_beside(
    base: list[str], llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "r"
    train(make(base, *FOUR), run)
    result = json.loads((run / "result.json").read_text())
    tokens = pq.read_table(run / "predictions.parquet").to_pydict()["tokens"]
    with quiet_transformers():
        plain = hf.AutoModelForCausalLM.from_pretrained(llama).eval()
    by_hand = np.average(hand_losses(run, plain), weights=tokens)
    start = result["worth"]["start"]
    assert start["zero_shot"]["loss"] == pytest.approx(by_hand, rel=1e-5)
    assert result["baseline"]["test"]["metrics"]["loss"]["value"] == start["zero_shot"]["loss"]
    beside = start["quantized"]
    assert beside["n"] == start["zero_shot"]["n"]
    assert beside["loss"] != pytest.approx(by_hand, rel=1e-4)
    assert "p_adjusted" not in beside
    assert "quantised as in training" in (run / "report.html").read_text("utf-8")
    # Four bytes a number: half of that is not enough.
    numbers = sum(one.numel() for one in plain.parameters())
    monkeypatch.setattr("holdfast.tasks.generation.base_model.free_mb", lambda: 2 * numbers / 1e6)
    train(make(base, *FOUR), tmp_path / "half")
    worth = json.loads((tmp_path / "half" / "result.json").read_text())["worth"]
    assert "unquantised base model" in worth["left_out"]
    # Where memory does not hold it, the quantised one takes its place, and that is said.
    monkeypatch.setattr("holdfast.tasks.generation.base_model.free_mb", lambda: 0.1)
    train(make(base, *FOUR), tmp_path / "small")
    worth = json.loads((tmp_path / "small" / "result.json").read_text())["worth"]
    assert worth["start"]["zero_shot"]["loss"] == pytest.approx(beside["loss"], rel=1e-5)
    assert "quantized" not in worth["start"]
    assert "the quantised one is used instead" in worth["left_out"]["unquantised base model"]


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "precision"), [("4bit", "bfloat16"), ("8bit", "float32")])
def test_merged_it_is_a_plain_model_that_gives_the_scored_losses(
    base: list[str], bits: str, precision: str, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    train(
        make(
            base,
            f"model.quantize={bits}",
            "model.adapter.kind=lora",
            "model.adapter.merge=true",
            f"train.precision={precision}",
        ),
        run,
    )
    names = {path.name for path in (run / "model").iterdir()}
    assert {"model.safetensors", "config.json"} <= names
    assert "adapter_config.json" not in names
    scored = pq.read_table(run / "predictions.parquet").to_pydict()["loss"]
    assert hand_losses(run, by_its_card(run)) == pytest.approx(scored, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "key", "remedy"),
    [
        (
            ["model.quantize=4bit", "model.adapter.kind=none"],
            "without an adapter nothing would be trained",
            "model.adapter.kind=lora",
        ),
        (
            ["model.quantize=8bit", "model.adapter.kind=none"],
            "without an adapter nothing would be trained",
            "model.adapter.kind=lora",
        ),
        (["model.quant_type=nf4"], "model.quant_type", "model.quantize=4bit"),
        (
            [*FOUR, "model.quantize=8bit", "model.double_quant=true"],
            "model.double_quant",
            "model.quantize=4bit",
        ),
    ],
)
def test_what_cannot_be_quantised_is_refused_with_the_key_and_the_remedy(
    base: list[str], settings: list[str], key: str, remedy: str
) -> None:
    recipe = make(base, *settings)
    with pytest.raises(RecipeError, match=key) as raised:
        make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))
    assert remedy in raised.value.remedy


def test_a_task_that_is_not_quantised_is_refused(marked_csv: Path, quick: list[str]) -> None:
    recipe = override(Recipe(), [f"data.path={marked_csv}", *quick, *FOUR])
    with pytest.raises(RecipeError, match="not supported for text-classification"):
        make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))


def test_the_estimate_counts_packed_bytes_and_foretells_them(base: list[str]) -> None:
    def ready(*settings: str) -> Any:
        recipe = make(base, *settings)
        return make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))

    whole, small = ready("model.freeze=none"), ready(*FOUR)
    need = estimate(whole.loaded.network, whole.task, whole.train, whole.plan.phases, "float32")
    held = weight_bytes(small.loaded.network) / 1e6
    assert small.memory.weights == pytest.approx(held)
    learns = 4e-6 * sum(p.numel() for p in small.loaded.network.parameters() if p.requires_grad)
    tables = 1e-6 * 4 * (16 + 256) * len(list(quantized_layers(small.loaded.network)))
    foretold = need.weights - quantizable_mb(whole.loaded.network)
    assert foretold + learns + tables == pytest.approx(held, rel=1e-3)
    assert quantizable_mb(small.loaded.network) == 0
    offered = list(
        possible_reductions(
            whole.loaded.network, whole.task, whole.train, whole.plan.phases, "float32", need
        )
    )
    (packed,) = [change for change in offered if "model.quantize=4bit" in change.settings]
    smaller = packed.apply(need)
    assert smaller.weights == pytest.approx(foretold)
    assert smaller.gradients < 0.1 * need.gradients
    heavy = replace(need, rest=0.0, activations=0.0)
    remedy = _remedy(heavy, 1.01 * packed.apply(heavy).total, iter(offered))
    assert "--set model.adapter.kind=lora --set model.quantize=4bit" in remedy


@pytest.mark.slow
def test_a_base_in_bfloat16_learns_in_float32_and_is_killed_resumed_and_reloaded_so(
    base: list[str], tmp_path: Path, killed: type[BaseException]
) -> None:
    settings = [one for one in base if not one.startswith("train.precision")]
    recipe = make(settings, "model.dtype=bfloat16", "model.adapter.kind=lora")
    run = check_kill_and_resume(
        recipe, tmp_path, killed, ("model/adapter_model.safetensors", "predictions.parquet")
    )
    result = json.loads((run / "result.json").read_text())
    assert result["settings"]["train"]["precision"] == "bfloat16"
    told = {made["what"]: made for made in result["decisions"]}
    assert "2 bytes each" in told["model.dtype"]["because"]
    scored = pq.read_table(run / "predictions.parquet").to_pydict()["loss"]
    # By plain PEFT on the model in the same digits.
    assert hand_losses(run, in_halves(run)) == pytest.approx(scored, rel=2e-2)
    untuned = result["baseline"]["test"]["metrics"]["loss"]["value"]
    assert result["test"]["metrics"]["loss"]["value"] < untuned


def in_halves(run: Path) -> Any:
    from peft import PeftModel

    config = json.loads((run / "model" / "adapter_config.json").read_text())
    with quiet_transformers():
        plain = hf.AutoModelForCausalLM.from_pretrained(
            config["base_model_name_or_path"], dtype=torch.bfloat16
        )
        return PeftModel.from_pretrained(plain, str(run / "model")).eval()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (["model.adapter.kind=none"], "small updates are lost"),
        (["model.adapter.kind=dora"], "small updates are lost"),
        (["model.adapter.kind=lora", "model.quantize=4bit"], "contradicts model.quantize"),
        (["model.adapter.kind=lora", "train.precision=float32"], "contradicts train.precision"),
        (["model.adapter.kind=lora", "task=text-classification"], "not supported for text-class"),
    ],
)
def test_halves_that_would_learn_or_contradict_are_refused(settings: list[str], rule: str) -> None:
    recipe = override(Recipe(), ["task=causal-lm", "model.dtype=bfloat16", *settings])
    with pytest.raises(RecipeError, match=rule) as raised:
        resolve_dtype(recipe)
    assert raised.value.what == "model.dtype"
    assert raised.value.remedy


@pytest.mark.slow
def test_a_chunked_run_is_the_run_with_all_logits(base: list[str], tmp_path: Path) -> None:
    looks = []
    for way in ("off", "on"):
        run = tmp_path / way
        train(make(base, f"train.chunk_loss={way}", "train.learning_rate=1e-3"), run)
        result = json.loads((run / "result.json").read_text())
        told = [made for made in result["decisions"] if made["what"] == "train.chunk_loss"]
        assert bool(told) == (way == "on")
        assert result["settings"]["train"]["chunk_loss"] == way
        looks.append(pq.read_table(run / "predictions.parquet").to_pydict()["loss"])
    assert looks[0] == pytest.approx(looks[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["methods.rdrop=true", "model.dropout=0.1"], "rdrop may need them"),
        (["control.policy=adapt"], "control.policy=adapt may need them"),
        (["model.adapter.kind=prompt"], "cannot be used for causal-lm with this model"),
    ],
)
def test_losses_that_need_all_logits_are_not_chunked(
    base: list[str], settings: list[str], named: str
) -> None:
    recipe = make(base, "train.chunk_loss=on", *settings)
    with pytest.raises(RecipeError, match=named):
        make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))
    recipe = make(base, *settings)
    ready = make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))
    assert ready.recipe.train.chunk_loss == "off"


@pytest.mark.slow
def test_large_logits_are_chunked_unasked_and_less_memory_is_foretold(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready(*settings: str) -> Any:
        recipe = make(base, *settings)
        return make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))

    assert ready().recipe.train.chunk_loss == "off"
    whole = ready().memory.activations
    monkeypatch.setattr(chunks, "MIN_LOGITS_MB", 1e-3)
    assert ready().recipe.train.chunk_loss == "on"
    assert ready().memory.activations < whole
    assert ready("train.chunk_loss=off").memory.activations == whole


def test_what_a_teacher_says_is_held_against_all_logits() -> None:
    loaded: Any = SimpleNamespace(network=SimpleNamespace(chunks=True))
    recipe: Any = override(Recipe(), ["control.policy=stop"]).with_changes(
        distill={"teacher": ("run",)}
    )
    with pytest.raises(RecipeError, match=r"distill\.teacher may need them"):
        chunks.choose_chunk_loss(recipe.with_changes(train={"chunk_loss": "on"}), loaded, None, ())


def test_what_is_free_is_what_is_left_beside_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.plan import memory

    monkeypatch.setattr(memory, "tightest_limit", lambda: SimpleNamespace(left_mb=500.0))
    monkeypatch.setattr(memory, "resident_mb", lambda: 200.0)
    monkeypatch.setattr(memory, "on_gpu", lambda: False)
    assert memory.free_mb() == 300.0
