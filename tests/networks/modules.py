"""Small networks of every kind that `generate` must serve, the same weights in every process."""

import torch
from models import build, inputs
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from qpa_hf import generate

SETTINGS = {"chunk_size": 8, "n_circuits": 2, "circuit_depth": 2}


class Loops(nn.Module):
    """Calls all of its children one after the other, and the layers of a list likewise."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x):
        for child in self.children():
            for layer in child if isinstance(child, nn.ModuleList) else [child]:
                x = layer(x).tanh()
        return x


class Tied(nn.Module):
    """An embedding whose weight is the head's too, and a norm."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.norm(self.embedding(ids)))


class Transposed(nn.Module):
    """An embedding, and its transpose in the same memory."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.head = nn.Parameter(self.embedding.weight.t())

    def forward(self, ids):
        return self.embedding(ids) @ self.head


class Bare(nn.Module):
    """Parameters of its own, in a list and in a dictionary, and no child."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(8))
        self.many = nn.ParameterList([torch.randn(8, 8) for _ in range(3)])
        self.named = nn.ParameterDict({"down": torch.randn(8, 4), "up": torch.randn(4, 8)})

    def forward(self, x):
        for weight in self.many:
            x = (x @ weight).tanh()
        for weight in self.named.values():
            x = x @ weight
        return x * self.scale


class Recurrent(nn.Module):
    """Two LSTM layers in both directions, and a head."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.lstm(x.view(1, *x.shape))[0][0])


def cnn():
    """Return convolutions with a norm that has buffers."""
    pool = nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), pool)


def half():
    """Return a network in bfloat16 behind a cast."""
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).to(torch.bfloat16)


MODULES = {
    "sequential": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)),
    "loops over children": Loops,
    "one layer": lambda: nn.Linear(8, 30),
    "convolution": cnn,
    "recurrent": Recurrent,
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0),
    "tied": Tied,
    "tied, transposed": Transposed,
    "lists of parameters": Bare,
    "weight norm": lambda: nn.Sequential(weight_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 4)),
    "spectral norm": lambda: nn.Sequential(spectral_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 4)),
    "orthogonal": lambda: nn.Sequential(orthogonal(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 4)),
    "bfloat16": half,
    "transformers": lambda: build("gpt2"),
}
PARAMETRISED = ("weight norm", "spectral norm", "orthogonal")  # torch pickles none of these


def make(name):
    """Return a network in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return MODULES[name]().eval()


def batch(name):
    """Return inputs for it."""
    rng = torch.Generator().manual_seed(2)
    if name == "transformers":
        return inputs("gpt2")["input_ids"]
    if name.startswith("tied"):
        return torch.randint(12, (5,), generator=rng)
    shape = (2, 5, 8) if name == "attention" else (5, 8)
    x = torch.randn(shape, generator=rng)
    return x.to(torch.bfloat16) if name == "bfloat16" else x


def answer(module, name):
    """Return what it answers."""
    result = module(batch(name))
    return result.logits if hasattr(result, "logits") else result


def loss(module, name):
    """Return a scalar."""
    return (answer(module, name).float() - 0.5).square().mean()


def generated(name, names=None, **settings):
    """Return a network whose parameters are generated."""
    return generate(make(name), names, **(SETTINGS | settings))


def disturbed(name, **settings):
    """Return one whose generator has been moved away from its start."""
    module = generated(name, **settings)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in generator_of(module).parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return module


def generator_of(module):
    """Return the generator within a module."""
    return next(m for n, m in module.named_modules() if n.endswith("qpa_generator"))


def value(module, name):
    """Return what a network answers to its batch, without a graph."""
    with torch.no_grad():
        return answer(module, name)
