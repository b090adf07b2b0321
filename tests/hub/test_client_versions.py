"""Versions of huggingface_hub: each one's HTTP library, names that older ones lack, and one that does not work."""

import io
import subprocess
import sys
from importlib.util import find_spec, module_from_spec

import pytest
from huggingface_hub import errors

from qpa_hf.hub import HubUnavailable, NotCached, RetryPolicy, client, download, session
from qpa_hf.hub.errors import Interrupted
from qpa_hf.hub.retry import Limit
from qpa_hf.hub.session import Clock, limited

URL = "http://hub.test/api/models/ada/adapter"
QUICK = RetryPolicy(attempts=2, first_wait=0.001, longest_wait=0.002)


def requests_session(library, answers):
    """Return a session of requests that is answered with these bytes; None is a refused connection."""
    from urllib3 import HTTPResponse

    class Adapter(library.adapters.HTTPAdapter):
        def send(self, request, **options):
            if (answer := answers.pop(0)) is None:
                raise library.ConnectionError("refused")
            return self.build_response(request, HTTPResponse(io.BytesIO(answer), status=200, preload_content=False))

    made = library.Session()
    made.mount("http://", Adapter())
    return made


def httpx_session(library, answers):
    """The same of httpx and httpx2."""

    def answer(request):
        if (content := answers.pop(0)) is None:
            raise library.ConnectError("refused")
        return library.Response(200, content=iter([content]))

    return library.Client(transport=library.MockTransport(answer))


@pytest.fixture(params=["requests", "httpx", "httpx2"])
def answered(request, monkeypatch):
    """Let huggingface_hub speak through one of the libraries, and return what sets the answers."""
    library = pytest.importorskip(request.param)
    monkeypatch.setattr(errors, "HfHubHTTPError", type("HfHubHTTPError", (library.HTTPError,), {}))
    spec = find_spec(client.__name__)
    fresh = module_from_spec(spec)
    spec.loader.exec_module(fresh)
    monkeypatch.setattr(session, "client", fresh)
    make = requests_session if request.param == "requests" else httpx_session

    def answer(*answers):
        made = make(library, list(answers))
        monkeypatch.setattr(session, "get_session", lambda: made)
        return made

    return answer


def test_a_refused_connection_is_tried_again(answered):
    made = answered(None, b"here")
    assert Limit(QUICK, "ada/adapter", None).run(lambda: made.get(URL).text) == "here"


def test_a_connection_that_stays_refused_is_reported(answered):
    made = answered(None, None)
    with pytest.raises(HubUnavailable, match="Connect.*Error at GET /api/models/ada/adapter"):
        Limit(QUICK, "ada/adapter", None).run(lambda: made.get(URL).text)


def test_a_body_ends_with_the_clock(answered):
    made = answered(b"much")
    clock = Clock(60.0, 60.0)
    with limited(clock):
        clock.end = 0.0
        with pytest.raises(Interrupted, match="the allowed time is over"):
            made.get(URL)


def test_a_client_without_lists_of_files_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "KEEPS_LISTS", False)
    with pytest.raises(NotCached, match=r"Unset HF_HUB_OFFLINE, or install huggingface_hub>=1\.26"):
        download("ada/adapter", cache_dir=tmp_path)


BROKEN = """
import sys
sys.modules["qpa_hf.hub.client"] = None  # as with a huggingface_hub that lacks a name
import qpa_hf.comparison.runs, qpa_hf_cli.evaluation, qpa_hf.inspection, qpa_hf.trainer_callbacks, qpa_hf.training
from qpa_hf_cli import main
main()
"""


def test_a_client_that_does_not_work_stops_a_push_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", BROKEN, "push", str(tmp_path), "ada/adapter"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: `qpa_hf.hub.push` does not work with huggingface_hub ")
    assert "Install huggingface_hub>=0.34,<3" in result.stderr
