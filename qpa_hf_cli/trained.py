"""Commands that run a model that is trained: `qpa evaluate` and `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qpa_hf_cli.options import AsJson, TaskName

Adapter = Annotated[str | None, typer.Option(help="Directory or Hub id of an adapter, native or plain.")]


def evaluate(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a base model.")],
    data: Annotated[
        list[Path], typer.Option("--data", "--text", help="Text, JSON, CSV or Parquet file; repeat for several.")
    ],
    adapter: Adapter = None,
    task: TaskName = None,
    text_column: Annotated[str, typer.Option(help="The column of a table that holds the text.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column that holds the class of a row.")] = "label",
    block_length: Annotated[
        int | None, typer.Option(help="Tokens per block of text, and the most of any other example; 128 if none.")
    ] = None,
    padded: Annotated[
        bool, typer.Option(help="Also the paper's protocol, which counts padding; line by line.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on files, with an adapter and without it: perplexity of texts, accuracy and F1 of classes."""
    from qpa_hf.checkpoint import to_json
    from qpa_hf.messages import one_of
    from qpa_hf.terminal import say
    from qpa_hf.training.data import DataSettings
    from qpa_hf.training.tasks import TASKS
    from qpa_hf_cli.evaluation import evaluate_files

    what = TASKS[one_of("--task", task or "text", TASKS)]
    what.check_installed()
    lengths = {"block_length": block_length} if block_length is not None else {}
    columns = {"text_column": text_column, "label_column": label_column}
    settings = DataSettings(validation=[str(path) for path in data], **{**what.defaults, **columns, **lengths})
    found = evaluate_files(model, adapter, what, settings, padded)
    if as_json:
        say(to_json(found))
        return

    def values(of: dict[str, Any]) -> str:
        return ", ".join(f"{one.name} {one.exact(of[one.name])}" for one in what.metrics if one.name in of)

    say(f"{values(found)} ({what.counted(found)})")
    if adapter is not None:
        say(f"{found['baseline']['name']}: {values(found['baseline'])}")
    trained_with = found["adapter_trained_with"]
    if trained_with not in (None, model):  # a base whose tensors have the same shapes is not noticed otherwise
        say(f"The adapter was trained with {trained_with}; with another model than that this is not its quality.")
    if padded:
        say(
            f"padded perplexity {found['padded_perplexity']:.3f}: the paper's protocol, in which padding counts; it "
            "compares with the paper's tables and with nothing else"
        )


def sample(
    model: Annotated[str, typer.Argument(help="Folder of a run; or a base model's directory or Hub id.")],
    prompt: Annotated[str, typer.Option(help="The text to go on from; of a chat, what the user says.")],
    adapter: Adapter = None,
    task: TaskName = None,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens to write.")] = 48,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Of the draws; 0 takes the most probable token each time.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let a language model write, with an adapter and without it.

    Example:

        qpa sample run --prompt "It was a dark and stormy night"
    """
    from qpa_hf.checkpoint import to_json
    from qpa_hf.terminal import say
    from qpa_hf_cli.sampling import sample_text

    found = sample_text(model, adapter, task, prompt, n_tokens=tokens, temperature=temperature, seed=seed)
    if as_json:
        say(to_json(found))
        return
    if "adapter" in found:
        say(f"Without the adapter: {found['base']}")
        say(f"With the adapter: {found['adapter']}")
    else:
        say(found["base"])


COMMANDS = (evaluate, sample)
