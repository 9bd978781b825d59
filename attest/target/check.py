"""Ten pictures to a target, and what was understood of the answers; or what would be sent, and what it would cost.

    python -m loadtests.target check NAME [--images DIR] [--dry-run]

It asks at the target's rate, within its budget, and writes nothing. The pictures are the owner's, or, without any,
crops of a photograph, which are of no class: then labels say nothing, but the form of the answers does.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from attest.asking import judged
from attest.target import table
from attest.target.encoding import Encoded, encode, pictures
from attest.target.pace import Pace, Stopped
from attest.target.reading import Read, Reader, Unread
from attest.target.table import SECRET, Target, TargetError
from attest.target.wires import DROPPED, Reply, Wire, wire
from zoo import datasets
from zoo.images import Images

PICTURES = 10
STRANGE = "flower"
# of a body that is shown
LETTERS = 72
SUMS = 0.01
# what is wrong where no certificate is trusted, and where every answer has this status
UNTRUSTED = re.compile(rb"certificate|hostname verification", re.IGNORECASE)
CERTIFICATE = "is cacert the authority that signed the server's certificate, for this host, and is that still good?"
ADVICE = {
    DROPPED: "is the server running, at this url and port?",
    400: "are send, field, format, size and channels right?",
    401: "is the header with the key right?",
    403: "is the header with the key right?",
    404: "is the path of the url right?",
    405: "is the path of the url right? it takes no POST",
    415: "does it take this format, sent in this way?",
    422: "are field and send right?",
}


def named(images: str) -> str:
    """The owner's images as zoo.datasets calls them: a data set's name, or a folder or a .csv file."""
    return images if images.partition(":")[0] in datasets.DATASETS else f"imagefolder:{images}"


def load(images: str, target: Target, split: str) -> Images:
    """The owner's images in the target's size. Raises DatasetError."""
    return datasets.load(named(images), split, size=target.size, channels=target.channels)


def classes_of(images: Images, target: Target, spec: str) -> tuple[str, ...]:
    """All of the target's classes, those of the images first, in their order: so labels of images are positions in it.
    Raises TargetError where a class of theirs is none of the target's."""
    names = target.class_names
    strangers = [name for name in images.classes if name not in names]
    if not strangers:
        return (*images.classes, *(name for name in names if name not in images.classes))
    if isinstance(target.classes, int) and len(images.classes) == target.classes:
        return names
    raise TargetError(
        f"images: {spec}: class {strangers[0]!r} is none of the target's ({', '.join(names[:8])}); name the folders as "
        "the target file's classes, or the classes as the folders"
    )


def dry(target: Target, name: str, images: torch.Tensor) -> Iterator[str]:
    """Lines: the request, and what it would cost. Nothing is sent, and no secret is read."""
    encoded = encode(target, pictures(target, images[: target.rows].numpy()))
    yield f"{name}: nothing is sent"
    yield f"  POST {target.shown_url}" if not table.SENDS[target.send].grpc else f"  ModelInfer {target.shown_url}"
    yield f"  Content-Type: {encoded.content_type}"
    for header, value in target.headers.items():
        yield f"  {header}: {f'({value})' if value.startswith(SECRET) else value}"
    yield f"  {len(encoded.body):,} bytes for {target.rows} of {PICTURES} pictures: {_start(encoded)}"
    for what, count in ((f"these {PICTURES}", PICTURES), ("the whole budget", target.budget)):
        seconds = count / target.rate
        yield (
            f"  {what}: {count:,} queries, {target.price(count):.2f} {target.currency}, at least {seconds:,.0f} s at "
            f"{target.rate:g} a second"
        )
    yield f"  allowed by: {_leave(target)}"


def ask(
    target: Target, images: torch.Tensor, sending: Wire, pace: Pace, reader: Reader
) -> list[tuple[Reply, str, Read | None]]:
    """Every answer, what it is and what it says, a request each. Raises Stopped."""
    found = []
    for part in images.split(target.rows):
        pace.take(len(part))
        reply = sending.send(encode(target, pictures(target, part.numpy())))
        found.append((reply, *judged(reply, reader, len(part))))
    return found


