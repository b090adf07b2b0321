"""One mechanism takes Parameters out of any module and reads generated tensors where they were.

It serves the layers of `QPAModel` and everything that `generate` changes.
"""

from qpa_hf.reading.attachment import Attachment, BankHolder, attach, attachment_of, install, remove
from qpa_hf.reading.places import Place
from qpa_hf.reading.reader import ModelRoot, refuse_replica

__all__ = [
    "Attachment",
    "BankHolder",
    "ModelRoot",
    "Place",
    "attach",
    "attachment_of",
    "install",
    "refuse_replica",
    "remove",
]
