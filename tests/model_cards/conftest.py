"""An adapter that was saved in both forms."""

import pytest
from helpers import adapted
from records import LM, RECORD

from qpa_hf import materialize
from qpa_hf.model_cards import add_record


@pytest.fixture
def saved(tmp_path):
    """The folders of a native and a materialized adapter of one run."""
    model = adapted("llama", **LM)
    model.save_pretrained(tmp_path / "native")
    add_record(tmp_path / "native", RECORD)
    materialize(tmp_path / "native", tmp_path / "materialized")
    return tmp_path
