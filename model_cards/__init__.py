"""Model cards for adapters, filled from their configuration and from what their training recorded."""

from qpa_hf.model_cards.card import CARD_NAME, MARKER, TEMPLATES, add_record, is_ours, make_card, write_card
from qpa_hf.model_cards.record import RECORD_NAME, Control, Result, RunRecord
from qpa_hf.model_cards.trainer import add_loading

__all__ = [
    "CARD_NAME",
    "MARKER",
    "RECORD_NAME",
    "TEMPLATES",
    "Control",
    "Result",
    "RunRecord",
    "add_loading",
    "add_record",
    "is_ours",
    "make_card",
    "write_card",
]
