"""`initialize_basis`: gradient bases, found once before training, under a LoRA whose small cores are generated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from rich.progress import track
from torch import Tensor, nn

from qpa_hf.generator import Bank, FrozenBases
from qpa_hf.messages import check_kind, shown, whole_number
from qpa_hf.models import active_adapters_of, bank_of
from qpa_hf.processes import is_distributed, is_first_process
from qpa_hf.sharding import gathered, is_fsdp, is_zero3, write
from qpa_hf.terminal import bar_options
from qpa_hf.tuners.qpa.basis_cache import read_bases, write_bases
from qpa_hf.tuners.qpa.basis_cost import EXACT_BYTES, LayerSize, layer_sizes
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.qpa.injected import has_adapters
from qpa_hf.tuners.qpa.moments import find_bases
from qpa_hf.tuners.qpa.passes import Loss
from qpa_hf.tuners.qpa.slots import PREFIX, slots_of


def initialize_basis(
    model: nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    n_examples: int = 1024,
    adapter_name: str = "default",
    loss: Loss | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
    exact_bytes: int = EXACT_BYTES,
) -> None:
    """Find the frozen bases of an adapter with `basis="gradient"`; call it once, before training.

    The gradient of the loss with respect to each adapted layer's weight is summed over the examples, with adapters off
    and dropout off, and with `modules_to_save` as they are by now. A is made of leading right singular vectors, U of
    left ones (`scaled_bases`), and the adapter becomes x -> U R A x with a generated core R that is zero at the start.
    Gradients are gathered from the layers' inputs and their outputs' gradients, so quantised and FSDP2-sharded base
    models work; where several processes run, each passes its own examples.

    Up to `exact_bytes`, one pass over the examples holds a float32 copy of the adapted layers' weights, and a square
    matrix for each side of a layer that has at most 1,024 numbers. For larger models, three passes keep `rank` + 24
    columns for each side of a layer in the copy's stead: 0.6 GB instead of 28 GB for all linear layers of a
    Llama-3-8B at r = 16. The batches are kept between the passes, so `dataloader` is read once, and may shuffle.

    The idea of starting from the gradient's singular vectors is that of LoRA-GA (https://huggingface.co/papers/2407.05000).

    Args:
        model: the `PeftModel` from `get_peft_model(base, QPAConfig(basis="gradient", ...))`.
        dataloader: batches that the model takes as keyword arguments, labels included.
        n_examples: number of examples to read in each process; the batch that reaches the number is the last one.
        adapter_name: name of the adapter.
        loss: function of (model, batch) that returns a tensor with its graph; `model(**batch).loss` if None.
        cache: a file that keeps the bases: written if it is absent, read instead of all computing if it is there. It
            is compared by the layers' names and ranks; for other weights or examples pass another file.
        progress: whether to show a bar on standard error, that of the first process if there are several.
        exact_bytes: most bytes that the adapted weights' gradients may take whole, 4 for each weight; above, and at 0
            always, they are sketched.

    Raises:
        TypeError: if `model` is no PEFT model, a batch has no tensors by name, or the loss has no graph.
        ValueError: if the adapter has no gradient bases, or has found its bases before; if ZeRO-3 keeps the model's
            weights; if there are no examples or none to be read; if gradients are not finite; if the loss of the same
            batches changes from pass to pass; or if the cache belongs to other layers.
        IsADirectoryError: if `cache` is a directory.

    Example:
        >>> initialize_basis(model, DataLoader(data, batch_size=8), n_examples=1024)  # doctest: +SKIP
    """
    bank, bases = _bank(model, adapter_name)
    if bank.generator.count_bases():
        raise ValueError(
            f"Adapter {shown(adapter_name)} has its bases already; others would change what it has learned. Make a "
            "new adapter to start anew, or set `n_stages` and call `refresh_basis`."
        )
    if is_zero3(model):
        raise ValueError(
            "DeepSpeed's ZeRO-3 keeps the model's weights outside of it, where no gradient bases are found. Find them "
            "without it, `save_pretrained`, and load that adapter under ZeRO-3, or use ZeRO-2."
        )
    path = Path(cache) if cache is not None else None
    if path is not None and path.is_dir():
        raise IsADirectoryError(f"`cache`={str(path)!r} is a directory. Name a file in it, which keeps the bases.")
    exact_bytes = whole_number("exact_bytes", exact_bytes, least=0)
    sizes = _sizes(model, adapter_name, bases)
    if path is not None and path.is_file():
        found = read_bases(path, _identity(sizes), bases.n_buffer // bases.n_stages)
    else:
        # A DataLoader draws a seed; who reads the cache instead must find the same random numbers afterwards.
        with without_adapters(model), torch.random.fork_rng(devices=[]):
            found = _found(model, first_examples(dataloader, n_examples), loss, sizes, exact_bytes, progress)
        if path is not None and is_first_process():
            write_bases(path, found, _identity(sizes))
    _begin_stage(bank, bases, _levelled(model, adapter_name, sizes, bases, found))


def refresh_basis(
    model: nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    n_examples: int = 1024,
    adapter_name: str = "default",
    loss: Loss | None = None,
    progress: bool = True,
    exact_bytes: int = EXACT_BYTES,
) -> None:
    """Find the bases of the next stage of an adapter with `n_stages` above 1, in the course of training.

    The gradient is that of the model with its adapter as it is by now. What was generated so far stays, frozen; the
    circuits and the mapping model start over with a core of zeros, so that the adapter does what it did before. An
    optimizer must forget what it knows of them (`GradientBasisCallback` sees to it).

    Args: see `initialize_basis`.

    Raises:
        TypeError: if `model` is no PEFT model, a batch has no tensors by name, or the loss has no graph.
        ValueError: if the adapter has no first bases yet, is in its last stage, is not active, is disabled or is
            sharded by FSDP2 or ZeRO-3; if there are no examples or none to be read; if gradients are not finite; or if
            the loss of the same batches changes from pass to pass.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> from peft import get_peft_model
        >>> network = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8))
        >>> small = {"chunk_size": 8, "n_circuits": 1, "circuit_depth": 2}
        >>> config = QPAConfig(basis="gradient", r=16, n_stages=2, target_modules=["0"], **small)
        >>> model = get_peft_model(network, config)
        >>> batches = [{"input": torch.randn(16, 64)}]
        >>> def loss(model, batch):
        ...     return model(batch["input"]).square().mean()
        >>> initialize_basis(model, batches, n_examples=16, loss=loss, progress=False)
        >>> refresh_basis(model, batches, n_examples=16, loss=loss, progress=False)  # after a part of the training
    """
    bank, bases = _bank(model, adapter_name)
    exact_bytes = whole_number("exact_bytes", exact_bytes, least=0)
    stage = bank.generator.count_bases()
    if not stage:
        raise ValueError(f"Adapter {shown(adapter_name)} has no bases yet. Call `initialize_basis` before training.")
    if stage == bases.n_stages:
        raise ValueError(
            f"Adapter {shown(adapter_name)} is in the last of its {stage} stages. Give a new one a larger `n_stages`."
        )
    if adapter_name not in active_adapters_of(model):
        raise ValueError(
            f"Adapter {shown(adapter_name)} is not active. Call `model.set_adapter({shown(adapter_name)})` first."
        )
    if any(layer.disable_adapters for layer in model.modules() if isinstance(layer, BaseTunerLayer)):
        raise ValueError("The adapters are disabled; the gradient would be the base model's. Enable them first.")
    if is_fsdp(model) or is_zero3(model):
        raise ValueError("A sharded adapter cannot begin a stage. Train it with DDP, or set n_stages=1.")
    generator = bank.generator
    trained = list(generator.trained().values())
    for parameter in trained:  # nobody needs their gradients, and DDP would wait for them
        parameter.requires_grad_(False)
    try:
        batches = first_examples(dataloader, n_examples)
        sizes = _sizes(model, adapter_name, bases)
        found = _found(model, batches, loss, sizes, exact_bytes, progress)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    _begin_stage(bank, bases, _levelled(model, adapter_name, sizes, bases, found))


def _bank(model: nn.Module, adapter_name: str) -> tuple[Bank, FrozenBases]:
    if not has_adapters(model):
        raise TypeError(
            f"Cannot find bases for a {type(model).__name__}. Pass the model that `get_peft_model` returned, or the "
            "one into which the adapter was injected."
        )
    check_kind("adapter_name", adapter_name, str, "the adapter's name")
    config = cast(dict[str, Any], model.peft_config).get(adapter_name)
    if not isinstance(config, QPAConfig) or config.basis != "gradient":
        raise ValueError(
            f"Adapter {shown(adapter_name)} has no gradient bases. Configure it by QPAConfig(basis='gradient')."
        )
    bank = bank_of(model, adapter_name)
    assert isinstance(bank.pieces, FrozenBases)
    return bank, bank.pieces


def _sizes(model: Any, adapter_name: str, bases: FrozenBases) -> dict[str, LayerSize]:
    """Return the sizes of one stage's bases by the layers' names, in the order of the bases."""
    slots = slots_of(model.peft_config[adapter_name].layout)
    names = [slot.key.removesuffix(".lora_A.weight") for slot in slots if slot.frozen_part == "init"]
    return dict(zip(names, layer_sizes(bases), strict=True))


def _identity(sizes: Mapping[str, LayerSize]) -> dict[str, tuple[int, int]]:
    """Return the shape of one stage's part of A by the layers' names, by which a cache is known."""
    return {name: (size.n_experts * size.rank, size.n_in) for name, size in sizes.items()}


def _found(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    loss: Loss | None,
    sizes: Mapping[str, LayerSize],
    exact_bytes: int,
    progress: bool,
) -> Tensor:
    """Return one stage's bases end to end, every A, then every U; in each process those of the first."""
    is_shown = progress and is_first_process()

    def shown(batches: Iterable[Mapping[str, Any]], title: str) -> Iterable[Mapping[str, Any]]:
        return track(batches, title, disable=not is_shown, **bar_options())

    found = find_bases(model, batches, sizes, loss, exact_bytes, shown)
    every_a = [a.flatten() for layer in found.values() for a, _ in layer]
    # Columns of experts lie side by side: the first of each, then the second of each.
    every_u = [torch.stack([u for _, u in layer], dim=-1).flatten() for layer in found.values()]
    buffer = torch.cat(every_a + every_u)
    if is_distributed():
        dist.broadcast(buffer, 0)
    return buffer


