"""Small base models, the same weights in every process. Imports neither qpa_hf nor peft."""

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 60
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


class Mlp(nn.Module):
    """An embedding, a convolution and two linear layers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.hidden = nn.Linear(4 * 8 * 16, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, input_ids):
        image = self.embedding(input_ids).unsqueeze(1)  # (batch, 1, 8, 16)
        return self.head(torch.relu(self.hidden(self.conv(image).flatten(1))))


class Experts(nn.Module):
    """A layer whose weights are one bare Parameter, as in mixtures of experts."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(2, 16, 16) / 4)

    def forward(self, x):
        return x @ self.weights[0] + x @ self.weights[1]


class Mixture(nn.Module):
    """An embedding and a layer of experts."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.experts = Experts()
        self.head = nn.Linear(16, 5)

    def forward(self, input_ids):
        return self.head(self.experts(self.embedding(input_ids)))


def _gpt2(tie=True):
    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "vocab_size": VOCABULARY}
    dropout = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **TOKENS, **dropout, tie_word_embeddings=tie))


def _llama():
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 24, "vocab_size": VOCABULARY}
    return LlamaForCausalLM(LlamaConfig(**sizes, **TOKENS, num_attention_heads=2, num_key_value_heads=1))


def _t5():
    sizes = {"num_layers": 1, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "vocab_size": VOCABULARY}
    tokens = {"pad_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(**sizes, **tokens, dropout_rate=0.0))


def _bert():
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24, "vocab_size": VOCABULARY}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(**sizes, **dropout, num_attention_heads=2, num_labels=3))


def _untied():
    return _gpt2(tie=False)


BUILDERS = {
    "gpt2": _gpt2,
    "untied": _untied,
    "llama": _llama,
    "t5": _t5,
    "bert": _bert,
    "mlp": Mlp,
    "mixture": Mixture,
}


def build(name):
    """Return a small model of the given kind, in eval mode, with weights that depend on nothing but its name."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = BUILDERS[name]().eval()
    return model


def inputs(name):
    """Return a batch that fits the model."""
    ids = torch.randint(3, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "labels": ids} if name == "t5" else {"input_ids": ids}


def output(model, name, **kwargs):
    """Return the model's logits."""
    result = model(**inputs(name), **kwargs)
    return result.logits if hasattr(result, "logits") else result
