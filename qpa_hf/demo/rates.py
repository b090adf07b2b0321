"""Choose the demo's learning rates: `python -m qpa_hf.demo.rates` writes learning_rates.json beside this file.

Every arm, the control too, gets its own from the same candidates, by the perplexity on the last eighth of the training
text. The held-out topics play no part, so the demo's figures are not chosen on the text that they are measured on.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from transformers import AutoTokenizer

from qpa_hf.demo.arms import ARMS, BASE, N_EXAMPLES, SEED, trainer_for
from qpa_hf.demo.data import blocks
from qpa_hf.demo.fresh import perplexity

CANDIDATES = (1e-3, 3e-3, 1e-2, 3e-2)
STEPS = 160
RECORD = Path(__file__).with_name("learning_rates.json")


def main() -> None:
    """Train every arm once at each candidate, and write all the perplexities."""
    text = blocks(AutoTokenizer.from_pretrained(BASE), held_out=False)
    # The last eighth is for choosing; the held-out topics stay unseen, since the demo's own figures come from them.
    n_train = len(text) * 7 // 8
    found: dict[str, dict[str, float]] = {arm.name: {} for arm in ARMS}
    for rate in CANDIDATES:
        for arm in ARMS:
            model = arm.model()
            with tempfile.TemporaryDirectory() as folder:
                trainer_for(replace(arm, learning_rate=rate), model, Path(folder), text[:n_train], STEPS).train()
            found[arm.name][f"{rate:g}"] = perplexity(model, text[n_train:])
            print(arm.name, f"{rate:g}", found[arm.name][f"{rate:g}"], flush=True)
    record = {
        "validation_perplexity": found,
        "steps": STEPS,
        "seed": SEED,
        "settings": {arm.name: arm.fields for arm in ARMS},
        "examples_for_bases": N_EXAMPLES,
        "base_held_out_cross_entropy": json.loads((BASE / "pretraining.json").read_text(encoding="utf-8"))[
            "held_out_cross_entropy"
        ],
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "qpa-hf")},
    }
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for name, values in found.items():
        print(f"{name}: {min(values, key=values.__getitem__)}")


if __name__ == "__main__":
    main()
