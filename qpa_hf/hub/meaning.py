"""What an error of huggingface_hub or of hf_xet means, as one of ours that says what to do about it."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from qpa_hf.hub.client import RemoteEntryNotFoundError, is_answer
from qpa_hf.hub.errors import (
    AccessDenied,
    FileMissing,
    GatedRepository,
    HubError,
    NotCached,
    RepositoryMissing,
    RevisionMissing,
    chain,
)
from qpa_hf.messages import one_line

XET_REFUSAL = re.compile(r"HTTP status client error \((401|403) ")


def hide(error: BaseException, token: str | None) -> None:
    """Take the token out of an error's texts and of all it came from: servers like to repeat what they were sent."""
    # In place: a traceback prints every error of the chain, and not only the one that is raised in the end.
    for one in chain(error) if token else ():
        one.args = tuple(arg.replace(str(token), "<token>") if isinstance(arg, str) else arg for arg in one.args)
        if isinstance(one, HfHubHTTPError) and one.server_message:
            one.server_message = one.server_message.replace(str(token), "<token>")


def explain(error: Exception, repo_id: str, revision: str | None = None) -> HubError | None:
    """Return what an error of the client means, or None if it has nothing to do with the Hub.

    The true cause may be far down: PEFT turns every refusal into "Can't find 'adapter_config.json'".

    Args:
        error: the error that was raised.
        repo_id: the repository that it was about.
        revision: the branch, tag or commit that it was about.
    """
    for one in chain(error):
        if isinstance(one, HubError):
            return one
        if isinstance(one, OfflineModeIsEnabled):
            return NotCached(f"{repo_id} needs the Hub, but HF_HUB_OFFLINE is set. Unset it and try again.")
        if is_refused_by_xet(one):
            return AccessDenied(f"The content store of {repo_id} refused. Pass a `token` with the access it needs.")
        if is_answer(one):
            return _refusal(one, repo_id, revision or "main")
    return None


def is_refused_by_xet(error: BaseException) -> bool:
    """Return whether hf_xet, which has no types for it, says that its server refuses the token."""
    return isinstance(error, (ConnectionError, RuntimeError)) and bool(XET_REFUSAL.search(str(error)))


def _refusal(error: Any, repo_id: str, revision: str) -> HubError:
    # From the special to the general: a gated repository is a missing one to huggingface_hub's classes.
    if isinstance(error, GatedRepoError):
        ask = "Open its page on the Hub with the account of your token and accept its conditions, then try again."
        return GatedRepository(f"{repo_id} is gated. {ask}")
    if isinstance(error, RepositoryNotFoundError):
        hidden = "if it is private, pass a `token` that may read it, or log in with `hf auth login`"
        return RepositoryMissing(f"The Hub shows no repository {repo_id} to you. Check the name; {hidden}.")
    if isinstance(error, RevisionNotFoundError):
        return RevisionMissing(f"{repo_id} has no revision {revision!r}. Pass a branch, tag or commit that it has.")
    if isinstance(error, RemoteEntryNotFoundError):
        return FileMissing(f"{repo_id} at {revision} lacks a file. Check that it is an adapter, or push it again.")
    status = error.response.status_code
    if status == 401:
        return AccessDenied("The Hub does not know this token. Log in with `hf auth login`, or pass another `token`.")
    if status == 403:
        needs = "a push needs write access, a download read access"
        return AccessDenied(f"This token may not do that to {repo_id}: {needs}. Pass a `token` that has it.")
    said = one_line(error.server_message or "no reason given")
    return HubError(f"The Hub refused with status {status}: {said}. Change what it names and try again.")
