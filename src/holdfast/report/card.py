"""The model card: ``model/README.md`` with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from holdfast.core.files import write_text
from holdfast.core.metric_names import metric_name
from holdfast.core.records import Estimate
from holdfast.core.tasks import DECODER_TASKS, pipeline_name
from holdfast.report.numbers import CARD_METRICS, interval, metrics
from holdfast.report.page import TEMPLATES, UNPRINTABLE, TemplateCache
from holdfast.report.public import hub_name, public_name, strip_paths
from holdfast.report.purposes import Purpose, purpose_of
from holdfast.report.run_files import RunFiles, read_run
from holdfast.report.view import division, headline, learning, record, reliance, score

COMPILED = TemplateCache()
# With more classes, only their number is given.
MAX_CLASSES_NAMED = 30
# Cleaning steps that remove training rows.
ROW_TREATMENTS = ("copies", "rows")
UNREAD_CHECKS = (
    "answer_cut_off",
    "targets_without_tokens",
    "truncated_sentences",
    "truncated_sources",
    "truncated_targets",
    "truncated_texts",
)
MARKDOWN_ESCAPES = str.maketrans({c: f"\\{c}" for c in r"\`*_[]<>|#$~"})


def write_card(run: Path) -> Path:
    """Write ``run/model/README.md`` from the files of the run folder ``run`` alone.

    The language is omitted, because it is unknown, and the licence, because the user chooses it.
    Raises ``RunError`` as ``write_report`` does. Differs from the report in that it is published
    with the weights: it holds no rows of the data and no local path.
    """
    path = run / "model" / "README.md"
    files = read_run(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(files))
    return path


def render(run: RunFiles) -> str:
    """The card as text: YAML front matter, then Markdown; without local paths."""
    import yaml

    meta = yaml.safe_dump(metadata(run), sort_keys=False, allow_unicode=True)
    base = run.part().text("model")
    run, purpose = strip_paths(run), purpose_of(run.result)
    template = _environment().get_template("card.md.j2")
    body = template.render(
        top=headline.headline(run),
        rely=reliance.reliance(run),
        score=score.score_view(run),
        parts=division.division(run),
        unread=_unread_rows(run),
        gap=learning.gap(run),
        classes=run.result.get("classes") or (),
        facts=dict(record.facts(run)),
        loading=record.loading(run, "path/to/this/folder"),
        adapter=(adapter := record.saved_adapter(run)),
        mergeable=str(run.result.get("task")) in DECODER_TASKS and adapter != "prompt",
        treated=_cleaning_steps(run),
        model=public_name(base) if base else "a pretrained model",
        licence=run.part("model_facts").text("licence") or "unknown: see the source",
        data=headline.data_name(run),
        version=str(run.result.get("holdfast") or ""),
        things=purpose.things,
        use=_use(run, purpose),
        limits=purpose.limits,
        seed=run.result.get("seed"),
        created=str(run.result.get("created") or ""),
    )
    return f"---\n{meta}---\n\n{body}".translate(UNPRINTABLE)


def _use(run: RunFiles, purpose: Purpose) -> str:
    """The intended use, as Markdown; with the names of the classes where they are few."""
    classes = run.result.get("classes") or ()
    names = (
        ": " + ", ".join(map(_markdown, classes)) if 0 < len(classes) <= MAX_CLASSES_NAMED else ""
    )
    replacements = {
        "THINGS": purpose.things,
        "COUNT": str(len(classes) or "its"),
        "DATA": f"`{_code(headline.data_name(run))}`",
        "NAMES": names,
    }
    return re.sub("|".join(replacements), lambda found: replacements[found[0]], purpose.use)


def _unread_rows(run: RunFiles) -> tuple[str, ...]:
    """The findings of each split on rows that were truncated or not used at all."""
    found = run.part("data").blocks("findings")
    return tuple(one.text("because") for one in found if one.text("check") in UNREAD_CHECKS)


def _cleaning_steps(run: RunFiles) -> list[str]:
    """The names of the cleaning steps that also apply to new texts."""
    settings = run.part("settings", "treat")
    # Steps that remove training rows do not apply to new texts.
    return sorted(
        name for name, on in settings.items() if on is not False and name not in ROW_TREATMENTS
    )


def metadata(run: RunFiles) -> dict[str, Any]:
    """The front matter. It names the base model by its name on the hub, never by a local path;
    that of a run that started from an adapter is the adapter's base model."""
    task = str(run.result.get("task") or "text-classification")
    base = run.part("model_facts").text("name") or str(run.result.get("model") or "")
    adapter = record.saved_adapter(run)
    library = "peft" if adapter else "transformers"
    meta: dict[str, Any] = {"library_name": library, "pipeline_tag": pipeline_name(task)}
    if published := hub_name(base):
        meta["base_model"] = published
    scores = {k: v for k, v in metrics(run.part("test")).items() if v.value is not None}
    meta["tags"] = [task, "holdfast", *filter(None, [adapter])]
    meta["metrics"] = [name for name in CARD_METRICS if name in scores]
    if scores:
        data = headline.data_name(run)
        result = {
            "task": {"type": task},
            "dataset": {"name": data, "type": data, "split": "test"},
            "metrics": [_metric(name, scores[name]) for name in meta["metrics"]],
        }
        meta["model-index"] = [{"name": headline.title(run), "results": [result]}]
    return meta


def _metric(name: str, value: Estimate) -> dict[str, Any]:
    span = interval(value, name).replace("\u00a0", " ")
    inside = f" ({100 * value.level:.0f} % CI {span})" if span else ""
    return {"type": name, "value": value.value, "name": f"{metric_name(name)}{inside}"}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        bytecode_cache=COMPILED,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Markdown would show HTML escapes; the filters below escape for Markdown.
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    environment.filters["code"] = _code
    return environment


def _markdown(text: object) -> str:
    """User text in Markdown: one line, every special character escaped."""
    return " ".join(str(text).split()).translate(MARKDOWN_ESCAPES)


def _code(text: object) -> str:
    """User text between backticks: on one line, since an empty line would end the code."""
    return " ".join(str(text).split()).replace("`", "'")
