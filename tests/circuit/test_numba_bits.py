"""What Numba compiles gives the same bits in the process that compiles it and in those that load it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")


def test_compiled_and_loaded_code_give_the_same_bits(tmp_path):
    command = [sys.executable, Path(__file__).with_name("numba_bits.py")]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    compiled, loaded = (
        subprocess.run(command, env=environment, check=True, capture_output=True).stdout for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbc"))
    assert compiled == loaded
