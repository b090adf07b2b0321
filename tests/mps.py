"""A stand-in for Apple's MPS where there is none: tensors that say they are there, computed on the CPU.

As on MPS, no tensor has 64-bit floating point numbers, and no matrix is decomposed.
"""

from contextlib import contextmanager

import torch
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

MPS, CPU = torch.device("mps"), torch.device("cpu")
MISSING = ("linalg_eigh", "linalg_qr", "linalg_svd")


class OnMps(torch.Tensor):
    """A tensor on MPS.

    Args:
        numbers: the same tensor on the CPU.
    """

    device = property(lambda self: MPS)

    @staticmethod
    def __new__(cls, numbers):
        if numbers.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"Cannot convert a MPS Tensor to {numbers.dtype}, which MPS does not support.")
        layout = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype, device=CPU, **layout)

    def __init__(self, numbers):
        self.numbers = numbers

    def __repr__(self):
        return f"OnMps({self.numbers})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if any(name in func._schema.name for name in MISSING):
            raise NotImplementedError(f"{func} is not implemented for MPS.")
        if func.namespace == "qpa_hf":  # written in Python: what it calls is to be seen, too
            with _Moves():
                return OPDEFS[func._schema.name]._init_fn(*args)
        written = {}  # what is changed in place is returned as it is

        def numbers(tensor):
            written[id(tensor.numbers)] = tensor
            return tensor.numbers

        found = func(*tree_map_only(OnMps, numbers, args), **tree_map_only(OnMps, numbers, kwargs or {}))
        return tree_map_only(torch.Tensor, lambda x: written[id(x)] if id(x) in written else OnMps(x), found)


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, is_to_mps):
        ctx.is_to_mps = is_to_mps
        return OnMps(tensor.detach().clone()) if is_to_mps else tensor.numbers.clone()

    @staticmethod
    def backward(ctx, grad):
        return _moved(grad, CPU if ctx.is_to_mps else MPS), None


def _moved(tensor, device):
    return tensor if tensor.device == device else _Move.apply(tensor, device.type == "mps")


class _Moves(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cpu:
            return _moved(args[0], CPU)
        if func is torch.Tensor.to:
            return self._to(*args, **kwargs)
        if func is torch.tensor and kwargs.get("device") == MPS:  # which asks MPS to begin whatever the mode
            return OnMps(func(*args, **(kwargs | {"device": CPU})))
        return func(*args, **kwargs)

    def _to(self, tensor, *where, **kwargs):
        if where and isinstance(where[0], torch.Tensor):
            where = (where[0].device, where[0].dtype, *where[1:])
        device, dtype, *_ = torch._C._nn._parse_to(*where, **{k: v for k, v in kwargs.items() if k != "copy"})
        converted = tensor if dtype is None else torch.Tensor.to(tensor, dtype)  # where it is, as on MPS
        return _moved(converted, device or tensor.device)


class _New(TorchDispatchMode):
    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # else torch asks MPS to begin before it makes a tensor there

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("device") != MPS:
            return func(*args, **kwargs)
        return OnMps(func(*args, **(kwargs | {"device": CPU})))


@contextmanager
def mps():
    """Within this block, tensors are made on and moved to MPS, and modules get new parameters when they are moved."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Moves(), _New():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
