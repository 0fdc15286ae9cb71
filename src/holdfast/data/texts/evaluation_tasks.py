"""Evaluation tasks in the file format of lm-evaluation-harness (EleutherAI): a YAML file of
templates beside a JSON-lines file of items.

    task: capitals
    dataset_path: json
    dataset_kwargs: {data_files: capitals.jsonl}
    output_type: multiple_choice         # or generate_until
    doc_to_text: "The capital of {{country}} is"
    doc_to_choice: "{{[right, wrong]}}"  # or a list, the same for every item
    doc_to_target: 0                     # the place of the right choice, or the choice

A template is a field's name, or Jinja with the item's fields. What would need code, another file of
items or examples before the item is refused, never left out.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, HoldfastError
from holdfast.core.input_errors import first_line, reading_errors
from holdfast.core.machine import resource_bounds
from holdfast.core.yaml_values import read_yaml
from holdfast.data.readers.json_reader import parse_object
from holdfast.data.readers.text import open_lines

CHOICE, GENERATION = "multiple_choice", "generate_until"
Metric = Literal["acc", "acc_norm", "exact_match"]
Item = Mapping[str, Any]
DELIMITER, SHOT_DELIMITER, NEW_TOKENS, LONGEST_MARK = " ", "\n\n", 256, 100
# A template is untrusted code; an item takes well below a millisecond.
LONGEST_S, MOST_MEMORY = 20.0, 1_000_000_000
FOLLOWED = {
    "task",
    "include",
    "dataset_path",
    "dataset_kwargs",
    "test_split",
    "validation_split",
    "output_type",
    "description",
    "doc_to_text",
    "doc_to_choice",
    "doc_to_target",
    "target_delimiter",
    "fewshot_delimiter",
    "generation_kwargs",
    "filter_list",
    "metric_list",
}
# Of how a text is generated: any other setting would change it.
GENERATED = {"until", "max_gen_toks", "do_sample", "temperature"}
# These change no score of an item without examples before it.
WITHOUT_EFFECT = {
    "task_alias",
    "tag",
    "group",
    "metadata",
    "dataset_name",
    "training_split",
    "fewshot_split",
    "fewshot_config",
    "should_decontaminate",
    "doc_to_decontamination_query",
}
ALONE: dict[str, object] = {"num_fewshot": 0, "repeats": 1}
OF_METRIC = {"ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore"}


@dataclass(frozen=True, slots=True)
class Question:
    """An item as a model meets it: the ``context``, the ``choices`` with the ``right`` places among
    them, or, where the answer is generated, the ``references`` of which one must be met."""

    context: str
    choices: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """Questions that are scored alike.

    ``acc``: a right choice has the highest log-likelihood after the context and the ``delimiter``;
    ``acc_norm``: the same ÷ its number of characters; ``exact_match``: the text that is generated
    up to one of ``until``, at most ``new_tokens``, through ``filters``, equals a reference.
    """

    name: str
    questions: tuple[Question, ...]
    metric: Metric = "acc"
    delimiter: str = DELIMITER
    until: tuple[str, ...] = ()
    new_tokens: int = NEW_TOKENS
    filters: tuple[Callable[[str], str], ...] = ()
    normal: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, text: str, question: Question) -> bool:
        """Whether a generated text is a right answer. Raises ``OverrunError`` where a regular
        expression of the task takes too long."""
        with resource_bounds(LONGEST_S, MOST_MEMORY):
            for one in self.filters:
                text = one(text)
            found = normalized(text, self.normal)
            return any(found == normalized(one, self.normal) for one in question.references)


def read_task(path: Path) -> EvaluationTask:
    """The task of a YAML file. Raises ``DataError`` or ``RecipeError``."""
    given = _with_included(path, ())
    # Wrong types, such as a word in place of a list, and broken regular expressions.
    with reading_errors(str(path), DataError, "is not a task", "Correct the file."):
        return _task(path, given)


def _task(path: Path, given: Mapping[str, Any]) -> EvaluationTask:
    _check_keys(path, given)
    items = list(_items(path, given))
    if not items:
        raise DataError(str(path), "has no items", None, "Write one JSON object per line.")
    is_choice = given.get("output_type", GENERATION) == CHOICE
    listed = [dict(one) for one in given.get("metric_list") or []]
    names = [str(one["metric"]) for one in listed]
    known = ("acc", "acc_norm") if is_choice else ("exact_match",)
    metric: Any = next((name for name in names or known if name in known), None)
    if metric is None:
        raise _refused(path, "metric_list", f"names none of {', '.join(known)}", names)
    settings = next((one for one in listed if one["metric"] == metric), {})
    until, new_tokens = _ends(path, given)
    delimiter = given.get("target_delimiter")
    templates = Templates(given, frozenset(name for item in items for name in item), is_choice)
    normal = {name: settings[name] for name in OF_METRIC if name in settings}
    for pattern in normal.get("regexes_to_ignore") or ():
        re.compile(pattern)
    return EvaluationTask(
        str(given.get("task", path.stem)),
        tuple(_questions(path, templates, items)),
        metric,
        DELIMITER if delimiter is None else str(delimiter),
        until,
        new_tokens,
        () if is_choice else _filters(path, given),
        normal,
    )


def _ends(path: Path, given: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """The texts that end a generated one, and its most tokens."""
    generation = dict(given.get("generation_kwargs") or {})
    for name, value in generation.items():
        if name not in GENERATED:
            raise _refused(path, f"generation_kwargs.{name}", "is not supported", value)
        if name in ("do_sample", "temperature") and value:
            raise _refused(path, f"generation_kwargs.{name}", "must be false or 0", value)
    until = generation.get("until", given.get("fewshot_delimiter", SHOT_DELIMITER))
    marks = [until] if isinstance(until, str) else list(until)
    for mark in marks:
        if not isinstance(mark, str) or not 0 < len(mark) <= LONGEST_MARK:
            rule = f"must be texts of 1 to {LONGEST_MARK} characters"
            raise _refused(path, "generation_kwargs.until", rule, mark)
    new_tokens = generation.get("max_gen_toks", NEW_TOKENS)
    if type(new_tokens) is not int or new_tokens < 1:
        rule = "must be a whole number above 0"
        raise _refused(path, "generation_kwargs.max_gen_toks", rule, new_tokens)
    return tuple(marks), new_tokens


def normalized(text: str, settings: Mapping[str, Any]) -> str:
    """A text as exact match compares it; the settings are those of Hugging Face's ``evaluate``."""
    for pattern in settings.get("regexes_to_ignore") or ():
        text = re.sub(pattern, "", text)
    if settings.get("ignore_case"):
        text = text.lower()
    for name, signs in (
        ("ignore_punctuation", string.punctuation),
        ("ignore_numbers", string.digits),
    ):
        if settings.get(name):
            text = text.translate(str.maketrans("", "", signs))
    return text


