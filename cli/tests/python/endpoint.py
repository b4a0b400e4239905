"""An endpoint on Python's ssl module, whose TLS records are counted on the wire.

    endpoint.py SCENARIO PORT CERTIFICATE KEY

Run by cli/tests/python.rs. A scenario that ends without an exception has proved what its docstring says.
"""

import socket
import ssl
import sys

RESULT_OK = b"\x40\x00\x00\x00"
START = b"\x21\x00\x00\x00"
NDATA = 0x62

# What TLS 1.3 adds to the plaintext of a record: content type and tag.
OVERHEAD = 1 + 16


def message(kind, payload):
    return bytes([kind]) + len(payload).to_bytes(3, "big") + payload


class Endpoint:
    """TLS over memory, so that every record is seen before it is opened."""

    def __init__(self, port, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(certificate, key)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="hello")
        self.wire = b""
        # Plaintext lengths of the application records, and the plaintext itself.
        self.records = []
        self.plaintext = b""

    def flush(self):
        self.socket.sendall(self.outgoing.read())

    def take_record(self):
        """Moves one record from the wire into TLS. False at the end of the connection."""
        while len(self.wire) < 5 or len(self.wire) < 5 + int.from_bytes(self.wire[3:5], "big"):
            more = self.socket.recv(65536)
            if not more:
                assert not self.wire, "the connection ends inside a record"
                return False
            self.wire += more
        length = 5 + int.from_bytes(self.wire[3:5], "big")
        record, self.wire = self.wire[:length], self.wire[length:]
        self.incoming.write(record)
        if self.tls_is_up:
            assert record[0] == 23, "only protected records after the handshake"
            self.records.append(length - 5 - OVERHEAD)
        return True

    tls_is_up = False

    def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                assert self.take_record(), "closed in the handshake"
        self.flush()
        self.tls_is_up = True

    def read(self, length):
        """Exactly so many bytes of plaintext; None if the peer closed by close_notify before any."""
        while len(self.plaintext) < length:
            try:
                more = self.tls.read(1 << 16)
                if not more:
                    assert not self.plaintext
                    return None
                self.plaintext += more
            except ssl.SSLWantReadError:
                assert self.take_record(), "a bare FIN"
            except ssl.SSLZeroReturnError:
                assert not self.plaintext, "closed inside a message"
                return None
        taken, self.plaintext = self.plaintext[:length], self.plaintext[length:]
        return taken

    def message(self):
        header = self.read(4)
        if header is None:
            return None
        payload = self.read(int.from_bytes(header[1:], "big"))
        return header[0], payload

    def send(self, plaintext):
        """One record, up to 16 KiB."""
        self.tls.write(plaintext)
        self.flush()

    def set_up(self):
        self.handshake()
        assert self.read(4) == START
        self.send(RESULT_OK)
        # An empty message makes no more sense than any; it is there to have had an answer.
        self.records.clear()

    def close(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()

    def closes_cleanly(self):
        """close_notify has come, and nothing follows but FIN."""
        assert self.read(1) is None
        self.socket.shutdown(socket.SHUT_WR)
        assert self.socket.recv(1) == b""


def hold_record_rule(records, lengths):
    """Every message of these lengths must begin with a record and end with one."""
    position = 0
    ends = set()
    for length in records:
        position += length
        ends.add(position)
    total = 0
    for length in lengths:
        total += length
        assert total in ends, f"a record spans the end of the message at byte {total}: {records}"
    assert position == total, f"{position} bytes in records, {total} in messages"


def echo(endpoint):
    """A whole session: set-up, messages of many sizes, close_notify both ways."""
    endpoint.set_up()
    lengths = [0, 1, 2, 3, 4, 5, 100, 16379, 16380, 16381, 16384, 40000, 100000]
    for index, length in enumerate(lengths):
        sent = message(0x20 + index, bytes([index]) * length)
        for start in range(0, len(sent), 16384):
            endpoint.send(sent[start : start + 16384])
        assert endpoint.message() == (sent[0], sent[4:])
    hold_record_rule(endpoint.records, [4 + length for length in lengths])
    endpoint.close()
    assert endpoint.message() is None
    assert endpoint.socket.recv(1) == b""


def packed(endpoint):
    """Many messages in one record are many messages, and come back in records of their own."""
    endpoint.set_up()
    lengths = [index % 7 for index in range(500)]
    messages = [message(NDATA, b"x" * length) for length in lengths]
    endpoint.send(b"".join(messages))
    for sent in messages:
        assert endpoint.message() == (sent[0], sent[4:])
    hold_record_rule(endpoint.records, [4 + length for length in lengths])
    endpoint.close()
    assert endpoint.message() is None


def early(endpoint):
    """Messages right behind the answer to START, in the same record, reach the mlet."""
    endpoint.handshake()
    assert endpoint.read(4) == START
    endpoint.send(RESULT_OK + message(NDATA, b"first") + message(NDATA, b"second"))
    assert endpoint.message() == (NDATA, b"first")
    assert endpoint.message() == (NDATA, b"second")
    endpoint.close()


def crumbs(endpoint):
    """A message in records of one byte each is one message."""
    endpoint.set_up()
    sent = message(NDATA, b"in small pieces")
    for byte in sent:
        endpoint.send(bytes([byte]))
    assert endpoint.message() == (NDATA, b"in small pieces")
    endpoint.close()


def flood(endpoint):
    """The mlet writes many small messages at once; no record has bytes of two of them."""
    endpoint.set_up()
    count, length = 20000, 12
    for index in range(count):
        kind, payload = endpoint.message()
        assert int.from_bytes(payload[:4], "big") == index
    hold_record_rule(endpoint.records, [4 + length] * count)
    endpoint.closes_cleanly()


def large(endpoint):
    """A message of 3 MB comes in records of at most 16 KiB."""
    endpoint.set_up()
    kind, payload = endpoint.message()
    assert len(payload) == 3_000_000
    assert max(endpoint.records) <= 16384
    hold_record_rule(endpoint.records, [3_000_004])
    endpoint.closes_cleanly()


def abrupt(endpoint):
    """FIN without close_notify ends the session for the mlet as any end does."""
    endpoint.set_up()
    endpoint.send(message(NDATA, b"echo me"))
    assert endpoint.message() == (NDATA, b"echo me")
    endpoint.socket.shutdown(socket.SHUT_WR)
    # The mlet's end follows, told as it should be.
    assert endpoint.message() is None


def refused(endpoint):
    """START refused: close_notify, nothing else."""
    endpoint.handshake()
    assert endpoint.read(4) == START
    endpoint.send(b"\x40\x00\x00\x02\x00\x01")
    endpoint.closes_cleanly()


if __name__ == "__main__":
    _, scenario, port, certificate, key = sys.argv
    scenarios = [echo, packed, early, crumbs, flood, large, abrupt, refused]
    run = {function.__name__: function for function in scenarios}[scenario]
    run(Endpoint(int(port), certificate, key))
