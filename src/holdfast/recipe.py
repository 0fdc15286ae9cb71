"""The one place for configuration: a frozen recipe, read from YAML, unknown keys refused.

A recipe that a user writes may leave almost everything out; ``None`` means "work it out". The
recipe that a run writes is the same type with every value filled in, so that it repeats the run.
Inner code never sees a recipe: it takes flat arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.functional_validators import BeforeValidator

from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError

TASKS = ("text-classification", "seq2seq", "causal-lm", "image-classification")
EMBEDDED = "embedded"
_LISTED = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class SplitShares(_Part):
    """Shares of the rows, each above 0 (test may be 0 where a test file is given), adding to 1."""

    train: float = Field(default=0.70, gt=0, lt=1)
    valid: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, ge=0, lt=1)

    @model_validator(mode="after")
    def _add_to_one(self) -> SplitShares:
        if abs(self.train + self.valid + self.test - 1) > 1e-6:
            raise ValueError("train, valid and test must add to 1")
        return self


class DataPart(_Part):
    """Where the rows are and what their columns mean."""

    path: str | None = None
    config: str | None = None
    valid: str | None = None
    test: str | None = None
    text: Annotated[tuple[str, ...] | None, _LISTED] = None
    label: str | None = None
    target: str | None = None
    messages: str | None = None
    template: str | None = None
    group: str | None = None
    label_kind: Literal["class", "several", "number"] | None = None
    label_separator: str | None = Field(default=None, min_length=1)
    encoding: str | None = None
    rare: Literal["refuse", "drop", "merge"] = "refuse"
    split: SplitShares = SplitShares()


class AdapterPart(_Part):
    """A few new weights that learn in place of the pretrained ones; none without ``kind``."""

    kind: Literal["lora", "rslora", "dora", "lora+", "ia3", "prompt"] | None = None
    rank: int | None = Field(default=None, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    targets: Annotated[tuple[str, ...] | None, _LISTED] = None
    merge: bool = False
    rate_ratio: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _settings_need_a_kind(self) -> AdapterPart:
        given = self.model_dump(exclude_defaults=True)
        if given and self.kind is None:
            raise ValueError(f"{next(iter(given))} is set without model.adapter.kind")
        return self


class ModelPart(_Part):
    """Which model, and how much of it learns."""

    name: str = EMBEDDED
    revision: str | None = None
    trust_remote_code: bool = False
    pooling: Literal["auto", "mean", "own"] = "auto"
    max_length: int | None = Field(default=None, ge=8)
    max_target_length: int | None = Field(default=None, ge=2)
    adapter: AdapterPart = AdapterPart()
    freeze: int | float | str | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1)


class TrainPart(_Part):
    """How the model learns. ``None`` is filled from the table in ``defaults.py``."""

    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=None, ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    optimizer: str | None = None
    schedule: str | None = None
    warmup: float | None = Field(default=None, ge=0, lt=1)
    weight_decay: float | None = Field(default=None, ge=0)
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    huber: float | None = Field(default=None, gt=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    clip: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_activations: bool = False
    matmul: Literal["auto", "default", "onednn"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    metric: str | None = None
    keep: Literal["newest_unless_worse", "lowest"] | None = None
    evaluations: int = Field(default=20, ge=1)
    pack: bool = False


class GeneratePart(_Part):
    """How a generating model's texts are made for the scores and the report."""

    rows: int = Field(default=100, ge=0)
    beams: int = Field(default=1, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)


class ControlPart(_Part):
    """Whether the run may stop by itself."""

    policy: Literal["off", "stop", "adapt"] = "stop"

    @field_validator("policy", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: Any) -> Any:
        return "off" if value is False else value

    @field_validator("policy")
    @classmethod
    def _adapt_does_not_exist_yet(cls, value: str) -> str:
        if value == "adapt":
            raise ValueError("adapt does not exist yet: use stop or off")
        return value


class TrackPart(_Part):
    """Where what a run logs is sent beside its own files: nowhere, unless asked."""

    to: Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], _LISTED] = ()
    project: str = Field(default="holdfast", min_length=1)
    name: str | None = None


