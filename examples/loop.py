"""A bare Accelerate loop on a text file: `torchrun --nproc_per_node 2 examples/loop.py --help`."""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpa_hf import QPAConfig, materialize
from qpa_hf.sharding import is_fsdp

LENGTH = 128  # tokens of an example


def main() -> None:
    """Train one epoch, then write the plain adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt2", help="name on the Hub or directory")
    parser.add_argument("--text", type=Path, required=True, help="text file")
    parser.add_argument("--output", default="adapter", help="directory for the plain adapter")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU")
    options = parser.parse_args()
    accelerator = Accelerator(cpu=options.cpu, gradient_accumulation_steps=2)
    tokens = AutoTokenizer.from_pretrained(options.model)(options.text.read_text(encoding="utf-8"))["input_ids"]
    rows = torch.tensor(tokens[: len(tokens) // LENGTH * LENGTH]).view(-1, LENGTH)
    base = AutoModelForCausalLM.from_pretrained(options.model)
    model = get_peft_model(base, QPAConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(rows, batch_size=4, shuffle=True))
    for ids in loader:
        with accelerator.accumulate(model):
            loss = model(input_ids=ids, labels=ids).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    accelerator.print(f"loss {loss.item():.3f} on {accelerator.num_processes} processes")
    if is_fsdp(model) or accelerator.is_main_process:  # a sharded model is gathered from all processes
        materialize(model, options.output)


if __name__ == "__main__":
    main()
