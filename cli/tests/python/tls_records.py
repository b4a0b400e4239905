"""An endpoint on tlslite-ng, which sends records that no other library would.

    tls_records.py PORT CERTIFICATE KEY

Run by cli/tests/tlslite.rs. It goes through the cases that tlsfuzzer has of what comes behind a
handshake (keyupdate, empty-alert, zero-length-data, zero-content-type, record-padding,
record-layer-limits, finished-plaintext, multiple-ccs-messages), each in a session of its own, and
prints the name of each that is answered as it must be.
"""

import socket
import sys

from tlslite.api import TLSConnection, X509CertChain, parsePEMKey
from tlslite.errors import TLSRemoteAlert
from tlslite.handshakesettings import HandshakeSettings
from tlslite.messages import Message

RESULT_OK = b"\x40\x00\x00\x00"
START = b"\x21\x00\x00\x00"
NDATA = 0x62

ALERT, HANDSHAKE, DATA = 21, 22, 23
UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW = 10, 20, 22
ILLEGAL_PARAMETER, DECODE_ERROR = 47, 50

MOST = 2**14
SUITES = ["aes128gcm", "aes256gcm", "chacha20-poly1305"]


def message(payload):
    return bytes([NDATA]) + len(payload).to_bytes(3, "big") + payload


