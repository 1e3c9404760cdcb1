"""Trackers for tests: runs to feed them from, what TensorBoard and W&B have got, and servers of every temper."""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from labkit.record.files import dumps
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import RunDir, create

KEY = "a1b2c3d4" * 5  # to no account
Points = list[tuple[int, float]]


def make_run(folder: Path, lines: int = 0, **parameters: Any) -> RunDir:
    """Make a run that has logged so many steps, and whose process is gone."""
    run = create(folder / "runs", "tracked", {"parameters": parameters})
    log(run, range(lines))
    return run


def log(run: RunDir, steps: range | list[int], **more: float) -> None:
    """Log further steps."""
    writer = MetricsWriter(run.metrics)
    for step in steps:
        writer.log(step, {"loss": step / 2, **more})
    writer.close()


def recorded(steps: range | list[int]) -> Points:
    """The points of `loss` that `log` has logged."""
    return [(step, step / 2) for step in steps]


def on_tensorboard(folder: Path, tag: str = "loss") -> Points:
    """The points that TensorBoard reads from a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(point.step, point.value) for point in read.Scalars(tag)] if tag in read.Tags()["scalars"] else []


def in_offline_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows in the files of W&B's offline runs, by the name of the file."""
    return {path.name: [row for record in _records(path) if (row := _row(record))] for path in folder.rglob("*.wandb")}


def _row(record: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def _records(path: Path) -> Iterator[Any]:
    """The records in a file of W&B: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the end of one
            yield Record.FromString(parts)
            parts = b""


class Account(BaseHTTPRequestHandler):
    """As much of W&B's server as keeps the rows of runs."""

    protocol_version = "HTTP/1.1"
    rows: dict[str, dict[int, str]]
    said: list[bytes]

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.said.append(body)
        data = json.dumps(self._answer(json.loads(body))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.path.endswith("/file_stream"):
            history = asked.get("files", {}).get("wandb-history.jsonl") or {"offset": 0, "content": []}
            rows = self.rows.setdefault(self.path.split("/")[-2], {})
            rows |= dict(enumerate(history["content"], history["offset"]))
            return {}
        operation, given = asked.get("operationName") or "", asked.get("variables") or {}
        project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "ada"}}
        rows = self.rows.get(given.get("name") or "", {})
        bucket = {"id": "b", "name": given.get("name"), "displayName": "b", "project": project, "config": "{}"}
        counts = {"historyLineCount": len(rows), "logLineCount": 0, "eventsLineCount": 0}
        tails = {"historyTail": json.dumps([rows[max(rows)]] if rows else []), "eventsTail": "[]"}
        bucket |= counts | tails | {"summaryMetrics": "{}", "wandbConfig": '{"t": 1}'}
        return {
            "data": {
                "RunResumeStatus": {"model": project | {"bucket": bucket if rows else None}},
                "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": not rows}},
                "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}},
            }.get(operation, {"viewer": {"id": "v", "entity": "ada"}, "serverInfo": {"features": []}})
        }


class _Failing(socketserver.BaseRequestHandler):
    """Says 500, or nothing for as long as the other side waits."""

    def handle(self) -> None:
        self.request.recv(2**16)
        if self.server.temper == "answers 500":
            self.request.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        while self.server.temper == "never answers" and self.request.recv(2**16):
            pass


class _Server(ThreadingHTTPServer):
    block_on_close = False
    temper = ""

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open = [*getattr(self, "open", []), request]
        super().process_request(request, client_address)

    def handle_error(self, *_: Any) -> None:
        pass  # the client was killed


@dataclass
class Served:
    """A server: its address, the rows that it keeps by run of W&B, what it was told, and how to end it."""

    address: str
    rows: dict[str, dict[int, str]] = field(default_factory=dict)
    said: list[bytes] = field(default_factory=list)
    die: Callable[[], None] = lambda: None

    @property
    def environment(self) -> dict[str, str]:
        """What leads W&B's client there."""
        return {
            "WANDB_BASE_URL": self.address,
            "WANDB_API_KEY": KEY,
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",  # seconds
        }


@contextmanager
def server(temper: str, rows: dict[str, dict[int, str]] | None = None) -> Iterator[Served]:
    """A server on the loopback that `works`, `refuses`, `never answers` or `answers 500`."""
    if temper == "refuses":
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and nobody listens
            yield Served(f"http://127.0.0.1:{taken.getsockname()[1]}")
        return
    handler = type("Handler", (Account,), {"rows": {} if rows is None else rows, "said": []})
    with _Server(("127.0.0.1", 0), handler if temper == "works" else _Failing) as made:

        def die() -> None:
            made.shutdown()
            made.server_close()
            made.temper = ""
            for connection in getattr(made, "open", []):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

        made.temper = temper
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield Served(f"http://127.0.0.1:{made.server_address[1]}", handler.rows, handler.said, die)
        die()


def torn(record: dict[str, Any]) -> bytes:
    """Half of a line."""
    line = dumps(record)
    return line[: len(line) // 2]
