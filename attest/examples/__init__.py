"""Small classifiers' servers that are not ours, each with its target file in targets/: what an attest is tried on."""
