"""Standard perplexity of texts under a causal language model, as an `evaluate` metric that loads by path, offline.

`evaluate.load("perplexity")` fetches a script from the Hub; `evaluate.load(qpa_hf.evaluation.METRIC_PATH)` does not.
"""

from typing import Any

import datasets
import evaluate

INPUTS = """Args:
    predictions: texts; their tokens are laid end to end, an end-of-text token before each.
    model_id: Hub id or directory of a causal language model, or of a plain adapter for one.
    block_length: tokens per block, 128 if not given; the first of a block is not predicted.
"""


class QPAPerplexity(evaluate.Metric):
    """exp of the mean cross-entropy per predicted token, without padding."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description=self.__doc__, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[str], model_id: str, block_length: int = 128) -> dict[str, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from qpa_hf.evaluation import perplexity, text_blocks

        blocks = text_blocks(AutoTokenizer.from_pretrained(model_id), predictions, block_length)
        return {"perplexity": perplexity(AutoModelForCausalLM.from_pretrained(model_id, dtype=torch.float32), blocks)}
