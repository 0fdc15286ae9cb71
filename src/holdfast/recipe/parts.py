"""The parts of a recipe: what may be set, in which range, and what is left open."""

from __future__ import annotations

import functools
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
from holdfast.core.tasks import TASKS
from holdfast.data.options import RowOptions
from holdfast.recipe.values import check_value, plain_types

if TYPE_CHECKING:
    Task = str
else:
    Task = Literal[tuple(TASKS)]
Origin = Literal["name", "description", "unlabelled", "synthetic", "mixed", "canary", "taught"]
EMBEDDED_MODEL = "embedded"

# The largest of each kind of number. Beyond them no run would end, no plan could be held, or the
# number stands for something else; each is far above what anybody has used.
MAX_EPOCHS = 100_000
MAX_STEPS = 10**9
MAX_MINUTES = 60 * 24 * 366
MAX_ROWS = 100_000  # a step, or steps that are added to one
MAX_EVALUATIONS = 10_000  # each scores the validation rows once and writes a line of the journal
MAX_TOKENS = 1_000_000  # a text; the longest models read so many
MAX_RATE = 1e38  # what a float32 holds; far smaller ones explode, which the run then says
MAX_FACTOR = 1e6
MAX_CANARIES = 1000  # seven training rows each on average
MAX_FOLDS = 20  # each is a run of its own
MAX_LAYERS = 400  # the deepest models have some 200 blocks
MAX_RANK = 4096  # of an update of matrices with at most some 16,000 rows; 8 to 256 are usual


def _on_off(value: object) -> object:
    """YAML reads ``on`` and ``off`` as true and false."""
    return ("off", "on")[value] if isinstance(value, bool) else value


def _label_mapping(value: object) -> object:
    """Labels as they are written: YAML reads ``0`` as a number."""
    if not isinstance(value, dict):
        return value
    if not all(isinstance(name, str) and name.strip() for name in value.values()):
        raise ValueError("must give words for each label")
    return {str(label): name.strip() for label, name in value.items()}


_as_tuple = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
_OptionalNames = Annotated[tuple[str, ...] | None, _as_tuple]


