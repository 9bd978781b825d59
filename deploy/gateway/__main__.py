"""`python -m deploy.gateway`: deploy/gateway/commands.py."""

import signal
import sys

from deploy.gateway.commands import main

if __name__ == "__main__":
    # So that a start that gets SIGTERM stops what it has started, as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
