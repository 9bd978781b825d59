"""`targets/NAME.toml`: where a classifier answers, what it takes and gives, what may be asked of it, and who allows it.

    [target]
    url = "https://staging.example.org/v1/classify"
    send = "multipart"                        # one of SENDS
    field = "file"                            # a part, an input, or a place such as "instances[].image.b64"
    format = "png"                            # png, jpeg, float32 or uint8
    size = [224, 224]
    channels = 3
    answer = "predictions[0].scores"          # JMESPath
    scale = "probabilities"                   # logits, label, top-k
    classes = ["cat", "dog"]                  # or how many there are
    headers = { X-Api-Key = "env:SHOP_KEY" }  # secrets come from the environment
    rate = 20.0                               # pictures a second, never more
    budget = 10_000                           # pictures in all, never more
    price_per_1000 = 1.5
    owner = "who allows it, ticket number"    # both of them, for every host but this one
    authorised_until = 2027-01-31

A secret is read when a request is made. It stands in no field of a Target, so nothing that prints one can show it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jmespath

from attest.measured import SCALES, TargetFacts
from recipes.fields import RecipeError, build, nearest

if sys.version_info >= (3, 11):
    import tomllib as tomllib
else:
    import tomli as tomllib

FOLDER = Path("targets")
PICTURES, NUMBERS = ("png", "jpeg"), ("float32", "uint8")
LAYOUTS = ("NCHW", "NHWC")
SECRET = "env:"
# a header whose value is a secret, whatever its owner thinks
SECRETIVE = re.compile(r"auth|key|token|secret|cookie|session|password|signature", re.IGNORECASE)


class TargetError(ValueError):
    """A target file that cannot be used; a line for each fault, which names file, key, value and what was expected."""


@dataclass(frozen=True)
class Send:
    """One way of sending. batch: whether a request may carry several pictures. formats: of these. field, answer,
    scale: where the file does not say; "" where it has to. grpc: not over HTTP."""

    formats: tuple[str, ...]
    batch: bool = False
    field: str = ""
    answer: str = ""
    scale: str = "probabilities"
    grpc: bool = False


SENDS: Mapping[str, Send] = {
    "multipart": Send(PICTURES, field="file"),
    "picture": Send(PICTURES),
    "float32": Send(("float32",), batch=True),
    "json-b64": Send((*PICTURES, "float32", "uint8"), batch=True),
    "json": Send(NUMBERS, batch=True),
    "kserve-v1": Send((*PICTURES, *NUMBERS), batch=True, field="b64", answer="predictions"),
    "tf-serving": Send((*PICTURES, *NUMBERS), batch=True, field="b64", answer="predictions"),
    "kserve-v2": Send((*PICTURES, *NUMBERS), batch=True, field="images", answer="outputs[0].data"),
    "kserve-v2-grpc": Send((*PICTURES, *NUMBERS), batch=True, field="images", answer="outputs[0].data", grpc=True),
    "torchserve": Send(PICTURES, field="data", answer="@", scale="top-k"),
}


@dataclass(frozen=True)
class Target:
    """The table [target]; see the head of this file.

    url: http(s)://HOST/PATH; for kserve-v2-grpc grpc(s)://HOST:PORT/MODEL. format: of a picture, or of numbers in
    [0, 1] (float32) and 0 to 255 (uint8). layout, mean, std: of numbers; (x - mean) / std a channel, where they are
    given. rows: pictures in a request. answer: JMESPath over the answer's JSON to the numbers of its rows, the label,
    or a table of numbers by name. label: JMESPath to the label of an answer that withholds its numbers. names: where
    the names stand apart, JMESPath to them, in the order of `answer`. flag: JMESPath that is true where the service
    says that it took offence. classes: names, or how many. connections: open at once. timeout: seconds for a whole
    answer. cacert: file of the authority that signed the server's certificate.
    """

    url: str
    send: str
    size: tuple[int, int]
    classes: tuple[str, ...] | int
    channels: int = 3
    field: str = ""
    format: str = "png"
    layout: str = "NCHW"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    rows: int = 1
    answer: str = ""
    scale: str = ""
    label: str = ""
    names: str = ""
    flag: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    rate: float = 20.0
    budget: int = 10_000
    connections: int = 4
    timeout: float = 10.0
    cacert: str = ""
    price_per_1000: float = 0.0
    currency: str = "EUR"
    owner: str = ""
    authorised_until: str = ""

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))

    def _faults(self) -> Iterator[str]:
        if self.send not in SENDS:
            yield f"send: {nearest(self.send, SENDS)}, got {self.send!r}"
            return
        yield from self._faults_of_sending(SENDS[self.send])
        yield from self._faults_of_answers(SENDS[self.send])
        for name, least in (("rate", 0), ("timeout", 0)):
            if not getattr(self, name) > least:
                yield f"{name}: expected above 0, got {getattr(self, name)}"
        for name in ("budget", "connections", "rows"):
            if getattr(self, name) < 1:
                yield f"{name}: expected at least 1, got {getattr(self, name)}"
        if self.price_per_1000 < 0:
            yield f"price_per_1000: expected 0 or more, got {self.price_per_1000}"
        for name, value in self.headers.items():
            if SECRETIVE.search(name) and not value.startswith(SECRET):
                yield f'headers.{name}: expected "env:NAME", the variable that holds it, got a value in the file'
        yield from self._faults_of_leave()

    def _faults_of_sending(self, send: Send) -> Iterator[str]:
        parts = urlsplit(self.url)
        schemes = ("grpc", "grpcs") if send.grpc else ("http", "https")
        if parts.scheme not in schemes or not parts.hostname:
            yield f"url: expected {' or '.join(f'{each}://HOST/...' for each in schemes)}, got {self.shown_url!r}"
        elif send.grpc and not parts.path.strip("/"):
            yield f"url: expected the model's name behind the port, grpc://HOST:PORT/MODEL, got {self.shown_url!r}"
        if parts.username or parts.password:
            yield 'url: expected no user and password; put them into headers, as Authorization = "env:NAME"'
        if self.format not in send.formats:
            yield f"format: expected one of {', '.join(send.formats)} with send = {self.send!r}, got {self.format!r}"
        if self.layout not in LAYOUTS:
            yield f"layout: expected one of {', '.join(LAYOUTS)}, got {self.layout!r}"
        if self.channels not in (1, 3):
            yield f"channels: expected 1 or 3, got {self.channels}"
        if min(self.size) < 8:
            yield f"size: expected [height, width] of at least 8, got {list(self.size)}"
        placed = self.send in ("json-b64", "json")
        if self.rows > 1 and not (send.batch and ("[]" in self.field or not placed)):
            yield f"rows: expected 1, {self.send} with field = {self.field!r} carries one picture, got {self.rows}"
        if placed and not self.field:
            yield f'field: expected the place in the JSON with send = {self.send!r}, such as "instances[].b64"'
        for name in ("mean", "std"):
            if getattr(self, name) and len(getattr(self, name)) != self.channels:
                yield f"{name}: expected {self.channels} numbers, one a channel, got {list(getattr(self, name))}"
        if (self.mean or self.std) and self.format != "float32":
            yield f"mean, std: expected with format = 'float32' alone, got {self.format!r}"
        if any(not value > 0 for value in self.std):
            yield f"std: expected numbers above 0, got {list(self.std)}"
        if self.cacert and not Path(self.cacert).is_file():
            yield f"cacert: {self.cacert}: no such file; expected the authority's certificates as PEM"

    def _faults_of_answers(self, send: Send) -> Iterator[str]:
        if not (self.answer or send.answer):
            yield f"answer: expected a JMESPath to the numbers or the label with send = {self.send!r}, got none"
        for name in ("answer", "label", "names", "flag"):
            try:
                jmespath.compile(getattr(self, name) or "@")
            except jmespath.exceptions.JMESPathError as error:
                yield f"{name}: expected a JMESPath, got {getattr(self, name)!r} ({str(error).splitlines()[0]})"
        if (self.scale or send.scale) not in SCALES:
            yield f"scale: {nearest(self.scale, SCALES)}, got {self.scale!r}"
        if len(self.class_names) < 2 or len(set(self.class_names)) < len(self.class_names):
            yield f"classes: expected at least 2 different names, or how many there are, got {self.classes!r}"

    def _faults_of_leave(self) -> Iterator[str]:
        try:
            until = date.fromisoformat(self.authorised_until) if self.authorised_until else None
        except ValueError:
            yield f"authorised_until: expected a date such as 2027-01-31, got {self.authorised_until!r}"
            return
        if self.loopback:
            return
        host = urlsplit(self.url).hostname
        if not self.owner.strip():
            yield f"owner: expected who allows it, for a host that is not this machine ({host}), got none"
        if until is None:
            yield f"authorised_until: expected a date, for a host that is not this machine ({host}), got none"
        elif until < datetime.now(timezone.utc).date():
            yield f"authorised_until: expected a date that has not passed, got {self.authorised_until}; ask the owner"

    @property
    def loopback(self) -> bool:
        """Whether the url names this machine. A name that only resolves to it does not count: that may change."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def class_names(self) -> tuple[str, ...]:
        """By position; numbers in decimal where the file says only how many there are."""
        return tuple(map(str, range(self.classes))) if isinstance(self.classes, int) else self.classes

    @property
    def shown_url(self) -> str:
        """The url without user, password and query, which may be secrets."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def whole(self) -> Target:
        """The same with what its way of sending says where the file does not."""
        send = SENDS[self.send]
        return replace(
            self,
            field=self.field or send.field,
            answer=self.answer or send.answer,
            scale=self.scale or send.scale,
        )

    def secrets(self) -> dict[str, str]:
        """The headers as they are sent. Raises TargetError for a variable that is not set. Do not keep
        what it gives."""
        found = {}
        for name, value in self.headers.items():
            variable = value.removeprefix(SECRET)
            if value.startswith(SECRET) and not os.environ.get(variable):
                raise TargetError(f"headers.{name}: expected the variable {variable} in the environment, it is not set")
            found[name] = os.environ[variable] if value.startswith(SECRET) else value
        return found

    def hidden(self, text: str) -> str:
        """A text of the service without the secrets, which it may have sent back."""
        for name, value in self.headers.items():
            secret = os.environ.get(value.removeprefix(SECRET), "") if value.startswith(SECRET) else ""
            if secret:
                text = text.replace(secret, f"({name})").replace(secret.rpartition(" ")[2], f"({name})")
        return text

    def price(self, queries: int) -> float:
        """Of so many queries, in `currency`."""
        return round(queries * self.price_per_1000 / 1000, 6)

    def facts(self, name: str, sha256: str) -> TargetFacts:
        """What reports say of it."""
        tls = urlsplit(self.url).scheme in ("https", "grpcs")
        return TargetFacts(
            name=name,
            url=self.shown_url,
            classes=self.class_names,
            headers=tuple(self.headers),
            tls=("own authority" if self.cacert else "public authorities") if tls else "none",
            sha256=sha256,
            **{key: getattr(self, key) for key in FACTS},
        )


FACTS = [
    "send",
    "answer",
    "scale",
    "size",
    "channels",
    "format",
    "rows",
    "rate",
    "budget",
    "price_per_1000",
    "currency",
    "owner",
    "authorised_until",
]


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """The file of a target: its name in `folder`, or a path."""
    return Path(name) if name.endswith(".toml") else folder / f"{name}.toml"


def read(path: Path) -> Target:
    """A target file, checked. Raises TargetError, with all its faults at once."""
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.toml"))) or "none"
        raise TargetError(f"{path}: no such file; write it (docs/attest.md); there are: {there}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{path}: not TOML: {error}") from None
    extra = sorted(set(content) - {"target"})
    if extra or "target" not in content:
        raise TargetError(f"{path}: expected one table [target], got {', '.join(content) or 'none'}")
    try:
        return build(Target, content["target"], where=f"{path}: [target]").whole()
    except RecipeError as error:
        raise TargetError(str(error)) from None


def digest(path: Path) -> str:
    """SHA-256 of the file, which says under which terms an attest was made."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
