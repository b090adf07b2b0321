"""`BottleneckConfig`: the settings of the feed-forward adapter."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig
from peft.utils.peft_types import PeftType

from qpa_hf.generator import ACTIVATIONS
from qpa_hf.messages import one_of, truth_value, whole_number
from qpa_hf.schema import check_kinds, check_task


@dataclass
class BottleneckConfig(PeftConfig):
    """Configuration of the feed-forward adapter: x + U f(D x + a) + b in the place of a linear layer's input x.

    Source: Houlsby et al. (https://arxiv.org/abs/1902.00751), here before the layer, as in the paper on quantum
    parameter adaptation. U and b start at zero, so that nothing changes at step 0.

    Its Table 2 fits a bottleneck of a quarter of the layer's width. Its other method, a prefix "prepended to the input
    of the target linear layer", is not defined well enough to be built, for a linear layer has no positions that
    attend to a prefix; use PEFT's `PrefixTuningConfig` with `qpa_hf.generate`.

    Args:
        bottleneck_size (`int`, *optional*, defaults to 64): Rows of D, columns of U.
        activation (`str`, *optional*, defaults to `"relu"`): f: `"relu"`, `"gelu"`, `"silu"`, `"tanh"` or `"none"`.
            Without one the adapter is a LoRA, and `materialize` writes it as such.
        use_bias (`bool`, *optional*, defaults to `True`): Whether there are a and b.
        target_modules (`list[str]` or `str`, *optional*): Linear layers, named as for LoRA; PEFT's choice for LoRA if
            left out.
        exclude_modules (`list[str]` or `str`, *optional*): Layers to leave out.
        modules_to_save (`list[str]`, *optional*): Other modules to train and save.
        layers_to_transform (`list[int]` or `int`, *optional*): Only blocks of these numbers.
        layers_pattern (`list[str]` or `str`, *optional*): Name of the blocks' list, if it is no usual one.
        init_seed (`int`, *optional*, defaults to 0): D is drawn from this seed.

    Raises:
        ValueError: for a size below 1, a negative seed or an unknown activation.
        TypeError: if `use_bias` is no truth value.

    Example:
        >>> from peft import get_peft_model
        >>> from transformers import AutoModelForCausalLM, GPT2Config
        >>> base = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=64))
        >>> config = BottleneckConfig(bottleneck_size=4, target_modules=["mlp.c_fc"], task_type="CAUSAL_LM")
        >>> model = get_peft_model(base, config)
        >>> sum(p.numel() for p in model.parameters() if p.requires_grad)  # 4 x 16 and 16 x 4 weights, 4 + 16 biases
        148
    """

    bottleneck_size: int = field(default=64, metadata={"help": "Rows of D, columns of U."})
    activation: str = field(default="relu", metadata={"help": f"Between D and U, one of {tuple(ACTIVATIONS)}."})
    use_bias: bool = field(default=True, metadata={"help": "Whether D and U have biases."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Linear layers to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to leave out."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Other modules to train and save."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Numbers of the blocks."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the blocks' list."})
    init_seed: int = field(default=0, metadata={"help": "D is drawn from this seed."})

    def __post_init__(self) -> None:
        check_task(self)
        check_kinds(vars(self), BottleneckConfig, leave=("bottleneck_size", "init_seed", "use_bias", "activation"))
        super().__post_init__()
        self.peft_type = PeftType("BOTTLENECK")
        self.bottleneck_size = whole_number("bottleneck_size", self.bottleneck_size)
        self.init_seed = whole_number("init_seed", self.init_seed, least=0)
        truth_value("use_bias", self.use_bias)
        one_of("activation", self.activation, ACTIVATIONS)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
