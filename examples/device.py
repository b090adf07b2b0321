"""Train on a quantum computer, or on IBM's simulated one: `python examples/device.py --help`.

Every step is one job, or several where IBM's limits ask for them. Interrupted, the same command goes on where it
stopped and submits no job twice.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from qpa_hf import QPAConfig, materialize, plan
from qpa_hf.demo.arms import BASE
from qpa_hf.demo.data import blocks
from qpa_hf.measurement.device.ledger import Ledger
from qpa_hf.training.run import last_checkpoint, train_or_resume

EXAMPLES, BATCH = 64, 4


class SayJobs(TrainerCallback):
    """Say after each step how many jobs the run's folder has so far, and how many were submitted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, args, state, control, **kwargs) -> None:
        ledger = Ledger(self.folder)
        print(f"step {state.global_step}: {ledger.n_jobs} jobs submitted, {ledger.n_kept} kept", flush=True)


def main() -> None:
    """Plan, train, and write the plain adapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="fake_torino", help="fake_torino, fake_fez, or 'ibm_...' of your account")
    parser.add_argument("--shots", default="20x", help="of each circuit; 20x is 20 for each basis state")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--max-jobs", type=int, help="jobs to submit at most")
    parser.add_argument("--output", type=Path, default=Path("device-output"))
    options = parser.parse_args()
    jobs = options.output / "jobs"
    config = QPAConfig(
        r=4, lora_alpha=8, target_modules=["c_attn"], task_type="CAUSAL_LM", chunk_size=768, n_circuits=1,
        circuit_depth=2, backend="ibm", device=options.device, shots=options.shots, max_jobs=options.max_jobs,
        device_folder=str(jobs),
    )  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(BASE)
    print(plan(config, base, n_steps=options.steps))
    tokens = blocks(AutoTokenizer.from_pretrained(BASE), held_out=False)[:EXAMPLES]
    arguments = TrainingArguments(
        str(options.output), max_steps=options.steps, per_device_train_batch_size=BATCH, learning_rate=1e-2,
        save_steps=3, logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in tokens]
    trainer = Trainer(get_peft_model(base, config), arguments, train_dataset=data, callbacks=[SayJobs(jobs)])
    train_or_resume(trainer, last_checkpoint(options.output))
    materialize(trainer.model, options.output / "adapter")
    with torch.no_grad():
        loss = trainer.model.eval()(input_ids=tokens[:BATCH], labels=tokens[:BATCH]).loss
    print(f"{Ledger(jobs).n_jobs} jobs submitted; loss on the first examples {loss:.6f}; {options.output / 'adapter'}")


if __name__ == "__main__":
    disable_progress_bar()
    set_verbosity_error()
    warnings.simplefilter("ignore")
    try:
        main()
    except (ValueError, RuntimeError, ImportError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on.")
