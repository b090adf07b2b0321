"""Pretrain a small causal language model, with its own tokenizer, on a folder of plain-text novels.

    python -m benchmarks.pretrain_base --output qpa_hf/demo/base

makes the base model that ships with the demo; `--n-layer`, `--n-embd`, `--vocab-size`, `--tokens` make a larger one.
Interrupt it at will: the same command continues from its last checkpoint.
"""

import copy
import hashlib
import json
import math
import re
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from qpa_hf.files import unfinished
from qpa_hf.training.run import last_checkpoint

END_OF_TEXT = "<|endoftext|>"
RECORD_NAME = "pretraining.json"
LOCAL_PATHS = ("books", "output", "checkpoints")
# Fields that change neither the data, nor the model, nor the sequence of updates: a run may be resumed with others.
NOT_IDENTITY = (*LOCAL_PATHS, "threads", "save_steps")


@dataclass
class PretrainConfig:
    """Settings of one pretraining run; together with the text they determine it."""

    output: str = field(metadata={"help": "folder that receives the model, the tokenizer and the record"})
    books: str = field(default="data/books", metadata={"help": "folder of .txt files, one book each"})
    checkpoints: str = field(default="build/pretrain_base", metadata={"help": "folder for resumable checkpoints"})
    n_layer: int = field(default=3, metadata={"help": "transformer blocks"})
    n_embd: int = field(default=192, metadata={"help": "hidden size"})
    n_head: int = field(default=3, metadata={"help": "attention heads; heads of 64 are the fastest on a CPU"})
    n_positions: int = field(default=256, metadata={"help": "context length in tokens"})
    vocab_size: int = field(default=2048, metadata={"help": "size of the byte-level BPE vocabulary"})
    tokens: int = field(default=16_000_000, metadata={"help": "training tokens, counting repetitions"})
    batch_size: int = field(default=16, metadata={"help": "sequences per update"})
    learning_rate: float = field(default=3e-3, metadata={"help": "peak of the cosine schedule"})
    warmup: float = field(default=0.03, metadata={"help": "share of the updates with a rising learning rate"})
    weight_decay: float = field(default=0.1, metadata={"help": "AdamW's weight decay"})
    held_out_every: int = field(default=100, metadata={"help": "one in so many paragraphs is held out"})
    seed: int = field(default=0, metadata={"help": "seed of the initial weights and of the data order"})
    bf16: bool = field(default=True, metadata={"help": "bfloat16 autocast (1.6 times the speed on AVX512-BF16)"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice"})
    save_steps: int = field(default=500, metadata={"help": "updates between checkpoints"})

    def fingerprint(self, text_digest: str) -> str:
        """Return a short name shared by exactly the runs that may continue each other."""
        identity = {key: value for key, value in asdict(self).items() if key not in NOT_IDENTITY}
        return hashlib.sha256(json.dumps([identity, text_digest], sort_keys=True).encode()).hexdigest()[:12]


def split_paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, hard line breaks unwrapped and runs of white space made one blank."""
    blocks = re.split(r"\n\s*\n", text)
    return [" ".join(block.split()) for block in blocks if block.strip()]


def read_books(folder: str) -> dict[str, list[str]]:
    """Return the paragraphs of every .txt file in `folder`, by file name, in alphabetical order."""
    paths = sorted(Path(folder).glob("*.txt"))
    if not paths:
        raise ValueError(f"`books`={folder!r} holds no .txt file. Pass --books with a folder of plain-text books.")
    return {path.name: split_paragraphs(path.read_text(encoding="utf-8")) for path in paths}


def train_tokenizer(paragraphs: list[str], vocab_size: int, n_positions: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: every byte is in the alphabet, so no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(paragraphs, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=n_positions,
        clean_up_tokenization_spaces=False,
    )


def cut_into_blocks(texts: list[str], tokenizer: PreTrainedTokenizerFast, n_positions: int) -> Dataset:
    """Return one stream of tokens, an end-of-text before each text, cut into full blocks of `n_positions`."""
    encoded = tokenizer(texts, verbose=False)["input_ids"]
    stream = [token for ids in encoded for token in (tokenizer.eos_token_id, *ids)]
    n_blocks = len(stream) // n_positions
    blocks = torch.tensor(stream[: n_blocks * n_positions]).view(n_blocks, n_positions)
    return Dataset.from_dict({"input_ids": blocks.numpy(), "labels": blocks.numpy()})


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 of the configured size, with a tied head and no dropout (the data repeats little)."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.n_positions,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own formula, as one fused operation
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def export(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, record: dict, output: Path) -> None:
    """Write a float16 copy of the model, the tokenizer and the record, each file replaced in one move."""
    half = copy.deepcopy(model).half()
    half.config.use_cache = True  # Trainer switches it off, and the saved configuration would keep that
    with unfinished(output) as partial:
        half.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        compact = json.loads((partial / "tokenizer.json").read_text(encoding="utf-8"))
        (partial / "tokenizer.json").write_text(json.dumps(compact, ensure_ascii=False), encoding="utf-8")
        settings = json.loads((partial / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes a name that 4.57 does not know
        (partial / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (partial / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        output.mkdir(parents=True, exist_ok=True)
        for path in partial.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner can read
            path.replace(output / path.name)


class ExportAtCheckpoint(TrainerCallback):
    """Keeps a usable model in the output folder from the first checkpoint on."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, record: dict, output: Path):
        self.tokenizer, self.record, self.output = tokenizer, record, output

    def on_save(self, args, state, control, model=None, **kwargs):
        tokens = state.global_step * args.train_batch_size * self.record["config"]["n_positions"]
        export(model, self.tokenizer, self.record | {"finished": False, "tokens_seen": tokens}, self.output)


@torch.no_grad()
def cross_entropy(model: GPT2LMHeadModel, blocks: Dataset, batch_size: int = 32) -> float:
    """Return the mean cross-entropy (nats per token), in float32, of the weights *as saved*: rounded to float16."""
    model = copy.deepcopy(model).cpu().half().float().eval()
    total = 0.0
    for batch in blocks.with_format("torch").iter(batch_size):
        total += model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.item() * len(batch["input_ids"])
    return total / len(blocks)


def training_arguments(config: PretrainConfig, folder: Path) -> TrainingArguments:
    """Translate the configuration into the Trainer's terms."""
    n_steps = math.ceil(config.tokens / (config.batch_size * config.n_positions))
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=n_steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup * n_steps),
        weight_decay=config.weight_decay,
        adam_beta2=0.95,  # as in GPT-3: 0.999 averages over more updates than the warm-up has
        bf16=config.bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        save_steps=config.save_steps,
        save_total_limit=2,
        logging_steps=50,
        report_to="none",
    )


