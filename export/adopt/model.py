"""[model] of a recipe: the owner's classifier, as its file is to be understood."""

from __future__ import annotations

from dataclasses import dataclass

from pictures.model_input import ModelInput

# what the output's numbers are: probabilities that sum to 1; logits of a softmax (log-probabilities are); the
# probability of the second of two classes; the logit of that
GIVES = ("probabilities", "logits", "probability", "logit")
ALONE = ("probability", "logit")


@dataclass(frozen=True)
class Model:
    """file: path of the owner's file, which is read and never written to. classes: names, in the order of its columns.
    input: what it takes (pictures/model_input.py). gives: what its output is, one of GIVES. output: which value of the
    graph that is; "": its only output. batch: images that its graph takes at a time, which is then looped over; 0: any
    number. architecture: `timm:NAME` or `torchvision:NAME`, where the file holds weights. expect: CSV of `file,label`,
    the owner's own predictions, with which the adopted graph must agree whenever it is made again. proven: what
    adoption found out about preprocessing, for reports.
    """

    file: str
    classes: tuple[str, ...]
    input: ModelInput
    gives: str = "probabilities"
    output: str = ""
    batch: int = 0
    architecture: str = ""
    expect: str = ""
    proven: str = ""

    def __post_init__(self) -> None:
        if self.gives not in GIVES:
            raise ValueError(f"gives: expected one of {', '.join(GIVES)}, got {self.gives!r}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected two or more different names, got {list(self.classes)[:5]}")
        if self.gives in ALONE and len(self.classes) != 2:
            raise ValueError(f"classes: expected two, {self.gives!r} is of the second of two, got {len(self.classes)}")
        if self.batch < 0:
            raise ValueError(f"batch: expected 0 or a number of images, got {self.batch}")
        if self.architecture and (self.output or self.batch or self.gives != "logits"):
            raise ValueError("architecture: expected gives 'logits', no output and no batch: the network is built here")

    @property
    def columns(self) -> int:
        """Of the raw output."""
        return 1 if self.gives in ALONE else len(self.classes)
