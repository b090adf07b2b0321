"""diffusers: an adapter is put into a small UNet by `add_adapter`, trained, and loaded by `load_lora_adapter`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference, expect, expect_moved, trained
from benchmarks.clients.plain import without_us
from qpa_hf import QPAConfig, initialize_basis
from qpa_hf.export import export

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
SIZES = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
}
NAME = "pytorch_lora_weights.safetensors"
ALONE = """
from diffusers import UNet2DConditionModel
base, adapter, prefix, inputs = asked
model = UNet2DConditionModel.from_pretrained(base).eval()
model.load_lora_adapter(adapter, prefix=prefix, weight_name="pytorch_lora_weights.safetensors")
sample, states = torch.load(inputs)
with torch.no_grad():
    answer = model(sample, 1, encoder_hidden_states=states).sample
"""


def noise(seed: int) -> tuple[Tensor, Tensor]:
    """Return a noisy sample and the states of a text."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 3, 8, generator=rng)


def loss(model: UNet2DConditionModel, batch: dict[str, Tensor]) -> Tensor:
    """Return the squared error of the predicted noise."""
    found = model(batch["sample"], 1, encoder_hidden_states=batch["states"]).sample
    return (found - batch["noise"]).square().mean()


def trains(arm: Arm, folder: Path) -> list[Figure]:
    """Train an adapter, export it, and let diffusers load it without qpa_hf."""
    torch.manual_seed(7)
    UNet2DConditionModel(**SIZES).save_pretrained(folder / "base")
    model = UNet2DConditionModel.from_pretrained(folder / "base")
    torch.manual_seed(1)
    model.add_adapter(arm.config(target_modules=TARGETS))
    batches = [{"sample": noise(i)[0], "states": noise(i)[1], "noise": noise(i + 9)[0]} for i in range(4)]
    if arm.has_gradient_bases:
        initialize_basis(model, batches, loss=loss)
    start = trained(model)
    before = answer(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    for batch in batches * 3:
        loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    expect_moved(model, start)
    expect(bool((answer(model) - before).abs().max() > 1e-3), "the adapter changes nothing")
    if arm.kind is QPAConfig:
        export(model, folder / "plain", "diffusers")
    else:
        model.save_lora_adapter(folder / "plain", weight_name=NAME)
    torch.save(noise(3), folder / "inputs.pt")
    prefix = "unet" if arm.kind is QPAConfig else None
    asked = [str(folder / "base"), str(folder / "plain"), prefix, str(folder / "inputs.pt")]
    return [difference("plain adapter's sample", without_us(ALONE, asked, folder / "answer.pt"), answer(model))]


@torch.no_grad()
def answer(model: UNet2DConditionModel) -> Tensor:
    """Return what a model makes of the fourth sample."""
    sample, states = noise(3)
    return model.eval()(sample, 1, encoder_hidden_states=states).sample


CASES: dict[str, Callable[..., list[Figure]]] = {"add_adapter, train, load_lora_adapter": trains}
