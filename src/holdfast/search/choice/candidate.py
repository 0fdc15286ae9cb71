"""A candidate model: its score by a linear probe or a short fine-tune, and its size, licence,
languages and whether rows fit into its context."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.core.errors import DataError
from holdfast.core.machine import MB
from holdfast.core.metric_names import metric_words
from holdfast.core.records import Decision, Estimate, Floats, Ints
from holdfast.core.tasks import GENERATIVE_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.fits.compose import make_training_plan
from holdfast.fits.fit import fit
from holdfast.metrics.comparison import METRICS, entity_rows
from holdfast.models.adapters.quantize import weight_bytes
from holdfast.models.loading.card import card_of
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import TOKENIZER_FILES, find_model
from holdfast.models.vision.vision import PROCESSOR_FILES
from holdfast.plan.language import detect_language, language_mismatch, sample_texts
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare_divided, with_added
from holdfast.prepare.probe_evidence import (
    FOLDS,
    FrozenEvidence,
    assign_folds,
    frozen_evidence,
    sample_rows,
    score_rows,
)
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.search.choice.order import estimate
from holdfast.search.choice.text_evidence import TextEvidence, bits_per_byte_rows, text_evidence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


WEIGHTS = (".safetensors", ".bin")
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
# Of writing without spaces a word is no measure of a text.
LONGEST_WORD = 15.0
# Bytes that stand for what a vocabulary has no piece for.
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# Beyond these a model's words are not those of the rows. MiniLM reads English reviews,
# questions, requests, dialogues and code in 1.0 to 1.2 pieces a word, French in 1.6, German in 2.4.
MANY_PIECES, MANY_UNKNOWN, MANY_CUT = 1.5, 0.01, 0.05


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of a model. ``parameters``; ``disk_mb`` of its weight files and ``memory_mb`` of its
    weights as loaded; ``licence`` and ``languages`` of its card; ``max_length`` tokens that a row
    is cut to, and the share of rows that are ``cut``; ``tokens_per_word`` and the share of tokens
    that are ``unknown`` to its vocabulary; ``rows_in``, the rows' language. ``None`` if unknown.
    ``doubts`` are mismatches, in words."""

    parameters: int
    disk_mb: float | None
    memory_mb: float
    licence: str | None
    languages: tuple[str, ...]
    max_length: int | None
    cut: float | None
    tokens_per_word: float | None
    unknown: float | None
    rows_in: str | None
    doubts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"languages": list(self.languages), "doubts": list(self.doubts)}


def model_facts(prepared: PreparedData, positions: Ints) -> ModelFacts:
    """The facts of a prepared candidate, by the rows at these ``positions``."""
    loaded, recipe = prepared.loaded, prepared.recipe
    pictures = recipe.task in IMAGE_TASKS
    model = recipe.model
    source = find_model(
        model.name,
        revision=model.revision,
        trust=model.trust_remote_code,
        files=PROCESSOR_FILES if pictures else TOKENIZER_FILES,
    )
    card = card_of(source)
    files = [path for path in source.folder.iterdir() if path.suffix in WEIGHTS]
    texts = [] if pictures else sample_texts(prepared.rows.take(positions), recipe.seed)
    pieces, unknown = fertility(loaded.tokenizer, texts) if texts else (None, None)
    facts = ModelFacts(
        parameters=int(loaded.facts["parameters"]),
        disk_mb=sum(path.stat().st_size for path in files) / MB,
        memory_mb=weight_bytes(loaded.network) / MB,
        licence=card.licence,
        languages=card.languages,
        max_length=loaded.max_length,
        cut=cut_share(prepared.examples.take(positions)),
        tokens_per_word=pieces,
        unknown=unknown,
        rows_in=detect_language(texts),
    )
    return replace(facts, doubts=find_doubts(facts))