class Part(BaseModel):
    """What every part is: frozen, and strict about its keys and the kinds of their values. No
    number is infinite or NaN."""

    model_config = ConfigDict(
        # pydantic keeps names that begin with ``model_`` to itself unless told not to.
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    # Before pydantic's own reading, which takes true for 1 and "5" for 5.
    @field_validator("*", mode="before")
    @classmethod
    def _check_type(cls, value: object, info: ValidationInfo) -> Any:
        return check_value(value, accepted_types(cls, str(info.field_name)))


@functools.cache
def accepted_types(part: type[BaseModel], name: str) -> frozenset[type]:
    """The plain types that the key ``name`` of ``part`` takes."""
    return frozenset(plain_types(part.model_fields[name].annotation))


class SplitShares(Part):
    """Shares of the rows, each above 0, adding to 1 (or test 0: the others then share all rows);
    and by what they are divided (``split/strategies.py``): ``held`` names the groups or sources
    whose rows are the test rows."""

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
            raise ValueError("held names groups or sources: set by to group or source")
        if self.stable and self.by != "rows":
            raise ValueError("stable divides each row by its own content: leave by at rows")
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
    """Cross-validation (``holdfast cv``): so many ``folds`` of all rows (none: no
    cross-validation), dealt anew ``repeats`` times; ``nested`` folds within each choose the steps
    and the state."""

    folds: int | None = Field(default=None, ge=2, le=100)
    repeats: int = Field(default=1, ge=1, le=100)
    nested: bool = False


class LimitsPart(Part):
    """How much a source may ask for (``data/limits.py`` says why); read where a command begins."""

    cell_mb: float = Field(default=8, gt=0, le=1_000)
    columns: int = Field(default=2_000, ge=1, le=1_000_000)
    classes: int = Field(default=10_000, ge=2, le=10_000_000)
    unpacked: float = Field(default=100, ge=1, le=1_000_000)
    megapixels: float = Field(default=33, gt=0, le=10_000)


class MixPart(Part):
    """One of several sources: its columns, what its labels are called here, how much it weighs."""

    path: str
    name: str | None = Field(default=None, min_length=1)
    config: str | None = None
    text: _OptionalNames = None
    label: str | None = None
    labels: Annotated[dict[str, str] | None, BeforeValidator(_label_mapping)] = None
    weight: float | None = Field(default=None, gt=0, le=MAX_FACTOR)


class SynthesizePart(Part):
    """New training rows: by which ways they are made, at most how many as a ``share`` of the
    training rows, and what each weighs."""

    templates: str | None = None
    recombine: bool = False
    model: str | None = None
    share: float = Field(default=0.5, gt=0, le=10)
    weight: float = Field(default=0.5, gt=0, le=MAX_FACTOR)
    temperature: float = Field(default=0.9, gt=0, le=10)

    @model_validator(mode="after")
    def _check_any_method(self) -> SynthesizePart:
        if self.templates is None and self.model is None and not self.recombine:
            raise ValueError("names no way: set templates, model or recombine")
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
        """How these rows are read; ``changes`` are fields of the record."""
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
        """A list of paths is a mix of them."""
        if not isinstance(plain, dict) or not isinstance(plain.get("path"), (list, tuple)):
            return plain
        if plain.get("mix"):
            raise ValueError("path is a list, and mix names sources too: give one of them")
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


class AdapterPart(Part):
    """A few new weights that learn in place of the pretrained ones; none without ``kind``."""

    kind: Literal["lora", "rslora", "dora", "lora+", "ia3", "prompt"] | None = None
    rank: int | None = Field(default=None, ge=1, le=MAX_RANK)
    alpha: float | None = Field(default=None, gt=0, le=MAX_FACTOR)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    targets: _OptionalNames = None
    merge: bool = False
    rate_ratio: float | None = Field(default=None, gt=0, le=MAX_FACTOR)

    @model_validator(mode="after")
    def _check_adapter_type(self) -> AdapterPart:
        settings = self.model_dump(exclude_defaults=True)
        if settings and self.kind is None:
            raise ValueError(f"{next(iter(settings))} is set without model.adapter.kind")
        return self


class ModelPart(Part):
    """Which model, and how much of it learns."""

    name: str = EMBEDDED_MODEL
    revision: str | None = None
    trust_remote_code: bool = False
    pooling: Literal["auto", "mean", "own"] = "auto"
    max_length: int | None = Field(default=None, ge=8, le=MAX_TOKENS)
    max_target_length: int | None = Field(default=None, ge=2, le=MAX_TOKENS)
    layers: int | None = Field(default=None, ge=1, le=MAX_LAYERS)
    layers_kept: Literal["spread", "first"] = "spread"
    adapter: AdapterPart = AdapterPart()
    freeze: int | float | str | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantize: Literal["none", "4bit", "8bit"] = "none"
    quant_type: Literal["nf4", "fp4"] | None = None
    double_quant: bool | None = None


class DistillPart(Part):
    """Whom the model learns from beside the labels: finished runs (``teacher``), averaged.

    ``weight`` is the teacher's share of the loss of a row that has a label, ``temperature`` softens
    both sides; ``compared`` says what of their answers is. ``hidden`` and ``attention`` are weights
    of what the blocks say beside. ``crossed``: how many texts are made of each training row for the
    teacher to answer. ``alone``: the same model is trained
    without a teacher too, to be held against."""

    teacher: Annotated[tuple[str, ...] | None, _as_tuple] = None
    weight: float = Field(default=1.0, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0, le=100)
    compared: Literal["probabilities", "logits"] = "probabilities"
    crossed: float | None = Field(default=None, ge=0, le=1000)
    hidden: float = Field(default=0.0, ge=0, le=MAX_FACTOR)
    attention: float = Field(default=0.0, ge=0, le=MAX_FACTOR)
    alone: bool = True


class TrainPart(Part):
    """How the model learns. ``None`` is filled from the table in ``defaults.py``."""

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
            raise ValueError("one fold is no division: use 0 for none, or 2 and more")
        return value


class GeneratePart(Part):
    """How a generating model's texts are made for the scores and the report."""

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
    """One of them, or ``file.py:Name``; YAML's ``false`` is ``off``, and so is that word."""
    value = "off" if value is False or str(value).lower() == "false" else value
    path, separator, name = str(value).rpartition(".py:")
    if isinstance(value, str) and (
        value in POLICIES or (path and separator and name.isidentifier())
    ):
        return value
    choices = " or ".join(f"'{one}'" for one in (*POLICIES, "FILE.py:Name"))
    raise PydanticCustomError("literal_error", "must be {expected}", {"expected": choices})


class ControlPart(Part):
    """Whether the run may stop by itself, or be acted on; and what stopping too early or too late
    costs. ``policy`` is ``off``, ``stop``, ``adapt``, or a policy of the user's, ``file.py:Name``.
    """

    policy: Annotated[Literal["off", "stop", "adapt"] | str, BeforeValidator(_parse_policy)] = (
        "stop"
    )
    worth: float = Field(default=0.005, ge=0, lt=1)
    chance: float = Field(default=0.3, ge=0, le=1)


class ForgettingPart(Part):
    """Rows of what the model knows before it is trained, measured at every look: their file, and
    how many at most. Without ``data`` some of ``data.general`` are set aside for it."""

    data: str | None = None
    rows: int = Field(default=200, ge=10, le=MAX_ROWS)


class FairnessPart(Part):
    """Whether the model is as good for every group of rows, and answers alike about everybody.

    ``columns``: of the source, by which rows are told apart; none given, every other column with
    few values. ``terms``: the file of a lexicon in the place of the built-in one. ``rows``: how
    many of a side the swap test looks at, 0 for none; ``insert`` puts terms before texts that have
    none."""

    columns: _OptionalNames = None
    terms: str | None = None
    rows: int = Field(default=40, ge=0, le=MAX_ROWS)
    insert: bool = False


class ProbesPart(Part):
    """What is measured of a run beside its own rows: random texts that are planted in its training
    part (``canaries``, so many), and what it forgets."""

    canaries: int | None = Field(default=None, ge=0, le=MAX_CANARIES)
    forgetting: ForgettingPart = ForgettingPart()
    shots: int = Field(default=3, ge=0, le=16)
    judge: str | None = None
    classifier: str | None = None
    fairness: FairnessPart = FairnessPart()


class AuditPart(Part):
    """How far ``audit`` goes: ``rows`` are the most that the model reads, 0 asks no model; copies
    and checks of single rows see every row. ``engine`` is where copies are looked for,
    ``loose`` the share of words in which two rows may differ and still be listed; ``tuned`` has
    the labels doubted by tuned features too, ``folds`` by what a run of ``holdfast cv`` said of
    these rows out of fold."""

    rows: int = Field(default=20_000, ge=0, le=MAX_STEPS)
    engine: Literal["local", "ray"] = "local"
    loose: float | None = Field(default=None, gt=0, le=0.5)
    tuned: bool = False
    folds: str | None = Field(default=None, min_length=1)


class AlertPart(Part):
    """Whom to tell when the verdict changes; ``on`` names the verdicts, all by default."""

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
    """Where what a run logs is sent beside its own files: nowhere, unless asked."""

    to: Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], _as_tuple] = ()
    project: str = Field(default="holdfast", min_length=1)
    name: str | None = None


class MetaPart(Part):
    """A start that adapts in a few steps, learned from many small tasks (``holdfast meta``).

    ``task_column`` tells the tasks apart. An episode has ``ways`` classes, ``shots`` rows to learn
    from and ``queries`` to answer of each; ``episodes`` are learned from, ``judge_episodes``
    decide, ``test_episodes`` are scored once. Without ``method`` the recipe is of another command.
    ``reptile``, ``maml`` and ``anil`` are read in the recipes of old runs alone, and so are the two
    numbers that only these methods had."""

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
