"""An attempt whose time is over: what hf_xet then raises is no person's interrupt."""

import pytest

from qpa_hf.hub import RetryPolicy
from qpa_hf.hub.errors import HubUnavailable
from qpa_hf.hub.retry import Limit

OF_XET = KeyboardInterrupt("Keyboard interrupt (SIGINT)")


@pytest.mark.parametrize(
    ("attempt_seconds", "error", "raised"),
    [
        pytest.param(0.0, OF_XET, HubUnavailable, id="hf_xet, time over"),
        pytest.param(60.0, OF_XET, KeyboardInterrupt, id="hf_xet, time left"),
        pytest.param(0.0, KeyboardInterrupt(), KeyboardInterrupt, id="a person, time over"),
    ],
)
def test_an_interrupt(attempt_seconds, error, raised):
    limit = Limit(RetryPolicy(attempts=1, attempt_seconds=attempt_seconds), "ada/adapter", None)

    def step():
        raise error

    with pytest.raises(raised):
        limit.run(step)
