"""Pretrain a small vision transformer on printed characters: `python -m benchmarks.pretrain_glyphs`, 10 minutes.

Digits and letters of the fonts that come with matplotlib are turned, sheared, scaled and shifted at random, and told
apart. What comes out is the base of the quality bench's task `mnist`, which adapts it to handwriting.
"""

from __future__ import annotations

import argparse
import json
import string
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification, get_cosine_schedule_with_warmup

from qpa_hf.files import unfinished

OUTPUT = Path(__file__).parent / "quality" / "glyph_base"
RECORD_NAME = "pretraining.json"
CHARACTERS = string.digits + string.ascii_letters
FONTS = tuple(
    f"{family}{style}"
    for family, styles in {
        "DejaVuSans": ("", "-Bold", "-BoldOblique", "-Oblique"),
        "DejaVuSansMono": ("", "-Bold", "-BoldOblique", "-Oblique"),
        "DejaVuSerif": ("", "-Bold", "-BoldItalic", "-Italic"),
        "STIXGeneral": ("", "Bol", "BolIta", "Italic"),
    }.items()
    for style in styles
)
CANVAS, SIDE = 56, 28  # pixels of a side: as characters are printed, and as the model sees them
SIZE = 40  # points of a printed character
MOST = {"turn": 0.35, "shear": 0.35, "scale": 0.25, "shift": 0.15}  # radians, tangent, share, share of half a side
MODEL = {
    "image_size": SIDE,
    "patch_size": 7,
    "num_channels": 1,
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 384,
}
SETTINGS = {"steps": 3000, "batch_size": 64, "learning_rate": 2e-3, "warmup": 100, "weight_decay": 0.05, "seed": 0}
N_HELD_OUT = 2048  # images, drawn anew, on which the record's figures are measured


def normalized(pixels: Tensor) -> Tensor:
    """Return pixels from 0 to 1 as the model takes them, from -1 to 1."""
    return 2 * pixels - 1


def glyphs() -> Tensor:
    """Return all characters in all fonts, centred, pixels from 0 to 1: (n_fonts, n_characters, CANVAS, CANVAS)."""
    import matplotlib
    import numpy
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = []
    for name in FONTS:
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), SIZE)
        for character in CHARACTERS:
            image = Image.new("L", (CANVAS, CANVAS))
            ImageDraw.Draw(image).text((CANVAS / 2, CANVAS / 2), character, 255, font, anchor="mm")
            found.append(torch.from_numpy(numpy.array(image)))
    return torch.stack(found).float().div(255).view(len(FONTS), len(CHARACTERS), CANVAS, CANVAS)


def draw(printed: Tensor, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random characters, turned, sheared, scaled and shifted: images (n, 1, SIDE, SIDE) and their classes."""
    fonts, labels = (torch.randint(size, (n,), generator=rng) for size in printed.shape[:2])
    turn, shear, scale_x, scale_y, shift_x, shift_y = 2 * torch.rand(6, n, generator=rng) - 1
    cos, sin = (MOST["turn"] * turn).cos(), (MOST["turn"] * turn).sin()
    across = 1 + MOST["scale"] * scale_x
    down = 1 + MOST["scale"] * scale_y
    lean = MOST["shear"] * shear
    rows = [
        torch.stack([cos * across, (lean * cos - sin) * down, MOST["shift"] * shift_x], dim=1),
        torch.stack([sin * across, (lean * sin + cos) * down, MOST["shift"] * shift_y], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), [n, 1, SIDE, SIDE], align_corners=False)
    images = F.grid_sample(printed[fonts, labels].unsqueeze(1), grid, align_corners=False)
    return images, labels


def pretrain(settings: dict[str, Any]) -> tuple[ViTForImageClassification, dict[str, float]]:
    """Train the model; return it with its loss and accuracy on new images of the same kind."""
    torch.manual_seed(settings["seed"])
    rng = torch.Generator().manual_seed(settings["seed"])
    printed = glyphs()
    model = ViTForImageClassification(ViTConfig(num_labels=len(CHARACTERS), **MODEL))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, settings["warmup"], settings["steps"])
    for _ in track(range(settings["steps"]), "Pretraining"):
        images, labels = draw(printed, settings["batch_size"], rng)
        optimizer.zero_grad()
        model(pixel_values=normalized(images), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval().half().float()  # as it is saved
    with torch.no_grad():
        images, labels = draw(printed, N_HELD_OUT, rng)
        found = model(pixel_values=normalized(images), labels=labels)
    right = (found.logits.argmax(1) == labels).float().mean().item()
    return model, {"held_out_cross_entropy": found.loss.item(), "held_out_accuracy": right}


def main() -> None:
    """Pretrain, and write the model and its record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrain_glyphs", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the model")
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"], help="updates")
    options = parser.parse_args()
    settings = SETTINGS | {"steps": options.steps}
    model, measured = pretrain(settings)
    record = {"settings": settings, "most": MOST, "fonts": FONTS, **measured}
    record["versions"] = {name: version(name) for name in ("torch", "transformers", "matplotlib", "pillow")}
    with unfinished(options.output) as partial:
        model.half().save_pretrained(partial)
        (partial / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        options.output.mkdir(parents=True, exist_ok=True)
        for path in partial.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner can read
            path.replace(options.output / path.name)
    print(f"{options.output}: {json.dumps(measured)}")


if __name__ == "__main__":
    main()
