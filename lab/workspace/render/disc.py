"""Creates the disc image from which a VirtualBox machine reads the lab's public key.

ISO 9660, with the label and the file that `ha-lab-authorize` looks for. A public key is not secret.
"""

from __future__ import annotations

import hashlib
import io

import pycdlib

LABEL, FILE = "HALABKEY", "authorized_keys"


def name(authorized_key: str) -> str:
    """Return the disc's file name, which differs for each key."""
    return f"key-{hashlib.sha256(authorized_key.encode()).hexdigest()[:12]}.iso"


def image(authorized_key: str) -> bytes:
    """Return the disc's bytes."""
    text = f"{authorized_key}\n".encode()
    disc, out = pycdlib.PyCdlib(), io.BytesIO()
    disc.new(interchange_level=3, vol_ident=LABEL, rock_ridge="1.09")
    # The short name is for ISO 9660; Linux shows the Rock Ridge name.
    disc.add_fp(io.BytesIO(text), len(text), "/KEYS.;1", rr_name=FILE)
    disc.write_fp(out)
    disc.close()
    return out.getvalue()
