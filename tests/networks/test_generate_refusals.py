"""What `generate` and `materialize` cannot do with a module is said in one sentence."""

import pytest
import torch
from modules import generated, make
from torch import nn

from qpa_hf import generate, materialize

pytestmark = pytest.mark.filterwarnings("ignore:The generator has:UserWarning")  # these networks are tiny


def hooked():
    module = nn.Linear(4, 8)
    module.weight.register_hook(lambda gradient: 2 * gradient)
    return module


def kept():
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    module.weights = {"first": module[0].weight}
    return module


def lazy():
    return nn.Sequential(nn.LazyLinear(4))


def integers():
    module = nn.Module()
    module.table = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    return module


BAD = {
    "name": (
        lambda: generate(make("sequential"), ["0.wieght"]),
        ValueError,
        "matches no parameter.*Did you mean '0.w",
    ),
    "no names": (lambda: generate(make("sequential"), []), ValueError, "`names` is empty"),
    "nothing trainable": (
        lambda: generate(make("sequential").requires_grad_(False)),
        ValueError,
        "no trainable parameters",
    ),
    "integers": (lambda: generate(integers(), ["table"]), TypeError, "table is torch.int8"),
    "lazy": (lambda: generate(lazy()), ValueError, "has no shape yet"),
    "meta": (lambda: generate(make("sequential").to("meta")), ValueError, "on the meta device"),
    "twice": (lambda: generate(generated("sequential")), ValueError, "is generated already"),
    "written in place": (
        lambda: generate(nn.Embedding(4, 8, max_norm=1.0)),
        ValueError,
        "written in place at each step, because its layer has `max_norm`",
    ),
    "hook": (lambda: generate(hooked()), ValueError, "weight has a hook that changes its gradient"),
    "kept elsewhere": (lambda: generate(kept()), ValueError, "0.weight also stands in the plain attribute `weights`"),
    "wrapped": (
        lambda: generate(torch.compile(make("sequential"), backend="eager")),
        ValueError,
        "and wrap it afterwards",
    ),
    "path": (lambda: materialize(generated("sequential"), "folder"), TypeError, "leave `path` out"),
    "sparse": (lambda: generate(nn.Embedding(4, 8, sparse=True)), ValueError, "sparse gradients"),
    "setting": (lambda: generate(make("sequential"), chunk=4), TypeError, "Did you mean `chunk_size`"),
    "LoRA's setting": (lambda: generate(make("sequential"), r=4), TypeError, "no setting `r`"),
    "value": (lambda: generate(make("sequential"), chunk_size=0), ValueError, "`chunk_size`=0 is not allowed"),
    "not generated": (lambda: materialize(make("sequential")), TypeError, "a module that `generate` has changed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
