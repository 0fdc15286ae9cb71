"""Membership, its blind baseline, and which rows a model would give away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import roc_auc_score

from holdfast.analyses.memory.membership import (
    Tokens,
    attack_rate,
    conditioned_scores,
    error_zone_scores,
    max_false_alarms,
    membership,
    normal_losses,
    quantile_line,
    smallest_rate,
)
from holdfast.analyses.memory.probe import Risks, SetScores, probe_membership
from holdfast.contract.written_text import Verbatim
from holdfast.data.table import Table
from holdfast.prepare.canaries import exposures, labelled_canaries, planted_repeats
from holdfast.recipe import DataPart
from holdfast.tasks import task_definition
from holdfast.tasks.lm.verbatim import prompt_and_full_text

WORDS = ("red", "old", "tree", "house", "runs", "over", "slow", "bird", "sea", "warm", "no", "ice")


@pytest.fixture
def texts() -> Callable[..., list[str]]:
    def make(n: int, seed: int, words: tuple[str, ...] = WORDS) -> list[str]:
        random = np.random.default_rng(seed)
        return [" ".join(random.choice(words, 12)) for i in range(n)]

    return make


def test_the_area_is_the_usual_one_and_rates_are_shown_not_estimated() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(1, 1, 80), random.normal(0, 1, 200)
    found = membership("loss", one, other)
    y = np.repeat([1, 0], [80, 200])
    assert found.auc.value == pytest.approx(roc_auc_score(y, np.concatenate([one, other])))
    assert found.above_chance
    # 200 rows without one false alarm show 1.49 %, the rule of three: 1 − 0.05^(1/200).
    assert smallest_rate(200) == pytest.approx(1 - 0.05 ** (1 / 200))
    assert smallest_rate(2995) <= 0.001 < smallest_rate(2994)
    by_rate = {one.at_fpr: one.share for one in found.tpr}
    assert by_rate[0.01].value is None
    assert "needs 299 rows" in (by_rate[0.01].why or "")
    assert by_rate[smallest_rate(200)].value == np.mean(one > other.max())
    # The most alarms of 200 that a rate of 10 % would give in at most one set of twenty.
    most = int(binom.ppf(0.05, 200, 0.1)) - 1
    assert binom.cdf(most, 200, 0.1) <= 0.05 < binom.cdf(most + 1, 200, 0.1)
    assert max_false_alarms(200, 0.1) == most
    assert by_rate[0.1].value == np.mean(one > np.sort(other)[::-1][most])


def test_members_that_tie_with_others_are_not_found() -> None:
    share = attack_rate(np.array([1.0] * 10 + [2.0] * 10), np.array([1.0] * 40), 0.1).share
    assert share.value == 0.5


def test_the_error_zone_looks_at_wrong_tokens_alone() -> None:
    text = Tokens(
        np.log([0.9, 0.2, 0.1, 0.3]), np.log([0.1, 0.1, 0.2, 0.3]), np.array([1, 0, 0, 0], bool)
    )
    # Up by log 2, down by log 2, and one that did not move.
    assert error_zone_scores([text])[0] == pytest.approx(0.5)
    up = Tokens(np.log([0.9, 0.4]), np.log([0.99, 0.1]), np.array([True, False]))
    assert error_zone_scores([up])[0] == 1.0
    assert np.isnan(error_zone_scores([dataclasses.replace(up, correct=np.array([True, True]))])[0])


def test_a_quantile_line_is_that_of_the_exact_solver() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(400, 3))
    y = x @ [1.0, -2.0, 0.5] + (1 + np.abs(x[:, 0])) * random.gumbel(size=400)
    for q in (0.25, 0.5, 0.75):
        exact = QuantileRegressor(quantile=q, alpha=0, solver="highs").fit(x, y)
        line = quantile_line(x, y, q)
        np.testing.assert_allclose(x @ line[:-1] + line[-1], exact.predict(x), atol=0.25)
        assert np.mean(y < x @ line[:-1] + line[-1]) == pytest.approx(q, abs=0.02)


def test_a_loss_is_judged_for_what_the_row_is_and_without_memory_by_chance() -> None:
    random = np.random.default_rng(2)
    kind = random.integers(2, size=700)
    # Rows of the second kind are hard for anybody; members have lost a little, whatever their kind.
    easy = np.exp(random.normal(-3, 0.5, 700)) * np.where(kind, 30, 1)
    x = kind[:, None] + random.normal(0, 0.05, (700, 1))
    members, others = easy[:300] * 0.5, easy[300:]
    told = conditioned_scores(members, others, (x[:300], x[300:]), seed=0)
    apart = membership("conditioned", *told).auc.value
    plain = membership("loss", -members, -others).auc.value
    assert apart is not None
    assert plain is not None
    assert apart > plain + 0.08
    assert apart > 0.75
    nothing = conditioned_scores(easy[:300], others, (x[:300], x[300:]), seed=0)
    assert not membership("conditioned", *nothing).above_chance


def test_the_normal_form_of_a_loss_is_the_log_odds() -> None:
    p = np.array([0.999, 0.5, 1e-6])
    np.testing.assert_allclose(normal_losses(-np.log(p)), np.log((1 - p) / p), rtol=1e-6)


def test_what_was_learned_by_heart_is_said_and_its_rows_are_named(
    make_table: Any, texts: Any
) -> None:
    random = np.random.default_rng(3)
    members = make_table(texts(120, 0), ["a", "b"] * 60)
    others = make_table(texts(150, 1), ["a", "b"] * 75)
    low, high = random.exponential(0.05, 120), random.exponential(1.0, 150)
    found = probe_membership(SetScores(members, low), SetScores(others, high), 0)
    assert found.verdict == "memorized"
    assert "memorized its training rows" in found.because
    assert "Single rows" not in found.because
    # Every loss a little lower, none below the lowest of the others: an average, of no single row.
    shifted = np.concatenate([np.linspace(0, 0.2, 20), np.full(130, 2.0)])
    found = probe_membership(SetScores(members, np.full(120, 1.0)), SetScores(others, shifted), 0)
    assert found.verdict == "memorized"
    assert "at most 10 %, the attack finds 0.0 % of the training rows" in found.because
    risk = np.arange(120.0)
    rows = np.asarray(members.column("row"))
    traced = probe_membership(
        SetScores(members, low),
        SetScores(others, high),
        0,
        Risks(members, rows, risk, "loss trace"),
    ).to_json()
    assert [one["row"] for one in traced["exposed"]] == list(range(119, 109, -1))
    assert traced["exposed"][0]["text"] == members.column("text")[119]
    assert traced["risk_by"] == "loss trace"


def test_two_sets_that_differ_in_themselves_are_no_evidence(make_table: Any, texts: Any) -> None:
    random = np.random.default_rng(4)
    members = make_table(texts(120, 0), ["a", "b"] * 60)
    others = make_table(texts(150, 1, ("zinc", "lead", "gold", "coal")), ["a", "b"] * 75)
    found = probe_membership(
        SetScores(members, random.exponential(0.05, 120)),
        SetScores(others, random.exponential(1, 150)),
        0,
    )
    assert found.verdict == "undecided"
    assert "the two sets differ" in found.because


def test_of_too_few_rows_nothing_is_said(make_table: Any, texts: Any) -> None:
    members = make_table(texts(120, 0), ["a", "b"] * 60)
    few = make_table(texts(10, 1), ["a", "b"] * 5)
    found = probe_membership(
        SetScores(members, np.zeros(120)), SetScores(few, np.ones(10)), 0
    ).to_json()
    assert found["verdict"] == "undecided"
    assert found["auc"]["value"] is None
    assert found["auc"]["why"]


def test_copies_of_one_text_are_one_witness(make_table: Any, texts: Any) -> None:
    random = np.random.default_rng(5)
    own = texts(40, 0)
    members: Table = make_table(own * 3, ["a", "b"] * 60)
    others = make_table(texts(60, 1), ["a", "b"] * 30)
    found = probe_membership(
        SetScores(members, random.exponential(1, 120)),
        SetScores(others, random.exponential(1, 60)),
        0,
    ).to_json()
    assert (found["members"], found["others"], found["one_row_a_unit"]) == (40, 60, True)


def test_exposure_is_the_rank_in_bits() -> None:
    others = np.arange(1.0, 128.0)
    # First of 128: all seven bits. Last: none. A tie ranks behind.
    np.testing.assert_allclose(exposures(np.array([0.0, 1000.0, 1.0]), others), [7.0, 0.0, 6.0])
    random = np.random.default_rng(0)
    never = exposures(random.normal(size=20_000), random.normal(size=200))
    # The mean of −log₂ of a uniform share is 1 ÷ ln 2.
    assert never.mean() == pytest.approx(1 / np.log(2), abs=0.1)


def test_canaries_are_random_alike_and_repeated_as_said() -> None:
    texts = ["one two three four five", "six seven eight nine ten"] * 3
    made = labelled_canaries(texts, 3, 7, seed=1)
    assert made == labelled_canaries(texts, 3, 7, seed=1)
    assert [canary.repeats for canary in made.planted] == [1, 4, 16, 1, 4, 16, 1]
    assert np.bincount(planted_repeats(made)).tolist() == [1, 4, 16, 1, 4, 16, 1]
    assert len({canary.text for canary in made.planted}) == 7
    assert {canary.label for canary in made.others} == {0, 1, 2}
    assert set(" ".join(c.text for c in made.others).split()) <= set(" ".join(texts).split())


def test_verbatim_is_to_the_word() -> None:
    answer = "a  b c d e f g h  i j k l m n o p q"
    parts = prompt_and_full_text(answer)
    assert parts is not None
    assert parts == ("a  b c d e f g h", answer)
    assert prompt_and_full_text(f"{answer} {answer} {answer}") == (
        parts[0],
        f"{answer} {answer[:-4]}",
    )
    assert prompt_and_full_text("too short to tell") is None
    told = Verbatim(50, (3, 4, 9), 0)
    assert told.because.startswith("3 of 50 answers completed verbatim from their first 8 words")
    assert told.to_json()["rate"]["value"] == 0.06


def test_pictures_and_written_answers_are_asked_too(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    for k in range(50):
        place = tmp_path / "pictures" / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{k}.png")
    summaries = tmp_path / "summaries.csv"
    lines = [f"w{i} w{i * 7 % 13} a b c,z{i} q" for i in range(60)]
    summaries.write_text("document,summary\n" + "\n".join(lines) + "\n", "utf-8")
    shown = {}
    for task, source in (("image-classification", tmp_path / "pictures"), ("seq2seq", summaries)):
        table = task_definition(task).read(str(source), DataPart(path=str(source)), None)
        order = random.permutation(len(table))
        one, other = table.take(order[::2]), table.take(order[1::2])
        found = probe_membership(
            SetScores(one, random.exponential(size=len(one))),
            SetScores(other, random.exponential(size=len(other))),
            0,
        ).to_json()
        assert found["auc"]["value"] is not None
        assert found["blind_auc"]["value"] is not None
        shown[task] = found["exposed"][0]
    picture = shown["image-classification"]
    assert picture["text"].startswith(f"{picture['label']}/")
    assert shown["seq2seq"]["label"] is None
