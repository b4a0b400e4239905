"""The bytes of a session: over the socket on fd 0, and over the pipes that pktxpmgr may offer beside it. Nothing here
blocks."""

from __future__ import annotations

import os
import socket
import stat
from typing import Union

from .errors import MletError


class SocketStream:
    """A session's socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream

    @property
    def read_fd(self) -> int:
        return self._socket.fileno()

    @property
    def write_fd(self) -> int:
        return self._socket.fileno()

    def read_now(self) -> bytes:
        """What has come, nothing at the end; BlockingIOError if nothing has."""
        return self._socket.recv(0x10000, socket.MSG_DONTWAIT)

    def write_now(self, data: memoryview) -> int:
        """Writes what there is room for; BlockingIOError if there is none."""
        return self._socket.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._socket.close()


class PipedStream(SocketStream):
    """The session's bytes where pktxpmgr offers pipes: written to the one, which chooses the pipes, and read over the
    socket until its end and over the other from then on."""

    def __init__(self, stream: socket.socket, read: int, written: int) -> None:
        super().__init__(stream)
        for pipe in (read, written):
            if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
                raise OSError("no pipe")
        self._read, self._written = (self._anew(read, os.O_RDONLY), self._anew(written, os.O_WRONLY))
        os.close(read)
        os.close(written)
        self._socket_has_ended = False

    @staticmethod
    def _anew(pipe: int, way: int) -> int:
        """Opened anew it has flags of its own, and what the mlet starts does not get it."""
        return os.open(f"/proc/self/fd/{pipe}", way | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def read_fd(self) -> int:
        return self._read if self._socket_has_ended else self._socket.fileno()

    @property
    def write_fd(self) -> int:
        return self._written

    def read_now(self) -> bytes:
        if not self._socket_has_ended:
            data = super().read_now()
            if data:
                return data
            self._socket_has_ended = True
        return os.read(self._read, 0x10000)

    def write_now(self, data: memoryview) -> int:
        return os.write(self._written, data)

    def close(self) -> None:
        super().close()
        for pipe in (self._read, self._written):
            os.close(pipe)


def on_descriptor(descriptor: int) -> Union[SocketStream, PipedStream]:
    """The session on this descriptor, and on the pipes that are offered beside fd 0."""
    stream = socket_of(descriptor)
    # Whatever is started by this process has no pipes of its own.
    read, _, written = os.environ.pop("PKTLAB_PIPES", "").partition(",") if descriptor == 0 else ("", "", "")
    if not (read.isdigit() and written.isdigit()):
        return SocketStream(stream)
    try:
        return PipedStream(stream, int(read), int(written))
    except OSError:
        return SocketStream(stream)


def socket_of(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        reason = f"fd {descriptor} is no socket: {error.strerror}; a mlet is started by pktxpmgr"
        raise MletError(reason) from None
