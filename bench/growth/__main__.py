"""python -m bench.growth: see bench/growth/command.py."""

import signal
import sys

from bench.growth.command import main

# so that a measurement that is terminated ends its Redis and removes its folders, as it does at Ctrl-C
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
main()
