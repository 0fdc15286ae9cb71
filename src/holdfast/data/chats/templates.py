"""How turns become text: the tokenizer's own template, one that the recipe states, or a named one.

A template is Jinja, as ``tokenizer.apply_chat_template`` takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHAT = "chat template"
SETTING = "data.template"

_HEAD = "{% for message in messages %}"
NAMED = {
    "plain": "{{ bos_token or '' }}"
    + _HEAD
    + "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\n' + message['content'] + (eos_token or '') + '\n\n' }}"
    "{% else %}{{ '### Instruction:\n' + message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    "chatml": _HEAD
    + "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama2": "{% set said = namespace(system='') %}"
    + _HEAD
    + "{% if message['role'] == 'system' %}"
    "{% set said.system = '<<SYS>>\n' + message['content'] + '\n<</SYS>>\n\n' %}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + ' ' + (eos_token or '') }}"
    "{% else %}{{ (bos_token or '') + '[INST] ' + said.system + message['content'] + ' [/INST]' }}"
    "{% set said.system = '' %}{% endif %}{% endfor %}",
    "llama3": "{{ bos_token or '' }}"
    + _HEAD
    + "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "gemma": "{{ bos_token or '' }}"
    + _HEAD
    + "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n'"
    " + message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "zephyr": _HEAD
    + "{{ '<|' + message['role'] + '|>\n' + message['content'] + (eos_token or '') + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
}


def is_template(given: str | None) -> bool:
    """Whether ``data.template`` states a chat template, rather than a text made of columns."""
    return given is not None and (given in NAMED or "{%" in given or "messages" in given)


def choose_template(
    tokenizer: PreTrainedTokenizerBase, form: str, given: str | None
) -> tuple[str, Decision]:
    """The Jinja template for rows of this form, with the reason.

    In order: the one that the recipe states; the tokenizer's own; for rows that were already
    rendered, the same template again; for instructions and prompts the named ``plain`` one.

    Raises
    ------
    RecipeError : rows of messages, and neither a stated template nor one of the tokenizer.
    """
    if given is not None and is_template(given):
        shown = given if given in NAMED else "a template of yours"
        return NAMED.get(given, given), Decision(WHAT, shown, f"set by you: {SETTING}")
    own = tokenizer.chat_template
    # Some tokenizers have several templates by name.
    if isinstance(own, dict):
        own = own.get("default")
    if own:
        return own, Decision(WHAT, "the tokenizer's own", "the model was trained with it")
    if form in NAMED:
        because = "the rows are written in it, and the tokenizer has no template of its own"
        return NAMED[form], Decision(WHAT, form, because)
    if form == "messages":
        raise RecipeError(
            SETTING,
            "is needed: the rows hold messages, and the tokenizer has no chat template",
            given,
            f"State one: --set {SETTING}=chatml. {_named()}",
        )
    because = (
        "the tokenizer has no chat template, and the rows hold one instruction and one answer each "
        "(### Instruction: … ### Response: …)"
    )
    return NAMED["plain"], Decision(WHAT, "plain", because)


def check_given(given: str | None) -> None:
    """Refuse a single word that is no named template."""
    if given and given not in NAMED and "{" not in given:
        raise RecipeError(SETTING, "is no template", given, f"{nearest(given, list(NAMED))}")


def _named() -> str:
    return f"Named ones: {', '.join(NAMED)}; or write Jinja, as tokenizers have it."
