"""What it means when a host that Kubernetes is downloaded from does not provide a file.

curl's messages become a sentence with the host's name and what to do next.
"""

from __future__ import annotations

from pathlib import Path

from lab.errors import LabError
from lab.system.meaning import NO_SPACE, Meaning, meaning_of

PATIENCE = 20
"""Seconds without data after which a host counts as silent."""

NETWORK = (
    "look at the network, and at http_proxy, https_proxy and no_proxy; a mirror goes into lab.yaml (`mirrors`)"
)
MIRROR = "ask its operator, or set another host under `mirrors` in lab.yaml"
NOT_TO_TRUST = "do not use it: ask its operator, or set another host under `mirrors` in lab.yaml"
PROXY_LOGIN = "put the proxy's login into http_proxy and https_proxy"
LOGIN = "a login for a host goes into ~/.netrc (curl's manual, --netrc)"

NOT_FOUND = 404
"""The HTTP status of a part that a host does not have."""

# By curl's exit codes, which its messages begin with, and by HTTP status. The first that fits is reported.
MEANINGS = (
    *NO_SPACE,
    Meaning("curl: (1)", "it redirects to http, which anyone in between could alter", NOT_TO_TRUST),
    Meaning("curl: (3)", "it sends on to what is no URL", MIRROR),
    Meaning("curl: (5)", "the name of the proxy can't be resolved", NETWORK),
    Meaning("curl: (6)", "its name can't be resolved", NETWORK),
    Meaning("curl: (7)", "it can't be reached (connection refused)", NETWORK),
    Meaning("curl: (18)", "it closed the connection before the end", f"try again later; then {MIRROR}"),
    Meaning("returned error: 401", "it requires a login (`~/.netrc`)", LOGIN),
    Meaning("returned error: 403", "it denies access (403)", MIRROR),
    Meaning(f"returned error: {NOT_FOUND}", "it does not have it (404)", MIRROR),
    Meaning("returned error: 407", "the proxy requires a login (`http_proxy`, `https_proxy`)", PROXY_LOGIN),
    Meaning("failed, response 403", "the proxy denies access to it (403)", NETWORK),
    Meaning("failed, response 407", "the proxy requires a login (`http_proxy`, `https_proxy`)", PROXY_LOGIN),
    Meaning("CONNECT tunnel failed", "the proxy can't connect to it", NETWORK),
    Meaning("returned error: 429", "it received too many requests (429)", "try again later"),
    Meaning("returned error: 4", "it refuses the request (4xx)", MIRROR),
    Meaning("returned error: 5", "it reports a server error (5xx)", f"try again later; then {MIRROR}"),
    Meaning("curl: (28)", "it does not answer", NETWORK),
    Meaning("curl: (35)", "the TLS connection failed", NETWORK),
    Meaning("curl: (47)", "it redirects too often", MIRROR),
    Meaning("curl: (52)", "it closed the connection without an answer", MIRROR),
    Meaning("curl: (56)", "it closed the connection before the end", f"try again later; then {MIRROR}"),
    Meaning(
        "curl: (60)",
        "its certificate is not trusted (its authority is not in this system's CA bundle)",
        "add its authority to this system's CA bundle",
    ),
    Meaning("curl: (63)", "it sends more than expected", NOT_TO_TRUST),
    Meaning("curl: (97)", "the proxy can't connect to it", NETWORK),
)

OF_HOST = ("(5)", "(6)", "(7)", "(28)", "(35)", "(60)", "(97)")
"""curl's exit codes that mean the host itself: it need not be asked for anything else."""

KEPT = "what was downloaded is kept for the next try"


class Refused(LabError):
    """A part of upstream's that can't be had.

    `of_host`: its host gives nothing else either. `absent`: the host says that it has no such part.
    """

    def __init__(
        self,
        what: str,
        host: str,
        why: str,
        *,
        hint: str,
        log: Path | None = None,
        of_host: bool = False,
        absent: bool = False,
    ) -> None:
        """`what` can't be had from `host`, for the reason `why`."""
        super().__init__(f"{what} can't be downloaded from {host}: {why}", hint=f"{hint}; {KEPT}", log=log)
        self.what, self.host, self.why, self.advice = what, host, why, hint
        self.of_host, self.absent = of_host, absent


def refused(what: str, host: str, said: str, log: Path) -> Refused:
    """Return the error for what curl has `said`."""
    found = meaning_of(said, MEANINGS)
    why = found.sentence if found else (said.strip().splitlines() or ["curl printed no error"])[-1]
    hint = found.hint if found else "the log has the complete output"
    of_host = any(f"curl: {code}" in said for code in OF_HOST)
    absent = f"returned error: {NOT_FOUND}" in said
    return Refused(what, host, why, hint=hint, log=log, of_host=of_host, absent=absent)


def differs(what: str, host: str, *, is_page: bool, log: Path) -> Refused:
    """Return the error for a file that came complete, with another hash than the pinned one."""
    if is_page:
        why = "it answers with a web page, probably a network's login page"
        return Refused(what, host, why, hint=NETWORK, log=log)
    why = "its file does not match the pinned hash"
    hint = f"{NOT_TO_TRUST}; `./inv lock` shows what upstream itself has"
    return Refused(what, host, why, hint=hint, log=log)