def _levelled(
    model: Any, adapter_name: str, sizes: Mapping[str, LayerSize], bases: FrozenBases, found: Tensor
) -> Tensor:
    """Take up in every U what LoRA makes of a layer's own rank, which it divides alpha by.

    With r = 4 and a rank of 8, LoRA would halve the layer's update; its U is doubled. No setting has to say so, which
    other readers of LoRA would not know. A layer with an alpha of its own is left to it.
    """
    config = model.peft_config[adapter_name]
    alphas = list(config.alpha_pattern or ())
    parts = list(found.split([shape.numel() // bases.n_stages for shape in bases.buffer_shapes]))
    for i, (name, size) in enumerate(sizes.items()):
        layer = name.removeprefix(PREFIX)
        ratio = bases.n_stages * size.rank / config.r  # `size` is one stage's
        if ratio != 1 and get_pattern_key(alphas, layer) not in alphas:
            parts[len(bases.pairs) + i] = parts[len(bases.pairs) + i] * (ratio**0.5 if config.use_rslora else ratio)
    return torch.cat(parts)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch adapted layers off, but not what is trained whole: a head that was fitted is the one to ask."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer) and not m.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _begin_stage(bank: Bank, bases: FrozenBases, found: Tensor) -> None:
    generator = bank.generator
    stage = generator.n_bases
    values = bank.values() if stage else []
    factors = [values[pair.b] for pair in bases.pairs] if stage else []
    numbers = gathered(generator.basis.detach()).clone()
    bases.place(numbers, found.to(numbers), factors, stage)
    write(generator.basis, numbers)
    generator.begin_stage()


def first_examples(dataloader: Iterable[Mapping[str, Any]], n_examples: int) -> Iterator[Mapping[str, Any]]:
    """Return batches until `n_examples` examples have been read."""
    n_examples = whole_number("n_examples", n_examples)
    n_read = 0
    for batch in dataloader:
        tensors = batch.values() if isinstance(batch, Mapping) else ()
        sizes = [len(value) for value in tensors if isinstance(value, Tensor) and value.dim()]
        if not sizes:
            raise TypeError(
                f"A batch of the dataloader is a {type(batch).__name__} without tensors by name. Let its `collate_fn` "
                "return the model's keyword arguments, `transformers.default_data_collator` for example."
            )
        yield batch
        n_read += sizes[0]
        if n_read >= n_examples:
            return
