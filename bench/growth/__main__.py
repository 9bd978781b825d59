"""python -m bench.growth: see bench/growth/command.py."""

from bench.growth.command import main

main()
