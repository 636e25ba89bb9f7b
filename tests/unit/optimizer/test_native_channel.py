"""Messages between a process and its child, both ends in one process."""

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from optimizer.native_channel import Channel, ChannelError
from protos.tensors import DTYPES, Array

LARGE = np.arange(300_000, dtype=np.float32).reshape(300, 1000)


class Ends:
    """Both ends of a channel."""

    def __init__(self) -> None:
        self.sockets = socket.socketpair()
        self.here, self.there = (Channel(one) for one in self.sockets)

    def carry(self, *, copy: bool = False, **arrays: Array) -> dict[str, Array]:
        """Sends from here to there. Small ones only: nobody reads meanwhile."""
        self.here.send({"say": "run"}, arrays)
        value, received = self.there.receive(copy=copy)
        assert value == {"say": "run"}
        return received


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.here.close()
    both.there.close()


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3), (60_000, 4)])
def test_every_datatype_and_shape_arrives(
    ends: Ends, datatype: str, shape: tuple[int, ...]
) -> None:
    numbers = np.arange(np.prod(shape, dtype=int)) % 100
    sent = numbers.reshape(shape).astype(DTYPES[datatype])
    received = ends.carry(x=sent)["x"]
    assert received.dtype == sent.dtype
    assert received.shape == shape
    assert np.array_equal(received, sent)


def test_texts_arrive_as_bytes(ends: Ends) -> None:
    texts = np.array([[b"a", b""], [b"\xff\x00", "ü"]], object)
    many = np.array([b"word"] * 100_000, object)
    received = ends.carry(texts=texts, many=many)
    assert received["texts"].tolist() == [[b"a", b""], [b"\xff\x00", "ü".encode()]]
    assert received["many"].tolist() == many.tolist()


def test_arrays_of_any_layout_arrive(ends: Ends) -> None:
    received = ends.carry(
        turned=LARGE.T, every_other=LARGE[::2, ::3], big_endian=np.array([1, 2], ">i4")
    )
    assert np.array_equal(received["turned"], LARGE.T)
    assert np.array_equal(received["every_other"], LARGE[::2, ::3])
    assert received["big_endian"].tolist() == [1, 2]


def test_a_copy_outlives_the_next_message(ends: Ends) -> None:
    first = ends.carry(copy=True, x=LARGE)["x"]
    shared = ends.carry(x=LARGE + 1)["x"]
    ends.carry(x=LARGE + 2)
    assert np.array_equal(first, LARGE)
    assert np.array_equal(shared, LARGE + 2), "this one was only lent"


def test_a_growing_message_gets_more_room(ends: Ends) -> None:
    for rows in (100, 300, 200):
        assert np.array_equal(ends.carry(x=LARGE[:rows])["x"], LARGE[:rows])


def test_room_for_a_huge_message_is_given_back(ends: Ends) -> None:
    before = len(os.listdir("/proc/self/fd"))
    huge = np.zeros(40 * 2**20, np.uint8)
    received = ends.carry(x=huge)["x"]
    assert received.nbytes == huge.nbytes
    del received
    assert _shared_maps() == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_both_directions_at_once(ends: Ends) -> None:
    def answer() -> None:
        for _ in range(20):
            _, inputs = ends.there.receive(copy=False)
            ends.there.send({}, {"y": inputs["x"] * 2})

    thread = threading.Thread(target=answer)
    thread.start()
    for rows in range(1, 21):
        ends.here.send({}, {"x": LARGE[: rows * 10]})
        _, outputs = ends.here.receive(copy=True)
        assert np.array_equal(outputs["y"], LARGE[: rows * 10] * 2)
    thread.join()


def test_the_end_of_the_other_side_is_noticed(ends: Ends) -> None:
    ends.here.close()
    with pytest.raises(EOFError):
        ends.there.receive(copy=False)


def test_an_end_within_a_message_is_noticed(ends: Ends) -> None:
    ends.sockets[0].sendall(struct.pack("<IQ?", 100, 0, False) + b"{")
    ends.here.close()
    with pytest.raises(EOFError, match="within a message"):
        ends.there.receive(copy=False)


BAD = {
    "no JSON": b"not json",
    "no tensors": json.dumps({"say": 1}).encode(),
    "beyond the end": json.dumps({"tensors": [["x", "FP32", [1], 64, 4]]}).encode(),
    "before the start": json.dumps({"tensors": [["x", "FP32", [1], -4, 4]]}).encode(),
    "another size": json.dumps({"tensors": [["x", "FP32", [3], 0, 4]]}).encode(),
    "unknown datatype": json.dumps({"tensors": [["x", "FP31", [1], 0, 4]]}).encode(),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_message_is_refused(ends: Ends, text: bytes) -> None:
    ends.sockets[0].sendall(struct.pack("<IQ?", len(text), 8, False) + text + bytes(8))
    with pytest.raises(ChannelError, match="no message"):
        ends.there.receive(copy=False)


def test_shared_memory_that_never_came_is_refused(ends: Ends) -> None:
    ends.sockets[0].sendall(struct.pack("<IQ?", 2, 100, True) + b"{}")
    with pytest.raises(ChannelError, match="100 bytes of shared memory"):
        ends.there.receive(copy=False)


def test_shared_memory_that_could_shrink_is_refused(ends: Ends) -> None:
    file = os.memfd_create("test")
    os.ftruncate(file, 100)
    socket.send_fds(ends.sockets[0], [struct.pack("<IQ?", 2, 100, True)], [file])
    os.close(file)
    with pytest.raises(ChannelError, match="could shrink"):
        ends.there.receive(copy=False)


def test_a_message_that_is_too_long_is_refused(ends: Ends) -> None:
    ends.sockets[0].sendall(struct.pack("<IQ?", 2**31, 0, False))
    with pytest.raises(ChannelError, match="expected at most"):
        ends.there.receive(copy=False)


def test_large_arrays_on_the_socket_are_refused(ends: Ends) -> None:
    ends.sockets[0].sendall(struct.pack("<IQ?", 2, 2**40, False) + b"{}")
    with pytest.raises(ChannelError, match="on the socket, expected less"):
        ends.there.receive(copy=False)


def test_bfloat16_keeps_its_values(ends: Ends) -> None:
    values = np.array([1.5, -2.0, np.inf], ml_dtypes.bfloat16)
    assert np.array_equal(ends.carry(x=values)["x"], values)


def _shared_maps() -> int:
    with open("/proc/self/maps") as maps:
        return sum("memfd:inflight" in line for line in maps)