def _with_included(path: Path, within: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of a file over those of the file that it includes."""
    if path in within:
        raise DataError(str(path), "includes itself", None, "Take the key include out.")
    try:
        given = read_yaml(path)
    except HoldfastError as error:
        if "!function" in str(error):
            raise _refused(path, "!function", "calls Python code, which is not run", None) from None
        raise
    if not isinstance(given, dict):
        raise DataError(str(path), "is not a task", given, "Write keys such as doc_to_text.")
    included = given.pop("include", None)
    other = path.parent / str(included)
    return {**(_with_included(other, (*within, path)) if included else {}), **given}


def _check_keys(path: Path, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key in ALONE and value not in (ALONE[key], None):
            raise _refused(path, key, f"must be {ALONE[key]}", value)
        if key not in FOLLOWED | WITHOUT_EFFECT | set(ALONE):
            near = suggest_name(key, sorted(FOLLOWED))
            raise _refused(path, key, "is not supported, and may change the score", value, near)
    if given.get("dataset_path") != "json":
        raise _refused(path, "dataset_path", "must be json: plain files", given.get("dataset_path"))
    if given.get("output_type", GENERATION) not in (CHOICE, GENERATION):
        rule = f"must be {CHOICE} or {GENERATION}"
        raise _refused(path, "output_type", rule, given["output_type"])
    needed = ["doc_to_text", "doc_to_target"]
    needed += ["doc_to_choice"] if given.get("output_type") == CHOICE else []
    for key in needed:
        if given.get(key) is None:
            raise _refused(path, key, "is missing", None)


def _items(path: Path, given: Mapping[str, Any]) -> Iterator[Item]:
    files = (given.get("dataset_kwargs") or {}).get("data_files")
    if isinstance(files, dict):
        splits = [given.get("test_split"), given.get("validation_split"), *files]
        files = next((files[name] for name in splits if name in files), None)
    names = [files] if isinstance(files, str) else files
    if not names or not all(isinstance(name, str) for name in names):
        rule = "must name a JSON-lines file"
        raise _refused(path, "dataset_kwargs.data_files", rule, files)
    for name in names:
        place = path.parent / name
        if not place.is_file():
            raise DataError(str(place), "does not exist", None, f"{path} names it.")
        with open_lines(place, None) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield parse_object(f"{place}, line {number}", line)


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of a task, and the names of its items' ``fields``."""

    given: Mapping[str, Any]
    fields: frozenset[str]
    is_choice: bool

    def question(self, item: Item) -> Question:
        parts = (self.given.get("description") or "", self.given["doc_to_text"])
        context = "".join(str(self._filled(part, item)) for part in parts)
        choices, target = self._choices(item), self._target(item)
        targets = target if isinstance(target, list) else [target]
        if not self.is_choice:
            found = [choices[one] for one in targets] if choices else targets
            return Question(context, references=tuple(map(str, found)))
        if context.isdigit():
            raise ValueError(
                "doc_to_text is a number: choices that precede a shared ending are not supported"
            )
        right = tuple(one if isinstance(one, int) else choices.index(one) for one in targets)
        if not right or not all(0 <= one < len(choices) for one in right):
            raise ValueError(f"the right choice {target!r} is none of its {len(choices)} choices")
        return Question(context, tuple(choices), right)

    def _choices(self, item: Item) -> list[str]:
        asked = self.given.get("doc_to_choice")
        if isinstance(asked, dict):
            return list(map(str, asked.values()))
        found = asked if isinstance(asked, list) else self._filled(asked or "[]", item)
        return list(map(str, found if isinstance(found, list) else ast.literal_eval(str(found))))

    def _target(self, item: Item) -> Any:
        """The field, or the filled template: a number where there are choices, or a list."""
        asked = self.given["doc_to_target"]
        if not isinstance(asked, str) or asked in self.fields:
            return self._filled(asked, item)
        text = str(self._filled(asked, item))
        if text.isdigit() and self.given.get("doc_to_choice") is not None:
            return int(text)
        if text.startswith("[") and text.endswith("]"):
            with contextlib.suppress(SyntaxError, ValueError):
                return ast.literal_eval(text)
        return text

    def _filled(self, template: object, item: Item) -> Any:
        """A field, or the text of a Jinja template."""
        if not isinstance(template, str):
            return template
        if template not in self.fields:
            return _template(template).render(**item)
        if item.get(template) is None:
            raise ValueError(f"its field {template} has no value")
        return item[template]


def _questions(path: Path, templates: Templates, items: Sequence[Item]) -> Iterator[Question]:
    for number, item in enumerate(items, 1):
        try:
            with resource_bounds(LONGEST_S, MOST_MEMORY):
                question = templates.question(item)
        except Exception as error:
            rule = f"does not fit the templates: {first_line(error)}"
            raise DataError(f"{path}, item {number}", rule, item) from error
        yield question


@cache
def _template(text: str) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["regex_replace"] = lambda text, pattern, by, count=0: re.sub(
        pattern, by, text, count=count
    )
    return environment.from_string(text)


def _filters(path: Path, given: Mapping[str, Any]) -> tuple[Callable[[str], str], ...]:
    """The first list of filters."""
    listed = (given.get("filter_list") or [{}])[0].get("filter") or []
    return tuple(_filter(path, one) for one in listed if one.get("function") != "take_first")


def _filter(path: Path, settings: Mapping[str, Any]) -> Callable[[str], str]:
    name = settings.get("function")
    if name == "remove_whitespace":
        return str.strip
    if name in ("lowercase", "uppercase"):
        return str.lower if name == "lowercase" else str.upper
    if name != "regex":
        raise _refused(path, "filter_list", "names an unsupported filter", name)
    pattern = re.compile(settings.get("regex_pattern", r"#### (\-?[0-9\.\,]+)"))
    select, fallback = int(settings.get("group_select", 0)), settings.get("fallback", "[invalid]")

    def extract(text: str) -> str:
        found = pattern.findall(text)
        if not -len(found) <= select < len(found):
            return str(fallback)
        one = found[select]
        parts = [part for part in one if part] if isinstance(one, tuple) else [one]
        return str(parts[0]).strip() if parts else str(fallback)

    return extract


def _refused(path: Path, key: str, rule: str, value: object, remedy: str = "") -> DataError:
    shown = json.dumps(value, default=str) if isinstance(value, (dict, list)) else value
    remedy = remedy or "Change or remove this key."
    return DataError(f"{path}: {key}", rule, shown, remedy)
