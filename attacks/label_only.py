"""The label-only thief: the same attack, deaf to everything but labels.

A client that gets probabilities may ignore them, and where a defense distorts them more than it changes labels, it does
better without (MeCo, Wang et al., NeurIPS 2023, sec. 5.4 and table 5; Orekondy et al., ICLR 2020, sec. 5.4).
"""

from __future__ import annotations

import dataclasses

import torch

from attacks.oracle import Answers, Oracle


def labels_only(oracle: Oracle) -> Oracle:
    """`oracle` without its probabilities; a refused row stays refused."""

    def respond(images: torch.Tensor) -> Answers:
        return dataclasses.replace(oracle(images), probabilities=None)

    return respond
