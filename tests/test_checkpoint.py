"""Small files beside checkpoints."""

import pytest

from qpa_hf.checkpoint import write_text


def test_a_file_that_cannot_be_replaced_leaves_no_part(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_text(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
