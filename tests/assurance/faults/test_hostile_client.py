"""The tools of the drill with a hostile client, worked out by hand; the drill itself is in tests/e2e/test_faults.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf

import numpy as np
import pytest

from assurance.faults.clients import Door
from assurance.faults.dear_requests import requests
from assurance.faults.figures import Outcome
from assurance.faults.flood import Flood, send
from assurance.faults.hostile_client import Phase, ratios, spread
from handlers import wire
from pictures.geometry import Geometry
from report.rows.faults import CUT, RIGHT

IMAGES = np.linspace(0, 1, 2 * 28 * 28, dtype=np.float32).reshape(2, 1, 28, 28)
ACCEPTS = wire.Accepts(Geometry(1, 28, 28), max_rows=4)


def outcome(begun: float, ms: float, what: str = RIGHT) -> Outcome:
    return Outcome("digits", begun, begun + ms / 1000, what)


def test_each_hostile_phase_is_compared_with_the_quiet_one_before_it() -> None:
    phases = [Phase(0, 10), Phase(10, 20), Phase(20, 30), Phase(30, 40)]
    seen = [
        *(outcome(1, ms) for ms in (9, 10, 11)),
        *(outcome(11, ms) for ms in (10, 12, 5000)),
        outcome(19.99, 1, CUT),  # without an answer there is no latency
        *(outcome(21, ms) for ms in (20, 20)),
        *(outcome(31, ms) for ms in (30, 30)),
        outcome(40, 1000),  # begun when it was over
    ]
    assert ratios(phases, seen) == pytest.approx([1.2, 1.5])
    assert spread([1.2, 1.5, 1.0]) == "1.20 (1.00 to 1.50, n = 3)"


def test_a_phase_without_an_answer_is_as_slow_as_can_be() -> None:
    assert ratios([Phase(0, 10), Phase(10, 20)], [outcome(1, 10), outcome(11, 5, CUT)]) == [inf]


@pytest.mark.parametrize("most", [100_000, 999_999, 3_000_000])
def test_requests_are_good_ones_as_long_as_they_may_be_and_no_longer(most: int) -> None:
    made = requests(IMAGES, rows=4, most_bytes=most)
    assert len(made) >= 9
    for each in made:
        assert len(each.body) <= most
        rows = wire.decode(each.body, each.content_type, expects=ACCEPTS)
        assert (len(rows.images), rows.errors) == (each.rows, {}), each.name
    assert max(len(each.body) for each in made) > 0.9 * most


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def door() -> Iterator[Door]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Door(f"http://127.0.0.1:{server.server_port}", {})
        server.shutdown()
        thread.join()


def test_a_flood_keeps_to_its_rate_and_counts_what_became_of_it(door: Door) -> None:
    sent = send(Flood(door, "digits", wire.PNG, b"x" * 1000, rate=50, connections=4), 1.0)
    assert set(sent.responses) == {"200"}
    assert 30 <= sent.responses["200"] <= 50
    assert 0 < sent.cpu < 2
