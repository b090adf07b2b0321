"""Load a plain classifier's adapter as a user without qpa_hf does, and write its logits beside INPUTS.

`load_classifier.py AUTO BASE ADAPTER INPUTS`, where INPUTS is a file of torch's with one batch and `id2label`.
"""

import sys

import peft
import torch
import transformers

if __name__ == "__main__":
    auto, base, adapter, inputs = sys.argv[1:]
    batch = torch.load(inputs)
    model = getattr(transformers, auto).from_pretrained(
        base, id2label=batch.pop("id2label"), dtype=torch.float32, ignore_mismatched_sizes=True
    )
    model.config.pad_token_id = batch.pop("pad_token_id", None)
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        torch.save(model(**batch).logits, f"{inputs}.logits")
    assert "qpa_hf" not in sys.modules