def understood(
    target: Target,
    answers: list[tuple[Reply, str, Read | None]],
    classes: Sequence[str],
    truth: torch.Tensor | None,
) -> Iterator[str]:
    """Lines about what the answers are. classes: by label. truth: the pictures' labels, where they are known."""
    kinds = Counter(f"{reply.status or 'no answer'} {kind}" for reply, kind, _ in answers)
    yield "  answers: " + ", ".join(f"{count} x {what}" for what, count in kinds.most_common())
    times = [reply.ms for reply, _, _ in answers]
    yield f"  latency: median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms"
    read = [each for _, _, each in answers if each is not None]
    if not read:
        return
    labels = np.concatenate([each.labels for each in read])
    names = [classes[label] for label in labels]
    yield f"  classes: {len(target.class_names)}; answered: " + ", ".join(dict.fromkeys(names))
    shown = [each.probabilities for each in read if each.probabilities is not None]
    yield "  form: " + ("the label alone" if not shown else _form(target, np.concatenate(shown)))
    if truth is not None and len(labels) == len(truth):
        yield f"  right: {int((torch.from_numpy(labels) == truth).sum())} of {len(labels)}"


def fault(target: Target, answers: list[tuple[Reply, str, Read | None]]) -> str | None:
    """Why an attest would be in vain, None: some pictures were answered."""
    if any(kind == "answered" for _, kind, _ in answers):
        return None
    reply, kind, _ = answers[0]
    where = f"{target.shown_url}: no picture was answered"
    if kind == "redirected":
        place = reply.location.partition("?")[0]
        return f"{where}: {reply.status}, a redirection to {place!r} is not followed; if it is right, put it into url"
    if kind == "unread":
        try:
            Reader(target).read(reply.body, target.rows)
        except Unread as error:
            return f"{where} as the file says: {error}; are answer, scale and classes right?"
    said = target.hidden(reply.body[:LETTERS].decode("utf-8", "replace"))
    untrusted = reply.status == DROPPED and UNTRUSTED.search(reply.body)
    advice = CERTIFICATE if untrusted else ADVICE.get(reply.status, "what does its log say?")
    return f"{where}: {reply.status or 'no answer'} {said!r}; {advice}"


def _form(target: Target, rows: np.ndarray) -> str:
    named, sums = (rows > 0).sum(axis=1), rows.sum(axis=1)
    text = f"{target.scale}, {rows.shape[1]} numbers, sums {sums.min():.3f} to {sums.max():.3f}"
    if target.scale == "top-k":
        return f"{target.scale}, up to {named.max()} classes by name, sums {sums.min():.3f} to {sums.max():.3f}"
    if abs(sums - 1).max() > SUMS:
        text += "; not 1: they are logits, or were cut or rounded"
    elif target.scale == "logits" and len(np.unique(rows.round(2))) < len(rows):
        text += "; nearly uniform: were they probabilities already?"
    return text


def _start(encoded: Encoded) -> str:
    return repr(encoded.body[:LETTERS])


def _leave(target: Target) -> str:
    return "this machine's own" if target.loopback else f"{target.owner}, until {target.authorised_until}"


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    try:
        path = table.path_of(options.name, options.targets)
        target = table.read(path)
        images = load(options.images or STRANGE, target, "test" if options.images else "train")
        rows = torch.linspace(0, len(images) - 1, min(PICTURES, len(images))).long()
        shown = images.pixels[rows]
        if options.dry_run:
            print("\n".join(dry(target, options.name, shown)))
            return
        classes = classes_of(images, target, options.images or STRANGE)
        sending = wire(target)
        try:
            answers = ask(target, shown, sending, Pace(target), Reader(target, classes))
        finally:
            sending.close()
        print(f"{options.name}: {len(shown)} pictures to {target.shown_url}; allowed by: {_leave(target)}")
        truth = None if images.labels is None else images.labels[rows]
        print("\n".join(understood(target, answers, classes, truth)))
        wrong = fault(target, answers)
        if wrong:
            sys.exit(f"attest.target: {wrong}")
    except (TargetError, Stopped, datasets.DatasetError) as error:
        sys.exit(f"attest.target: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.target", description="an endpoint and its target file")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="send ten pictures and show what was understood")
    check.add_argument("name", help="a target's name, or the path of its .toml file")
    check.add_argument(
        "--images", help="labelled images: a folder, a .csv file or a data set's name (a photograph's crops)"
    )
    check.add_argument("--dry-run", action="store_true", help="show what would be sent and what it would cost")
    check.add_argument("--targets", type=Path, default=table.FOLDER, help="folder of the target files (targets)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
