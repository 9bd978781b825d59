"""python -m bench.peers: see bench/peers/command.py."""

from bench.peers.command import main

main()
