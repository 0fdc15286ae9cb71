"""The sections of a recipe: their keys, the allowed ranges and the defaults."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from holdfast.core.discovery import suggest_name
from holdfast.core.labels import Label
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.tasks import TASKS
from holdfast.data.options import RowOptions
from holdfast.recipe.values import check_value, plain_types

if TYPE_CHECKING:
    Task = str
else:
    Task = Literal[tuple(TASKS)]
Origin = Literal["name", "description", "unlabelled", "synthetic", "mixed", "canary", "taught"]
# The best of the encoders on this machine for the rows; the embedded one where there is no other.
AUTO_MODEL = "auto"

# The largest value of each kind of number. Above it a run would not end, its plan would not fit in
# memory, or the number is a mistake. Each is far above values in use.
MAX_EPOCHS = 100_000
MAX_STEPS = 10**9
MAX_MINUTES = 60 * 24 * 366
MAX_ROWS = 100_000  # rows per step, or accumulated batches
MAX_EVALUATIONS = 10_000  # each scores the validation rows once and writes a line to events.jsonl
MAX_TOKENS = 1_000_000  # per text; the longest context of any model
MAX_RATE = 1e38  # fits in float32; far smaller rates diverge, which the run then reports
MAX_FACTOR = 1e6
MAX_CANARIES = 1000  # each is seven training rows on average
MAX_FOLDS = 20  # each is a separate run
MAX_LAYERS = 400  # the deepest models have some 200 blocks
MAX_RANK = 4096  # LoRA rank; matrices have at most some 16,000 rows, and 8 to 256 is usual


def _on_off(value: object) -> object:
    """YAML reads ``on`` and ``off`` as true and false."""
    return ("off", "on")[value] if isinstance(value, bool) else value


def _label_mapping(value: object) -> object:
    """Labels as text, because YAML reads ``0`` as a number."""
    if not isinstance(value, dict):
        return value
    if not all(isinstance(name, str) and name.strip() for name in value.values()):
        raise ValueError("must give a text for each label")
    return {str(label): name.strip() for label, name in value.items()}


_as_tuple = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
_OptionalNames = Annotated[tuple[str, ...] | None, _as_tuple]


class Part(BaseModel):
    """The base of every section: frozen, with strict keys and value types. No number may be
    infinite or NaN."""

    model_config = ConfigDict(
        # pydantic reserves names that begin with ``model_`` unless this is empty.
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    # Before pydantic's own conversion, which reads true as 1 and "5" as 5.
    @field_validator("*", mode="before")
    @classmethod
    def _check_type(cls, value: object, info: ValidationInfo) -> Any:
        return check_value(value, accepted_types(cls, str(info.field_name)))


@functools.cache
def accepted_types(part: type[BaseModel], name: str) -> frozenset[type]:
    """The plain types that the key ``name`` of ``part`` accepts."""
    return frozenset(plain_types(part.model_fields[name].annotation))


class SplitShares(Part):
    """The size of each split and how rows are split.

    The shares are each above 0 and add to 1. With test 0, training and validation share all rows.
    ``by`` is the split strategy (``split/strategies.py``); ``held`` names the groups or sources
    whose rows are the test rows.
    """

    train: float = Field(default=0.70, gt=0, lt=1)
    valid: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, ge=0, lt=1)
    by: Literal["rows", "group", "source", "topic", "time"] = "rows"
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    held: _OptionalNames = None
    topics: int = Field(default=20, ge=3, le=MAX_ROWS)
    stable: bool = False

    @model_validator(mode="after")
    def _check_split_by(self) -> SplitShares:
        if self.held is not None and self.by not in ("group", "source"):
            rule = "test_groups names groups or sources: also set data.split.by to group or source"
            raise ValueError(rule)
        if self.stable and self.by != "rows":
            raise ValueError("stable=true splits rows by content, and needs data.split.by=rows")
        return self

    @model_validator(mode="after")
    def _check_shares(self) -> SplitShares:
        # 0.6 + 0.3 + 0.1 is 0.9999999999999999 in floating point.
        total = self.train + self.valid + self.test
        # Without test rows the other two share all, in proportion.
        if abs(total - 1) > 1e-6 and (self.test or total > 1):
            rest = 1 - self.valid - self.test
            hint = f": set data.split.train={rest:g} too" if 0 < rest < 1 else ""
            raise ValueError(f"train, valid and test must add to 1{hint}")
        return self


class CvPart(Part):
    """Cross-validation (``holdfast cv``) over all rows: the number of ``folds`` (``None``: no
    cross-validation), repeated with new folds ``repeats`` times. With ``nested``, inner folds
    choose the number of steps and the checkpoint. With ``learning_curve``, the folds are also
    trained on a quarter and on half of their rows."""

    folds: int | None = Field(default=None, ge=2, le=100)
    repeats: int = Field(default=1, ge=1, le=100)
    nested: bool = False
    learning_curve: bool = False


class LimitsPart(Part):
    """Size limits for a source (reasons: ``data/limits.py``), read where a command begins."""

    cell_mb: float = Field(default=8, gt=0, le=1_000)
    columns: int = Field(default=2_000, ge=1, le=1_000_000)
    classes: int = Field(default=10_000, ge=2, le=10_000_000)
    unpacked: float = Field(default=100, ge=1, le=1_000_000)
    megapixels: float = Field(default=33, gt=0, le=10_000)


class MixPart(Part):
    """One of several sources: its columns, how its labels are renamed, and its weight."""

    path: str
    name: str | None = Field(default=None, min_length=1)
    config: str | None = None
    text: _OptionalNames = None
    label: str | None = None
    labels: Annotated[dict[str, str] | None, BeforeValidator(_label_mapping)] = None
    weight: float | None = Field(default=None, gt=0, le=MAX_FACTOR)


class SynthesizePart(Part):
    """Synthetic training rows: how they are made, the most of them as a ``share`` of the training
    rows, and the weight of each."""

    templates: str | None = None
    recombine: bool = False
    model: str | None = None
    share: float = Field(default=0.5, gt=0, le=10)
    weight: float = Field(default=0.5, gt=0, le=MAX_FACTOR)
    temperature: float = Field(default=0.9, gt=0, le=10)

    @model_validator(mode="after")
    def _check_any_method(self) -> SynthesizePart:
        if self.templates is None and self.model is None and not self.recombine:
            raise ValueError("names no method: set templates, model or recombine")
        return self


class DataPart(Part):
    """Where the rows are and what their columns mean."""

    path: str | None = None
    config: str | None = None
    valid: str | None = None
    test: str | None = None
    text: _OptionalNames = None
    label: str | None = None
    target: str | None = None
    messages: str | None = None
    template: str | None = None
    group: str | None = None
    source: str | None = None
    time: str | None = None
    label_kind: Literal["class", "several", "number"] | None = None
    label_separator: str | None = Field(default=None, min_length=1)
    labels: Literal["merged", "exact"] = "merged"
    links: Literal["skip", "follow"] = "skip"
    encoding: str | None = None
    rare: Literal["refuse", "drop", "merge"] = "refuse"
    names: Annotated[bool | dict[str, str] | None, BeforeValidator(_label_mapping)] = None
    descriptions: str | None = None
    features: Annotated[tuple[str, ...] | bool | None, _as_tuple] = None
    unlabelled: str | None = None
    general: str | None = None
    unlabelled_by: Literal["propagation", "self-training", "teacher", "none"] | None = None
    mix: tuple[MixPart, ...] | None = None
    synthesize: SynthesizePart | None = None
    weights: dict[str, float] | None = None
    temperature: float | None = Field(default=None, gt=0, le=MAX_FACTOR)
    reweigh: str | None = None
    split: SplitShares = SplitShares()
    limits: LimitsPart = LimitsPart()

    def row_options(self, **changes: Any) -> RowOptions:
        """How these rows are read; ``changes`` replace fields of the record."""
        options = RowOptions(
            self.text,
            self.label,
            self.group,
            self.template,
            self.messages,
            self.encoding,
            self.config,
            self.label_kind,
            self.label_separator,
            labels=self.labels,
            links=self.links,
        )
        return replace(options, **changes)

    @model_validator(mode="before")
    @classmethod
    def _paths_as_mix(cls, plain: object) -> object:
        """Turn a list of paths into a mix of sources."""
        if not isinstance(plain, dict) or not isinstance(plain.get("path"), (list, tuple)):
            return plain
        if plain.get("mix"):
            raise ValueError("path is a list and mix names sources too: give only one of them")
        return {**plain, "path": None, "mix": [{"path": one} for one in plain["path"]]}

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for name, weight in (value or {}).items():
            if not 0 < weight <= MAX_FACTOR:
                raise ValueError(f"must be above 0 and at most {MAX_FACTOR:g} for {name!r}")
        return value

    @model_validator(mode="after")
    def _check_split_column(self) -> DataPart:
        split_by = self.split.by
        by_mix_source = split_by == "source" and self.mix is not None
        if (
            split_by in ("group", "source", "time")
            and getattr(self, split_by) is None
            and not by_mix_source
        ):
            raise ValueError(f"split.by is {split_by}: name the column with data.{split_by}")
        return self


def _implied_adapter_kind(adapter: Mapping[str, Any]) -> str:
    return "lora" if adapter.get("rate_ratio") is None else "lora+"


class AdapterPart(Part):
    """An adapter: a few new weights are trained in place of the pretrained ones. Without ``kind``
    another setting of it implies LoRA (``rate_ratio`` LoRA+); else a large language model has LoRA,
    and other models none. ``none`` is no adapter."""

    kind: Literal["none", "lora", "rslora", "dora", "lora+", "ia3", "prompt"] | None = None
    rank: int | None = Field(default=None, ge=1, le=MAX_RANK)
    alpha: float | None = Field(default=None, gt=0, le=MAX_FACTOR)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    targets: _OptionalNames = None
    merge: bool = False
    rate_ratio: float | None = Field(default=None, gt=0, le=MAX_FACTOR)

    @model_validator(mode="before")
    @classmethod
    def _imply_kind(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("kind") is not None:
            return given
        others = {
            name
            for name, value in given.items()
            if name in cls.model_fields and value is not None and value is not False
        }
        return {**given, "kind": _implied_adapter_kind(given)} if others else given

    @model_validator(mode="after")
    def _check_adapter_type(self) -> AdapterPart:
        settings = self.model_dump(exclude_defaults=True, exclude={"kind"})
        if settings and self.method is None:
            setting = next(iter(settings))
            rule = "needs an adapter, but model.adapter.kind is none: remove one of the two"
            raise ValueError(f"{setting} {rule}")
        return self

    @property
    def method(self) -> str | None:
        """The kind of adapter; ``None`` where there is none."""
        return None if self.kind == "none" else self.kind


class ModelPart(Part):
    """Which model, and which of its weights are trained.

    ``name`` is ``auto``: an encoder of texts on this machine is chosen by the training rows,
    ``candidates`` among them; ``budget`` are the minutes that its training may take, and with
    ``download`` some of the Hugging Face hub are candidates too. Other tasks have no such choice.
    With ``static`` the model gives its token vectors to a static classifier, which is trained;
    ``layers`` are then its own new blocks.
    """

    name: str = AUTO_MODEL
    candidates: _OptionalNames = None
    budget: float | None = Field(default=None, gt=0, le=MAX_MINUTES)
    download: bool = False
    revision: str | None = None
    trust_remote_code: bool = False
    pooling: Literal["auto", "mean", "own"] = "auto"
    max_length: int | None = Field(default=None, ge=8, le=MAX_TOKENS)
    max_target_length: int | None = Field(default=None, ge=2, le=MAX_TOKENS)
    layers: int | None = Field(default=None, ge=0, le=MAX_LAYERS)
    layers_kept: Literal["spread", "first"] = "spread"
    static: bool = False
    adapter: AdapterPart = AdapterPart()
    freeze: int | float | str | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantize: Literal["none", "4bit", "8bit"] = "none"
    quant_type: Literal["nf4", "fp4"] | None = None
    double_quant: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _imply_adapter(cls, given: Any) -> Any:
        """Weights that are stored in fewer bits cannot be trained themselves."""
        if not isinstance(given, Mapping):
            return given
        fewer_bits = given.get("quantize", "none") != "none" or given.get("dtype") == "bfloat16"
        adapter = given.get("adapter") or {}
        if not fewer_bits or not isinstance(adapter, Mapping) or adapter.get("kind") is not None:
            return given
        return {**given, "adapter": {**adapter, "kind": _implied_adapter_kind(adapter)}}

    @property
    def name_or_embedded(self) -> str:
        """``name``; the embedded model's as long as it is to be chosen."""
        return EMBEDDED if self.name == AUTO_MODEL else self.name


