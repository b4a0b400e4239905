"""Reads the folder that `pktxpmgr --out DIR` left: one Result a session."""

from __future__ import annotations

import json
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, Union

from .errors import NoResults

Scalar = Union[None, bool, int, float, str]


@dataclass(frozen=True)
class Result:
    """One session of a results folder. What is not known is None."""

    session: int
    """Its number, of which a folder has each once."""
    run: Optional[str]
    """The run it was of."""
    key: Optional[str]
    """The endpoint's key id, 64 hexadecimal digits."""
    snikey: Optional[str]
    """The experiment that the endpoint asked for."""
    outcome: str
    """"ok", or what came first: one of a closed list."""
    reason: Optional[str]
    """Why it is not "ok", in words."""
    exit: Optional[int]
    """The mlet's exit code."""
    signal: Optional[int]
    """The signal that ended the mlet."""
    run_ms: Optional[float]
    """How long the mlet ran, in milliseconds."""
    record: Dict[str, Any]
    """All that events.jsonl says of it."""
    folder: Path
    """The results folder."""

    @property
    def failed(self) -> bool:
        """Whether it counts as failed: an endpoint that was believed did not end as it should."""
        return self.record.get("failed") is True

    def stdout(self) -> bytes:
        """What the mlet printed; nothing if none was kept."""
        return self._output("stdout")

    def stdout_text(self) -> str:
        """The same as text; what is no UTF-8 is replaced."""
        return self.stdout().decode("utf-8", "replace")

    def stderr(self) -> bytes:
        """What the mlet wrote to standard error; nothing if none was kept."""
        return self._output("stderr")

    def stderr_text(self) -> str:
        """The same as text; what is no UTF-8 is replaced."""
        return self.stderr().decode("utf-8", "replace")

    def row(self) -> Dict[str, Scalar]:
        """Everything in flat columns, named as those of `pktxpmgr results export`."""
        row: Dict[str, Scalar] = {name: _part(self.record, *path) for name, path in _COLUMNS.items()}
        row["failed"] = self.failed
        return row

    def _output(self, stream: str) -> bytes:
        directory = _part(self.record, "output", "dir")
        place = _part(self.record, "output", "stream") if directory is None else f"{directory}/{stream}"
        if place is None:
            return b""
        within = PurePosixPath(place)
        # Whoever gets a folder from somebody else must not be shown files of his own as output.
        if ".." in within.parts or within.is_absolute():
            raise NoResults(f"session {self.session}: its output is not in {self.folder}")
        path = self.folder / within
        try:
            return path.read_bytes() if directory is not None else self._from_stream(path, stream)
        except OSError as error:
            raise NoResults(f"the {stream} of session {self.session}: {error}") from None

    def _from_stream(self, path: Path, stream: str) -> bytes:
        """An output in the file of all sessions (`--stream`), whose last frame the record tells."""
        place, pieces = _part(self.record, "output", stream + "_at") or 0, []
        kind = {"stdout": b"PXFo", "stderr": b"PXFe"}[stream]
        with open(path, "rb") as file:
            while place:
                file.seek(place)
                head = file.read(_FRAME.size).ljust(_FRAME.size, b"\0")
                magic, session, before, length = _FRAME.unpack(head)
                is_ours = (magic, session) == (kind, self.session) and before < place
                data = file.read(length) if is_ours else b""
                if not is_ours or len(data) < length:
                    raise OSError(f"{path} does not hold it whole")
                pieces.append(data)
                place = before
        return b"".join(reversed(pieces))


_FRAME = struct.Struct(">4sQQI")
"""What stands before the bytes of a frame: what it is, session, the frame before, length."""

