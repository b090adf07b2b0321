"""What a table of adapters, generated modules and heads gives, to the bit: printed as JSON, and kept in `pinned.json`.

The table is equal before and after each change of the code's form. Bits depend on the machine and on the versions of
torch and Numba, so that a digest counts where these are the ones of the table; elsewhere the numbers have to be close.
"""

import hashlib
import json
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from helpers import adapted, trainable
from models import build, output
from peft import IA3Config, get_peft_model, get_peft_model_state_dict
from torch import nn

from qpa_hf import Ansatz, QPAConfig, generate, register_ansatz
from qpa_hf.heads import QuantumHead

PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "flags")  # lines of Linux about it
SHOWN = 2  # numbers of a result that are kept beside its digest

LINEAR = {"target_modules": ["q_proj", "v_proj"]}
MAPPED = {"mapping_widths": (8, 6), "activation": "gelu"}
GRADIENT = {"basis": "gradient", "chunk_size": 4}
OWN = Ansatz(("z", "y", "x"), "cz_all_pairs")

ADAPTERS = {
    "default": {},
    "paper": {"features": "authors", "use_basis_bits": True, "start": "authors", **MAPPED},
    "probability": {"features": "probability"},
    "frozen angles": {"train_circuit": False},
    **{source: {"source": source} for source in ("random", "free", "bits", "direct")},
    **{f"{source} with bits": {"source": source, "use_basis_bits": True} for source in ("random", "free")},
    **{ansatz: {"ansatz": ansatz} for ansatz in ("rx_cnot", "rx_rz_cnot", "ry_rz_cnot", "own")},
    **{activation: {"mapping_widths": (8,), "activation": activation} for activation in ("none", "relu", "tanh")},
    "silu": {"mapping_widths": (8,), "activation": "silu", "start": "authors"},
    "dora": {"use_dora": True},
    "dora, authors' start": {"use_dora": True, "start": "authors"},
    "rank pattern": {"rank_pattern": {"v_proj": 8}, "use_rslora": True},
    "lora bias": {"lora_bias": True},
    "gaussian": {"init_lora_weights": "gaussian", "init_seed": 3, "save_init": False},
    "one chunk": {"chunk_size": 10_000},
    "deep": {"chunk_size": 2, "circuit_depth": 6},
    "gradient": GRADIENT,
    "gradient, stages": GRADIENT | {"n_stages": 2},
    "gradient, direct": GRADIENT | {"source": "direct"},
    "gradient, dora": GRADIENT | {"use_dora": True},
    "shots": {"shots": 100},
    "shots a state": {"shots": "20x", "gradient": "spsa"},
    "shots, exact gradient": {"shots": "2x", "gradient": "exact"},
    "parameter shift": {"gradient": "parameter_shift"},
    "noise": {"noise": "torino"},
    "noise and shots": {"noise": "fez", "shots": "20x", "gradient": "spsa"},
    "noise, two rotations": {"noise": "torino", "ansatz": "rx_rz_cnot", "gradient": "spsa"},
    **{name: {"shots": 10, "interpolation": name} for name in ("network", "blend", "laplace", "neighbours", "random")},
}
MODELS = {
    "gpt2 tied": ("gpt2", {"target_modules": ["wte", "lm_head"], "fan_in_fan_out": True}),
    "convolution": ("mlp", {"target_modules": ["conv", "hidden", "embedding"]}),
    "experts": ("mixture", {"target_modules": [], "target_parameters": ["experts.weights"]}),
    "saved modules": ("bert", {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
}
MODULES = {
    "identity": {},
    "authors": {"start": "authors"},
    "authors, mapped": {"start": "authors", "source": "random", **MAPPED},
    "rebuilt": {"save_init": False},
    "shots": {"shots": "20x", "gradient": "spsa"},
}
HEADS = {
    "exact": {},
    "shots": {"shots": 100},
    "connected": {"connectivity": 2, "n_encoders": 2, "fusion": "mean"},
    "noise": {"noise": "torino", "shots": 100},
}


def machine():
    """Return what the bits depend on.

    Of a processor that is its model and what it can do: virtual machines give many models one name.
    """
    kind = "\n".join(sorted({line for line in _cpu() if line.startswith(PROCESSOR)})) or platform.processor()
    found = {"cpu": hashlib.sha256(kind.encode()).hexdigest()[:16], "isa": torch.backends.cpu.get_cpu_capability()}
    for name in ("torch", "numba", "peft", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _cpu():
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def _pinned(tensors):
    """Return names, a digest of all numbers, and a few of them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    few = {name: [float(x) for x in tensors[name].detach().flatten()[:SHOWN]] for name in sorted(tensors)[:SHOWN]}
    return {"digest": digest.hexdigest()[:16], "numbers": few}


def _gradients(model, forward):
    """Return the gradients of all that is trained, after one backward pass in training mode."""
    model.train()
    model.zero_grad()
    forward().square().mean().backward()
    model.eval()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _read(model):
    """Return every tensor of LoRA's as its layers read it."""
    found = {}
    for name, module in model.named_modules():
        for kind in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"):
            entry = getattr(module, kind, {})
            if "default" in entry:
                value = entry["default"]
                found[f"{name}.{kind}"] = getattr(value, "weight", value)
    return found


def adapter(model_name, settings):
    """Return keys and bits of an adapter."""
    model = adapted(model_name, **settings)
    for p in trainable(model):
        p.requires_grad_(True)
    state = model.state_dict()
    own = {name: value for name, value in state.items() if "lora_qpa" in name and isinstance(value, torch.Tensor)}
    return {
        "keys": sorted(name for name in state if "lora_qpa" in name),
        "state": _pinned(own),
        "read": _pinned(_read(model)),
        "logits": _pinned({"logits": output(model, model_name)}),
        "gradients": _pinned(_gradients(model, lambda: output(model, model_name))),
        "after": _pinned(_read(model)),
    }


def module(settings):
    """Return keys and bits of a generated module."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(12, 20), nn.LayerNorm(20), nn.Linear(20, 6))
    settings = {"chunk_size": 16, "n_circuits": 2, "circuit_depth": 2} | settings
    generate(net, **settings)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng))
    x = torch.randn(3, 12, generator=rng)
    return {
        "keys": sorted(net.state_dict()),
        "read": _pinned({f"{i}.{n}": getattr(net[i], n) for i in range(3) for n in ("weight", "bias")}),
        "gradients": _pinned(_gradients(net, lambda: net(x))),
    }


def method():
    """Return keys and bits of another PEFT method's generated tensors."""
    model = get_peft_model(build("llama"), IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    generate(model, chunk_size=8, n_circuits=2, circuit_depth=2)
    found = get_peft_model_state_dict(model)
    return {"keys": sorted(found), "logits": _pinned({"logits": output(model.eval(), "llama")})}


def head(settings):
    """Return keys and bits of a classifier."""
    net = QuantumHead(n_features=12, n_qubits=4, **settings).eval()
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    return {
        "keys": sorted(net.state_dict()),
        "state": _pinned(net.state_dict()),
        "logits": _pinned({"logits": net(x)}),
        "gradients": _pinned(_gradients(net, lambda: net(x))),
    }


def configuration():
    """Return the keys of `adapter_config.json`, and what stands there by default."""
    return {name: repr(value) for name, value in sorted(QPAConfig().to_dict().items()) if name != "peft_version"}


def found():
    """Return everything that is pinned, by kind and name."""
    return {
        **{f"adapter: {name}": adapter("llama", LINEAR | settings) for name, settings in ADAPTERS.items()},
        **{f"adapter: {name}": adapter(*case) for name, case in MODELS.items()},
        **{f"module: {name}": module(settings) for name, settings in MODULES.items()},
        "method: IA3": method(),
        **{f"head: {name}": head(settings) for name, settings in HEADS.items()},
        "configuration": configuration(),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # some generators are larger than what they generate
    torch.set_num_threads(1)
    register_ansatz("own", OWN)
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in found().items()]
    print(f'{{"machine": {json.dumps(machine())},\n"found": {{\n' + ",\n".join(lines) + "\n}}")
