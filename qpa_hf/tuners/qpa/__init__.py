"""QPA as a PEFT method: its configuration, its model, and the registration that happens on import."""

from qpa_hf.tuners.registration import extend_peft_type  # isort: skip  (QPAConfig needs the enum member)

extend_peft_type("QPA")

from qpa_hf.tuners.qpa.config import QPAConfig  # noqa: E402
from qpa_hf.tuners.qpa.gradient_basis import initialize_basis, refresh_basis  # noqa: E402
from qpa_hf.tuners.qpa.model import QPAModel  # noqa: E402
from qpa_hf.tuners.registration import name_damaged_configurations, name_full_disks, register  # noqa: E402

register("QPA", QPAConfig, QPAModel, prefix="lora_")
name_damaged_configurations()
name_full_disks()

__all__ = ["QPAConfig", "QPAModel", "initialize_basis", "refresh_basis"]
