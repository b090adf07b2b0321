"""Conversations in a table, and which of their tokens are answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qpa_hf.messages import first_sentence, shown
from qpa_hf.terminal import say

MESSAGES, PROMPT, COMPLETION = "messages", "prompt", "completion"
ASSISTANT = "assistant"

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Args:
        text: all of it.
        answers: from which to which character each answer reaches, its end mark included.
    """

    text: str
    answers: list[tuple[int, int]]


def conversations_of(table: Any, name: str) -> list[dict[str, Any]]:
    """Return the rows of a dataset: `messages` alone, or `prompt` and `completion`, each texts or messages.

    Args:
        table: the `datasets.Dataset`.
        name: the name of the file or dataset, for messages.

    Raises:
        ValueError: if it has no such columns, or a row is no conversation with an answer.
    """
    known = table.column_names
    if MESSAGES in known:
        columns = [MESSAGES]
    elif PROMPT in known and COMPLETION in known:
        columns = [PROMPT, COMPLETION]
    else:
        raise ValueError(
            f"{name} has neither a column `messages` nor two columns `prompt` and `completion`; it has "
            f"{', '.join(known[:10])}. Rename its columns."
        )
    rows = []
    for i, row in enumerate(table):
        rows.append({column: _checked(row[column], f"Row {i} of {name}") for column in columns})
        _check_answer(rows[-1], f"Row {i} of {name}")
    if not rows:
        raise ValueError(f"{name} has no rows. Name a table with conversations.")
    return rows


def _checked(value: Any, where: str) -> str | Messages:
    """Return a text, or messages without the keys that are null in this row."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} has {shown(value)} where messages should stand. Correct it, or leave it out.")
    for i, message in enumerate(value):
        for key in ("role", "content"):
            found = message.get(key) if isinstance(message, Mapping) else None
            if not isinstance(found, str) or key == "role" and not found:
                raise ValueError(
                    f"{where} has a message without `{key}`, number {i}: {shown(message)}. Each needs a `role`, such "
                    "as user or assistant, and a text as `content`."
                )
    return [{key: one for key, one in message.items() if one is not None} for message in value]


def _check_answer(row: dict[str, Any], where: str) -> None:
    if MESSAGES in row and isinstance(row[MESSAGES], str):
        raise ValueError(f"{where} has a text as `messages`, not messages with roles. Name it `prompt` or correct it.")
    kinds = {type(value) for value in row.values()}
    if len(kinds) > 1:
        raise ValueError(
            f"{where} has a text beside messages. Make `prompt` and `completion` both texts, or both messages."
        )
    last = list(row.values())[-1]
    answers = [last] if isinstance(last, str) else [one["content"] for one in last if one["role"] == ASSISTANT]
    if not any(answer.strip() for answer in answers):
        raise ValueError(
            f"{where} has no answer by the role assistant, and answers are learned. Correct or remove it."
        )


def encoded(tokenizer: Any, model: str, rows: Sequence[dict[str, Any]], length: int) -> list[dict[str, list[int]]]:
    """Return conversations as tokens, with labels of -100 for all that is no answer; those without one are left out.

    Args:
        tokenizer: the tokenizer, with a chat template where the rows have messages.
        model: the name of the base model, for messages.
        rows: as `conversations_of` returns them.
        length: the most tokens of a conversation; what lies beyond is cut off.

    Raises:
        ValueError: if a template is missing or does not take the messages, or no row has an answer within the length.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"The tokenizer of {model} does not say which characters its tokens are, so which are answers cannot be "
            "told. Name a model with a fast tokenizer."
        )
    found = []
    n_cut = 0
    for row in rows:
        rendered = _rendered(tokenizer, model, row)
        is_plain = isinstance(next(iter(row.values())), str)
        tokens = tokenizer(rendered.text, add_special_tokens=is_plain, return_offsets_mapping=True, verbose=False)
        ids = list(tokens["input_ids"])
        labels = [
            token if _is_within(first, last, rendered.answers) else -100
            for token, (first, last) in zip(ids, tokens["offset_mapping"], strict=True)
        ]
        if is_plain and tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
            labels.append(tokenizer.eos_token_id)
        n_cut += len(ids) > length
        found.append({"input_ids": ids[:length], "labels": labels[:length]})
    kept = [row for row in found if any(label != -100 for label in row["labels"][1:])]  # the first is never predicted
    if not kept:
        raise ValueError(f"No conversation has an answer within `data.block_length`={length} tokens. Set it to more.")
    if n_cut:
        lost = f", and {len(found) - len(kept):,} have no answer before it" if len(kept) < len(found) else ""
        say(f"{n_cut:,} of {len(found):,} conversations are cut off at {length} tokens{lost}.", is_error=True)
    return kept


def _is_within(first: int, last: int, answers: list[tuple[int, int]]) -> bool:
    """Whether a token has a character of an answer: one that begins with the space before it has."""
    return first < last and any(first < end and last > start for start, end in answers)


def _rendered(tokenizer: Any, model: str, row: dict[str, Any]) -> Rendered:
    if PROMPT not in row:
        return _of_messages(tokenizer, model, row[MESSAGES], 0)
    prompt, completion = row[PROMPT], row[COMPLETION]
    if isinstance(prompt, str):
        return Rendered(prompt + completion, [(len(prompt), len(prompt) + len(completion))])
    return _of_messages(tokenizer, model, prompt + completion, len(prompt))


def _of_messages(tokenizer: Any, model: str, messages: Messages, n_prompt: int) -> Rendered:
    """Return messages as text; the answers from `n_prompt` on are found by what the template writes until them."""
    text = _apply(tokenizer, model, messages)
    answers = []
    for i, message in enumerate(messages):
        if i < n_prompt or message["role"] != ASSISTANT:
            continue
        before = _apply(tokenizer, model, messages[:i], add_generation_prompt=True)
        until = _apply(tokenizer, model, messages[: i + 1]).rstrip()  # the line's end after the mark is the template's
        if not (text.startswith(until) and until.startswith(before)):
            raise ValueError(
                f"The chat template of {model} writes earlier messages in another way once there are more, so which "
                "tokens are answers cannot be told. Use rows with one answer each, or another template."
            )
        answers.append((len(before), len(until)))
    return Rendered(text, answers)


def _apply(tokenizer: Any, model: str, messages: Messages, **how: Any) -> str:
    if not tokenizer.chat_template:
        raise ValueError(
            f"The tokenizer of {model} has no chat template, by which messages become text. Name a model that was "
            "made for chats, or rows whose `prompt` and `completion` are texts."
        )
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **how))
    except Exception as error:  # whatever a template, which is a program, may raise
        raise ValueError(
            f"The chat template of {model} does not take the messages with the roles "
            f"{', '.join(one['role'] for one in messages)} ({first_sentence(error)}). Correct the rows."
        ) from error


def prompt_of(tokenizer: Any, model: str, messages: Messages) -> list[int]:
    """Return the token ids after which the assistant's answer comes; none without messages."""
    if not messages:
        return []
    text = _apply(tokenizer, model, messages, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