class Endpoint:
    """A session whose mlet echoes."""

    def __init__(self, cipher):
        port, certificate, key = sys.argv[1:]
        self.socket = socket.create_connection(("127.0.0.1", int(port)), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = TLSConnection(self.socket)
        chain = X509CertChain()
        chain.parsePemList(open(certificate).read())
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (3, 4)
        settings.cipherNames = [cipher]
        settings.certificate_compression_send = []
        private = parsePEMKey(open(key).read(), private=True)
        self.tls.handshakeClientCert(chain, private, settings=settings, serverName="hello")
        assert self.read(4) == START
        self.record(DATA, RESULT_OK)

    def read(self, length):
        return bytes(self.tls.read(max=length, min=length))

    def record(self, content_type, content, padding=0):
        """Seals a record as it is."""
        layer = self.tls._recordLayer
        layer.padding_cb = lambda *_: padding
        for _ in layer.sendRecord(Message(content_type, bytearray(content))):
            pass

    def clear(self, bytes_):
        self.socket.sendall(bytes_)

    def update_keys(self, asks, pieces=(5,)):
        """A KeyUpdate, in pieces that end there, and the next key."""
        whole, start = bytes([24, 0, 0, 1, asks]), 0
        for end in pieces:
            self.record(HANDSHAKE, whole[start:end])
            start = end
        session = self.tls.session
        session.cl_app_secret, _ = self.tls._recordLayer.calcTLS1_3KeyUpdate_reciever(
            session.cipherSuite, session.cl_app_secret, session.sr_app_secret
        )

    def echoes(self, payload):
        sent = message(payload)
        for start in range(0, len(sent), MOST):
            self.record(DATA, sent[start : start + MOST])
        assert self.read(len(sent)) == sent

    def close(self):
        self.tls.close()
        self.socket.close()

    def is_told(self, alert):
        """The alert comes, at which tlslite-ng closes."""
        try:
            got = self.read(1)
        except TLSRemoteAlert as told:
            assert (told.level, told.description) == (2, alert), told
        else:
            raise AssertionError(f"no alert, but {got}")


def taken(endpoint):
    """Records that are unusual, and allowed."""
    endpoint.echoes(b"as usual")
    for _ in range(32):
        endpoint.record(DATA, b"")
    endpoint.echoes(b"behind empty records")
    for padding in [1, 255, 4000]:
        sent = message(b"padded")
        endpoint.record(DATA, sent, padding)
        assert endpoint.read(len(sent)) == sent
    sent = message(b"x" * (MOST - 4))
    endpoint.record(DATA, sent)
    assert endpoint.read(len(sent)) == sent, "the longest record"
    sent = message(b"y" * 100)
    endpoint.record(DATA, sent, MOST - len(sent))
    assert endpoint.read(len(sent)) == sent, "the longest record of padding"
    for asks in [0, 1, 1, 0]:
        endpoint.update_keys(asks)
        endpoint.echoes(b"behind a KeyUpdate")
    endpoint.update_keys(1, (1, 2, 3, 4, 5))
    endpoint.echoes(b"behind one in pieces")
    for _ in range(32):
        endpoint.update_keys(1)
    endpoint.echoes(b"behind as many as may come")
    endpoint.echoes(bytes(200_000))
    endpoint.close()


def flood(content_type, content, count=33):
    return lambda endpoint: [endpoint.record(content_type, content) for _ in range(count)]


def record(*arguments):
    return lambda endpoint: endpoint.record(*arguments)


def clear(bytes_):
    return lambda endpoint: endpoint.clear(bytes_)


def half_and_data(endpoint):
    endpoint.record(HANDSHAKE, b"\x18\0")
    endpoint.record(DATA, message(b""))


def too_many_key_updates(endpoint):
    for _ in range(33):
        endpoint.update_keys(0)


REFUSED = {
    "an empty alert": (record(ALERT, b""), UNEXPECTED_MESSAGE),
    "an empty alert with padding": (record(ALERT, b"", 9), UNEXPECTED_MESSAGE),
    "an alert of one byte": (record(ALERT, b"\x01"), DECODE_ERROR),
    "an alert of three bytes": (record(ALERT, b"\x01\0\0"), DECODE_ERROR),
    "an empty handshake": (record(HANDSHAKE, b""), UNEXPECTED_MESSAGE),
    "no content type": (record(0, b""), UNEXPECTED_MESSAGE),
    "no content type but padding": (record(0, b"", 20), UNEXPECTED_MESSAGE),
    "an unknown content type": (record(25, b"x"), UNEXPECTED_MESSAGE),
    "change_cipher_spec inside": (record(20, b"\x01"), UNEXPECTED_MESSAGE),
    "change_cipher_spec": (clear(b"\x14\x03\x03\0\x01\x01"), UNEXPECTED_MESSAGE),
    "an alert in the clear": (clear(b"\x15\x03\x03\0\x02\x02\x28"), UNEXPECTED_MESSAGE),
    "Finished in the clear": (clear(b"\x16\x03\x03\0\x04\x14\0\0\0"), UNEXPECTED_MESSAGE),
    "too many empty records": (flood(DATA, b""), UNEXPECTED_MESSAGE),
    "too much data": (record(DATA, bytes(MOST + 1)), RECORD_OVERFLOW),
    "too much padding": (record(DATA, message(b"x"), MOST), RECORD_OVERFLOW),
    "a longer record than there is": (clear(b"\x17\x03\x03\x41\x01"), RECORD_OVERFLOW),
    "a record of nobody": (clear(b"\x17\x03\x03\0\x20" + bytes(32)), BAD_RECORD_MAC),
    "a record without a tag": (clear(b"\x17\x03\x03\0\x01x"), BAD_RECORD_MAC),
    "a ClientHello": (record(HANDSHAKE, b"\x01\0\0\0"), UNEXPECTED_MESSAGE),
    "a KeyUpdate of another value": (record(HANDSHAKE, b"\x18\0\0\x01\x02"), ILLEGAL_PARAMETER),
    "an empty KeyUpdate": (record(HANDSHAKE, b"\x18\0\0\0"), DECODE_ERROR),
    "a long KeyUpdate": (record(HANDSHAKE, b"\x18\0\0\x02\0\0"), DECODE_ERROR),
    "two KeyUpdates in a record": (
        record(HANDSHAKE, b"\x18\0\0\x01\0\x18\0\0\x01\0"),
        UNEXPECTED_MESSAGE,
    ),
    "data between the parts of a KeyUpdate": (half_and_data, UNEXPECTED_MESSAGE),
    "too many KeyUpdates": (too_many_key_updates, UNEXPECTED_MESSAGE),
}

for suite in SUITES:
    taken(Endpoint(suite))
    print(f"what may come with {suite}")
for number, (name, (violate, alert)) in enumerate(REFUSED.items()):
    endpoint = Endpoint(SUITES[number % len(SUITES)])
    endpoint.echoes(b"before")
    violate(endpoint)
    endpoint.is_told(alert)
    print(name)