def fertility(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[float | None, float]:
    """Tokens per word, without special tokens (``None`` for scripts without spaces), and the share
    of unknown tokens."""
    words = [word for text in texts for word in WORD.findall(text)]
    # It says of a long text that a model would not read all of it, which is checked elsewhere.
    with quiet_transformers():
        ids = [i for text in texts for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if not words or not ids:
        return None, 0.0
    distinct_ids = sorted(set(ids))
    unknown_ids = {
        i
        for i, token in zip(
            distinct_ids, tokenizer.convert_ids_to_tokens(distinct_ids), strict=True
        )
        if i == tokenizer.unk_token_id or BYTE.fullmatch(str(token))
    }
    has_spaces = sum(map(len, words)) / len(words) <= LONGEST_WORD
    share = sum(i in unknown_ids for i in ids) / len(ids)
    return (len(ids) / len(words) if has_spaces else None), share


def cut_share(examples: object) -> float | None:
    """The share of rows that are truncated; ``None`` if rows have no length."""
    cut_tokens = getattr(examples, "source_cut", getattr(examples, "cut", None))
    if cut_tokens is None or not len(cut_tokens):
        return None
    return float((np.asarray(cut_tokens) > 0).mean())


def find_doubts(facts: ModelFacts) -> tuple[str, ...]:
    """Mismatches between model and rows, in words."""
    doubts = []
    if (other := language_mismatch(facts.languages, facts.rows_in)) is not None:
        doubts.append(other)
    if facts.tokens_per_word is not None and facts.tokens_per_word > MANY_PIECES:
        doubts.append(
            f"{facts.tokens_per_word:.1f} tokens per word: its vocabulary does not fit this "
            "language or domain"
        )
    if facts.unknown is not None and facts.unknown > MANY_UNKNOWN:
        doubts.append(f"{percent_phrase(facts.unknown, 1)} of the tokens are not in its vocabulary")
    if facts.cut is not None and facts.cut > MANY_CUT:
        doubts.append(
            f"{percent_phrase(facts.cut)} of the rows exceed its limit of {facts.max_length} tokens"
        )
    return tuple(doubts)


# A short fine-tune takes this share of the updates that ``train`` would.
SHORT_FIT_SHARE, LEAST_STEPS, MOST_STEPS = 0.1, 5, 200


@dataclass(frozen=True, slots=True)
class ShortFit:
    """A short fine-tune: ``rows`` [validation rows] are its scores (NaN for a row that the model
    does not read), ``units`` which of them are duplicates or in one group, ``score`` their mean,
    after ``steps`` updates."""

    rows: Floats
    units: Ints
    score: float
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """An assessed model: ``row_evidence`` per row from a frozen probe, or from the loss of the
    texts that a generative model should generate; ``evidence`` is the resulting score; ``short`` is
    the short fine-tune, if there was one. Scores have the sign of the metric."""

    name: str
    facts: ModelFacts
    rows_per_s: float
    seconds: float
    evidence: Estimate
    row_evidence: FrozenEvidence | TextEvidence
    short: ShortFit | None = None

    @property
    def frozen(self) -> FrozenEvidence | None:
        """The probe of a model that is not generative."""
        return self.row_evidence if isinstance(self.row_evidence, FrozenEvidence) else None

    @property
    def texts(self) -> TextEvidence | None:
        """The text losses of a generative model."""
        return self.row_evidence if isinstance(self.row_evidence, TextEvidence) else None

    @property
    def evidence_text(self) -> str:
        """What kind of score ``evidence`` is."""
        if isinstance(self.row_evidence, FrozenEvidence):
            return f"linear probe, {FOLDS}-fold cross-validation"
        return f"after {count_phrase(self.row_evidence.steps, 'update')} of LoRA"

    def decision(self) -> Decision:
        """A line as soon as it was assessed, since the next one takes seconds to minutes."""
        evidence = self.row_evidence
        if isinstance(evidence, FrozenEvidence):
            text = (
                f"a linear probe scores {evidence.score:.3f} out of fold (best layer: "
                f"{evidence.layer.name})"
            )
        else:
            text = f"{evidence.before:.3f} bits per byte, {evidence.after:.3f} {self.evidence_text}"
        because = "; ".join([text, *self.facts.doubts])
        return Decision(f"candidate {self.name}", f"{self.seconds:.1f} s", because, prominent=True)

    def to_json(self, predicted: Mapping[str, object]) -> dict[str, Any]:
        fields: dict[str, Any] = {"name": self.name, "predicted": dict(predicted)}
        fields["evidence"] = {"what": self.evidence_text, **self.evidence.to_json()}
        if isinstance(self.row_evidence, FrozenEvidence):
            fields |= self.row_evidence.to_json()
        else:
            fields["bits_per_byte"] = self.row_evidence.to_json()
        short = self.short
        fields["short"] = short and {
            "score": short.score,
            "steps": short.steps,
            "seconds": round(short.seconds, 2),
        }
        speed = {"rows_per_s": round(self.rows_per_s, 1), "seconds": round(self.seconds, 2)}
        return {**fields, **speed, **self.facts.to_json()}


@dataclass(frozen=True, slots=True)
class ChoiceRows:
    """The split rows on which every candidate is assessed, and their task. ``revisions`` are those
    of candidates of the hub, by name."""

    divided: Divided
    recipe: Recipe
    label_type: str
    revisions: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, divided: Divided) -> ChoiceRows:
        task = divided.recipe.task
        label_type = divided.table.columns.label_kind or "class"
        label_types = dict.fromkeys(GENERATIVE_TASKS, "text") | dict.fromkeys(TAGGING_TASKS, "tags")
        choice_recipe = divided.recipe
        if task in GENERATIVE_TASKS and choice_recipe.model.adapter.kind is None:
            choice_recipe = choice_recipe.with_changes(model={"adapter": {"kind": "lora"}})
        return cls(divided, choice_recipe, label_types.get(str(task), label_type))

    @property
    def is_generative(self) -> bool:
        return self.label_type == "text"

    @property
    def metric(self) -> tuple[str, bool]:
        """Its name, and whether higher is better; if lower is better, the sign of the scores is
        reversed."""
        return METRICS[self.label_type]

    @property
    def metric_text(self) -> str:
        """The metric in words."""
        return metric_words(self.metric[0])

    def model(self, name: str) -> dict[str, Any]:
        """A candidate as settings of a recipe's model."""
        return {"name": name, "revision": self.revisions.get(name) or self.recipe.model.revision}

    def prepare(self, name: str) -> tuple[PreparedData, Ints, Ints]:
        """The rows as a candidate reads them, without added rows."""
        recipe = self.recipe.with_changes(model=self.model(name))
        return prepare_divided(recipe, self.divided.splits, self.divided.findings, extend=False)

    def extend(self, prepared: PreparedData, train: Ints, valid: Ints) -> PreparedData:
        """With the rows that a fit of ``train`` would add."""
        known = self.divided.tables
        wide = with_general(prepared, known)
        return with_added(wide, train, valid, self.divided.unlabelled, known)


def assess_candidate(rows: ChoiceRows, name: str) -> ModelCandidate:
    """Assess a model before fine-tuning. Raises what preparing it raises, and ``DataError`` if the
    rows hold nothing to predict."""
    start = time.perf_counter()
    prepared, train, valid = rows.prepare(name)
    evidence: FrozenEvidence | TextEvidence
    if rows.is_generative:
        evidence, positions = text_evidence(prepared, train, valid), valid
    else:
        positions = sample_rows(prepared, np.union1d(train, valid))
        labels = np.asarray(prepared.rows.column("label"))[positions]
        folds = assign_folds(prepared.units[positions], labels, prepared.recipe.seed)
        evidence = frozen_evidence(prepared, positions, folds)
    if not np.isfinite(evidence.rows).any():
        rule = f"has no rows on which {rows.metric_text} can be measured"
        raise DataError(prepared.rows.source, rule, None, "Add rows, or use other data.")
    facts = model_facts(prepared, positions)
    metric, higher = rows.metric
    estimated = estimate(
        evidence.rows, evidence.units, metric, None if rows.is_generative else FOLDS
    )
    if not higher and estimated.value is not None:
        low, high = (None if end is None else -end for end in (estimated.high, estimated.low))
        estimated = replace(estimated, value=-estimated.value, low=low, high=high)
    seconds = time.perf_counter() - start
    return ModelCandidate(name, facts, evidence.rows_per_s, seconds, estimated, evidence)


def short_fit(rows: ChoiceRows, prepared: PreparedData, train: Ints, valid: Ints) -> ShortFit:
    """A fit with a tenth of the updates of ``train``, 5 to 200, scored on validation rows."""
    start = time.perf_counter()
    unchanged = {"control.policy": "off"}
    plan = make_training_plan(prepared, train, valid, unchanged).plan
    planned_steps = sum(phase.steps for phase in plan.phases)
    steps = min(max(round(SHORT_FIT_SHARE * planned_steps), LEAST_STEPS), MOST_STEPS, planned_steps)
    settings = {"train.max_steps": steps, "train.evaluations": 1, **unchanged}
    fitted = fit(prepared, train, valid, settings)
    row_scores = validation_scores(rows.label_type, fitted)
    scores = np.full(len(valid), np.nan)
    # A sentence of which no word is read is no example.
    examples: Any = fitted.training_plan.valid
    scores[np.arange(len(valid)) if len(row_scores) == len(valid) else examples.kept] = row_scores
    units, seconds = prepared.units[valid], time.perf_counter() - start
    return ShortFit(scores, units, float(np.nanmean(scores)), fitted.trained.last_step, seconds)


def validation_scores(label_type: str, fitted: FittedModel) -> Floats:
    """The scores of a fit's validation rows, higher is better, as in ``Candidate.rows``."""
    examples: Any = fitted.training_plan.valid
    losses, outputs = fitted.measure(examples)
    if label_type == "text":
        return bits_per_byte_rows(examples, losses, outputs, fitted.training_plan.loaded.tokenizer)
    if label_type == "tags":
        return entity_rows(outputs[:, 2:5])
    return score_rows(label_type, outputs, np.asarray(examples.labels), 0.0)
