"""Train LoRA, QPA and QPA's controls on the Python documentation, collapse QPA, and reload it without qpa_hf."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from qpa_hf.demo import fresh
from qpa_hf.demo.arms import ARMS, BASE, N_EXAMPLES, SEED, Record, run, step_time_ratios
from qpa_hf.demo.data import blocks
from qpa_hf.files import locked
from qpa_hf.plots import in_style, whole_numbers
from qpa_hf.remarks import silence_commands


def require_matplotlib() -> None:
    """Raise before the training that a missing picture library would waste."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("The loss curves need matplotlib. Install it with `pip install 'qpa-hf[plots]'`.")


@in_style()
def plot(records: list[Record], path: Path) -> None:
    """Write the loss curves as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    for record in records:
        axes.plot(
            *zip(*record.losses, strict=True), marker="", label=f"{record.name} ({record.n_trainable:,} trainable)"
        )
    axes.set(xlabel="training step", ylabel="training loss (nats per token)", title="Python documentation")
    whole_numbers(axes.xaxis)
    axes.legend()
    figure.savefig(path)


def table(records: list[Record], ratios: dict[str, float]) -> Table:
    """Return the comparison as one table, a column for each adapter: it fits a terminal of 80 columns."""
    result = Table("", *(r.name for r in records), title="Held-out Python documentation")
    for column in result.columns[1:]:
        column.justify = "right"
    result.add_row("trainable parameters", *(f"{r.n_trainable:,}" for r in records))
    result.add_row("learning rate", *(f"{r.learning_rate:g}" for r in records))
    result.add_row("perplexity before", *(f"{r.perplexity_before:.2f}" for r in records))
    result.add_row("perplexity after", *(f"{r.perplexity_after:.2f}" for r in records))
    result.add_row("time per step / LoRA's", *(f"{ratios[r.name]:.2f}" for r in records))
    result.add_row("native checkpoint, bytes", *(f"{r.native_bytes:,}" for r in records))
    result.add_row("materialized, bytes", *(f"{r.materialized_bytes:,}" for r in records))
    return result


def summary(records: list[Record]) -> str:
    """Say what the figures show, and no more."""
    # One run of each arm is no evidence of a difference, so the sentence claims none, however large it looks.
    lora, qpa, *controls = records
    others = ", ".join(f"{control.perplexity_after:.2f} ({control.name})" for control in controls)
    return (
        f"QPA on gradient bases trained {qpa.n_trainable / lora.n_trainable:.1%} of LoRA's parameters; its "
        f"perplexity is {qpa.perplexity_after:.2f}, LoRA's {lora.perplexity_after:.2f}. The controls have "
        f"{others}: random numbers or free parameters in the circuits' place, and cores trained directly. One run of "
        "each shows no advantage or disadvantage of the circuits."
    )


def commit() -> str | None:
    """Return the checked-out commit, None where this code was installed from elsewhere."""
    here = Path(__file__)
    git = shutil.which("git")

    def ask(*question: str) -> str:
        command = [str(git), "-C", str(here.parent), *question]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False).stdout.strip()

    return ask("rev-parse", "--short", "HEAD") if git and ask("ls-files", here.name) else None


def write_result(path: Path, records: list[Record], ratios: dict[str, float], steps: int, found: float) -> None:
    """Write everything that the table and the sentences below it are made of, with settings, seed and versions."""
    result = {
        "arms": [asdict(record) | {"step_time_over_lora": ratios[record.name]} for record in records],
        "settings": {arm.name: arm.fields for arm in ARMS},
        "examples_for_bases": N_EXAMPLES,
        "seed": SEED,
        "steps": steps,
        "perplexity_without_qpa_hf": found,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "qpa-hf")}
        | {"python": platform.python_version()},
        "commit": commit(),
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def reload_without_us(adapter: Path, held_out: Path) -> float:
    """Return the perplexity that a fresh process finds, in which qpa_hf cannot be imported."""
    command = [sys.executable, fresh.__file__, str(BASE), str(adapter), str(held_out)]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if result.returncode:
        raise RuntimeError(f"The fresh process failed:\n{result.stderr}")
    return float(result.stdout.split()[-1])


def compare(output: Path, steps: int, rounds: int, fresh_start: bool) -> None:
    """Train the arms, print the table and the sentences, and compare with the fresh process."""
    # The picture comes last, and a missing library would lose all that was trained for it.
    require_matplotlib()
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    train = blocks(tokenizer, held_out=False)
    held_out = blocks(tokenizer, held_out=True)
    torch.save(held_out, output / "held_out.pt")
    records = []
    for arm in ARMS:
        console.print(f"[bold]{arm.name}[/bold]")
        folder = output / arm.name.lower().replace(",", "").replace(" ", "-")
        if fresh_start:
            shutil.rmtree(folder, ignore_errors=True)
        records.append(run(arm, folder, train, held_out, steps))
    ratios = step_time_ratios(train, rounds)
    console.print(table(records, ratios))
    plot(records, output / "loss.png")
    # Equality to the last digit, in a process without qpa_hf, is the proof that the plain adapter is the trained one.
    found = reload_without_us(output / "qpa" / "adapter", output / "held_out.pt")
    write_result(output / "result.json", records, ratios, steps, found)
    console.print(summary(records))
    console.print(f"Written: {output}/result.json, {output}/loss.png, {output}/qpa/adapter (plain LoRA)")
    expected = records[1].perplexity_after
    print(f"QPA's held-out perplexity here:      {expected!r}")
    print(f"in a process that has only peft:     {found!r}")
    if found != expected:
        sys.exit("They differ: the materialized adapter is not what was trained. Please report this.")
    print("Equal to the last digit.")


def demo(
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, the table and the picture.")] = Path(
        "demo_output"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each adapter.")] = 160,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the step-time comparison.")] = 12,
    fresh_start: Annotated[bool, typer.Option("--fresh", help="Forget what earlier runs left in the folder.")] = False,
) -> None:
    """Train LoRA, QPA and QPA's controls on the Python documentation, collapse QPA, and reload it without qpa_hf."""
    # Caught here, not around `typer.run`: typer would end the process without a word.
    try:
        with locked(output):
            compare(output, steps, rounds, fresh_start)
    except BlockingIOError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again: finished adapters are kept, the current one resumes.")
        raise typer.Exit(130) from None


def main() -> None:
    """Run the command line without the noise of PEFT and transformers against each other."""
    silence_commands()
    disable_progress_bar()
    typer.run(demo)


if __name__ == "__main__":
    main()
