"""HTTP to our own servers: straight to them, whatever the environment or the user's home says.

requests reads proxies and a bundle of certificates from the environment, and passwords from ~/.netrc. A proxy would be
asked for 127.0.0.1 as well, and a measurement would go through it or fail as if the server had died. Every session of
ours is made here (tests/test_boundaries.py).
"""

from __future__ import annotations

import requests


def session() -> requests.Session:
    """A session that takes nothing from the environment. Whoever makes it closes it."""
    made = requests.Session()
    made.trust_env = False
    return made
