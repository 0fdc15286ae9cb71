"""The one line that a manager reads, for every kind of task and for numbers that are missing."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.report.answer.answer import answer

PLAIN = str.maketrans({"\u00a0": " ", "\u2212": "-"})


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> Any:
    return {"value": value, "low": low, "high": high, "level": 0.95}


def block(n: int = 400, **metrics: Any) -> dict[str, Any]:
    found = {k: v if isinstance(v, dict) else estimate(v) for k, v in metrics.items()}
    return {"n": n, "metrics": found}


def paired(value: float, low: float, high: float, p: float, metric: str | None = None) -> Any:
    named = {"metric": metric} if metric else {}
    return {"difference": estimate(value, low, high), "p_value": p, **named}


def classes(accuracy: float, probe: float, guess: float, comparison: Any, **more: Any) -> Any:
    spread = estimate(accuracy, accuracy - 0.04, accuracy + 0.03)
    return {
        "task": "text-classification",
        "test": block(more.pop("n", 400), accuracy=spread),
        "baseline": {
            "what": "linear probe",
            "comparison": comparison,
            "all": [
                {"what": "majority class", "test": block(accuracy=guess)},
                {"what": "linear probe", "test": block(accuracy=probe)},
            ],
        },
        **more,
    }


def told(result: Any) -> tuple[str, str, str]:
    found = answer(result)
    return found.headline.translate(PLAIN), found.advice.translate(PLAIN), found.use


def test_a_model_that_is_better_beyond_chance() -> None:
    assert told(classes(0.88, 0.80, 0.22, paired(0.08, 0.031, 0.129, 0.001))) == (
        "Accuracy 88 % (95 % CI 84–91); linear probe (baseline) 80 %; most frequent class "
        "(baseline) 22 %.",
        "Worth using: better than the linear probe (baseline) by 8.0 points (95 % CI 3.1 to 12.9).",
        "yes",
    )


def test_what_these_rows_cannot_tell_is_inconclusive_and_few_rows_are_named() -> None:
    headline, advice, use = told(classes(0.88, 0.80, 0.22, paired(0.08, -0.04, 0.2, 0.2), n=50))
    assert "(95 % CI 84–91, 50 test rows)" in headline
    assert advice == (
        "Inconclusive: 50 test rows cannot show a difference from the linear probe (baseline) "
        "(difference +8.0 points, 95 % CI -4.0 to +20.0)."
    )
    assert use == "unsettled"


@pytest.mark.parametrize("guess", [0.55, 0.60])
def test_at_or_below_guessing_it_is_said_first_and_no(guess: float) -> None:
    headline, advice, use = told(classes(0.55, 0.50, guess, paired(0.05, 0.01, 0.09, 0.01)))
    assert headline.startswith("No better than the most frequent class (baseline): accuracy 55 %")
    assert advice.startswith("Do not use it: on 400 test rows the most frequent class (baseline)")
    assert use == "no"


@pytest.mark.parametrize(("n", "guess"), [(30, 0.60), (99, 0.55), (30, 0.7)])
def test_few_rows_show_it_only_where_guessing_is_beyond_the_interval(n: int, guess: float) -> None:
    result = classes(0.55, 0.50, guess, paired(0.05, 0.01, 0.09, 0.01), n=n)
    result["test"]["metrics"]["accuracy"] = estimate(0.55, 0.4, 0.68)
    headline, advice, use = told(result)
    if guess < 0.68:
        assert headline.startswith("Not shown to be better than the most frequent class (baseline)")
        assert advice.startswith(
            f"Inconclusive: on {n} test rows the most frequent class (baseline) scores at least as "
            "well; more test rows are needed."
        )
        assert use == "unsettled"
    else:
        assert headline.startswith("No better than the most frequent class (baseline)")
        assert advice.startswith("Do not use it")


@pytest.mark.parametrize(("rare", "told_of"), [(2, True), (6, False), (0, False)])
def test_a_class_of_next_to_no_test_rows_is_named_with_its_recall(rare: int, told_of: bool) -> None:
    result = classes(0.95, 0.90, 0.9, paired(0.05, 0.01, 0.09, 0.01))
    result["test"]["per_class"] = {
        "no": {"n": 45 - rare, "recall": estimate(1.0, 0.91, 1.0)},
        "yes": {"n": rare, "recall": estimate(0.5, 0.09, 0.91)},
    }
    _, advice, _ = told(result)
    said = "Class 'yes' has only 2 test rows; its recall is 50 % (95 % CI 9–91)."
    assert (said in advice) == told_of
    assert ("Class" in advice) == told_of


@pytest.mark.parametrize(
    ("rows", "out_of_fold", "is_told"), [(340, True, True), (340, False, False), (40, True, False)]
)
def test_more_rows_out_of_fold_than_test_rows_are_told_too(
    rows: int, out_of_fold: bool, is_told: bool
) -> None:
    result = classes(0.90, 0.80, 0.6, paired(0.1, 0.01, 0.2, 0.04), n=60)
    result["valid"] = block(rows, accuracy=estimate(0.859, 0.818, 0.892))
    result["valid"]["out_of_fold"] = out_of_fold
    advice = told(result)[1]
    said = (
        " Out-of-fold accuracy on the 340 rows outside the test set, which also chose the "
        "checkpoint: 85.9 % (95 % CI 81.8–89.2)."
    )
    assert advice.endswith(said) == is_told
    assert ("Out-of-fold" in advice) == is_told


def test_out_of_fold_the_difference_from_the_probe_is_given_with_its_interval() -> None:
    result = classes(0.90, 0.80, 0.6, paired(0.1, 0.01, 0.2, 0.04), n=60)
    probe = block(340, accuracy=estimate(0.82, 0.77, 0.87))
    compared = {"difference": estimate(0.039, 0.002, 0.076), "p_value": None, "because": ""}
    result["valid"] = block(340, accuracy=estimate(0.859, 0.818, 0.892)) | {"out_of_fold": True}
    result["valid"]["baseline"] = {"what": "linear probe", "test": probe, "comparison": compared}
    assert told(result)[1].endswith(
        "85.9 % (95 % CI 81.8–89.2); linear probe (baseline) 82.0 % (difference +3.9 points, "
        "95 % CI +0.2 to +7.6)."
    )


@pytest.mark.parametrize(
    ("gain", "low", "is_better"),
    [(0.02, 0.002, True), (0.02, -0.002, False), (-0.02, 0.002, False)],
)
def test_the_rows_out_of_fold_may_show_what_few_test_rows_cannot(
    gain: float, low: float, is_better: bool
) -> None:
    result = classes(0.80 + gain, 0.80, 0.6, paired(gain, gain - 0.1, gain + 0.1, 0.7), n=60)
    probe = block(340, accuracy=estimate(0.82, 0.77, 0.87))
    compared = {"difference": estimate(0.039, low, 0.076), "p_value": None, "because": ""}
    result["valid"] = block(340, accuracy=estimate(0.859, 0.818, 0.892)) | {"out_of_fold": True}
    result["valid"]["baseline"] = {"what": "linear probe", "test": probe, "comparison": compared}
    _, advice, use = told(result)
    assert (use == "yes") == is_better
    if is_better:
        assert advice == (
            "Worth using: out of fold it is better than the linear probe (baseline) by 3.9 points "
            "(95 % CI 0.2 to 7.6). 60 test rows alone cannot show a difference (difference "
            "+2.0 points, 95 % CI -8.0 to +12.0). Out-of-fold accuracy on the 340 rows outside the "
            "test set, which also chose the checkpoint: 85.9 % (95 % CI 81.8–89.2); linear probe "
            "(baseline) 82.0 %."
        )


def test_worse_than_the_probe_beyond_chance_is_a_no() -> None:
    headline, advice, use = told(classes(0.70, 0.76, 0.22, paired(-0.06, -0.11, -0.01, 0.02)))
    assert headline.startswith("No better than the linear probe (baseline): accuracy 70 %")
    assert (
        advice == "Do not use it: the linear probe (baseline) is better by 6.0 points "
        "(95 % CI 1.0 to 11.0)."
    )
    assert use == "no"


def test_the_same_score_with_a_higher_loss_is_no_reason_not_to_use_it() -> None:
    """Both find every entity; the loss of 4 rows differs by 0.02 nats."""
    result = classes(0.76, 0.76, 0.22, paired(0.02, 0.014, 0.024, 0.001))
    result["baseline"]["comparison"]["metric"] = "loss"
    headline, advice, use = told(result)
    assert headline.startswith("No better than the linear probe (baseline): ")
    assert advice == (
        "Inconclusive: the linear probe (baseline) has the same accuracy, and its loss is lower by "
        "0.02 nats per row (95 % CI 0.014 to 0.024). The linear probe (baseline) costs less: --set "
        "model.freeze=backbone trains only the last layer."
    )
    assert use == "unsettled"
    result["test"]["metrics"]["accuracy"]["value"] = 0.75
    assert told(result)[2] == "no"


def test_a_tie_with_the_probe_is_said_first_and_advises_the_cheaper_one() -> None:
    result = classes(0.76, 0.76, 0.22, paired(0.0, -0.05, 0.05, 1.0))
    headline, advice, use = told(result)
    assert headline.startswith("Not shown to be better than the linear probe (baseline): ")
    assert "costs less: --set model.freeze=backbone trains only the last layer." in advice
    frozen = result | {"settings": {"model": {"freeze": "backbone"}}}
    assert "costs less." in told(frozen)[1]
    assert use == "unsettled"


def test_an_interval_that_reaches_the_majority_class_is_inconclusive() -> None:
    _, advice, use = told(classes(0.60, 0.40, 0.58, paired(0.2, 0.1, 0.3, 0.001)))
    assert "CI includes the score of the most frequent class (baseline)" in advice
    assert use == "unsettled"


def test_a_leak_takes_the_advice_away() -> None:
    leaking = classes(0.99, 0.80, 0.22, paired(0.19, 0.1, 0.3, 0.001), verdict={"label": "leaking"})
    assert told(leaking)[1:] == (
        "Do not rely on this score until the leakage below is resolved.",
        "unsettled",
    )


@pytest.mark.parametrize(
    ("accuracy", "probe", "shown"),
    [(0.997, 0.90, "99.7"), (0.804, 0.796, "80.4"), (1.0, 0.9, "100"), (0.0, 0.5, "0")],
)
def test_a_decimal_where_whole_numbers_would_hide_something(
    accuracy: float, probe: float, shown: str
) -> None:
    headline, *_ = told(classes(accuracy, probe, 0.22, paired(0.01, -0.1, 0.1, 0.5)))
    assert f"ccuracy {shown} % (" in headline


def test_numbers_are_told_by_their_error_and_smaller_is_better() -> None:
    result = {
        "task": "text-classification",
        "test": block(200, mae=estimate(3.14, 2.81, 3.49), r2=0.5),
        "baseline": {
            "what": "linear probe",
            "comparison": paired(-0.76, -1.1, -0.4, 0.001, "mae"),
            "all": [
                {"what": "training mean", "test": block(mae=5.2)},
                {"what": "linear probe", "test": block(mae=3.9)},
            ],
        },
    }
    assert told(result) == (
        "Mean absolute error 3.14 (95 % CI 2.81–3.49); linear probe (baseline) 3.90; "
        "training mean (baseline) 5.20.",
        "Worth using: better than the linear probe (baseline) by 0.76 (95 % CI 0.4 to 1.1).",
        "yes",
    )
    result["test"] = block(200, mae=estimate(5.3, 5.0, 5.6))
    assert told(result)[0].startswith(
        "No better than the training mean (baseline): mean absolute error 5.30"
    )
    assert told(result)[2] == "no"


def test_several_labels_are_told_by_rows_and_labels_and_judged_by_f1() -> None:
    scores = {
        "f1_micro": estimate(0.7, 0.66, 0.74),
        "exact_match": estimate(0.61, 0.55, 0.67),
        "precision_micro": 0.84,
        "recall_micro": 0.6,
    }
    result = {
        "task": "text-classification",
        "test": block(300, **scores),
        "baseline": {
            "what": "linear probe",
            "comparison": paired(-0.05, -0.08, -0.02, 0.001, "loss"),
            "all": [
                {"what": "majority class", "test": block(f1_micro=0.3, exact_match=0.61)},
                {"what": "linear probe", "test": block(f1_micro=0.6, exact_match=0.5)},
            ],
        },
    }
    headline, advice, use = told(result)
    assert headline == (
        "All labels correct in 61 % (95 % CI 55–67); most frequent class (baseline) 61 %; linear "
        "probe (baseline) 50 %. Micro-averaged over labels: precision 84 %, recall 60 %."
    )
    assert advice == (
        "Worth using: better than the linear probe (baseline) by 0.05 nats per row "
        "(95 % CI 0.02 to 0.08)."
    )
    assert use == "yes"


@pytest.mark.parametrize(
    ("verdict", "because", "advice", "use"),
    [
        (
            "yes",
            "Yes: on 45 test rows its loss is lower.",
            "Worth using: on 45 test rows its loss is lower.",
            "yes",
        ),
        (
            "undecided",
            "Undecided: on 45 test rows it cannot be told apart from the start model.",
            "Inconclusive: on 45 test rows it cannot be told apart from the start model.",
            "unsettled",
        ),
        (
            "no",
            "No: on 45 test rows its loss is higher.",
            "Do not use it: on 45 test rows its loss is higher.",
            "no",
        ),
        ("undecided", "There are no losses to compare.", None, "yes"),
    ],
)
def test_what_a_writer_is_worth_is_said_once(
    verdict: str, because: str, advice: str | None, use: str
) -> None:
    """By the block that asks the start model in every way, whatever one of them says."""
    result = {**written(0.41, 0.12), "worth": {"verdict": verdict, "because": because}}
    _, said, word = told(result)
    assert word == use
    assert advice is None or said == advice


def test_texts_that_contradict_the_loss_are_said_in_headline_and_advice() -> None:
    """Of both kinds: the loss alone would say "do not use it" of the first."""
    because = "Inconclusive: on the test rows its loss is higher, but its texts are better."
    result = {**written(0.41, 0.12), "worth": {"verdict": "undecided", "because": because}}
    result["baseline"]["comparison"] = paired(1.3, 1.2, 1.4, 0.0, "loss")
    assert told(result) == (
        "ROUGE-L 0.41 (95 % CI 0.39–0.43); base model 0.12.",
        because,
        "unsettled",
    )
    result["worth"]["verdict"] = "no"
    assert told(result)[2] == "no"
    gap = {"zero_shot": {"verdict": "worse"}}
    result = {**written(0.10, 0.12), "worth": {"texts": {"difference": gap}}}
    assert told(result)[0].startswith(
        "Lower loss than the base model, but the generated texts are worse: ROUGE-L 0.10"
    )


def written(rouge: float, before: float, counts: Any = None, **more: Any) -> dict[str, Any]:
    scores = {
        "test": {"rouge_l": estimate(rouge, rouge - 0.02, rouge + 0.02), **more},
        "test_untuned": {"rouge_l": estimate(before)},
    }
    return {
        "task": "causal-lm",
        "test": block(500, token_loss=1.6, perplexity=estimate(5.0, 4.8, 5.2)),
        "baseline": {
            "what": "untuned model",
            "all": [{"what": "untuned model", "test": block(token_loss=2.9, perplexity=18.2)}],
            "comparison": paired(-1.3, -1.4, -1.2, 0.0, "loss"),
        },
        "generations": {"scores": scores, "counts": {"test": counts or {"n": 100}}},
    }


def test_written_texts_are_told_by_their_overlap_and_beside_the_untuned_model() -> None:
    assert told(written(0.41, 0.12)) == (
        "ROUGE-L 0.41 (95 % CI 0.39–0.43); base model 0.12.",
        "Worth using: better than the base model by 1.3 nats per token (95 % CI 1.2 to 1.4).",
        "yes",
    )
    headline, _, use = told(written(0.10, 0.12))
    assert headline.startswith(
        "Lower loss than the base model, but the generated texts are not shown to be better: "
        "ROUGE-L 0.10"
    )
    assert use == "unsettled"


def test_word_for_word_goes_before_overlap_where_any_row_is() -> None:
    some = written(0.41, 0.12, exact_match=estimate(0.3, 0.2, 0.4))
    assert told(some)[0].startswith("Exact match 30 % (95 % CI 20–40)")
    none = written(0.41, 0.12, exact_match=estimate(0.0, 0.0, 0.03))
    assert "ROUGE-L" in told(none)[0]


def test_answers_from_a_set_have_to_beat_the_most_frequent_one() -> None:
    better = written(0.41, 0.12, exact_match=estimate(0.58, 0.42, 0.73))
    better["generations"]["scores"]["test_constant"] = {"exact_match": estimate(0.28)}
    headline, advice, use = told(better)
    assert headline == ("Exact match 58 % (95 % CI 42–73); most frequent answer (baseline) 28 %.")
    assert (advice[:12], use) == ("Worth using:", "yes")
    worse = written(0.41, 0.12, exact_match=estimate(0.28, 0.14, 0.45))
    worse["generations"]["scores"]["test_constant"] = {"exact_match": estimate(0.28)}
    headline, advice, use = told(worse)
    assert headline.startswith("No better than the most frequent answer (baseline): exact match 28")
    assert advice.startswith("Do not use it: ")
    assert "without reading the rows" in advice
    assert use == "no"


@pytest.mark.parametrize(
    "counts", [{"n": 20, "repetition": 20}, {"n": 20, "empty": 10}, {"n": 20, "collapsed": 12}]
)
def test_broken_texts_are_of_no_use_whatever_their_score(counts: dict[str, int]) -> None:
    _, advice, use = told(written(0.41, 0.12, counts))
    assert advice.startswith("Do not use it: ")
    assert f"{max(v for k, v in counts.items() if k != 'n')} of the 20 generated texts" in advice
    assert use == "no"


def test_no_overlap_at_all_is_of_no_use() -> None:
    assert told(written(0.0, 0.0))[2] == "no"


def test_four_short_answers_without_a_common_word_show_nothing() -> None:
    few = written(0.0, 0.0)
    few["generations"]["counts"]["test"]["n"] = 4
    few["generations"]["scores"]["test"]["rouge_l"] = estimate(0.0, 0.0, 0.6)
    few["generations"]["scores"]["test_constant"] = {"rouge_l": estimate(0.0)}
    headline, advice, use = told(few)
    assert headline.startswith("Not shown to be better than the most frequent answer (baseline)")
    assert advice.startswith("Inconclusive: ")
    assert use == "unsettled"


def test_plain_text_is_told_by_its_perplexity() -> None:
    result = written(0.41, 0.12)
    del result["generations"]
    headline, _, use = told(result)
    assert headline == ("Perplexity 5.00 (95 % CI 4.80–5.20); base model 18.20.")
    assert use == "yes"


def test_numbers_that_are_null_say_why() -> None:
    undefined = {"value": None, "low": None, "high": None, "why": "there are no rows"}
    assert told({"test": block(0, accuracy=undefined)}) == (
        "Not measured: Accuracy is undefined (there are no rows).",
        "Whether to use it is unknown: score it on labelled rows with `holdfast evaluate`.",
        "unknown",
    )
    assert told({})[0] == "Not measured: no test rows were scored."
    one_group = classes(0.88, 0.80, 0.22, None)
    one_group["test"] = block(40, accuracy={**estimate(0.88), "note": "no interval: one group"})
    headline, advice, use = told(one_group)
    assert "(40 test rows, no interval: one group)" in headline
    assert advice == "No paired comparison with a baseline was possible on 40 test rows."
    assert use == "unknown"


@pytest.mark.parametrize("n", [1, 2])
def test_very_few_rows_are_counted_in_the_right_number(n: int) -> None:
    headline, *_ = told(classes(0.5, 0.4, 0.3, paired(0.1, -0.5, 0.5, 1.0), n=n))
    assert f", {n} test row{'s' if n > 1 else ''})" in headline


def test_the_headline_names_the_rows_whose_texts_were_written() -> None:
    result = written(0.0, 0.0, counts={"n": 6}, rouge_l=estimate(0.0, 0.0, 0.459))
    result["test"] = block(45, token_loss=1.6, perplexity=estimate(5.0, 4.8, 5.2))
    headline = told(result)[0]
    assert "(95 % CI 0.00–0.46, 6 of 45 test rows)" in headline
