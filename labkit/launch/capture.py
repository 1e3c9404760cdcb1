"""Everything a kernel prints goes to the run's log first; the notebook gets a limited view of it.

The log is the file behind descriptors 1 and 2, so output of subprocesses and of C code is in it with no thread between,
up to the last byte before a crash. Python's own streams write to the same file and note which bytes were whose. A
thread reads the file from behind and shows it in the notebook: all of a cell's first bytes, then, when the cell has
ended, its last ones, with a note of what was left out. Nothing waits for the notebook.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from typing import Any

from ipykernel.iostream import OutStream
from ipykernel.zmqshell import ZMQInteractiveShell

from labkit.record.files import write_all
from labkit.record.text import painted

HEAD_BYTES = 64 * 2**10  # of one cell's text, shown as it comes
TAIL_BYTES = 16 * 2**10  # of one cell's text, shown when it has ended
NOTEBOOK_BYTES = 3 * 2**20  # of all text in one notebook
CELL_DISPLAYS = 300
CELL_SWITCHES = 300  # between streams in one cell, up to which their order is kept; each waits a moment
CLAIMS = 10_000  # stretches of the log whose stream is remembered, beyond what will be shown
DISPLAY_BYTES = 20 * 2**20  # of one display, images in base64
INTERVAL_S = 0.2
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

HIDDEN = ""  # text that is in the log only: the notebook shows the same thing in its own way


class Capture:
    """The log of one kernel and the notebook's view of it.

    Attributes:
        lost: Bytes that the disk did not take.
        cut_bytes: Bytes that the notebook does not show.
        cut_displays: Displays that the notebook does not show.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = self._open()
        self._lock = threading.RLock()
        self._claims: deque[list[Any]] = deque()  # [start, end, stream] of what Python's streams wrote
        self._seen = os.fstat(self._fd).st_size
        self._shown_in_cell = self._shown = self._displays = self._displays_cut = 0
        self.lost = self.cut_bytes = self.cut_displays = 0
        self._streams: dict[str, RunStream] = {}
        self._last_shown = ""
        self._switches = 0
        self._over = threading.Event()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def forked(self) -> None:
        """Makes a forked child's writes its own: the lock may be held by a thread that is not there any more."""
        self._lock = threading.RLock()
        self._claims = deque(maxlen=0)  # the parent shows what has no owner
        try:
            self._fd = self._open()  # a shared one would move the parent's place in the file
        except OSError:
            self._fd = 1

    def write(self, stream: str, text: str) -> None:
        """Appends text to the log at once; `stream` is the one that shows it, HIDDEN for none."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            try:
                write_all(self._fd, data)
            except OSError:
                self.lost += len(data)
                return
            end = os.lseek(self._fd, 0, os.SEEK_CUR)  # appending leaves the offset behind what was written
            last = self._claims[-1] if self._claims else None
            if last is not None and last[1] == end - len(data) and last[2] == stream:
                last[1] = end
            else:
                self._claims.append([end - len(data), end, stream])
                if len(self._claims) > CLAIMS and self._room() <= 0:
                    self._forget_claims(end - TAIL_BYTES)

    def _forget_claims(self, position: int) -> None:
        """Drops who wrote what before `position`: text that the view will leave out."""
        while self._claims and self._claims[0][1] <= position:
            self._claims.popleft()

    def follow(self, streams: dict[str, RunStream]) -> None:
        """Starts showing what arrives in the log."""
        self._streams = streams
        threading.Thread(target=self._watch, name="labkit-view", daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL_S):
            try:
                self.show()
            except Exception as error:  # the view may fail; the log and the cell go on
                self.write(HIDDEN, f"labkit: the notebook's view stopped: {error!r}\n")
                return

    def stop_following(self) -> None:
        """Ends the view; the log goes on."""
        self._over.set()

    def show(self) -> None:
        """Shows new text, as long as the cell has not had its share."""
        with self._lock:
            room = self._room()
            end = os.fstat(self._fd).st_size
            if room > 0 and end > self._seen:
                self._show_until(min(end, self._seen + room))

    def end_cell(self) -> None:
        """Shows the end of what a cell printed, and says what was left out in between."""
        with self._lock:
            self.show()
            end = os.fstat(self._fd).st_size
            if end > self._seen:
                tail = min(TAIL_BYTES, max(0, NOTEBOOK_BYTES - self._shown))
                if end - tail > self._seen:
                    start = self._character_from(end - tail)
                    cut = start - self._seen
                    self._skip_to(start)
                    self.cut_bytes += cut
                    self._streams["stdout"].show(f"\n[… {cut:,} bytes are left out here; output.log has them all …]\n")
                self._show_until(end)
            if self._displays_cut:
                self.cut_displays += self._displays_cut
                self._streams["stdout"].show(
                    f"[… {self._displays_cut:,} displays are left out; output.log has their text …]\n"
                )
            self._shown_in_cell = self._displays = self._displays_cut = self._switches = 0

    def _room(self) -> int:
        return min(HEAD_BYTES - self._shown_in_cell, NOTEBOOK_BYTES - self._shown)

    def _show_until(self, end: int) -> None:
        """Shows the log from where the view stands, each stretch on the stream that it came from."""
        data = os.pread(self._fd, end - self._seen, self._seen)
        data = data[: len(data) - _cut_character(data)]
        start, stop = self._seen, self._seen + len(data)
        while start < stop:
            stream, upto = self._owner(start, stop)
            if stream:
                text = data[start - self._seen : upto - self._seen].decode(errors="replace")
                if self._last_shown not in ("", stream) and self._switches < CELL_SWITCHES:
                    self._switches += 1
                    self._streams[self._last_shown].publish()  # else each stream would wait in a buffer of its own
                self._last_shown = stream
                self._streams[stream].show(painted(text, continues=True))
                self._shown_in_cell += upto - start
                self._shown += upto - start
            start = upto
        self._seen = stop

    def _owner(self, start: int, stop: int) -> tuple[str, int]:
        """Returns which stream shows the byte at `start`, and up to where that holds."""
        while self._claims and self._claims[0][1] <= start:
            self._claims.popleft()
        if not self._claims:
            return "stdout", stop
        begin, end, stream = self._claims[0]
        return (stream, min(end, stop)) if begin <= start else ("stdout", min(begin, stop))

    def _character_from(self, position: int) -> int:
        """Returns where the first character at or behind a place in the log begins."""
        data = os.pread(self._fd, 3, position)
        return position + next((n for n, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))

    def _skip_to(self, position: int) -> None:
        self._seen = position
        while self._claims and self._claims[0][1] <= position:
            self._claims.popleft()

    def count_display(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Logs a display's text; drops the display when its cell has shown enough of them."""
        if message.get("msg_type", message["header"]["msg_type"]) not in ("display_data", "execute_result"):
            return message
        data = message["content"].get("data", {})
        text = data.get("text/plain")
        if isinstance(text, str):
            self.write(HIDDEN, text + "\n")
        self._displays += 1
        if self._displays <= CELL_DISPLAYS:
            self.show()  # what was printed before stands before
            for stream in self._streams.values():
                stream.publish()
        size = sum(len(value) for value in data.values() if isinstance(value, str))
        if self._displays <= CELL_DISPLAYS and size <= DISPLAY_BYTES:
            return message
        self._displays_cut += 1
        return None

    def counts(self) -> dict[str, Any]:
        """Returns what the kernel's record says of log and view."""
        return {
            "log": {"bytes": os.fstat(self._fd).st_size, "lost": self.lost},
            "view": {"cut_bytes": self.cut_bytes, "cut_displays": self.cut_displays},
        }


