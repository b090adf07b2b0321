"""The files that the package reads: one validator for each form, which every reader uses.

A file that was written by somebody else, or cut short, is refused here, before anything is built from it: with one
sentence that names the file, the field, what is there, what is allowed, and what to do.
"""

from qpa_hf.schema.adapter import adapter_settings, check_method, check_task, read_config
from qpa_hf.schema.kinds import check_kinds, fits
from qpa_hf.schema.layout import check_layout, check_sizes
from qpa_hf.schema.text import naming, parse_object, parse_yaml, read_object, read_text

__all__ = [
    "adapter_settings",
    "check_kinds",
    "check_layout",
    "check_method",
    "check_sizes",
    "check_task",
    "fits",
    "naming",
    "parse_object",
    "parse_yaml",
    "read_config",
    "read_object",
    "read_text",
]
