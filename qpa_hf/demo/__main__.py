"""Train LoRA, QPA and QPA's control on the Python documentation, collapse QPA, and reload it without qpa_hf."""

from __future__ import annotations

import json
import platform
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

from qpa_hf.demo import fresh
from qpa_hf.demo.arms import ARMS, BASE, Record, run, step_time_ratios
from qpa_hf.demo.data import blocks


def plot(records: list[Record], path: Path) -> None:
    """Write the loss curves as a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The loss curves need matplotlib. Install it with `pip install 'qpa-hf[plots]'`.") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for record in records:
        axes.plot(*zip(*record.losses, strict=True), label=f"{record.name} ({record.n_trainable:,} trainable)")
    axes.set(xlabel="training step", ylabel="training loss (nats per token)", title="Python documentation")
    axes.legend()
    figure.savefig(path, dpi=150)


def table(records: list[Record], ratios: dict[str, float]) -> Table:
    """Return the comparison as one table."""
    result = Table(title="Held-out Python documentation")
    columns = ("adapter", "trainable", "learning rate", "perplexity before", "after", "step / LoRA's step")
    for column in (*columns, "native bytes", "materialized bytes"):
        result.add_column(column, justify="left" if column == "adapter" else "right")
    for r in records:
        quality = (f"{r.perplexity_before:.2f}", f"{r.perplexity_after:.2f}", f"{ratios[r.name]:.2f}")
        sizes = (f"{r.native_bytes:,}", f"{r.materialized_bytes:,}")
        result.add_row(r.name, f"{r.n_trainable:,}", f"{r.learning_rate:g}", *quality, *sizes)
    return result


def summary(records: list[Record]) -> str:
    """Say what the numbers say, and no more."""
    lora, qpa, control = records
    against = qpa.perplexity_after - control.perplexity_after
    word = "lower" if against < 0 else "higher"
    return (
        f"QPA trained {qpa.n_trainable / lora.n_trainable:.1%} of LoRA's numbers; its perplexity is "
        f"{qpa.perplexity_after:.2f}, LoRA's {lora.perplexity_after:.2f}. With fixed random numbers in the circuits' "
        f"place it would be {control.perplexity_after:.2f}: the circuits' is {abs(against):.2f} {word} in this one "
        "run, which shows no advantage or disadvantage beyond it."
    )


def reload_without_us(adapter: Path, held_out: Path) -> float:
    """Return the perplexity that a fresh process finds, in which qpa_hf cannot be imported."""
    command = [sys.executable, fresh.__file__, str(BASE), str(adapter), str(held_out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"The fresh process failed:\n{result.stderr}")
    return float(result.stdout.split()[-1])


def demo(
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, the table and the picture.")] = Path(
        "demo_output"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each adapter.")] = 160,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the step-time comparison.")] = 12,
) -> None:
    """Train LoRA, QPA and QPA's control on the Python documentation, collapse QPA, and reload it without qpa_hf."""
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    train, held_out = blocks(tokenizer, held_out=False), blocks(tokenizer, held_out=True)
    torch.save(held_out, output / "held_out.pt")
    records = []
    for arm in ARMS:
        console.print(f"[bold]{arm.name}[/bold]")
        records.append(run(arm, output / arm.name.lower().replace(",", "").replace(" ", "-"), train, held_out, steps))
    ratios = step_time_ratios(train, rounds)
    console.print(table(records, ratios))
    plot(records, output / "loss.png")
    found = reload_without_us(output / "qpa" / "adapter", output / "held_out.pt")
    result = {
        "arms": [asdict(record) | {"step_time_over_lora": ratios[record.name]} for record in records],
        "steps": steps,
        "perplexity_without_qpa_hf": found,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "qpa-hf")}
        | {"python": platform.python_version()},
    }
    (output / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(summary(records))
    console.print(f"Written: {output}/result.json, {output}/loss.png, {output}/qpa/adapter (plain LoRA)")
    expected = records[1].perplexity_after
    print(f"QPA's held-out perplexity here:      {expected!r}")
    print(f"in a process that has only peft:     {found!r}")
    if found != expected:
        sys.exit("They differ: the materialized adapter is not what was trained. Please report this.")
    print("Equal to the last digit.")


def main() -> None:
    """Run the command line; an interruption loses nothing that was finished."""
    try:
        typer.run(demo)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run the same command again: finished adapters are kept, the current one resumes.")


if __name__ == "__main__":
    main()
