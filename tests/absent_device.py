"""An accelerator that is not there: torch knows its name, tensors say that they are on it, and none of them has data.

Whole training steps run on it, and whatever a GPU would take badly is seen: an operation between two devices is an
error of torch's, and so is a tensor that stayed behind on the CPU; what makes the host wait, a read of a value or a
copy from one device to another, is noted with its place.

To register a device changes a process for good, so that tests do it in one of their own.
"""

import functools
import traceback
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter

CPU = torch.device("cpu")
HERE = Path(__file__).parent
IS_THERE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")  # from torch 2.8 on
READS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
COPIES = ("aten::_to_copy", "aten::to")
OURS = ("qpa_hf", "model_cards", "trainer_callbacks")
LIBRARIES = (*OURS, "peft", "transformers")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
AUTOCAST = "AutocastPrivateUse1"
_LIBRARIES = []  # what they register lasts as long as they do


def _with_autocast(operation):
    """Return an operation as autocast runs it on a GPU."""

    def run(*args, **kwargs):
        dtype = torch.get_autocast_dtype("absent")
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            cast = [x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]
            return operation(*cast, **kwargs)

    return run


class _Backend:
    """What torch asks a device's module for."""

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def get_rng_state(self, device=0):
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state, device=0):
        pass

    def manual_seed_all(self, seed):
        pass

    def _is_in_bad_fork(self):
        return False


@functools.cache
def device():
    """Return the device, which torch knows in this process from now on."""
    backend_registration._setup_privateuseone_for_python_backend("absent", _Backend())
    _LIBRARIES.append(every := torch.library.Library("_", "IMPL"))
    every.fallback(torch.library.fallthrough_kernel, AUTOCAST)
    _LIBRARIES.append(aten := torch.library.Library("aten", "IMPL"))
    for name in ("linear", "mm", "addmm", "bmm", "baddbmm", "matmul", "scaled_dot_product_attention"):
        aten.impl(name, _with_autocast(getattr(torch.ops.aten, name)), AUTOCAST)
    return torch.device("absent", 0)


@functools.cache
def fake_mode():
    """Return the mode in which tensors have no data: one, because tables that are kept belong to it."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def place():
    """Return which function makes the host wait, "peft: layer.forward" where it is another library's."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if frame.name.startswith("<"):  # a comprehension, in the function that it is for
            continue
        library = next((part for part in reversed(path.parts) if part in LIBRARIES), None)
        if library is not None and path.parent != HERE:
            where = f"{path.stem}.{frame.name}"
            return where if library in OURS else f"{library}: {where}"
    return "the test"


class Absent:
    """The device, and what it has been asked for.

    Args:
        answer: what a read finds, by its place; where there is none 1 for the package, 0 for PEFT.
    """

    def __init__(self, answer=None):
        self.device = device()
        self.fake = fake_mode()
        self.answer = answer or {}
        self.waits = []  # places

    def wait(self):
        """Note a wait, and return what a read finds."""
        self.waits.append(place())
        if self.waits[-1].startswith("transformers"):
            return len(self.waits) % 4 == 0  # whether a text is at its end: not at once, but soon
        return self.answer.get(self.waits[-1], int(not self.waits[-1].startswith("peft")))

    def event(self, *_, **__):
        """Return what stands for `torch.Event`, whose time the host has to wait for."""
        return mock.Mock(synchronize=self.wait, elapsed_time=lambda later: 1.0)

    def put(self, tensor):
        """Return a tensor like one that is on a CPU."""
        is_there = isinstance(tensor, FakeTensor) and tensor.device == self.device
        return tensor if is_there else self.empty(tensor.shape, tensor.stride(), tensor.dtype)

    def empty(self, shape, stride, dtype):
        """Return a tensor there."""
        with _disable_current_modes():
            meta = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        return FakeTensor(self.fake, meta, self.device)

    def move(self, module):
        """Move a module, and return it; whatever is no Parameter and no buffer stays behind."""
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        with self.running():
            module._apply(self.put)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        return module

    @contextmanager
    def running(self):
        """Within this block operations run there."""
        # Torch makes tensors of Python's numbers below all modes, where it would need the device itself.
        with mock.patch("torch.tensor", self._tensor), self.fake, _Watch(self):
            yield

    def _tensor(self, data, *, device=None, **kwargs):
        made = _tensor(data, device="cpu", **kwargs)
        if torch.device(device or "cpu").type == "cpu":
            return made
        if made.numel():
            self.wait()
        return self.put(made).requires_grad_(made.requires_grad)


_tensor = torch.tensor


class _Watch(TorchDispatchMode):
    """Finds what makes the host wait, also inside of the package's own operations."""

    def __init__(self, absent):
        super().__init__()
        self.absent = absent

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name
        if name in OPDEFS and func.namespace == "qpa_hf":  # written in Python: what it calls is to be seen, too
            with self:
                return OPDEFS[name]._init_fn(*args, **kwargs)
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors}
        if name in READS and self._is_unknown(name, tensors):
            answer = self.absent.wait() if "absent" in devices else 1
            return _python_type(name, args[0].dtype)(answer)
        target = _target(name, args, kwargs)
        source = args[1] if name == "aten::copy_" else args[0] if args else None
        if target is not None and target.type != source.device.type:
            names = [argument.name for argument in func._schema.arguments]
            if not (dict(zip(names, args, strict=False)) | kwargs).get("non_blocking"):
                self.absent.wait()
            if target.type == "absent" and name != "aten::copy_":  # torch would do it where it knows the numbers
                dtypes = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)]
                return self.absent.empty(args[0].shape, args[0].stride(), *dtypes or [args[0].dtype])
        elif (
            name in INDEXING
            and "absent" in devices
            and any(index.device == CPU for index in args[1] if index is not None)
        ):
            self.absent.wait()  # torch copies the index
        return func(*args, **kwargs)

    def _is_unknown(self, name, tensors):
        return any(not isinstance(x, FakeTensor) or x.constant is None for x in tensors)


def _target(name, args, kwargs):
    """Return where an operation that may copy a tensor puts it; None for others."""
    if name == "aten::copy_":
        return args[0].device
    if name not in COPIES:
        return None
    found = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, torch.device | torch.Tensor)]
    return getattr(found[0], "device", found[0]) if found else None


def _python_type(name, dtype):
    if name in ("aten::equal", "aten::is_nonzero") or dtype == torch.bool:
        return bool
    return float if dtype.is_floating_point else int
