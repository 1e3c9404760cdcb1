"""Feeds one tracker from a run's metrics: a process of its own, which nothing of the run waits for.

    python -m labkit.workbench.running.feed RUN tensorboard|wandb SECONDS

It follows the metrics while its standard input is open; then it feeds what is left and ends, after SECONDS at the
latest. Whatever the tracker does, the metrics are the record, so it can be fed again later: what a tracker has got is
asked of the tracker, or given to it anew as a whole; it is never taken from a note beside it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal, Protocol

from labkit.record import metrics
from labkit.record.files import dumps, now, read_json, write_json
from labkit.record.rundir import RunDir
from labkit.record.tail import Tail
from labkit.workbench.running import trackers

POLL_S = 1.0
RETRY_S = 30.0  # after a tracker has refused
INIT_S = 30.0  # for a server's first answer
NICENESS = 10  # the training comes first


class Tracker(Protocol):
    """What takes the lines of a run's metrics, all of them from the first on, once."""

    def feed(self, records: list[dict[str, Any]]) -> None:
        """Takes the next lines."""

    def flush(self) -> None:
        """Lets everybody see what was taken; called when there is nothing more for the moment."""

    def close(self) -> None:
        """Takes leave of the tracker, which has got everything."""


class TensorBoard:
    """An event file of TensorBoard.

    Each process writes a new file with everything in it, and shows it in place of the earlier one when it has caught
    up. It begins with the mark of a restart, on which a TensorBoard that is open forgets what it has read before.
    """

    def __init__(self, run: RunDir) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder = trackers.folder(run) / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._earlier = list(folder.iterdir())
        self._path = folder / f"events.out.tfevents.{time.time_ns():020d}.labkit"
        self._hidden = folder / f".{secrets.token_hex(4)}.partial"
        self._is_shown = False
        self._writer = RecordWriter(self._hidden.open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        restart = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=-(2**63), session_log=restart))
        self._write(Event(wall_time=time.time(), summary=hparams_pb(_parameters(run), trial_id=run.id)))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def feed(self, records: list[dict[str, Any]]) -> None:
        """Writes one event a line."""
        for record in records:
            summary = self._summary(
                value=[self._summary.Value(tag=name, simple_value=value) for name, value in _values(record).items()]
            )
            self._write(self._event(wall_time=record.get("t", 0.0), step=record["step"], summary=summary))

    def flush(self) -> None:
        """Hands over what was written, and the first time puts the file in the place of earlier ones."""
        self._writer.flush()
        if self._is_shown:
            return
        os.replace(self._hidden, self._path)
        self._is_shown = True
        for path in self._earlier:
            if path.name.startswith(".") or not path.stat().st_size:
                path.unlink()
            else:
                os.truncate(path, 0)  # a TensorBoard that has it open goes on to the new one only while it is there

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases: online where the user's environment says so, else offline.

    Its steps are the positions of the lines, and the notebook's steps are an ordinary value beside. Of a run that is
    online W&B says where it goes on. An offline one is written anew, in the place of the earlier one. Where the lines
    that it was given are no longer those of the metrics, another run of W&B is begun: what was sent cannot be cut back.
    """

    def __init__(self, run: RunDir) -> None:
        import wandb

        self._folder = trackers.folder(run) / "wandb"
        self._folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        if mode == "disabled":
            raise RuntimeError("WANDB_MODE=disabled")
        self._mode: Literal["offline", "online"] = "offline" if mode in ("offline", "dryrun") else "online"
        self._claimed = read_json(self._folder / "claim.json") or {}
        self._digest = hashlib.sha256()
        self._lines = 0
        is_known = self._claimed.get("mode") == self._mode and self._is_claimed(run)
        shutil.rmtree(self._folder / "wandb", ignore_errors=True)  # W&B's own copy, of what the metrics have
        try:
            self._run = self._begin(run, is_known=is_known)
        except wandb.errors.UsageError:  # W&B does not say where to go on
            self._run = self._begin(run, is_known=False)
        self._run.define_metric("*", step_metric="step")
        self._taken = int(self._run.step)

    def _begin(self, run: RunDir, *, is_known: bool) -> Any:
        """Returns W&B's run: the one that it knows already, or a new one."""
        import wandb

        if not is_known:
            self._claimed = {"mode": self._mode, "id": f"{run.id[-6:]}-{secrets.token_hex(3)}", "lines": 0}
        return wandb.init(
            dir=str(self._folder),
            mode=self._mode,
            project=os.environ.get("WANDB_PROJECT") or run.path.parent.name,
            name=run.name,
            id=str(self._claimed["id"]),
            resume="must" if is_known and self._mode == "online" else None,
            config=_parameters(run),
            settings=wandb.Settings(
                # nothing but the metrics and the parameters: no output, arguments, code, environment
                console="off",
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                save_code=False,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                init_timeout=INIT_S,
                silent=True,
                symlink=False,
            ),
        )

    def _is_claimed(self, run: RunDir) -> bool:
        """Tells whether the metrics begin with the lines that W&B may have been given."""
        lines = self._claimed.get("lines")
        if not isinstance(lines, int) or not isinstance(self._claimed.get("id"), str):
            return False
        digest = hashlib.sha256()
        whole = (record for record in metrics.records(run.metrics) if record is not None)
        for _, record in zip(range(lines), whole, strict=False):
            digest.update(dumps(record))
        return lines == 0 or digest.hexdigest() == self._claimed.get("sha256")

    def feed(self, records: list[dict[str, Any]]) -> None:
        """Gives W&B the lines that it has not got, after writing down that it may have them."""
        begin = self._lines
        for record in records:
            self._digest.update(dumps(record))
        self._lines += len(records)
        if self._lines > self._claimed["lines"]:
            self._claimed |= {"lines": self._lines, "sha256": self._digest.hexdigest()}
            write_json(self._folder / "claim.json", self._claimed)
        for position, record in enumerate(records, begin):
            if position >= self._taken:
                row = {
                    f"metric{name}" if name.startswith("_") else name: value for name, value in _values(record).items()
                }
                row |= {"step": record["step"], "_timestamp": record.get("t", 0.0)}
                self._run.log(row, step=position, commit=True)

    def flush(self) -> None:
        """Does nothing: W&B's own process sends what it has."""

    def close(self) -> None:
        """Waits until W&B has got everything."""
        self._run.finish()


