"""python -m assurance.fuzz: see assurance/fuzz/program.py."""

import sys

from assurance.fuzz.program import main

sys.exit(main())
