"""`QPAConfig`: every setting of quantum parameter adaptation, its default and its check."""

from __future__ import annotations

import difflib
import functools
import math
import os
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

from peft import LoraConfig
from peft.utils import CONFIG_NAME
from peft.utils.peft_types import PeftType

from qpa_hf.generator import SIZES, GeneratorSettings, GeneratorSpec, among, documented, setting
from qpa_hf.messages import whole_number
from qpa_hf.schema import adapter_settings, naming
from qpa_hf.tuners.qpa.checks import BASES, check_bases, check_kinds_of_lora, check_lora
from qpa_hf.tuners.qpa.machine import MACHINE, recorded
from qpa_hf.tuners.qpa.refusals import refuse
from qpa_hf.tuners.qpa.saved import check_generator_written, check_saved
from qpa_hf.tuners.qpa.slots import Layout
from qpa_hf.tuners.registration import saved

# Table 1 of https://huggingface.co/papers/2410.09846 lists [32, 64, 128, 128, 64, 32, n_mlp]; the published code has
# one more layer of 32, and only with it do the paper's parameter counts come out.
PAPER_WIDTHS = (32, 64, 128, 128, 64, 32, 32)


@documented
@dataclass
class QPAConfig(GeneratorSettings, LoraConfig):
    """Configuration of quantum parameter adaptation: a LoRA whose tensors a generator produces.

    All of LoRA's own fields keep their meaning (`r`, `lora_alpha`, `target_modules`, `use_dora`, ...). One generator
    serves all targeted layers together: their tensors are laid end to end and cut into chunks.

    Source: Liu et al., ICLR 2025 (https://huggingface.co/papers/2410.09846). `QPAConfig.paper` has its settings.

    Args:
        {settings}

    Raises:
        ValueError: for a value out of range, or a LoRA variant that cannot be generated.
        TypeError: for a value of the wrong kind, or an unknown field.
        ImportError: if the backend is "ibm" and the extra `noise` is not installed.

    Example:
        >>> QPAConfig(r=4, target_modules=["lm_head"]).generator_spec(204_100).n_qubits
        10
    """

    lora_alpha: int = setting(
        None,
        "LoRA's own. 8; with gradient bases what scales every layer by 1: `r`. These take up what a layer's own rank "
        "changes, so that layers in `rank_pattern` have the same scale.",
    )
    basis: str = setting(
        "kaiming",
        '`"kaiming"` generates both factors of each layer. `"gradient"` freezes A and U, found once by '
        "`initialize_basis` from the gradient's singular vectors, and generates only the core R, shape (r, r), of "
        "B = U R: r * r numbers a layer.",
        among(BASES),
        label="basis",
    )
    n_stages: int = setting(
        1,
        "How often gradient bases are found in a run. Each stage has r / n_stages rows of A and a core of that side; "
        "`refresh_basis` begins the next one, and what was generated before stays as it is. All parameters are "
        "trained anew in every stage.",
        whole_number,
        label="stages",
    )
    layout: list[Any] | None = setting(
        None,
        "Written by the model: name and shape of each generated tensor, in the generator's order. Not to be set by "
        "hand.",
    )

    def __post_init__(self) -> None:
        check_kinds_of_lora(self)
        refuse(self)  # before PEFT makes configurations of a variant's settings
        LoraConfig.__post_init__(self)
        self.peft_type = PeftType("QPA")
        self.check()
        if self.lora_alpha is None:
            self._set_alphas()
        if self.basis == "gradient":
            # What was best: benchmarks/LOG.md. A chunk is half a core.
            side = self.r // self.n_stages
            self.set_sizes({"chunk_size": max(1, side * side // 2), "n_circuits": 4, "circuit_depth": 2})
        self.set_sizes(SIZES)
        if self.trainable_token_indices is None:
            # PEFT saves the whole base embedding beside an adapter that targets `lm_head`, unless it believes that
            # tokens are trained; then it does so only where the vocabulary was resized, which is what we want.
            self.trainable_token_indices = {}

    def check(self) -> None:
        """Raise if a setting, of the generator, of its bases or of LoRA, has a value that cannot be."""
        check_lora(self)
        super().check()
        check_bases(self)

    def _set_alphas(self) -> None:
        """Set PEFT's default; for gradient bases, which have their scale, what multiplies each layer's update by 1."""
        if self.basis == "kaiming":
            self.lora_alpha = 8
            return
        self.lora_alpha = math.sqrt(self.r) if self.use_rslora else self.r  # type: ignore[assignment]

    @classmethod
    def paper(cls, chunk_size: int = 2048, **kwargs: Any) -> QPAConfig:
        """Return the paper's generator for one of its chunk sizes; keyword arguments override or add LoRA's fields.

        Trainable counts are exactly those of the paper. Two things in the authors' code are not copied: basis bits
        drawn at random in every forward pass, and A and B named the other way round.

        Example:
            >>> QPAConfig.paper(2048).generator_spec(204_100).n_trainable
            106264
        """
        settings: dict[str, Any] = {
            "n_circuits": 1,
            "circuit_depth": 8,
            "features": "authors",
            "use_basis_bits": True,
            "mapping_widths": PAPER_WIDTHS,
            "start": "authors",
        }
        return cls(chunk_size=chunk_size, **(settings | kwargs))

    def generator_spec(self, n_values: int) -> GeneratorSpec:
        """Return the sizes of the generator.

        Args:
            n_values: number of values to generate.
        """
        return GeneratorSpec.of(self, n_values)

    @property
    def is_loaded(self) -> bool:
        """Whether it is a checkpoint's, however it was read, and no model in this process has taken it yet."""
        return self.layout is not None and not isinstance(self.layout, Layout)

    @classmethod
    def from_json_file(cls, path_json_file: str, **kwargs: Any) -> dict[str, Any]:
        """Return what a file of a configuration holds, once it is known to be one.

        Raises:
            ValueError: naming the file.
        """
        adapter_settings(*os.path.split(path_json_file))
        return super().from_json_file(path_json_file, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any) -> Any:
        """Load from a directory or the Hub; a local checkpoint that was cut short is refused at once.

        Args:
            pretrained_model_name_or_path: the directory or Hub id.
            subfolder: below it.
            kwargs: `device`, `device_folder`, `max_jobs` and `max_shots`, which no file can set, to measure with the
                adapter in this process (pass the result as `config` to `PeftModel.from_pretrained`); and PEFT's own.

        Raises:
            ValueError: if the configuration has values that cannot be, or the weights beside a local one are
                incomplete or others than it describes.
        """
        folder = os.path.join(pretrained_model_name_or_path, subfolder or "")
        machine = {name: kwargs.pop(name) for name in MACHINE if name in kwargs}
        with naming(os.path.join(folder, CONFIG_NAME)) if os.path.isdir(folder) else nullcontext():
            config = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        if isinstance(config, cls):
            check_saved(config, folder)
        if machine:
            for name, value in machine.items():
                setattr(config, name, value)
            config.check()
        return config

    def __repr__(self) -> str:
        """Return what differs from the defaults; all settings are in `to_dict`."""
        sizing: dict[str, Any] = {
            "r": self.r,
            "basis": self.basis,
            "n_stages": self.n_stages,
        }  # what other defaults follow from
        plain, sized = type(self)(), type(self)(**sizing)
        changed = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.init and f.name != "layout"
            if getattr(self, f.name) != getattr(plain if f.name in sizing else sized, f.name)
        }
        shown = {name: sorted(value) if isinstance(value, set) else value for name, value in changed.items()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they are saved: without what belongs to this computer."""
        return recorded(super().to_dict())

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save as PEFT does, and let others know: a trained adapter's card takes the place of PEFT's unfilled one.

        Raises:
            ValueError: if the weights that were just written there lack a part of the generator.
        """
        if self.layout:
            check_generator_written(self, save_directory)  # by PEFT, just before
        super().save_pretrained(save_directory, **kwargs)
        saved(save_directory, self)


def _name_unknown_fields(init: Any) -> Any:
    """Wrap the dataclass's __init__ so that a misspelt field is answered with the nearest known one.

    What a file says of this computer's devices is left out there, too: PEFT reads files in several places, and each
    of them ends here, with the method's name as JSON has it.
    """
    known = [f.name for f in fields(QPAConfig) if f.init]

    @functools.wraps(init)
    def wrapped(self: QPAConfig, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean `{near[0]}`?" if near else "See `help(QPAConfig)` for the known ones."
                # PEFT, when it loads what a newer version saved, drops the fields that an error in these words names.
                raise TypeError(f"QPAConfig got an unexpected keyword argument '{name}'. {hint}")
        if type(kwargs.get("peft_type")) is str:  # a member of `PeftType` comes from a configuration in this process
            kwargs = recorded(kwargs)
        init(self, *args, **kwargs)

    return wrapped


QPAConfig.__init__ = _name_unknown_fields(QPAConfig.__init__)  # type: ignore[method-assign]
