"""What this machine does wrong is said in one sentence, at once, and not laid at the Hub's door."""

import ssl
from functools import partial

import pytest
from huggingface_hub import HfApi, close_session, constants
from scene import TOKEN

from qpa_hf.hub import AccessDenied, HubError, LocalError, RetryPolicy, download, load, local, push
from qpa_hf.hub.retry import Limit
from qpa_hf.trainer_callbacks import PushMaterializedCallback

QUICK = RetryPolicy(attempts=3, total_seconds=20.0, first_wait=0.001, longest_wait=0.002)


@pytest.fixture
def hub(scenes, monkeypatch):
    """A Hub that this process may ask, with one adapter in it, and a token of this machine that may read."""
    scene = scenes("lfs")
    folder, repo = scene.pushed()
    files = f"{scene.hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    settings = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HUGGINGFACE_CO_URL_TEMPLATE": files}
    for name, value in {"ENDPOINT": scene.hub.url, **settings}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    scene.hub.clear()
    close_session()
    yield scene, folder, repo
    close_session()


def calls(scene, folder, repo, **options):
    """Everything that takes a token."""
    new = {"policy": QUICK, **options}
    callback = PushMaterializedCallback(repo, **new)
    return {
        "push": lambda: push(folder, repo, **new),
        "download": lambda: download(repo, cache_dir=scene.cache(), **new),
        "load": lambda: load(repo, cache_dir=scene.cache(), **new),
        "callback": lambda: local.token_to_send(callback.token),
    }


