"""The table of ansätze: read by all, added to by `register_ansatz`, and one pattern for each name."""

import copy
import pickle

import pytest
import torch

from qpa_hf import Ansatz, register_ansatz
from qpa_hf.circuit import ANSATZE, ENTANGLERS, angles_shape, probabilities
from qpa_hf.measurement import Measurement, measure

OWN = Ansatz(("z", "y"), "cz_ring")

WRITES = {
    "set": lambda table: table.__setitem__("rz_ry", OWN),
    "delete": lambda table: table.__delitem__("ry_cnot"),
    "update": lambda table: table.update(rz_ry=OWN),
    "|=": lambda table: table.__ior__({"rz_ry": OWN}),
    "setdefault": lambda table: table.setdefault("rz_ry", OWN),
    "pop": lambda table: table.pop("ry_cnot"),
    "popitem": lambda table: table.popitem(),
    "clear": lambda table: table.clear(),
}


@pytest.mark.parametrize("how", WRITES)
def test_table_is_read_only_and_says_how_to_add(how):
    before = dict(ANSATZE)
    with pytest.raises(TypeError, match=r"`ANSATZE` can only be read. Add an ansatz with `register_ansatz\(name, Ans"):
        WRITES[how](ANSATZE)
    assert dict(ANSATZE) == before


def test_entanglers_are_read_only():
    with pytest.raises(TypeError):
        ENTANGLERS["none"] = ENTANGLERS["cz_ring"]


def test_a_registered_ansatz_is_known_like_any_other(registry):
    register_ansatz("own", OWN)
    assert ANSATZE["own"] == OWN
    assert [*ANSATZE][-1] == "own"
    assert angles_shape("own", 8, 5) == (8, 2, 5)
    assert probabilities(torch.ones(8, 2, 5), "own").shape == (32,)


def test_the_same_pattern_may_be_registered_again(registry):
    register_ansatz("own", OWN)
    register_ansatz("own", Ansatz(["z", "y"], "cz_ring"))
    register_ansatz("ry_cnot", Ansatz(("y",)))
    assert [*registry] == ["own"]


@pytest.mark.parametrize(
    ("name", "known"), [("own", "R_Z R_Y, cz_ring"), ("ry_cnot", "R_Y, cnot_chain")], ids=["own", "ours"]
)
def test_a_name_stands_for_one_pattern(name, known, registry):
    register_ansatz("own", OWN)
    with pytest.raises(
        ValueError, match=f"`name`='{name}' stands for {known} already, and cannot be given to R_X, cn"
    ):
        register_ansatz(name, Ansatz(("x",)))
    assert registry == {"own": OWN}


BAD = {
    "axis": (lambda: Ansatz(("y", "w")), ValueError, r"`rotations`=\('y', 'w'\) is not allowed. Give a tuple of axes"),
    "none": (lambda: Ansatz(()), ValueError, r"`rotations`=\(\) is not allowed"),
    "kind of axis": (lambda: Ansatz((1,)), ValueError, r"`rotations`=\(1,\) is not allowed"),
    "string": (lambda: Ansatz("zy"), TypeError, r"`rotations`='zy' is not a tuple. Give a tuple of axes"),
    "entangler": (
        lambda: Ansatz(("y",), "ring"),
        ValueError,
        r"`entangler`='ring' is not known. Choose one of 'cnot_ch",
    ),
    "kind of entangler": (lambda: Ansatz(("y",), ["cz_ring"]), ValueError, r"`entangler`=\['cz_ring'\] is not known"),
    "pattern": (lambda: register_ansatz("own", ("y",)), TypeError, r"`ansatz`=\('y',\) is not an Ansatz"),
    "name": (lambda: register_ansatz("my own", OWN), ValueError, r"`name`='my own' is not allowed. Use letters"),
    "empty name": (lambda: register_ansatz("", OWN), ValueError, r"`name`='' is not allowed"),
    "kind of name": (lambda: register_ansatz(5, OWN), ValueError, r"`name`=5 is not allowed"),
    "unknown": (
        lambda: probabilities(torch.ones(2, 3), "own"),
        ValueError,
        r"`ansatz`='own' is not known.*register_a",
    ),
    "kind": (lambda: angles_shape(["ry_cnot"], 1, 1), ValueError, r"`ansatz`=\['ry_cnot'\] is not known"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, registry):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
    assert not registry


def test_a_pattern_survives_copies_and_pickles():
    assert copy.deepcopy(OWN) == pickle.loads(pickle.dumps(OWN)) == OWN
    assert hash(Ansatz(["z", "y"], "cz_ring")) == hash(OWN)


@pytest.mark.parametrize("axes", ["zyx", "yy", "z"])
def test_parameter_shift_gives_the_exact_gradient_of_any_pattern(axes, registry):
    register_ansatz("own", Ansatz(tuple(axes), "cnot_all_pairs"))
    angles = torch.randn(2, *angles_shape("own", 2, 3), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 8, dtype=torch.float64)
    found = [
        torch.autograd.grad(measure(angles, Measurement("own", gradient=how), torch.tensor(0)), angles, weights)[0]
        for how in ("parameter_shift", "exact")
    ]
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


def test_shots_are_drawn_from_a_registered_ansatz(registry):
    register_ansatz("own", OWN)
    angles = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares = measure(angles, Measurement("own", shots=100_000), torch.tensor(0))
    assert (shares - probabilities(angles, "own")).abs().max() < 0.01


def test_what_was_pickled_says_where_its_ansatz_is_not_known(registry):
    register_ansatz("own", OWN)
    how = pickle.dumps(Measurement("own"))
    registry.clear()  # as in a process that is spawned
    with pytest.raises(ValueError, match=r"'own' is not known.* known in this process with `qpa_hf.register_ansatz\("):
        measure(torch.ones(1, 2, 2, 3), pickle.loads(how), torch.tensor(0))