class Recipe(_Part):
    """Every setting of a run."""

    task: Literal["text-classification", "seq2seq", "causal-lm", "image-classification"] = (
        "text-classification"
    )
    seed: int = Field(default=0, ge=0)
    data: DataPart = DataPart()
    model: ModelPart = ModelPart()
    train: TrainPart = TrainPart()
    generate: GeneratePart = GeneratePart()
    control: ControlPart = ControlPart()
    track: TrackPart = TrackPart()
    methods: dict[str, dict[str, Any] | bool] = Field(default_factory=dict)
    enrich: dict[str, dict[str, Any] | bool] = Field(default_factory=dict)

    @field_validator("enrich")
    @classmethod
    def _nothing_enriches_yet(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value:
            raise ValueError(f"no enrichment called {next(iter(value))!r} exists yet: leave it out")
        return value

    def to_yaml(self) -> str:
        plain = self.model_dump(mode="json")
        plain["control"]["policy"] = str(plain["control"]["policy"])
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)

    def changed(self, **parts: Mapping[str, Any]) -> Recipe:
        """A copy with some keys of some parts replaced, checked again."""
        plain = self.model_dump()
        for part, values in parts.items():
            plain[part] = {**plain[part], **values}
        return parse(plain, "recipe")


def parse(plain: Any, where: str) -> Recipe:
    """A recipe from plain values; ``where`` is named in an error."""
    if not isinstance(plain, dict):
        raise RecipeError(where, "is not a table of settings", plain, "Write `key: value` lines.")
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        raise _first_fault(error, where) from None


def read_recipe(path: Path) -> Recipe:
    """Read a YAML recipe; relative paths in it are relative to its folder."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(str(path), "does not exist", None, "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), "cannot be read", str(error), "Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise RecipeError(str(path), "is not valid YAML", str(error), "Mend that line.") from None
    return anchored(parse(plain if plain is not None else {}, str(path)), path.resolve().parent)


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Apply ``section.key=value`` strings, values read as YAML; relative paths stay as typed."""
    plain = recipe.model_dump()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError("--set", "needs KEY=VALUE", setting, "E.g. --set train.epochs=5.")
        value = _value(text)
        # YAML reads `summarize: {dialogue}` as a table, and so a template that begins like that.
        template = key.strip() == "data.template" and isinstance(value, dict)
        _assign(plain, key.strip(), text if template else value)
    return parse(plain, "--set")


def known_keys(part: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key that a recipe may hold."""
    keys: list[str] = []
    for name, field in part.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += known_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    # YAML 1.1 reads `1e-4` as a string for want of a dot.
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and value[0] in "0123456789.+-" else value
        except ValueError:
            return value
    return value


def _assign(plain: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    free = path[:1] in (["methods"], ["enrich"]) or key in ("methods", "enrich")
    if not free and key not in known_keys():
        raise RecipeError("--set", "names an unknown key", key, nearest(key, known_keys()))
    for step in path:
        inner = plain.get(step)
        plain[step] = inner if isinstance(inner, dict) else {}
        plain = plain[step]
    plain[last] = value


def anchored(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path that leads somewhere from ``folder`` made absolute."""

    def anchor(value: str | None) -> str | None:
        if value in (None, EMBEDDED) or not (folder / str(value)).exists():
            return value
        return str((folder / str(value)).resolve())

    data = {key: anchor(getattr(recipe.data, key)) for key in ("path", "valid", "test")}
    metric = recipe.train.metric
    if metric and ".py:" in metric:
        path, _, function = metric.rpartition(".py:")
        metric = f"{str(anchor(path + '.py')).removesuffix('.py')}.py:{function}"
    return recipe.changed(
        data=data, model={"name": anchor(recipe.model.name)}, train={"metric": metric}
    )


def _first_fault(error: ValidationError, where: str) -> RecipeError:
    fault = error.errors()[0]
    key = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = sorted({*Recipe.model_fields, *known_keys()}) if "." not in key else known_keys()
        return RecipeError(where, "names an unknown key", key, nearest(key, known))
    message = fault["msg"].removeprefix("Value error, ")
    value = None if fault["type"] == "missing" else fault.get("input")
    return RecipeError(
        f"{where}: {key}", message[0].lower() + message[1:], value, "See docs/recipe.md."
    )
