"""python -m loadtests.bench: see loadtests/bench/studies.py."""

from loadtests.bench.studies import main

main()
