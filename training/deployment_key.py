"""The deployment's key, for what is trained on or drawn from a secret; its rules stand in handlers/key.py."""

from __future__ import annotations

import hmac
import os

import torch

from handlers.key import read_key

KEY = "TORCHWARDEN_KEY"


def deployment_key(who: str) -> bytes:
    """The key that the environment names. who: what needs it. Raises ValueError, saying how to make one."""
    try:
        return read_key(KEY, os.environ)
    except RuntimeError as error:
        raise ValueError(f"{who} needs the deployment's key: {error}") from error


def generator(key: bytes, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose only, seeded by HMAC-SHA256(key, "torchwarden/" + purpose)."""
    digest = hmac.digest(key, f"torchwarden/{purpose}".encode(), "sha256")
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
