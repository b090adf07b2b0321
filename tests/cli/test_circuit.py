"""`qpa circuit`."""

import json

from qpa_hf.circuit import draw


def test_circuit_is_drawn_as_in_python(qpa):
    said = qpa("circuit", "--draw", "--ansatz", "rx_rz_cnot", "--qubits", 3, "--layers", 1)
    first, empty, *drawing = said.out.splitlines()
    assert said.code == 0
    assert (first, empty) == ("rx_rz_cnot (R_X R_Z, cnot_chain), 3 qubit(s), 1 layer(s): 3 RX, 4 CNOT, 3 RZ", "")
    assert "\n".join(drawing) == draw((1, 3), "rx_rz_cnot")


def test_circuit_counts_for_programs(qpa):
    found = json.loads(qpa("circuit", "--qubits", 7, "--layers", 8, "--json").out)
    assert found["angles_shape"] == [8, 7]
    assert found["gates"] == {"ry": 56, "cnot": 48}


def test_an_unknown_ansatz_is_bad_input(qpa):
    said = qpa("circuit", "--ansatz", "ring")
    assert (said.code, said.out) == (2, "")
    assert "`ansatz`='ring' is not known. Choose one of 'ry_cnot'" in said.err
