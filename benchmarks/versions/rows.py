"""The rows of the table: which versions are set, and what of the others is taken."""

from __future__ import annotations

from dataclasses import dataclass

# A build of torch is several GB: rows of one torch stand together, and its files go with the last of them.
PINNED_TORCH = "torch==2.13.0"
TOOLS = ("certifi", "hypothesis", "lz4", "pytest", "pytest-xdist", "scikit-learn", "setuptools")  # of the tests


@dataclass(frozen=True)
class Row:
    """One set of versions, the same on each Python that has wheels for it.

    Args:
        name: its name in the table.
        pins: what is set, as requirements.
        take: which of the allowed versions the other direct requirements get, "lowest", "highest" or "tested" (those
            of constraints.txt, which hold for all that is installed).
        pythons: minor versions of Python 3 that it is run on; None is each that the machine has.
        beside: requirements of what else is tried there.
        tools: what is installed to run the tests.
        has_sources: whether a package may be built from its source, for want of a wheel.
    """

    name: str
    pins: tuple[str, ...] = ()
    take: str = "highest"
    pythons: tuple[int, ...] | None = None
    beside: tuple[str, ...] = ()
    tools: tuple[str, ...] = TOOLS
    has_sources: bool = False

    @property
    def torch(self) -> str:
        """What decides which torch it has."""
        return next((pin for pin in self.pins if pin.startswith("torch")), self.take)


ROWS = (
    Row("lowest", take="lowest"),
    Row("torch 2.6", ("torch==2.6.0",)),
    Row("newest"),
    Row("torch 2.15, transformers 5.24", ("torch==2.15.0", "transformers==5.24.0"), pythons=(13,)),
    Row("tested", (PINNED_TORCH,), take="tested", pythons=(11,)),
    Row("transformers 4.57", (PINNED_TORCH, "transformers==4.57.6", "peft==0.21.2")),
    Row("transformers 5.0, hub 1.3", (PINNED_TORCH, "transformers==5.0.0", "huggingface_hub==1.3.0")),
    Row("hub 1.33", (PINNED_TORCH, "huggingface_hub==1.33.0")),
    *(Row(f"peft {version}", (PINNED_TORCH, f"peft=={version}")) for version in ("0.18.1", "0.19.1", "0.20.0")),
    Row("torch 2.9", ("torch==2.9.1",)),
)
# What fits into the gate: both ends of all ranges but torch's, whose builds take minutes to download.
QUICK_ROWS = (
    Row("lowest but torch", (PINNED_TORCH,), take="lowest", pythons=(11,)),
    Row("newest but torch", (PINNED_TORCH,), pythons=(11,)),
)
