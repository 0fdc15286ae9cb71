"""Win rates, judges, examples before a question, general sentences, and the answer made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, nct, t

from holdfast.data.chats.chat import chats_from_prompts, load_chats
from holdfast.metrics import TEXT_METRICS
from holdfast.models.generators.causal import LoadedCausal, load_causal
from holdfast.tasks.generation.general_tasks import compare_general, general_items, general_tasks
from holdfast.tasks.generation.judge import (
    MetricJudge,
    ModelJudge,
    can_judge,
    metric_judge,
    prefers_a,
    win_rate,
)
from holdfast.tasks.generation.shots import encode_with_shots, fitting, pairs_before, shots_of
from holdfast.tasks.generation.text_scores import Generated
from holdfast.tasks.generation.token_scores import TokenOutputs, measure_saved
from holdfast.tasks.generation.worth import (
    EXAMPLES,
    PLAIN,
    Prompting,
    _compared,
    adjusted,
    answer_of,
    worth_block,
)
from holdfast.tasks.lm.evaluation_tasks import right_answers
from holdfast.tasks.lm.losses import CausalLM


@pytest.fixture(scope="module")
def loaded(tiny_llama: Path) -> LoadedCausal:
    return load_causal(str(tiny_llama))


@pytest.fixture(scope="module")
def tokenizer(loaded: LoadedCausal) -> Any:
    from holdfast.data.chats.turns import NAMED_TEMPLATES

    loaded.tokenizer.chat_template = NAMED_TEMPLATES["plain"]
    return loaded.tokenizer


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [{"instruction": f"Say {i}.", "response": f"It is {i}."} for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return load_chats(path)


def test_a_win_rate_counts_ties_as_half_and_tests_the_rest_exactly() -> None:
    prefers = np.array([1] * 14 + [-1] * 4 + [0] * 10)
    found = win_rate(prefers)
    assert (found["wins"], found["losses"], found["ties"]) == (14, 4, 10)
    assert found["value"] == pytest.approx(19 / 28)
    assert found["p_value"] == pytest.approx(binomtest(4, 18).pvalue)
    low, high = binomtest(19, 28).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))


def test_texts_of_one_group_count_together() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 5)
    rejected = 0
    for _ in range(300):
        # Two equal models, of whose texts a group's are all judged alike.
        rejected += win_rate(np.repeat(rng.choice([-1, 1], 6), 5), groups)["p_value"] <= 0.05
    # Exactly 2 ÷ 64 for six signs; it was 22 % for thirty rows.
    assert rejected / 300 < 0.06
    found = win_rate(np.repeat([1, 1, 1, 1, 1, -1], 5), groups)
    assert found["p_value"] == pytest.approx(binomtest(1, 6).pvalue)
    # As wide as that of six texts, or wider.
    low, high = binomtest(5, 6).proportion_ci(method="wilson")
    assert found["low"] < low
    assert found["high"] > high
    # By SciPy: the rows that decide are those of a t-test over groups, at the level of Holm.
    half = win_rate(np.repeat([1, 1, 1, 1, -1, -1], 5), groups, tests=2)
    n, sums = 6 + half["more_rows"] // 5, np.array([1, 1, 1, 1, -1, -1])
    shift, limit = sums.mean() / sums.std(ddof=1) * np.sqrt(n), t.ppf(1 - 0.0125, n - 1)
    assert nct.sf(limit, n - 1, shift) == pytest.approx(0.8, abs=0.03)


def test_a_judge_of_a_few_groups_is_not_shown_to_be_able() -> None:
    judge = ModelJudge("able", sees_reference)
    references, groups = [f"answer {i}" for i in range(20)], ["a"] * 10 + ["b"] * 10
    assert can_judge(judge, ["q"] * 20, references)["able"] is True
    assert can_judge(judge, ["q"] * 20, references, groups)["able"] is False


def test_no_pairs_and_only_ties_say_nothing() -> None:
    assert win_rate(np.zeros(0, dtype=int))["value"] is None
    assert win_rate(np.zeros(5, dtype=int))["p_value"] == 1.0


def test_a_metric_prefers_the_text_nearer_to_the_reference() -> None:
    judge = metric_judge("rouge_l")
    assert judge is not None
    references = ["the cat sat", "the dog ran", "a bird"]
    found = judge.prefer([""] * 3, references, ["the cat sat", "no", "x"], ["no", "the dog", "y"])
    assert found.tolist() == [1, -1, 0]
    assert metric_judge("chrf").prefer([""], ["abcdef"], ["abcde"], ["z"]).tolist() == [1]  # type: ignore[union-attr]
    assert metric_judge("no such metric") is None


def first_wins(prompts: Sequence[str]) -> np.ndarray:
    return np.ones(len(prompts))


def sees_reference(prompts: Sequence[str]) -> np.ndarray:
    """Finds the answer that is the reference, wherever it stands."""
    made = []
    for text in prompts:
        reference = text.partition("### Reference answer:\n")[2].partition("\n\n")[0]
        a = text.partition("### Answer A:\n")[2].partition("\n\n")[0]
        b = text.partition("### Answer B:\n")[2].partition("\n\n")[0]
        made.append(float(a == reference) - float(b == reference) + 0.1)
    return np.array(made)


def test_a_judge_that_prefers_a_place_ties_everything_and_is_unable() -> None:
    judge = ModelJudge("biased", first_wins)
    references = [f"answer {i}" for i in range(20)]
    found = judge.prefer(["q"] * 20, references, references, ["x"] * 20)
    assert not found.any()
    assert can_judge(judge, ["q"] * 20, references)["able"] is False


def test_a_judge_that_can_tell_is_heard_in_either_order() -> None:
    judge = ModelJudge("able", sees_reference)
    references = [f"answer {i}" for i in range(20)]
    wrong = ["wrong"] * 20
    assert (judge.prefer(["q"] * 20, references, references, wrong) == 1).all()
    assert (judge.prefer(["q"] * 20, references, wrong, references) == -1).all()
    assert not judge.prefer(["q"], ["r"], ["same "], ["same"]).any()
    assert can_judge(judge, ["q"] * 20, references)["able"] is True


def test_a_model_judges_by_the_likelihood_of_the_letter(
    loaded: LoadedCausal, tokenizer: Any
) -> None:
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        (found,) = prefers_a(loaded.network, tokenizer, ["Which? The better answer is"])
        ids = tokenizer("Which? The better answer is ", return_tensors="pt")["input_ids"]
    finally:
        tokenizer.chat_template = template
    with torch.inference_mode():
        logits = loaded.network.plain(ids).logits[0, -1].log_softmax(-1)
    a, b = (tokenizer.convert_tokens_to_ids(letter) for letter in "AB")
    assert found == pytest.approx(float(logits[a] - logits[b]), abs=1e-4)


def test_examples_change_what_is_before_an_answer_and_nothing_of_it(
    loaded: LoadedCausal, tokenizer: Any, chats: Any
) -> None:
    train, test = chats.take(range(8)), chats.take(range(8, 12))
    shots = shots_of(train, tokenizer, loaded.network.config, 2, 0)
    assert not isinstance(shots, str)
    assert [len(shots), shots_of(train, tokenizer, loaded.network.config, 2, 0)] == [2, shots]
    alone, behind, counts = encode_with_shots(test, tokenizer, 200, shots)
    assert counts.tolist() == [2] * 4
    for which in (alone, behind):
        assert (which.target_counts == alone.target_counts).all()
    assert (alone.ids[alone.targets] == behind.ids[behind.targets]).all()
    # By hand: the answer's tokens behind the whole of what stands before it.
    task = CausalLM(tokenizer.pad_token_id or 0)
    losses, _ = measure_saved(loaded.network, task, behind, "cpu")
    turns = [turn for shot in shots.turns for turn in shot]
    asked = [*turns, {"role": "user", "content": "Say 8."}]
    before = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    answer = tokenizer("It is 8.</s>", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = loaded.network.plain(torch.tensor([ids + answer])).logits[0].log_softmax(-1)
    wanted = -np.mean([float(logits[len(ids) + i - 1, t]) for i, t in enumerate(answer)])
    assert losses[0] == pytest.approx(wanted, abs=1e-5)


def test_what_has_no_room_has_fewer_examples(
    loaded: LoadedCausal, tokenizer: Any, chats: Any
) -> None:
    from dataclasses import replace

    shots = shots_of(chats, tokenizer, loaded.network.config, 3, 0)
    assert not isinstance(shots, str)
    alone, _, counts = encode_with_shots(chats, tokenizer, 200, replace(shots, room=100))
    assert counts.max() < 3
    alone, same, none = encode_with_shots(chats, tokenizer, 200, replace(shots, room=5))
    assert none.max() == 0
    # What stands behind the last answer is not read.
    first = [which.ids[: same.lengths[0]].tolist() for which in (alone, same)]
    assert first[0] == first[1]


def test_as_many_examples_are_chosen_as_the_room_takes() -> None:
    assert fitting([50, 40, 60, 10, 30], 120, 3) == [1, 3, 4]
    assert fitting([50, 55, 90], 120, 3) == [0, 1]
    assert fitting([110, 200], 120, 3) == [0]
    assert fitting([200], 120, 3) == []


def test_plain_text_has_no_examples(loaded: LoadedCausal, tokenizer: Any) -> None:
    table = chats_from_prompts(["a text"], "text")
    found = shots_of(table, tokenizer, loaded.network.config, 3, 0)
    assert found == "the rows are plain text, which has no prompts"


def test_pairs_stand_before_a_source(tokenizer: Any) -> None:
    found = pairs_before(["a", "b"], ["1", "2"], ["c", "d" * 300], tokenizer, 250, 2, 0)
    assert not isinstance(found, str)
    assert sorted(found.sources[0].split("\n\n")) == ["a\n1", "b\n2", "c"]
    assert found.sources[1] == "d" * 300
    assert (found.shots, found.fewer) == (2, 1)


def test_general_sentences_are_pairs_that_differ_and_balanced() -> None:
    items = general_items()
    assert {name: len(pairs) for name, pairs in items.items()} == dict.fromkeys(items, 40)
    for pairs in items.values():
        assert all(right != wrong for right, wrong in pairs)
        assert len({right for right, _ in pairs}) == len(pairs)
    last = [pair[0].split()[-1] for pair in items["opposites"]]
    assert sorted(last) == sorted(pair[1].split()[-1] for pair in items["opposites"])


def test_losing_some_of_the_sentences_is_found() -> None:
    knows = {name: np.ones(40, dtype=bool) for name in general_items()}
    lost = {name: row.copy() for name, row in knows.items()}
    lost["grammar"][:10] = False
    found = compare_general(knows, lost)
    assert [line["verdict"] for line in found["sets"]] == [
        "fell",
        "no change shown",
        "no change shown",
        "no change shown",
    ]
    assert "Its accuracy fell: grammar." in found["because"]
    same = compare_general(knows, knows)
    assert "no drop in accuracy is shown" in same["because"]
    chance = {name: np.arange(40) % 2 == 0 for name in knows}
    assert "No drop in accuracy can be measured" in compare_general(chance, chance)["because"]


def test_sentences_are_measured_whole(loaded: LoadedCausal, tokenizer: Any) -> None:
    found = right_answers(general_tasks(), loaded.network, tokenizer, torch.device("cpu"))
    for place, (right, wrong) in enumerate(general_items()["facts"][:5]):
        sums = []
        for text in (right, wrong):
            body = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[tokenizer.bos_token_id, *body]])
            with torch.inference_mode():
                logits = loaded.network.plain(ids).logits[0].log_softmax(-1)
            sums.append(-float(sum(logits[i, t] for i, t in enumerate(ids[0, 1:]))))
        assert found["facts"][place] == (sums[0] < sums[1])


def outputs(losses: np.ndarray) -> TokenOutputs:
    n = len(losses)
    return TokenOutputs(np.arange(n), losses, np.full(n, 5), np.ones(n))


@pytest.fixture
def answer() -> Callable[[float, float], dict[str, Any]]:
    def made(plain: float, shown: float) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        tuned = rng.normal(1.0, 0.3, 60)
        ways = {
            PLAIN: Prompting(
                outputs(tuned + plain + rng.normal(0, 0.1, 60)), outputs(tuned), ["no"] * 4
            ),
            EXAMPLES: Prompting(
                outputs(tuned + shown + rng.normal(0, 0.1, 60)), outputs(tuned), ["yes"] * 4, 3
            ),
        }
        texts = Generated(np.arange(4), ["q"] * 4, ["yes"] * 4, ["yes"] * 4, ["no"] * 4)
        metric = TEXT_METRICS["rouge_l"]
        return worth_block(ways, texts, MetricJudge(metric), metric, None)

    return made


def test_it_was_worth_it_where_it_beats_both_ways(
    answer: Callable[[float, float], dict[str, Any]],
) -> None:
    found = answer(0.5, 0.3)
    assert found["verdict"] == "yes"
    assert found["win_rate"][PLAIN]["wins"] == 4
    assert found["win_rate"][EXAMPLES]["ties"] == 4
    texts = found["texts"]
    gaps = {name: one["difference"]["value"] for name, one in texts.pop("difference").items()}
    assert texts == {"n": 4, "metric": "rouge_l", "tuned": 1.0, PLAIN: 0.0, EXAMPLES: 1.0}
    assert gaps == {PLAIN: 1.0, EXAMPLES: 0.0}


def test_it_was_not_where_examples_do_as_well_or_better(
    answer: Callable[[float, float], dict[str, Any]],
) -> None:
    worse = answer(0.5, -0.3)
    assert worse["verdict"] == "no"
    assert "higher than that of the base model with 3 examples" in worse["because"]
    open_ = answer(0.5, 0.0)
    assert open_["verdict"] == "undecided"
    assert open_["more_rows"] is None or open_["more_rows"] > 0


def test_a_judge_that_cannot_tell_gives_no_rate() -> None:
    texts = Generated(np.arange(9), ["q"] * 9, [f"r {i}" for i in range(9)], ["a"] * 9, ["b"] * 9)
    ways = {PLAIN: Prompting(texts=["b"] * 9)}
    judge = ModelJudge("biased", first_wins)
    found = worth_block(ways, texts, judge, TEXT_METRICS["rouge_l"], None)
    assert found["win_rate"][PLAIN]["value"] is None
    assert "not shown to prefer a correct text" in found["win_rate"][PLAIN]["why"]


def test_two_test_rows_leave_the_answer_open() -> None:
    def outputs(losses: list[float]) -> TokenOutputs:
        n = len(losses)
        return TokenOutputs(np.arange(n), np.array(losses), np.full(n, 20), np.zeros(n), None)

    way = Prompting(outputs([1.0, 1.2]), outputs([1.1, 1.25]))
    found = adjusted({PLAIN: _compared(PLAIN, way, 0, 1)})
    assert answer_of(found, {}) == (
        "undecided",
        "The difference cannot be tested: there are two rows.",
        None,
    )
