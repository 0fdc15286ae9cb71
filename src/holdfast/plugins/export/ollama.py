"""An Ollama Modelfile: how turns become text, in its own template language.

The Jinja template of the tokenizer is not translated but asked: rendered with marks for what people
say, its text between the marks is what Ollama has to write.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

SYSTEM, PROMPT, ANSWER = "\ue000system\ue000", "\ue000prompt\ue000", "\ue000answer\ue000"
AGAIN = "\ue000again\ue000"


@dataclass(frozen=True, slots=True)
class Turns:
    """The text before, between and after what is said; ``system`` stands around the system's words,
    ``None`` where the template has no place for them, and ``default`` are those that the template
    has where nobody gives any."""

    begin: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    end: str
    default: str | None = None


def turns_of(tokenizer: Any, template: str) -> Turns | None:
    """How a template writes turns; ``None`` where it does more than write them one after the other
    (it cuts or changes what is said)."""

    def render(*said: tuple[str, str], more: bool = False) -> str | None:
        messages = [{"role": role, "content": text} for role, text in said]
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=more
                )
            )
        # A template refuses what it has no place for with an error of its own.
        except Exception:
            return None

    asked = render(("user", PROMPT), more=True)
    told = render(("user", PROMPT), ("assistant", ANSWER))
    if asked is None or told is None or asked.count(PROMPT) != 1 or told.count(ANSWER) != 1:
        return None
    before, after = asked.split(PROMPT)
    end = told.split(ANSWER)[1]
    first = render(("system", SYSTEM), ("user", PROMPT), more=True)
    system = default = None
    begin, opening = "", before
    if first is not None and first.count(SYSTEM) == 1 and first.endswith(PROMPT + after):
        ahead, rest = first.split(SYSTEM)
        between = rest[: -len(PROMPT + after)]
        # What stands before both kinds of turn begins the text.
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(ahead, before, strict=False))
        same = len(list(alike))
        if between.endswith(before[same:]) and before[same:]:
            begin, opening = before[:same], before[same:]
            system = (ahead[same:], between[: -len(opening)])
        elif ahead == before[: len(ahead)] and between.endswith(before[len(ahead) :]):
            begin, opening = ahead, before[len(ahead) :]
            system = ("", between[: len(between) - len(opening)])
        elif before.startswith(ahead) and before.endswith(between):
            # A later turn has no system's words before it, not even the template's own.
            later = render(("user", PROMPT), ("assistant", ANSWER), ("user", AGAIN)) or ""
            opening = later.partition(ANSWER)[2].partition(AGAIN)[0].removeprefix(end)
            if not opening or not between.endswith(opening):
                return None
            system = (ahead, between.removesuffix(opening))
            default = before[len(ahead) :].removesuffix(between)
    return Turns(begin, system, (opening, after), end, default)


def modelfile(tokenizer: Any, template: str | None, file: str, begins: bool) -> str:
    """The text of a Modelfile for ``file``. Without a template, or with one that cannot be written,
    the prompt is passed on as it is. ``begins`` says that a start token is added by itself, so the
    template may not write it again."""
    turns = turns_of(tokenizer, template) if template else None
    body, default, stops = "{{ .Prompt }}", None, [str(tokenizer.eos_token or "")]
    if turns is not None:
        begin, opening, default = turns.begin, turns.user[0], turns.default
        start = str(tokenizer.bos_token or "")
        if begins and turns.begin:
            begin = begin.removeprefix(start)
        elif begins:
            opening = opening.removeprefix(start)
        system = ""
        if turns.system is not None:
            before, after = turns.system
            system = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ end }}}}"
        said = f"{opening}{{{{ .Prompt }}}}{turns.user[1]}{{{{ .Response }}}}{turns.end}"
        body = f"{begin}{system}{said}"
        stops.insert(0, turns.end.strip().split("\n")[0])
    lines = [f"FROM ./{file}", f'TEMPLATE """{body}"""']
    if default:
        lines.append(f'SYSTEM """{default}"""')
    for stop in dict.fromkeys(one for one in stops if one.strip() and '"' not in one):
        lines.append(f'PARAMETER stop "{stop}"')
    return "\n".join([*lines, ""])
