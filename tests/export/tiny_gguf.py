"""Small base models, for transformers and as GGUF files for llama.cpp."""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 64
HEADS, KEY_HEADS, WIDTH, INNER, BLOCKS, LENGTH = 4, 2, 64, 96, 2, 64
LLAMA = {
    "num_hidden_layers": BLOCKS,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": False,
}
GPT2 = {"n_layer": BLOCKS, "n_embd": WIDTH, "n_head": HEADS, "n_positions": LENGTH, "vocab_size": VOCABULARY}
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, LLAMA),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, LLAMA),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
}


def tiny_base(kind, folder):
    """Return a small model whose configuration lies in a folder."""
    model_class, config_class, sizes = MODELS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = model_class(config_class(**sizes, **TOKENS)).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.config.save_pretrained(folder)
    return model


def base_file(kind, model, path):
    """Write a model as llama.cpp has it: its names, Linear's layout, and Llama's queries and keys interleaved."""
    import gguf

    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER if kind != "gpt2" else 4 * WIDTH)
    writer.add_head_count(HEADS)
    if kind == "gpt2":
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(KEY_HEADS)
        writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(WIDTH // HEADS)
        writer.add_vocab_size(VOCABULARY)
    _add_vocabulary(writer, gguf)
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, BLOCKS)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and kind == "gpt2":
            continue
        if kind == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            value = value.T
        if kind == "llama" and (n_heads := {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name.split(".")[-2])):
            value = torch.cat([_interleaved(rows) for rows in value.chunk(n_heads)])
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer, gguf):
    special = ["<s>", "</s>", "<unk>"]
    tokens = special + [f"t{i}" for i in range(len(special), VOCABULARY)]
    kinds = [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.NORMAL] * (VOCABULARY - 3)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_add_bos_token(False)


def _interleaved(rows):
    return torch.stack(rows.chunk(2), dim=1).flatten(0, 1)
