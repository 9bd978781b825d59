"""Whether a row's answer depends on the rows beside it: in company it must be what it is alone.

The service answers a row as if no other were there: a gate's threshold, an ensemble's comparison and two customers'
answers rest on it, and a thief could shift others' answers. Two things break it. Dynamic quantisation takes its scale
from the whole batch, and batch normalisation left in training mode takes its statistics from there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graphs import ExportError

Probabilities = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# rows that stand in company of others; a batch of one, and what an exporter takes for a branch of its own
COMPANY = (2, 3, 7, 32)
# largest |difference| of a probability: rounding in another order stays an order of magnitude below
BOUND = 1e-5
# of a graph that computes in 16 bits
HALF_BOUND = 2e-3


def check_rows(answer: Probabilities, images: NDArray[np.float32], proto: onnx.ModelProto, *, half: bool) -> float:
    """The largest difference that company makes, over images (M,C,H,W), M of 8 or more. Raises ExportError.

    proto: of the owner's, for the reason. half: whether it computes in 16 bits.
    """
    rows, bound = images[:4], HALF_BOUND if half else BOUND
    alone = np.concatenate([answer(row[None]) for row in rows])
    again = answer(rows[:1])
    if not np.array_equal(alone[:1], again):
        raise ExportError(
            "the same image gets other answers when it is asked again, by up to "
            f"{np.abs(alone[:1] - again).max():.2g}: something in the graph draws at random (dropout in training "
            "mode?); export it in evaluation mode"
        )
    worst = 0.0
    for count in COMPANY:
        # all black and all white neighbours move a scale that is taken from the batch more than others do
        others = np.concatenate([images[4:], np.zeros_like(images[:1]), np.ones_like(images[:1])])
        company = np.concatenate([rows, np.resize(others, (max(0, count - len(rows)), *images.shape[1:]))])[:count]
        order = np.roll(np.arange(count), count // 2)  # in another place, too
        answered = answer(np.ascontiguousarray(company[order]))
        if answered.shape != (count, alone.shape[1]):
            raise ExportError(f"expected {count} rows for {count} images, got {answered.shape}")
        back = np.empty_like(answered)
        back[order] = answered
        worst = max(worst, float(np.abs(back[: len(rows)] - alone[:count]).max()))
    if worst > bound:
        raise ExportError(
            f"its answers to an image depend on the images beside it, by up to {worst:.2g}, and may not by more than "
            f"{bound:g}: {reason(proto)}"
        )
    return worst


def reason(proto: onnx.ModelProto) -> str:
    """The likely one, and what to do about it."""
    kinds = {node.op_type for node in proto.graph.node} | {
        node.op_type for function in proto.functions for node in function.node
    }
    if "DynamicQuantizeLinear" in kinds:
        return "its quantisation is dynamic, the scale comes from the whole batch; quantise it statically"
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization":
            modes = {each.name: each.i for each in node.attribute}
            if modes.get("training_mode") or len([name for name in node.output if name]) > 1:
                return "batch normalisation was left in training mode; export it in evaluation mode, model.eval()"
    return (
        "something in it looks across the batch (batch normalisation in training mode, dynamic quantisation, a "
        "reduction over the first axis); export it in evaluation mode, with a static quantisation"
    )
