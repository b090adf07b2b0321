"""Fine-tune with Trainer on any number of GPUs: `torchrun --nproc_per_node 2 examples/train.py --help`."""

import argparse

from datasets import load_dataset
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from qpa_hf import QPAConfig
from qpa_hf.trainer_callbacks import CircuitMetricsCallback, MaterializeCallback


def main() -> None:
    """Train, and leave the plain adapter of each checkpoint in `checkpoint-N/plain/adapter`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt2", help="name on the Hub or directory")
    parser.add_argument("--text", required=True, help="text file, one example a line")
    parser.add_argument("--output", default="output", help="directory for checkpoints")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cpu", action="store_true", help="train on the CPU")
    options = parser.parse_args()
    # Before the model: it is what tells the rest that DeepSpeed's ZeRO-3 is on.
    arguments = TrainingArguments(
        options.output, max_steps=options.steps, learning_rate=1e-2, report_to="none", use_cpu=options.cpu
    )
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    data = load_dataset("text", data_files=options.text, split="train").filter(lambda row: row["text"].strip())
    data = data.map(lambda row: tokenizer(row["text"], truncation=True, max_length=512), remove_columns="text")
    base = AutoModelForCausalLM.from_pretrained(options.model)
    model = get_peft_model(base, QPAConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    callbacks = [CircuitMetricsCallback(), MaterializeCallback()]
    Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=callbacks).train()


if __name__ == "__main__":
    main()
