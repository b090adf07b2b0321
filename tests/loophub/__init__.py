"""A Hub on this machine, answering the genuine huggingface_hub client over HTTP, with faults on request.

`store` keeps repositories on disk, `exchange` is one request and its answer, `reading`, `writing` and `xet` are the
endpoints, `faults` says what goes wrong, `server` listens, and `process` starts and ends it for tests.
"""

from loophub.process import LoopHub

__all__ = ["LoopHub"]