KINDS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}


def _values(record: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of a line, under names that a tracker can write."""
    return {
        name.encode("utf-8", "replace").decode() or "metric": float(value)
        for name, value in record.items()
        if name not in metrics.RESERVED
    }


def _parameters(run: RunDir) -> dict[str, Any]:
    """Returns the parameters as the record has them; what is no scalar as text."""
    found = (read_json(run.manifest) or {}).get("parameters")
    plain = (bool, int, float, str)
    return {name: value if isinstance(value, plain) else str(value) for name, value in dict(found or {}).items()}


class Feed:
    """What one process does: follows the metrics, feeds the tracker, and writes down how far it came."""

    def __init__(self, run: RunDir, name: str) -> None:
        self._run, self._name = run, name
        self._tail = Tail(run.metrics)
        self._tracker: Tracker | None = None
        self._retry_at = 0.0
        self.fed = 0
        self.problem = ""
        self._noted: dict[str, Any] = {}

    def serve(self, over: threading.Event) -> None:
        """Feeds until `over` is set and nothing is left."""
        while True:
            is_last = over.wait(POLL_S)
            if time.monotonic() >= self._retry_at:
                self._take_turn(is_last)
            if is_last:
                return

    def _take_turn(self, over: bool) -> None:
        """Feeds what has come; where that fails, the tracker is begun anew after a while."""
        try:
            if self._tail.is_replaced():
                self._begin_again()
            for records in self._tail.read(over=over):
                self._tracker = self._tracker or KINDS[self._name](self._run)
                self._tracker.feed(records)
                self.fed += len(records)
            if self._tracker is not None:
                self._tracker.flush()
                if over:
                    self._tracker.close()
            if over:
                self._tail.rewind()
            self.problem = ""
        except Exception as error:  # whatever a tracker says
            self._tracker, self.fed = None, 0
            self._tail.rewind()
            self.problem = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            self._retry_at = time.monotonic() + RETRY_S
        self._note(over)

    def _begin_again(self) -> None:
        """Lets go of the tracker: the training went on from a checkpoint, and has other lines now."""
        tracker, self._tracker, self.fed = self._tracker, None, 0
        self._tail.rewind()
        if tracker is not None:
            tracker.close()

    def _note(self, over: bool) -> None:
        facts = {"fed": self.fed, "problem": self.problem, "done": over and not self.problem}
        if facts != self._noted:
            self._noted = facts
            try:
                write_json(trackers.outcome_file(self._run, self._name), facts | {"noted": now()}, durable=False)
            except OSError:
                pass  # the disk is full; readers see what it was before


def main(path: Path, name: str, within_s: float) -> int:
    """Feeds one tracker of one run; returns the exit status."""
    os.nice(NICENESS)
    run = RunDir(path)
    trackers.folder(run).mkdir(exist_ok=True)
    with (trackers.folder(run) / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return trackers.BUSY
        except OSError:
            pass  # a file system without locks
        over = threading.Event()
        threading.Thread(target=_watch, args=(over, within_s), daemon=True).start()
        feed = Feed(run, name)
        feed.serve(over)
    return int(bool(feed.problem))


def _watch(over: threading.Event, within_s: float) -> None:
    """Waits for the end of standard input, and then not longer than allowed for the end of this process."""
    while os.read(0, 4096):
        pass
    over.set()
    time.sleep(within_s)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