class DistillPart(Part):
    """Knowledge distillation: finished runs (``teacher``) whose averaged predictions the model
    learns from in addition to the labels.

    ``weight`` is the teacher's share of the loss of a labelled row. ``temperature`` divides the
    logits of teacher and student; ``compared`` names what is compared. ``hidden`` and ``attention``
    are the weights of the losses on hidden states and attention. ``crossed`` is how many texts per
    training and unlabelled text are combined for the teacher to predict. With ``alone``, the same
    model is also trained without a teacher, for comparison.
    """

    teacher: Annotated[tuple[str, ...] | None, _as_tuple] = None
    weight: float = Field(default=1.0, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0, le=100)
    compared: Literal["probabilities", "logits"] = "probabilities"
    crossed: float | None = Field(default=None, ge=0, le=1000)
    hidden: float = Field(default=0.0, ge=0, le=MAX_FACTOR)
    attention: float = Field(default=0.0, ge=0, le=MAX_FACTOR)
    alone: bool = True


class TrainPart(Part):
    """How the model is trained. ``None`` is filled from the table in ``defaults.py``."""

    epochs: float | None = Field(default=None, gt=0, le=MAX_EPOCHS)
    max_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    max_minutes: float | None = Field(default=None, gt=0, le=MAX_MINUTES)
    batch_size: int | None = Field(default=None, ge=1, le=MAX_ROWS)
    accumulate: int = Field(default=1, ge=1, le=MAX_ROWS)
    learning_rate: float | None = Field(default=None, gt=0, le=MAX_RATE)
    optimizer: str | None = None
    schedule: str | None = None
    warmup: float | None = Field(default=None, ge=0, lt=1)
    weight_decay: float | None = Field(default=None, ge=0, le=MAX_RATE)
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    huber: float | None = Field(default=None, gt=0, le=MAX_FACTOR)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    clip: float | None = Field(default=None, gt=0, le=MAX_RATE)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    checkpoint_activations: bool = False
    matmul: Literal["auto", "default", "onednn"] = "auto"
    shard: Annotated[Literal["off", "auto", "full"], BeforeValidator(_on_off)] = "auto"
    threads: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1, le=MAX_EVALUATIONS)
    metric: str | None = None
    keep: Literal["newest_unless_worse", "lowest", "last"] | None = None
    head: Literal["both", "logistic", "discriminant"] | None = None
    evaluations: int = Field(default=20, ge=1, le=MAX_EVALUATIONS)
    pack: bool = False
    chunk_loss: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_off)] = "auto"
    added: Annotated[tuple[Origin, ...] | None, _as_tuple] = None
    folds: int | None = Field(default=None, ge=0, le=MAX_FOLDS)
    cache_frozen: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_off)] = "auto"

    @field_validator("folds")
    @classmethod
    def _check_folds(cls, value: int | None) -> int | None:
        if value == 1:
            raise ValueError("cannot be 1: set 0 for no folds, or 2 or more")
        return value


