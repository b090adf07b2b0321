"""Printed characters, on which the base of the task `mnist` is pretrained."""

import json

import pytest
import torch
from transformers import ViTForImageClassification

from benchmarks.pretrain_glyphs import CHARACTERS, FONTS, OUTPUT, RECORD_NAME, SIDE, draw, glyphs, normalized


@pytest.fixture(scope="module")
def printed():
    return glyphs()


def test_every_character_of_every_font_has_ink_and_is_whole(printed):
    assert printed.shape[:2] == (len(FONTS), len(CHARACTERS))
    assert printed.flatten(2).amax(-1).min() > 0.5
    frame = torch.cat([printed[..., 0, :], printed[..., -1, :], printed[..., 0], printed[..., -1]])
    assert frame.max() == 0


def test_images_belong_to_the_seed(printed):
    first, again, other = (draw(printed, 8, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first[0].shape == (8, 1, SIDE, SIDE)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_the_committed_base_reads_what_it_was_pretrained_on(printed):
    model = ViTForImageClassification.from_pretrained(OUTPUT, dtype=torch.float32).eval()
    images, labels = draw(printed, 512, torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model(pixel_values=normalized(images)).logits.argmax(1)
    record = json.loads((OUTPUT / RECORD_NAME).read_text(encoding="utf-8"))
    assert (found == labels).float().mean().item() == pytest.approx(record["held_out_accuracy"], abs=0.05)
