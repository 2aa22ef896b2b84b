"""What it means when a host that Kubernetes is downloaded from does not provide a file.

Errors of apt and skopeo become a sentence with the host's name and what to do next.
"""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from lab.errors import CommandFailed, LabError
from lab.system import proxies
from lab.system.meaning import NO_SPACE, Meaning, meaning_of, printed_by

PATIENCE = 20
"""Seconds without data after which a host counts as silent."""

NETWORK = (
    "look at the network, and at http_proxy, https_proxy and no_proxy; a mirror goes into lab.yaml (`mirrors`)"
)
MIRROR = "ask its operator, or set another host under `mirrors` in lab.yaml"
NOT_TO_TRUST = "do not use it: ask its operator, or set another host under `mirrors` in lab.yaml"
PUBLISHED_AGAIN = "if upstream has published it again, `./inv lock` takes that, and git shows what changed"


# The first that fits is reported, so the more exact sign comes first. No bare numbers: digests have any.
MEANINGS = (
    *NO_SPACE,
    Meaning("received nothing for", "it does not answer", NETWORK),
    Meaning(
        "expkeysig", "the lock's copy of its signing key has expired", "`./inv lock` takes the renewed key"
    ),
    Meaning("revkeysig", "its signing key is revoked", NOT_TO_TRUST),
    Meaning("badsig", "its index is not the one that was signed", NOT_TO_TRUST),
    Meaning("no_pubkey", "its index is signed by another key than the pinned one", NOT_TO_TRUST),
    Meaning("goodsig", "its index is signed by another key than the pinned one", NOT_TO_TRUST),
    Meaning("missing key", "its index is signed by another key than the pinned one", NOT_TO_TRUST),
    Meaning(
        "hash sum mismatch", "a file is not the one that its index names", f"try again later; then {MIRROR}"
    ),
    Meaning("unexpected size", "a file is not the one that its index names", f"try again later; then {MIRROR}"),
    Meaning("digest did not match", "the download has another digest", NOT_TO_TRUST),
    Meaning("does not match provided manifest digest", "the download has another digest", NOT_TO_TRUST),
    Meaning("manifest unknown", "it has no image of that digest", f"{MIRROR}; {PUBLISHED_AGAIN}"),
    Meaning("name unknown", "it has no such image", MIRROR),
    Meaning("was not found", "it has no such version", f"{MIRROR}; {PUBLISHED_AGAIN}"),
    Meaning("unable to locate package", "it has no such package", MIRROR),
    Meaning("no matching manifest", "it has none for this host's kind of processor", MIRROR),
    Meaning("no image found in", "it has none for this host's kind of processor", MIRROR),
    Meaning("forbidden", "it refuses (403)", MIRROR),
    Meaning(
        "unauthorized",
        "it wants a login",
        "`skopeo login HOST` keeps one for images, apt_auth.conf(5) for packages",
    ),
    Meaning(
        "proxy authentication required", "the proxy wants a login", "put it into http_proxy and https_proxy"
    ),
    Meaning("does not have a release file", "it has no such repository (404)", MIRROR),
    Meaning("404  not found", "it has nothing at that place (404)", MIRROR),
    Meaning("404 not found", "it has nothing at that place (404)", MIRROR),
    Meaning("404 (not found", "it has nothing at that place (404)", MIRROR),
    Meaning(
        "certificate", "its certificate is not trusted here", "add its authority to this system's CA bundle"
    ),
    Meaning("could not resolve", "its name can't be resolved", NETWORK),
    Meaning("temporary failure resolving", "its name can't be resolved", NETWORK),
    Meaning("no such host", "its name can't be resolved", NETWORK),
    Meaning("connection refused", "it can't be reached (connection refused)", NETWORK),
    Meaning("connection failed", "it does not answer", NETWORK),
    Meaning("timed out", "it does not answer", NETWORK),
    Meaning("i/o timeout", "it does not answer", NETWORK),
    Meaning("did not end within", "it does not answer", NETWORK),
    Meaning("is not signed", "its index is not signed", NOT_TO_TRUST),
)
KEPT = "partial downloads are not used; complete ones are kept for the next try"


@contextmanager
def explained(what: str, host: str) -> Iterator[None]:
    """Turn a command that fails inside into: `what` can't be had from `host`, why, and what to do."""
    try:
        yield
    except CommandFailed as error:
        if error.returncode is None and "could not start" in error.message:
            raise
        found = meaning_of(printed_by(error), MEANINGS)
        why = found.sentence if found else (error.tail or error.message).splitlines()[-1].strip()
        hint = found.hint if found else "the log has all it said"
        raise LabError(
            f"{what} can't be had from {host}: {why}", hint=f"{hint}; {KEPT}", log=error.log
        ) from error


def host_problem(url: str, seconds: float) -> str | None:
    """Ask a host for a URL, through the proxies; return why it can't be used, None where it answers in time.

    A registry that wants a login (401) answers.
    """
    answer: queue.Queue[str | None] = queue.Queue()
    # Looking up a name has no timeout of its own, so the asking is left alone when time is up.
    threading.Thread(target=lambda: answer.put(_problem(url, seconds)), daemon=True).start()
    try:
        return answer.get(timeout=seconds)
    except queue.Empty:
        return f"no answer within {seconds:.0f} s"


def _problem(url: str, seconds: float) -> str | None:
    try:
        with _opener(url).open(url, timeout=seconds) as reply:
            reply.read(1)
    except urllib.error.HTTPError as error:
        return None if error.code == 401 else f"it answers {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Return what asks for a URL in the way that commands of `lab.system.process` do."""
    settings = proxies.environment()
    exempt = {"no": settings.get("no_proxy", "")}
    direct = urllib.request.proxy_bypass(urlsplit(url).hostname or "", exempt)
    named = {scheme: settings.get(f"{scheme}_proxy", "") for scheme in ("http", "https")}
    through = {} if direct else {scheme: proxy for scheme, proxy in named.items() if proxy}
    return urllib.request.build_opener(urllib.request.ProxyHandler(through))
