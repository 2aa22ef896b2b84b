"""Removes what looks like a lab's secret or a password from a text that others may read."""

from __future__ import annotations

import re

# What bootstrap tokens, certificate keys and private keys look like.
SECRETS = (
    (re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"), "[bootstrap token]"),
    (re.compile(r"(?i)(certificate[-_ ]?key\W{1,4})[0-9a-f]{64}"), r"\1[certificate key]"),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL),
        "[key]",
    ),
    # Private keys in base64 (kubeconfigs), and service accounts' tokens.
    (re.compile(r"LS0tLS1CRUdJTi(?!BDRVJUSUZJQ0FUR)[A-Za-z0-9+/=]+"), "[key]"),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"), "[token]"),
    # A user and password in a URL, such as a proxy's.
    (re.compile(r"(://)[^/\s:@\"']+:[^/\s@\"']+@"), r"\1[login]@"),
    (re.compile(r"((?:client-key-data|token)[\"']?:\s*[\"']?)[^\s\"']{16,}"), r"\1[removed]"),
)


def redacted(text: str) -> str:
    """The text without anything that looks like a secret."""
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text