def pretrain(config: PretrainConfig) -> dict:
    """Run or continue one pretraining and return its record, which is also written beside the model."""
    if config.threads:
        torch.set_num_threads(config.threads)
    set_seed(config.seed)
    books = read_books(config.books)
    n, length = config.held_out_every, config.n_positions
    train_texts = ["\n\n".join(p for i, p in enumerate(book) if i % n) for book in books.values()]
    held_out_texts = ["\n\n".join(book[::n]) for book in books.values()]
    digest = hashlib.sha256("".join(train_texts + held_out_texts).encode()).hexdigest()
    tokenizer = train_tokenizer("\n\n".join(train_texts).split("\n\n"), config.vocab_size, length)
    train, held_out = (cut_into_blocks(texts, tokenizer, length) for texts in (train_texts, held_out_texts))
    model, output = build_model(config, tokenizer), Path(config.output)
    record = {
        "config": {key: value for key, value in asdict(config).items() if key not in LOCAL_PATHS},
        "books": list(books),
        "text_sha256": digest,
        "n_parameters": model.num_parameters(),
        "tokens_in_text": len(train) * config.n_positions,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }
    folder = Path(config.checkpoints) / config.fingerprint(digest)
    callback = ExportAtCheckpoint(tokenizer, record, output)
    arguments = training_arguments(config, folder)
    trainer = Trainer(model, arguments, default_data_collator, train, callbacks=[callback], processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    tokens = arguments.max_steps * config.batch_size * config.n_positions
    record |= {"finished": True, "tokens_seen": tokens}
    record["train_loss"] = [[row["step"], round(row["loss"], 4)] for row in trainer.state.log_history if "loss" in row]
    record["held_out_tokens"] = len(held_out) * (config.n_positions - 1)
    record["held_out_cross_entropy"] = cross_entropy(trainer.model, held_out)
    export(trainer.model, tokenizer, record, output)
    return record


def main() -> None:
    """Parse the command line, pretrain, and report the held-out cross-entropy."""
    (config,) = HfArgumentParser(PretrainConfig).parse_args_into_dataclasses()
    try:
        record = pretrain(config)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run the same command again to continue from the last checkpoint.")
    loss, size = record["held_out_cross_entropy"], sum(p.stat().st_size for p in Path(config.output).iterdir())
    print(
        f"{record['n_parameters']:,} parameters, {size:,} bytes in {config.output}; held-out cross-entropy "
        f"{loss:.4f} nats per token (perplexity {math.exp(loss):.1f}) after {record['tokens_seen']:,} tokens."
    )


if __name__ == "__main__":
    main()
