"""The feed-forward adapter, which PEFT lacks: a bottleneck with a nonlinearity before a linear layer."""

from qpa_hf.tuners.registration import extend_peft_type  # isort: skip  (BottleneckConfig needs the enum member)

extend_peft_type("BOTTLENECK")

from qpa_hf.tuners.bottleneck.config import BottleneckConfig  # noqa: E402
from qpa_hf.tuners.bottleneck.model import BottleneckModel  # noqa: E402
from qpa_hf.tuners.registration import register  # noqa: E402

register("BOTTLENECK", BottleneckConfig, BottleneckModel, prefix="bottleneck_")

__all__ = ["BottleneckConfig", "BottleneckModel"]
