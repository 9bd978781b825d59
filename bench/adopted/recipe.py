"""The adopted model's recipe for a measurement: the one that adoption wrote, with tiers that say how much is trained.

What a step of training or an answer costs does not depend on how many steps there were before, so tiers leave the
networks as they are and take few images, or one epoch.
"""

from __future__ import annotations

from pathlib import Path

TIERS = """
# what `python -m bench.adopted` trains
[tiers.serving]
dataset = { rows = 64 }
victim = { optimisation = { epochs = 1 } }
networks.hash = { per_class = 100, mix_rows = 100, optimisation = { epochs = 1 } }
networks.edm = { held_out = 100 }
networks.same = { fit = { epochs = 1 }, auxiliary_fit = { epochs = 1 } }

[tiers.reading]
victim = { options = { shrunk = 32 }, optimisation = { epochs = 1 } }

[tiers.reading-copies]
victim = { options = { shrunk = 64 }, optimisation = { epochs = 1 } }

[tiers.reading-whole]
dataset = { rows = 192 }
victim = { optimisation = { epochs = 1 } }

[tiers.gate]
networks.same = { fit = { epochs = EPOCHS }, auxiliary_fit = { epochs = EPOCHS } }

[tiers.meco]
dataset = { rows = 96 }
networks.meco = { judged = 100, optimisation = { epochs = 1, batch_size = 32 } }
"""
EPOCHS = 3


def tiers(recipe: Path) -> Path:
    """The recipe with the tiers, which comes back."""
    recipe.write_text(recipe.read_text("utf-8") + TIERS.replace("EPOCHS", str(EPOCHS)), "utf-8")
    return recipe