class GeneratePart(Part):
    """How a generative model generates texts for the scores and the report."""

    rows: int = Field(default=100, ge=0, le=MAX_STEPS)
    beams: int = Field(default=1, ge=1, le=1000)
    max_new_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    watch: bool = False
    execute: Literal["sql", "pandas"] | None = None
    table: str | None = None
    code_seconds: float = Field(default=5.0, gt=0, le=86_400)
    code_memory_mb: int = Field(default=512, ge=16, le=10**7)
    execute_unsafe: bool = False


POLICIES = ("off", "stop", "adapt")


def _parse_policy(value: object) -> Any:
    """A policy's name, or ``file.py:Name``. YAML's ``false`` and the word "false" mean ``off``."""
    if value is None:
        return None
    value = "off" if value is False or str(value).lower() == "false" else value
    path, separator, name = str(value).rpartition(".py:")
    if isinstance(value, str) and (
        value in POLICIES or (path and separator and name.isidentifier())
    ):
        return value
    choices = " or ".join(f"'{one}'" for one in (*POLICIES, "FILE.py:Name"))
    raise PydanticCustomError("literal_error", "must be {expected}", {"expected": choices})


class ControlPart(Part):
    """Whether the guard may stop or change the run, and how a further gain is weighed against more
    training. ``policy`` is ``off``, ``stop``, ``adapt`` or a policy of the user's,
    ``file.py:Name``; ``None``: chosen by the task (``plan/control.py``)."""

    policy: Annotated[
        Literal["off", "stop", "adapt"] | str | None, BeforeValidator(_parse_policy)
    ] = None
    worth: float = Field(default=0.005, ge=0, lt=1)
    chance: float = Field(default=0.3, ge=0, le=1)


