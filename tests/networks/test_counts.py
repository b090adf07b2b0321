"""The trainable percentages of the paper's Table 2, where its methods are defined."""

import pytest

from qpa_hf import QPAConfig
from qpa_hf.networks.counts import method_count

GPT2, GEMMA = (768, 50_257), (2048, 256_000)
# Method, layer, size, the paper's chunk size, percentages of the layer for the method and for QPA, cut to two digits.
# The best DoRA of each model has another rank than the one that is generated (4), so its two rows are two cases.
TABLE = {
    "LoRA, GPT-2": ("lora", GPT2, 4, 2048, 0.52, 0.27),
    "LoRA, Gemma": ("lora", GEMMA, 4, 4096, 0.19, 0.03),
    "DoRA, GPT-2": ("dora", GPT2, 32, None, 4.36, None),
    "DoRA, Gemma": ("dora", GEMMA, 1, None, 0.09, None),
    "DoRA generated, GPT-2": ("dora", GPT2, 4, 2048, None, 0.27),
    "DoRA generated, Gemma": ("dora", GEMMA, 4, 8192, None, 0.05),
    "prefix, GPT-2": ("prefix", GPT2, 512, 1024, 1.01, 0.18),
    "prefix, Gemma": ("prefix", GEMMA, 512, 1024, 0.20, 0.01),
    "feed-forward, GPT-2": ("feed-forward", GPT2, 768 // 4, 1024, 0.76, 0.18),
    "feed-forward, Gemma": ("feed-forward", GEMMA, 2048 // 4, 1024, 0.40, 0.01),
}


@pytest.mark.parametrize("case", TABLE)
def test_percentages_are_the_papers(case):
    method, layer, size, chunk_size, direct, generated = TABLE[case]
    count = method_count(method, *layer, size)
    counts = {direct: count}
    if chunk_size is not None:
        counts[generated] = QPAConfig.paper(chunk_size).generator_spec(count).n_trainable
    for percentage, trained in counts.items():
        if percentage is not None:
            assert 10_000 * trained // (layer[0] * layer[1]) == round(100 * percentage)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="`method`='ia3' is not known"):
        method_count("ia3", 4, 4, 1)
