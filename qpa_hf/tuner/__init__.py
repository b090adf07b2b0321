"""QPA as a PEFT method: its configuration, its model, and the registration that happens on import."""

from qpa_hf.tuner.registration import extend_peft_type  # isort: skip  (QPAConfig needs the enum member)

extend_peft_type("QPA")

from qpa_hf.tuner.basis import initialize_basis, refresh_basis  # noqa: E402
from qpa_hf.tuner.config import QPAConfig  # noqa: E402
from qpa_hf.tuner.model import QPAModel  # noqa: E402
from qpa_hf.tuner.registration import register  # noqa: E402

register("QPA", QPAConfig, QPAModel, prefix="lora_")

__all__ = ["QPAConfig", "QPAModel", "initialize_basis", "refresh_basis"]