class ForgettingPart(Part):
    """Rows that the model knows before fine-tuning, measured at every evaluation: their file, and
    the largest number of rows. Without ``data``, some rows of ``data.general`` are set aside."""

    data: str | None = None
    rows: int = Field(default=200, ge=10, le=MAX_ROWS)


class FairnessPart(Part):
    """Fairness: whether the model is as accurate for every group of rows, and whether its
    predictions depend on group terms.

    ``columns`` of the source define the groups; without them, every other column with few values
    does. ``terms`` is the file of a lexicon that replaces the built-in one. ``rows`` is the number
    of rows of each split in the swap test (0: none). ``insert`` puts terms before texts that have
    none.
    """

    columns: _OptionalNames = None
    terms: str | None = None
    rows: int = Field(default=40, ge=0, le=MAX_ROWS)
    insert: bool = False


SkippedAnalysis = Literal[
    "all", "errors", "fairness", "forgetting", "memorization", "reasons", "slices", "thresholds"
]
SKIPPED_ANALYSES = get_args(SkippedAnalysis)


class ProbesPart(Part):
    """Measurements in addition to the score: ``canaries`` random texts planted among the training
    rows (memorization), what the model forgets, and which analyses a run leaves out (``skip``)."""

    canaries: int | None = Field(default=None, ge=0, le=MAX_CANARIES)
    forgetting: ForgettingPart = ForgettingPart()
    shots: int = Field(default=3, ge=0, le=16)
    judge: str | None = None
    classifier: str | None = None
    tasks: Annotated[tuple[str, ...], _as_tuple] = ()
    fairness: FairnessPart = FairnessPart()
    skip: Annotated[tuple[SkippedAnalysis, ...], _as_tuple] = ()

    def skips(self, analysis: str) -> bool:
        """Whether the analysis with this block in ``result.json`` is left out."""
        return analysis in self.skip or ("all" in self.skip and analysis in SKIPPED_ANALYSES)


