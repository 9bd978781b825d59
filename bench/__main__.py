"""python -m bench: see bench/studies.py."""

from bench.studies import main

main()
