"""Cards of hostile text: whatever was recorded is shown, and becomes neither structure nor code."""

import ast
import copy
import re

import pytest
import yaml
from helpers import adapted
from markdown_it import MarkdownIt
from peft import LoraConfig

from qpa_hf.heads.card import head_card
from qpa_hf.heads.settings import HeadSettings
from qpa_hf.messages import one_line
from qpa_hf.model_cards import Control, Result, RunRecord, make_card
from qpa_hf.model_cards.markdown import in_code

HARMLESS = "Harm less"  # no Hub id and no name of a module, as the hostile ones
HOSTILE = {
    "an argument of from_pretrained": 'main", trust_remote_code=True, code_revision="evil',
    "a statement": "x'); import os; os.system('id') #",
    "both quotes": "a\"b'c\\",
    "a fence": "x\n```\n\n```python\nimport os\n```\n",
    "a header": "x\n---\nlicense: mit\n---\n# Title",
    "YAML": "{a: [1, !!python/object/apply:os.system [id]]}",
    "YAML's nothing": "~",
    "a number": "+12",
    "cells": "a | b || c |\n|---|---|",
    "Jinja": "{{ 7 * 7 }}{% raw %}{# x #}",
    "HTML": "<script>alert(1)</script> &lt;b&gt; <!-- x",
    "our mark": "\n<!-- Written by qpa_hf 0.0 -->\n",
    "code": "`x` ``y``",
    "emphasis": "*a* _b_ __c__ ~~d~~ a_b $x$",
    "links": "[a](javascript:alert(1)) ![b](https://c.d/e.png) <https://f.g> [h]: /i",
    "blocks": "# a\n\n- b\n\n1. c\n\n> d\n\n===\n\n    e",
    "a backslash at the end": "a\\",
    "escapes of a terminal": "\x1b]0;title\x07\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\r\x00\x7f",
    "marks of direction": "a\u202eb\u2066c\u200fd\ufeff\u2028e\ud800",
    "markup of rich": "[red]a[/red] [link=https://b.c]d[/link] :warning:",
    "long": "word " * 20_000,
}
N_SHOWN = {"native": 13, "materialized": 13, "folded": 10, "head": 5}  # fields that a card's text shows


def record_of(text):
    """Return a record with a text wherever it holds one."""
    return RunRecord(
        repo_id=text,
        datasets=["alice/texts", text],
        license=text,
        language=[text],
        results=[Result(text, 1.5, text, text), Result("loss", 1.5, text, text, text)],
        control=Control(text, text, 2.5),
        hyperparameters={text: text},
        versions={f"{text} 2": text},
        commit=text,
    )


@pytest.fixture(scope="module")
def configs():
    settings = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
    config = adapted("llama", **settings).peft_config["default"]
    return {"native": config, "materialized": config, "folded": LoraConfig(**settings)}


def card_of(kind, text, configs):
    """Return a card with a text in every field."""
    if kind == "head":
        return str(head_card(HeadSettings(n_features=8), {"angles": 1}, record_of(text)))
    config = copy.copy(configs[kind])
    config.base_model_name_or_path, config.revision, config.modules_to_save = text, text, [text]
    return str(make_card(kind, config, record_of(text)))


def parts(card):
    """Return a card's header, the program's in its body without their texts, what its Markdown is, and its words."""
    header, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    flat = [part for token in tokens for part in (token, *(token.children or ()))]
    programs = [ast.dump(_Blank().visit(ast.parse(t.content))) for t in flat if t.info == "python"]
    kinds = [(t.type, t.tag, t.info if t.type == "fence" else "") for t in flat]
    text = "\n".join("".join(part.content for part in t.children or ()) for t in tokens if t.type == "inline")
    return yaml.safe_load(header), programs, kinds, text


class _Blank(ast.NodeTransformer):
    def visit_Constant(self, node):
        return ast.Constant("" if isinstance(node.value, str) else node.value)


def exchanged(value, text):
    """Return a header with a text in the place of the harmless one."""
    if isinstance(value, dict):
        return {key: exchanged(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [exchanged(item, text) for item in value]
    return text if value == HARMLESS else value


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", N_SHOWN)
def test_no_recorded_text_becomes_structure_or_code(kind, name, configs):
    header, programs, kinds, _ = parts(card_of(kind, HARMLESS, configs))
    card, shown = card_of(kind, HOSTILE[name], configs), one_line(HOSTILE[name])
    found = parts(card)
    meant = exchanged(header, shown)
    if "model-index" in meant:
        meant["model-index"][0]["name"] = shown.rpartition("/")[2] or "adapter"
    assert found[0] == meant
    assert found[1:3] == (programs, kinds)
    assert found[3].count(shown) >= N_SHOWN[kind]
    assert card.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_literal_of_python_is_the_text(name):
    assert ast.literal_eval(in_code(HOSTILE[name])) == HOSTILE[name]


def test_the_programs_arguments_are_what_was_recorded(configs):
    hostile = HOSTILE["an argument of from_pretrained"]
    tree = ast.parse(card_of("native", hostile, configs).split("```python\n")[1].partition("```")[0])
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    keywords = {keyword.arg: ast.literal_eval(keyword.value) for call in calls for keyword in call.keywords}
    assert keywords == {"revision": hostile}
    assert ast.literal_eval(calls[1].args[1]) == hostile


def test_numbers_in_a_card_have_the_digits_that_are_read():
    record = RunRecord(results=[Result("perplexity", 34.9543263501792)])
    text = make_card("folded", LoraConfig(), record).text
    assert "| perplexity | 34.95 |" in text
