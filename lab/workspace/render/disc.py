"""Makes the disc from which a VirtualBox machine reads the lab's public key.

ISO 9660, with the label and the file that `ha-lab-authorize` looks for in there. A public key is no secret.
"""

from __future__ import annotations

import hashlib
import io

import pycdlib

LABEL, FILE = "HALABKEY", "authorized_keys"


def name(authorized_key: str) -> str:
    """Return the disc's file name: another key is another disc."""
    return f"key-{hashlib.sha256(authorized_key.encode()).hexdigest()[:12]}.iso"


def image(authorized_key: str) -> bytes:
    """Return the disc's bytes."""
    text = f"{authorized_key}\n".encode()
    disc, out = pycdlib.PyCdlib(), io.BytesIO()
    disc.new(interchange_level=3, vol_ident=LABEL, rock_ridge="1.09")
    # The short name is ISO 9660's own; Linux shows the other.
    disc.add_fp(io.BytesIO(text), len(text), "/KEYS.;1", rr_name=FILE)
    disc.write_fp(out)
    disc.close()
    return out.getvalue()
