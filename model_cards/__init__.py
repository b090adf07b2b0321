"""Model cards for adapters, filled from their configuration and from what their training recorded."""

from qpa_hf.model_cards.card import TEMPLATES, add_record, make_card, write_card
from qpa_hf.model_cards.record import RECORD_NAME, Control, Result, RunRecord

__all__ = ["RECORD_NAME", "TEMPLATES", "Control", "Result", "RunRecord", "add_record", "make_card", "write_card"]