_COLUMNS: Dict[str, Tuple[str, ...]] = {
    "session": ("sid",), "run": ("run",),
    "key": ("ep", "key"), "root": ("ep", "root"), "snikey": ("ep", "snikey"),
    "peer": ("ep", "peer"), "via": ("ep", "via"), "core": ("core",),
    "accepted": ("accepted",), "ended": ("t",),
    "outcome": ("outcome",), "failed": (), "reason": ("reason",), "exit": ("exit",), "signal": ("signal",),
    "tls_ms": ("ms", "tls"), "programs_ms": ("ms", "programs"), "start_ms": ("ms", "start"),
    "spawn_ms": ("ms", "spawn"), "run_ms": ("ms", "run"), "total_ms": ("ms", "total"),
    "to_ep_bytes": ("bytes", "to_ep"), "from_ep_bytes": ("bytes", "from_ep"),
    "to_ep_msgs": ("msgs", "to_ep"), "from_ep_msgs": ("msgs", "from_ep"), "linfos_lost": ("linfos_lost",),
    "relay_to_ep_count": ("relay_us", "to_ep", "count"), "relay_to_ep_p50_us": ("relay_us", "to_ep", "p50"),
    "relay_to_ep_p99_us": ("relay_us", "to_ep", "p99"), "relay_to_ep_max_us": ("relay_us", "to_ep", "max"),
    "relay_from_ep_count": ("relay_us", "from_ep", "count"), "relay_from_ep_p50_us": ("relay_us", "from_ep", "p50"),
    "relay_from_ep_p99_us": ("relay_us", "from_ep", "p99"), "relay_from_ep_max_us": ("relay_us", "from_ep", "max"),
    "output_dir": ("output", "dir"), "stdout_bytes": ("output", "stdout"),
    "stderr_bytes": ("output", "stderr"), "truncated": ("output", "truncated"),
    "shown_key": ("ep", "shown_key"),
    "output_stream": ("output", "stream"), "stdout_written": ("output", "stdout_written"),
    "stderr_written": ("output", "stderr_written"), "crashed_monitor": ("crashed_monitor",),
}  # fmt: skip
"""Where each column is in a record."""


def results(folder: Union[str, "os.PathLike[str]"]) -> Iterator[Result]:
    """The sessions of a results folder (`pktxpmgr --out DIR`), as they ended, one in memory at a time.

    The run may still be writing. A line that is no record is passed over with a warning; a last one that
    is not whole is passed over without. Raises NoResults if there is no such folder.

    >>> for s in results("campaign"):
    ...     print(s.session, s.key[:12], s.outcome, s.run_ms, s.stdout_text(), end="")
    7 ab12cd34ab12 ok 812.5 hello
    9 cd34ab12cd34 mlet_failed 31.0 half of
    >>> sum(s.failed for s in results("campaign"))
    1
    """
    path = Path(folder) / "events.jsonl"
    try:
        events = open(path, "rb")
    except OSError as error:
        raise NoResults(f"{error}; name the folder of --out") from None
    with events:
        for number, line in enumerate(events, 1):
            try:
                record = _record(line)
            except ValueError as error:
                # A run that still writes, or was killed: the rest of it comes, or never will.
                if line.endswith(b"\n"):
                    warnings.warn(f"{path}: line {number} is passed over: {error}", stacklevel=2)
                continue
            if record["ev"] == "session.end":
                names = ("session", "run", "key", "snikey", "outcome", "reason", "exit", "signal", "run_ms")
                parts: Dict[str, Any] = {name: _part(record, *_COLUMNS[name]) for name in names}
                yield Result(record=record, folder=Path(folder), **parts)


def _part(record: Dict[str, Any], *path: str) -> Any:
    part: Any = record
    for name in path:
        part = part.get(name) if isinstance(part, dict) else None
    return part


def _record(line: bytes) -> Dict[str, Any]:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        # What it says of bytes that are no text is of no use to anybody.
        raise ValueError("it is no JSON") from None
    if not isinstance(record, dict) or "ev" not in record:
        raise ValueError("it is no record")
    if record.get("v") != 1:
        raise ValueError(f"it is of version {record.get('v')}, and 1 is what is known here")
    if record["ev"] == "session.end":
        if not isinstance(record.get("sid"), int) or not isinstance(record.get("outcome"), str):
            raise ValueError("it is no record of a session")
    return record


def to_rows(found: Iterable[Result]) -> List[Dict[str, Scalar]]:
    """A flat row for each, for `pandas.DataFrame(to_rows(results(DIR)))` and the like.

    >>> [(row["session"], row["run_ms"], row["from_ep_bytes"]) for row in to_rows(results("campaign"))]
    [(7, 812.5, 902113), (9, 31.0, 0)]
    """
    return [result.row() for result in found]
