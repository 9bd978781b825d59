"""A classifier's endpoint, ours or not: what `targets/NAME.toml` says of it, what is sent, how its answer is read."""
