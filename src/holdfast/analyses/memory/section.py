"""The report section on memorization of training rows: ``probes.memorization`` of
``result.json``."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.report.document import Details, Document, DocumentTable, Passage, Piece
from holdfast.report.numbers import estimate, interval, number, plural
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.section import CLEAN, UNDECIDED, RelianceCheck, Section

ATTACKS = {
    "loss": "Loss",
    "conditioned": "Loss compared with similar rows",
    "ratio": "Loss relative to the base model",
    "errors": "Wrong tokens relative to the base model",
}
RISKS = {
    "loss trace": (
        "Range of loss",
        "The inter-quartile range of the row's losses over the epochs, in nats. Rows with a large "
        "range are memorized more often, but the range of one row proves nothing.",
    )
}
# Below this AUC of membership inference, a model's rows do not count as memorized.
SMALL_AUC = 0.6
BLIND_NAME = "Words and lengths only (without the model)"
AUC = (
    "The AUC is the probability that a training row gets a higher score than a row that was not "
    "trained on; chance is 0.5. If words and lengths without the model are better than chance, the "
    "two sets differ and the test is inconclusive."
)
RISK_BY_SCORE = (
    "Score",
    "The score is how much better the model predicts the row than an unseen row.",
)


def memory(run: RunFiles) -> Document | None:
    """``None`` for a run that did not measure it (older versions)."""
    block = run.part("probes", "memorization")
    if not block:
        return None
    if "auc" not in block:
        return Document(
            (Passage(f"Not measured: {block.text('why', 'not recorded in this run')}."),)
        )
    further = (block.block(name).text("because") for name in ("extraction", "canaries"))
    passages = [Passage(line) for line in (block.text("because"), *filter(None, further))]
    attacks = [(ATTACKS.get(k, k), *_number(v, "auc")) for k, v in block.table("attacks").items()]
    if not attacks:
        return Document(tuple(passages))
    details = [
        DocumentTable(
            "Membership inference: how well each attack finds training rows",
            ("Attack", "AUC", "95 % CI"),
            (*attacks, (BLIND_NAME, *_number(block, "blind_auc"))),
            display="region",
        ),
        Passage(AUC),
        DocumentTable(
            "Training rows found at low false positive rates",
            ("False positive rate, at most", "Training rows found", "95 % CI"),
            tuple(map(_rate_line, block.blocks("tpr"))),
            ("n", "n", ""),
            "region",
        ),
        *_exposed_rows(block),
    ]
    return Document(
        (*passages, Details("Show AUCs and the rows with the highest scores", tuple(details)))
    )


def _exposed_rows(block: Block) -> Iterator[Piece]:
    """The training rows that membership inference would expose first."""
    lines = tuple(
        (str(one.get("row")), one.text("label"), one.text("text"), number(one.number("risk")))
        for one in block.blocks("exposed")
    )
    if lines:
        name, meaning = RISKS.get(str(block.get("risk_by")), RISK_BY_SCORE)
        columns = ("Row", "Label", "Text", name)
        styles = ("n", "term", "name", "n")
        yield DocumentTable("The most exposed rows", columns, lines, styles, "region")
        yield Passage(f"{meaning} {_alarms(block.block('false_alarms'))}", "muted")


def _number(block: Block, key: str) -> tuple[str, str]:
    estimate_of_key = block.estimate(key)
    return number(estimate_of_key.value), interval(estimate_of_key)


def _rate_line(one: Block) -> tuple[str, str, str]:
    share, rate = estimate(one), one.number("at_fpr")
    at = "–" if rate is None else f"{100 * rate:.2g}\u00a0%"
    if share.value is None:
        return at, "–", str(share.why or "")
    span = ""
    if share.low is not None and share.high is not None:
        span = f"{100 * share.low:.0f}–{100 * share.high:.0f}"
    return at, f"{100 * share.value:.1f}\u00a0%", span


def _alarms(alarms: Block) -> str:
    if not alarms.get("runs"):
        return ""
    return (
        f"False alarms: {alarms.get('alarms')} of {alarms.get('runs')} {alarms.get('what')} "
        "(benchmarks/memory.py)."
    )


HARDLY = "hardly"


def strength(area: float, low: float | None) -> str:
    """How strongly it memorized, in a word that the lower limit of the area supports too."""
    if area < 0.55 or low is None:
        return HARDLY
    if area < 0.65 or low < 0.55:
        return "slightly"
    return "clearly" if area < 0.8 or low < 0.65 else "strongly"


def _memorized(run: RunFiles) -> str | None:
    block = run.part("probes", "memorization")
    if "verdict" not in block:
        return None
    auc, extraction = block.estimate("auc"), block.block("extraction")
    completed, by_base = extraction.whole("completed"), extraction.whole("start")
    known = auc.low is not None and auc.high is not None
    degree = f"{strength(auc.value or 0.5, auc.low)} " if known else ""
    if block["verdict"] == "memorized" and degree.strip() != HARDLY:
        limits = f"95 % CI {number(auc.low)}–{number(auc.high)}; " if known else ""
        return (
            f"The model {degree}memorized training rows: membership inference finds them with "
            f"AUC {number(auc.value)} ({limits}chance 0.5)"
        )
    if completed and completed > (by_base or 0):
        base = "" if by_base is None else f" (base model: {by_base})"
        return f"The model completes {plural(completed, 'training row')} verbatim{base}"
    # "Not shown" with few rows does not exclude memorization.
    excluded = auc.high is not None and auc.high <= SMALL_AUC
    return CLEAN if block["verdict"] != "undecided" and excluded else UNDECIDED


SECTIONS = (
    Section(
        "memory",
        "Memorization",
        memory,
        reliance=RelianceCheck("memorized training rows", _memorized, rank=5),
    ),
)
