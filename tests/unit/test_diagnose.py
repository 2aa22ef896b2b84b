from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from lab.system.redact import redacted
from lab.workspace.render.credentials import new_run_secrets

RUN = new_run_secrets()
LONG = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlF"


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "BOOTSTRAP_TOKEN={}",
        'token: "{}"',
        "--token {} --discovery",
        '{{"token":"{}"}}',
        "using token: {}.",
        "({})",
    ],
)
def test_a_bootstrap_token_is_removed_wherever_it_stands(around: str) -> None:
    assert RUN.token not in redacted(around.format(RUN.token))
    assert RUN.token.partition(".")[2] not in redacted(around.format(RUN.token))


@pytest.mark.parametrize(
    "around",
    [
        "CERTIFICATE_KEY={}",
        "certificateKey: {}",
        'certificateKey: "{}"',
        '{{"certificateKey": "{}"}}',
        "--certificate-key {}",
        "certificate key:\n{}",
        "Using certificate key: {} now",
    ],
)
def test_a_certificate_key_is_removed_wherever_it_is_called_one(around: str) -> None:
    assert RUN.certificate_key not in redacted(around.format(RUN.certificate_key))


@pytest.mark.parametrize("kind", ["ssh", "rsa", "pkcs8"])
def test_private_keys_are_removed(kind: str) -> None:
    if kind == "ssh":
        key = ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    else:
        form = {
            "rsa": serialization.PrivateFormat.TraditionalOpenSSL,
            "pkcs8": serialization.PrivateFormat.PKCS8,
        }
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, form[kind], serialization.NoEncryption()
        )
    text = redacted(f"before\n{key.decode()}after\n{key.decode()}end")
    assert text == "before\n[key]\nafter\n[key]\nend"


@pytest.mark.parametrize(
    "around",
    [
        "client-key-data: {}",
        'client-key-data: "{}"',
        '"client-key-data": "{}"',
        '"client-key-data":"{}"',
        "token: {}",
    ],
)
def test_what_a_kubeconfig_keeps_secret_is_removed(around: str) -> None:
    assert LONG not in redacted(around.format(LONG))


def test_a_private_key_is_removed_also_where_it_is_packed() -> None:
    assert LONG not in redacted(f"some-key: {LONG}")


def test_a_service_account_s_token_is_removed() -> None:
    token = "eyJhbGciOiJSUzI1NiIsImtpZCI6.eyJhdWQiOlsiaHR0cHM6Ly9rdWJl.c2lnbmF0dXJl-_"  # noqa: S105  nobody's
    assert redacted(f"Authorization: Bearer {token} end") == "Authorization: Bearer [token] end"


@pytest.mark.parametrize(
    "text",
    [
        "certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSURC",
        "2026-11-23 cp1 is not Ready: kubelet stopped posting node status",
        "sha256:" + "0" * 64,
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
        "tokens are short: yes",
        "kube-system coredns-6f6b679f8f-abcde 192.168.56.11",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
