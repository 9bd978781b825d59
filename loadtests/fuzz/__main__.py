"""python -m loadtests.fuzz: see loadtests/fuzz/program.py."""

import sys

from loadtests.fuzz.program import main

sys.exit(main())
