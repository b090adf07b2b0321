"""Perplexities against independent computations."""

import math

import evaluate
import pytest
import torch
from models import build
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpa_hf.demo.arms import BASE
from qpa_hf.evaluation import METRIC_PATH, padded_perplexity, perplexity, read_texts, text_blocks


def by_hand(model, rows):
    """Add up -log p token by token, in float64."""
    losses = []
    for row in rows:
        with torch.no_grad():
            log_p = model(input_ids=row[None]).logits[0].double().log_softmax(-1)
        losses += [-log_p[i, token].item() for i, token in enumerate(row[1:].tolist())]
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_perplexity_is_that_of_single_tokens(batch_size):
    model = build("gpt2").train()
    blocks = torch.randint(3, 20, (5, 7), generator=torch.Generator().manual_seed(0))
    assert perplexity(model, blocks, batch_size) == pytest.approx(by_hand(model.eval(), blocks), rel=1e-6)


def test_evaluation_leaves_each_module_in_its_mode():
    model = build("gpt2").train()
    model.lm_head.eval()
    perplexity(model, torch.ones(1, 4, dtype=torch.long))
    assert [name for name, module in model.named_modules() if not module.training] == ["lm_head"]


@pytest.mark.parametrize("shape", [(0, 4), (3, 1), (4,)], ids=str)
def test_too_little_text_is_refused(shape):
    with pytest.raises(ValueError, match="longer text"):
        perplexity(build("gpt2"), torch.ones(shape, dtype=torch.long))


@pytest.mark.parametrize("text", ["Two words", ""])
def test_padded_protocol_counts_padding(text):
    tokenizer, model = AutoTokenizer.from_pretrained(BASE), build("gpt2")
    model.resize_token_embeddings(len(tokenizer))
    ids = tokenizer(text)["input_ids"]
    padded = torch.tensor([ids + [tokenizer.eos_token_id] * (20 - len(ids))])
    mask = (torch.arange(20) < max(1, len(ids)))[None].long()  # attention needs something to look at
    with torch.no_grad():
        logits = model(input_ids=padded, attention_mask=mask).logits[0, :-1]
    expected = math.exp(torch.nn.functional.cross_entropy(logits, padded[0, 1:]).item())
    assert padded_perplexity(model, tokenizer, [text], length=20) == pytest.approx(expected, rel=1e-6)


def test_padding_that_the_model_does_not_know_is_refused():
    tokenizer = AutoTokenizer.from_pretrained(BASE, pad_token="<pad>")
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    with pytest.raises(ValueError, match="has token 2048, but the model's last one is 2047"):
        padded_perplexity(model, tokenizer, ["Two words"], length=20)


def test_metric_loads_by_path_and_gives_the_perplexity_of_texts():
    texts = ["The first text, about nothing.", "A second one."]
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), texts, 6)
    expected = by_hand(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval(), blocks)
    found = evaluate.load(METRIC_PATH).compute(predictions=texts, model_id=str(BASE), block_length=6)
    assert found["perplexity"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("marks_itself", [False, True])
def test_blocks_are_the_documents_end_to_end(marks_itself):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    if marks_itself:
        mark = (tokenizer.bos_token, tokenizer.bos_token_id)
        single = TemplateProcessing(single=f"{mark[0]} $A", special_tokens=[mark])
        tokenizer.backend_tokenizer.post_processor = single
    texts = ["One text.", "", "Another, longer text."]
    stream = [
        t
        for text in (texts[0], texts[2])
        for t in [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    ]
    blocks = text_blocks(tokenizer, texts, 4)
    assert blocks.flatten().tolist() == stream[: len(stream) // 4 * 4]


def test_text_shorter_than_a_block_is_refused():
    with pytest.raises(ValueError, match="fewer than one block of 64"):
        text_blocks(AutoTokenizer.from_pretrained(BASE), ["Short."], 64)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "book.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"book.txt is not text in UTF-8 .* Convert it, or check --text"):
        read_texts([tmp_path / "book.txt"], "--text")


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "book.txt").write_text("Text.", encoding="utf-8-sig")
    assert read_texts([tmp_path / "book.txt"], "--text") == ["Text."]
