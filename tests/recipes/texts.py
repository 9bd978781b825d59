"""Tables that the made-up recipes of tests share: a network's least."""

VICTIM = """[victim]
architecture = "lenet5"
optimisation = { epochs = 1 }
"""
HASH = """[networks.hash]
task = "glyphs"
classes = 10
per_class = 10
architecture = "lenet5"
optimisation = { epochs = 1 }
"""
