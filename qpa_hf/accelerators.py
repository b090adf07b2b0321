"""Accelerators: what torch, as it is installed, cannot do on them, and what makes the host wait for them."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

# Source: PyTorch's release notes and its table of builds, RELEASE.md.
OF_VOLTA = (
    "torch 2.10 is the last on PyPI that has them, and the builds for CUDA 12.6 have them up to torch 2.14. Install "
    "one of these, the latter from the index https://download.pytorch.org/whl/cu126."
)
INTEGRATED = {(5, 3), (6, 2), (7, 2), (8, 7)}
OF_OTHERS = "Install a torch that is built for it: https://pytorch.org/get-started/locally."


def off_mps(tensor: Tensor) -> Tensor:
    """Return a tensor, moved to the CPU from Apple's MPS, which has neither float64 nor decompositions of matrices."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


def sent(tensor: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor of the CPU where another one is, without waiting for what was asked of that device before.

    Args:
        tensor: what to send; nobody may write into it afterwards.
        like: a tensor on the device.
        dtype: type of the numbers there; that of `tensor` if None.
    """
    return tensor.to(like.device, dtype or tensor.dtype, non_blocking=like.device.type != "mps")


class KnownNumber:
    """A whole number in a module's tensor, which the device is asked for only if somebody else has written it.

    Who writes through `.data` is not seen.
    """

    def __init__(self) -> None:
        self._of: tuple[Tensor, int] | None = None  # the tensor, and how often it was written until it was read
        self._number = 0

    def of(self, tensor: Tensor) -> int:
        """Return the number that a tensor holds."""
        if not self.is_of(tensor):
            self._keep(tensor, int(tensor))
        return self._number

    def is_of(self, tensor: Tensor) -> bool:
        """Return whether a tensor's number is known."""
        return self._of is not None and self._of[0] is tensor and self._of[1] == tensor._version

    def add_one(self, tensor: Tensor) -> None:
        """Count on, in place."""
        is_known = not torch.compiler.is_compiling() and self.is_of(tensor)
        with torch.no_grad():
            tensor.add_(1)
        if is_known:
            self._keep(tensor, self._number + 1)

    def on_cpu(self, tensor: Tensor) -> Tensor:
        """Return the number in a tensor on the CPU; a compiled graph asks the device in its turn."""
        if torch.compiler.is_compiling() or tensor.device.type == "cpu":
            return tensor
        return torch.tensor(self.of(tensor))

    def _keep(self, tensor: Tensor, number: int) -> None:
        self._of = None if tensor.is_inference() else (tensor, tensor._version)
        self._number = number


def _runs(code: str, capability: tuple[int, int]) -> bool:
    """Return whether code that was compiled for one architecture runs on another.

    Machine code ("sm_80") runs from its minor version on, within its major one, but an integrated GPU takes only its
    own; PTX ("compute_80"), which the driver compiles, runs on all that is newer. With the suffix "a" (sm_90a) neither
    runs anywhere else.
    """
    kind, _, number = code.partition("_")
    digits = number.rstrip("af")
    major, minor = int(digits[:-1]), int(digits[-1])
    if number.endswith("a") or (kind == "sm" and not INTEGRATED.isdisjoint({(major, minor), capability})):
        return (major, minor) == capability
    if kind == "compute" and not number.endswith("f"):
        return (major, minor) <= capability
    return major == capability[0] and minor <= capability[1]


@functools.cache
def missing_kernels(device: torch.device) -> str | None:
    """Return a sentence where torch has no kernels for a GPU, else None.

    Args:
        device: any; of CUDA's, the current one if it has no index.
    """
    known = torch.cuda.get_arch_list() if device.type == "cuda" and torch.version.cuda else []
    if not known:  # another kind of device, or a build that does not tell
        return None
    capability = torch.cuda.get_device_capability(device)
    if any(_runs(code, capability) for code in known):
        return None
    architecture = "sm_{}{}".format(*capability)
    return (
        f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)}, whose architecture is "
        f"{architecture}: it is built for {', '.join(known)}. {OF_VOLTA if capability == (7, 0) else OF_OTHERS}"
    )


def check_kernels(device: torch.device) -> None:
    """Raise RuntimeError where torch has no kernels for a GPU."""
    if missing := missing_kernels(device):
        raise RuntimeError(missing)


@functools.cache
def warn_of_missing_kernels(device: torch.device) -> None:
    """Warn once for each GPU that torch has no kernels for: what it does there fails, and does not say why."""
    if missing := missing_kernels(device):
        warnings.warn(missing, stacklevel=2)
