"""How many parameters a method trains on one linear layer, before any generator: the paper's Table 2."""

from __future__ import annotations

from collections.abc import Callable

# Of a layer with n inputs and k outputs; s is the rank, the number of prefix vectors or the bottleneck's size.
COUNTS: dict[str, Callable[[int, int, int], int]] = {
    "lora": lambda n, k, s: s * (n + k),
    "dora": lambda n, k, s: s * (n + k) + k,
    "prefix": lambda n, k, s: s * n,
    "feed-forward": lambda n, k, s: 2 * n * s + s + n,
}


def method_count(method: str, n_in: int, n_out: int, size: int) -> int:
    """Return how many parameters a method trains on one linear layer.

    Table 2 of https://huggingface.co/papers/2410.09846 gives percentages of the layer, cut to two digits. The ones of
    LoRA and DoRA are those of the formulas. The prefix is 512 vectors as wide as the layer's input, of which the paper
    does not say what they become in a linear layer. The feed-forward adapter's fit a bottleneck of a quarter of the
    input's width, with biases or without.

    Args:
        method: the name of the method, a key of `COUNTS`.
        n_in: the width of the layer's input.
        n_out: the width of the layer's output.
        size: the rank, the number of prefix vectors, or the bottleneck's size.

    Raises:
        ValueError: for an unknown method.

    Example:
        >>> from qpa_hf import QPAConfig
        >>> method_count("prefix", 768, 50_257, 512)
        393216
        >>> QPAConfig.paper(1024).generator_spec(393_216).n_trainable
        72552
    """
    if method not in COUNTS:
        raise ValueError(f"`method`={method!r} is not known. Choose one of {', '.join(map(repr, COUNTS))}.")
    return COUNTS[method](n_in, n_out, size)
