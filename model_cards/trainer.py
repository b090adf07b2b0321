"""The card that Trainer writes in the place of ours: how to load the adapter is added to it."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import ModelCard
from peft import PeftModel

from qpa_hf.checkpoint import write_text
from qpa_hf.model_cards.card import CARD_NAME, loading
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.registration import after_model_card

# Sentences that Trainer's and TRL's templates put into each card, and nobody else.
BY_TRAINER = re.compile(r"This model card has been generated automatically|It has been trained using \[TRL\]")


def add_loading(model: PeftModel, folder: str) -> None:
    """Add how to load a QPA adapter to a card that Trainer or TRL has written and that does not say it.

    A card of ours or of a person's is left as it is.

    Args:
        model: the model that is saved.
        folder: holds the card, and a native checkpoint of one of the model's adapters, or will.

    Example:
        >>> import tempfile
        >>> from peft import get_peft_model
        >>> from torch import nn
        >>> model = get_peft_model(nn.Sequential(nn.Linear(512, 512)), QPAConfig(r=8, target_modules=["0"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     card = Path(folder) / CARD_NAME
        ...     _ = card.write_text("This model card has been generated automatically.", encoding="utf-8")
        ...     add_loading(model, folder)
        ...     "import qpa_hf" in card.read_text(encoding="utf-8")
        True
    """
    name = "default" if "default" in model.peft_config else model.active_adapter
    config = model.peft_config.get(name)
    path = Path(folder) / CARD_NAME
    if not isinstance(config, QPAConfig) or not path.is_file():
        return
    card = ModelCard(path.read_text(encoding="utf-8", errors="replace"))
    if not BY_TRAINER.search(card.text):
        return
    if "import qpa_hf" not in card.text:
        before, heading, after = card.text.partition("\n## ")
        section = loading(config, "path/to/this/folder" if name == "default" else f"path/to/this/folder/{name}")
        card.text = f"{before.rstrip()}\n\n## How to load\n\n{section}\n{heading}{after}"
    card.data["tags"] = sorted({*(card.data.get("tags") or ()), "qpa"})  # which PEFT writes anew each time
    write_text(path, str(card))


after_model_card(add_loading)