def _cut_character(data: bytes) -> int:
    """Returns how many bytes at the end belong to a character whose rest has not come yet."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return back if length > back else 0
    return 0


current: Capture | None = None  # the capture of this process


class RunStream(OutStream):
    """A standard stream that writes to the log; ipykernel's own way of publishing serves for the view."""

    def write(self, string: str) -> int:
        """Appends to the log at once."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if current is None:
            return int(super().write(string))
        current.write(self.name, string)
        return len(string)

    def show(self, text: str) -> None:
        """Publishes text to the notebook."""
        super().write(text)

    def flush(self) -> None:
        """Does nothing where the text is in the log already: a flush per line would slow the cell down."""
        if current is None:
            super().flush()

    def publish(self) -> None:
        """Sends what is shown so far to the notebook."""
        super().flush()

    def close(self) -> None:
        """Does nothing: what is printed later goes to the log all the same."""

    def fileno(self) -> int:
        """Returns the descriptor that leads to the log, as subprocesses and C code use it."""
        return 1 if self.name == "stdout" else 2


class RunShell(ZMQInteractiveShell):
    """IPython's shell with tracebacks in the log as well."""

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        if current is not None:
            current.write(HIDDEN, ANSI.sub("", "\n".join(stb)) + "\n")
            end_cell({})
        super()._showtraceback(etype, evalue, stb)


def begin(path: str) -> Capture:
    """Opens the log of this process; from here on Python's streams write to it."""
    global current
    current = Capture(path)
    os.register_at_fork(after_in_child=current.forked)
    return current


def attach(shell: Any) -> None:
    """Connects the capture with a kernel's shell: streams, displays, and the end of each cell."""
    assert current is not None
    streams: dict[str, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}
    current.follow(streams)
    shell.display_pub.register_hook(current.count_display)
    shell.displayhook.register_hook(current.count_display)

    def after_cell(_: Any) -> None:
        _mend(streams)
        end_cell(streams)

    shell.events.register("post_run_cell", after_cell)


def _mend(streams: dict[str, Any]) -> None:
    """Puts back a standard stream that a cell left broken: the kernel flushes both before it answers, or never does."""
    for name, stream in streams.items():
        try:
            getattr(sys, name).flush()
        except Exception as error:
            setattr(sys, name, stream)
            stream.write(f"labkit: the cell left sys.{name} broken ({error!r}); it is the notebook's own again\n")


def end() -> None:
    """Ends the notebook's view, whose channel is about to close; what is still printed goes to the log."""
    if current is not None:
        current.stop_following()


def end_cell(streams: dict[str, Any]) -> None:
    """Brings the view up to date before a cell counts as done."""
    try:
        if current is not None:
            current.end_cell()
        for stream in streams.values():
            stream.publish()
    except Exception as error:  # the view may fail; the cell must still get its answer
        if current is not None:
            current.write(HIDDEN, f"labkit: the notebook's view failed: {error!r}\n")