class AuditPart(Part):
    """How far ``audit`` goes.

    ``rows`` is the largest number of rows that the model reads (0: no model); duplicate search and
    checks of single rows read every row. ``engine`` is where duplicates are searched. ``loose`` is
    the share of words in which two rows may differ and still be listed. With ``tuned``, fine-tuned
    features also flag labels; ``folds`` flags labels by the out-of-fold predictions of a ``holdfast
    cv`` run on these rows.
    """

    rows: int = Field(default=20_000, ge=0, le=MAX_STEPS)
    engine: Literal["local", "ray"] = "local"
    loose: float | None = Field(default=None, gt=0, le=0.5)
    tuned: bool = False
    folds: str | None = Field(default=None, min_length=1)


class AlertPart(Part):
    """Where an alert goes when the verdict changes; ``on`` names the verdicts, all by default."""

    on: Annotated[tuple[str, ...], _as_tuple] = get_args(Label)
    command: str | None = Field(default=None, min_length=1)
    webhook: str | None = Field(default=None, min_length=1)

    @field_validator("on")
    @classmethod
    def _check_verdicts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for label in value:
            if label not in get_args(Label):
                raise ValueError(
                    f"{label!r} is not a verdict: {suggest_name(label, list(get_args(Label)))}"
                )
        return value


class TrackPart(Part):
    """Experiment trackers that receive the logged values, in addition to the run's own files; none
    by default."""

    to: Annotated[tuple[Literal["tensorboard", "mlflow", "trackio", "wandb"], ...], _as_tuple] = ()
    project: str = Field(default="holdfast", min_length=1)
    name: str | None = None


class MetaPart(Part):
    """Meta-learning (``holdfast meta``): a model that adapts in a few steps, learned from many
    small tasks.

    ``task_column`` identifies the tasks. An episode has ``ways`` classes, and for each ``shots``
    rows to learn from and ``queries`` rows to predict. ``episodes`` train, ``judge_episodes``
    validate and ``test_episodes`` are scored once. Without ``method`` the recipe belongs to another
    command. ``reptile``, ``maml`` and ``anil`` are accepted only so that recipes of old runs can be
    read; the two numbers that only these methods had are dropped.
    """

    method: Literal["auto", "prototypes", "embedding", "reptile", "maml", "anil"] | None = None
    task_column: str | None = None
    ways: int | None = Field(default=None, ge=2, le=MAX_ROWS)
    shots: int = Field(default=5, ge=1, le=MAX_ROWS)
    queries: int | None = Field(default=None, ge=1, le=MAX_ROWS)
    episodes: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    judge_episodes: int = Field(default=200, ge=10, le=MAX_ROWS)
    test_episodes: int = Field(default=600, ge=10, le=MAX_ROWS)
    looks: int = Field(default=6, ge=1, le=MAX_EVALUATIONS)

    @model_validator(mode="before")
    @classmethod
    def _drop_removed_keys(cls, value: Any) -> Any:
        removed_keys = ("inner_steps", "inner_rate")
        is_mapping = isinstance(value, dict)
        return {k: v for k, v in value.items() if k not in removed_keys} if is_mapping else value
