"""Small models, a tokenizer of bytes and a little text, made here: nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SENTENCES = (
    "the cat sat on the mat",
    "a dog ran over the hill",
    "the sun is warm today",
    "rain falls on the roof",
    "two birds sing in a tree",
    "the old clock ticks",
    "she reads a long book",
    "he mends the red boat",
)
PROMPT = "the cat"
N_NEW = 12  # greedy tokens


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=TEMPLATE, model_max_length=128, **names)


def save_base(folder: Path, **settings: Any) -> Path:
    """Save a small Llama with its tokenizer, the same one each time."""
    words = tokenizer()
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": len(words)}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, **tokens, **settings})).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:  # so that an answer depends on every layer
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def language_model(folder: Path) -> Any:
    """Return the language model of a folder."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def classifier(folder: Path, n_labels: int = 1) -> Any:
    """Return a classifier over the base of a folder, with the same head each time."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=n_labels, dtype=torch.float32)


def batches(size: int = 4) -> list[dict[str, Tensor]]:
    """Return the sentences as batches for a language model."""
    words = tokenizer()
    found = []
    for i in range(0, len(SENTENCES), size):
        batch = dict(words(list(SENTENCES[i : i + size]), return_tensors="pt", padding=True))
        batch.pop("token_type_ids", None)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        found.append(batch | {"labels": labels})
    return found


def prompt() -> Tensor:
    """Return the tokens of the prompt, shape (1, length)."""
    return tokenizer()(PROMPT, return_tensors="pt")["input_ids"]


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Return a model's logits for the prompt, a language model's or a classifier's."""
    training = model.training
    answer = model.eval()(input_ids=prompt()).logits.float()
    model.train(training)
    return answer


@torch.no_grad()
def greedy(model: Any) -> list[int]:
    """Return the tokens that a language model continues the prompt with, the most likely one each time."""
    training = model.training
    ids = prompt()
    found = model.eval().generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=N_NEW, min_new_tokens=N_NEW, do_sample=False
    )
    model.train(training)
    return found[0, ids.shape[1] :].tolist()