TOKENS = {
    "empty": ("", ValueError, "is empty"),
    "a line break": (f"{TOKEN}\n", ValueError, "has a space, a line break"),
    "a space": (f" {TOKEN}", ValueError, "has a space"),
    "not ASCII": ("hf_wrïtes", ValueError, "another character that no token has"),
    "a header": ("hf\r\nX-Evil: 1", ValueError, "has a space, a line break"),
    "bytes": (TOKEN.encode(), TypeError, "`token` is bytes"),
    "a number": (5, TypeError, "`token` is int"),
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("call", ["push", "download", "load", "callback"])
def test_what_is_no_token_is_one_sentence(name, call, hub):
    token, error, words = TOKENS[name]
    with pytest.raises(error, match=words) as raised:
        calls(*hub, token=token)[call]()
    assert not hub[0].hub.log
    assert "hf" not in str(raised.value).replace("`hf auth login`", "")  # no part of the token


@pytest.mark.parametrize(
    ("token", "implicit", "sent"),
    [
        (None, True, "Bearer hf_reads"),
        (None, False, ""),
        (True, True, "Bearer hf_reads"),
        (True, False, "Bearer hf_reads"),
        (False, True, ""),
        (TOKEN, True, f"Bearer {TOKEN}"),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_theirs", [True, False], ids=["huggingface_hub", "qpa_hf"])
def test_a_token_means_what_it_means_to_huggingface_hub(token, implicit, sent, is_theirs, hub, monkeypatch):
    scene, _, repo = hub
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", not implicit)
    if is_theirs:
        HfApi(token=token).repo_info(repo)
    else:
        download(repo, token=token, cache_dir=scene.cache(), policy=QUICK)
    # Threads that transformers leaves behind may ask this Hub for other repositories.
    asked = [entry for entry in scene.hub.log if entry["line"].startswith("GET /api/") and repo in entry["line"]]
    assert {entry["authorization"] for entry in asked} == {sent}


def test_a_token_that_is_asked_for_and_not_there(hub, monkeypatch):
    monkeypatch.setattr(local, "get_token", lambda: None)
    for call in calls(*hub, token=True).values():
        with pytest.raises(AccessDenied, match="this machine has none. Log in"):
            call()
    assert not hub[0].hub.log


def test_a_token_of_this_machine_that_is_none(hub, monkeypatch):
    monkeypatch.setattr(local, "get_token", lambda: "hf_wrïtes")
    with pytest.raises(ValueError, match="The token of this machine .* has a space"):
        download(hub[2])


@pytest.mark.parametrize(
    "endpoint",
    ["huggingface.co", "", "https://", "https:/a.b", "ftp://a.b", "https://a.b:x", "https://a b", "http://[::1"],
)
def test_an_address_that_is_none(endpoint, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for call in ("push", "download", "load"):
        with pytest.raises(ValueError, match="HF_ENDPOINT is .* is not the address of a Hub. Set it"):
            calls(*hub)[call]()


NO_NAMES = [
    ("revision", "", ValueError),
    ("revision", "a b", ValueError),
    ("revision", "main\n", ValueError),
    ("revision", "\x1b[2J", ValueError),
    ("revision", 5, TypeError),
    ("repo_id", 5, TypeError),
    ("repo_id", None, TypeError),
    ("repo_id", "a b", ValueError),
    ("repo_id", "a/b/c", ValueError),
    ("repo_id", "", ValueError),
]


@pytest.mark.parametrize(
    ("call", "argument", "value", "error"),
    [
        *((call, *case) for call in ("push", "download") for case in NO_NAMES),
        ("push", "tag", "", ValueError),
        ("push", "tag", b"v1", TypeError),
    ],
)
def test_a_name_that_is_none(call, argument, value, error, hub):
    scene, folder, repo = hub
    named = {"repo_id": repo, "policy": QUICK, "token": TOKEN} | {argument: value}
    function = {"push": partial(push, folder), "download": download}[call]
    with pytest.raises(error) as raised:
        function(**named)
    assert str(raised.value).isprintable()
    assert not scene.hub.log


def test_a_hub_that_speaks_no_tls_is_asked_once(hub, monkeypatch, caplog):
    monkeypatch.setattr(constants, "ENDPOINT", hub[0].hub.url.replace("http:", "https:"))
    with pytest.raises(LocalError, match=r"No request can be sent \(.*\). Correct HF_ENDPOINT"):
        download(hub[2], cache_dir=hub[0].cache(), policy=QUICK)
    assert "Trying again" not in caplog.text


@pytest.mark.parametrize("proxy", ["foo://a.b", "http://a.b:x", "https://[::1"])
def test_a_proxy_that_is_none(proxy, hub, monkeypatch, caplog):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(LocalError, match="Correct the proxies"):
        download(hub[2], cache_dir=hub[0].cache(), policy=QUICK)
    assert "Trying again" not in caplog.text


def test_certificates_that_are_not_there(hub, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
    with pytest.raises(LocalError, match="SSL_CERT_FILE"):
        download(hub[2], cache_dir=hub[0].cache(), policy=QUICK)


@pytest.mark.parametrize("below", ["", "hub"])
def test_a_cache_that_cannot_be_written(below, hub, tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LocalError, match="cannot be used .* choose another cache"):
        download(hub[2], cache_dir=tmp_path / "file" / below, policy=QUICK)
    assert "Trying again" not in caplog.text


def distrusted():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.reason, error.verify_message = "CERTIFICATE_VERIFY_FAILED", "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (distrusted(), r"does not trust the certificate that it was shown \(self-signed certificate\)"),
        (PermissionError(13, "Permission denied", "/cache"), "/cache cannot be used"),
        (OSError(30, "Read-only file system", "/cache"), "/cache cannot be used"),
        (type("LocalProtocolError", (Exception,), {})("bad header"), r"No request can be sent \(bad header\)"),
        (type("ProxyError", (Exception,), {})("407 Proxy Authentication Required"), "The proxy refuses"),
    ],
    ids=str,
)
def test_the_cause_is_named_and_nothing_is_tried_again(cause, words):
    attempts = []

    def step():
        attempts.append(1)
        raise RuntimeError("wrapped by a client") from cause

    with pytest.raises(LocalError, match=words):
        Limit(QUICK, "alice/adapter", None).run(step)
    assert len(attempts) == 1


def test_a_proxy_that_is_away_may_come_back():
    error = type("ProxyError", (ConnectionError,), {})("503 Service Unavailable")
    with pytest.raises(HubError) as raised:
        Limit(QUICK, "alice/adapter", None).run(lambda: (_ for _ in ()).throw(error))
    assert not isinstance(raised.value, LocalError)
