"""What a step launches beyond LoRA's: counted without a GPU, and bounded, so that it does not grow unnoticed."""

import json
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it exists for Linux")

# Of both passes together, with the kernels of a GPU. Half of the default's are those that standardize probabilities.
BOUNDS = {"QPA default": 35, "QPA rx_rz_cnot": 35, "QPA paper": 103, "QPA source random": 10, "QPA source direct": 6}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    from benchmarks import launches

    output = tmp_path_factory.mktemp("launches") / "launches.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["launches", "--quick", "--output", str(output)])
        launches.main()
    return json.loads(output.read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("arm", BOUNDS)
def test_a_step_launches_no_more_than_it_did(arm, counted):
    both = {row["circuits"]: row["beyond_lora"]["both"] for row in counted if row["arm"] == arm}
    assert both["Triton"] <= BOUNDS[arm]
    assert both["Triton"] <= both["torch"]
