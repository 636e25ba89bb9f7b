"""How tensors travel between a process and the child in which a training framework runs.

A message is a JSON value and arrays. Small arrays follow it on the socket; from `_SHARED_FROM` on
they lie in a memory file that both sides map, whose descriptor is sent once with the first message
that uses it. Each side writes only to its own file, and only between two messages of the other
side: whoever receives arrays that are not its own copy has done with them before it answers.
"""

import fcntl
import json
import mmap
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from protos.tensors import DTYPES, Array, datatype_of, decode, encode

_HEAD = struct.Struct("<IQ?")  # length of the JSON, length of the arrays, whether they are shared
_SHARED_FROM = 100_000  # bytes; below, a socket is as quick
_KEPT = 32 * 2**20  # bytes; a larger file is for one message only
_ALIGNMENT = 64
_MAX_JSON = 2**24
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW  # who maps it can never be hit by SIGBUS


class ChannelError(Exception):
    """The other side sent what is no message."""


class Channel:
    """One end. One thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._mine: mmap.mmap | None = None  # written to by this side
        self._theirs: mmap.mmap | None = None

    def send(self, value: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Sends a message; blocks until the other side has read what is not shared.

        Raises:
            OSError: the other side is gone.
            ValueError: an array's dtype cannot be carried.
        """
        tensors, parts, size = _layout(arrays)
        text = json.dumps({**value, "tensors": tensors}).encode()
        if size < _SHARED_FROM:
            payload = bytearray(size)
            _write(payload, parts)
            self._socket.sendall(_HEAD.pack(len(text), size, False) + text + payload)
            return
        file = self._own_file(size)
        try:
            assert self._mine is not None
            _write(self._mine, parts)
            self._send_shared(_HEAD.pack(len(text), size, True), text, file)
        finally:
            if file is not None:
                os.close(file)
            if self._mine is not None and len(self._mine) > _KEPT:
                self._mine = None

    def receive(self, *, copy: bool) -> tuple[dict[str, Any], dict[str, Array]]:
        """Waits for a message; gives up the GIL.

        `copy`: the arrays are the caller's own; else they may change once it sends an answer.

        Raises:
            EOFError: the other side has closed its end.
            OSError: it is gone.
            ChannelError: that was no message.
        """
        length, size, is_shared = self._receive_head()
        if length > _MAX_JSON:
            raise ChannelError(f"a message of {length} bytes, expected at most {_MAX_JSON}")
        text = self._receive_exactly(length)
        buffer: bytearray | mmap.mmap
        if is_shared:
            if self._theirs is None or len(self._theirs) < size:
                raise ChannelError(f"{size} bytes of shared memory, and none that large came")
            buffer = self._theirs
            if len(buffer) > _KEPT:
                self._theirs = None
        elif size < _SHARED_FROM:
            buffer = self._receive_exactly(size)
        else:
            raise ChannelError(f"{size} bytes on the socket, expected less than {_SHARED_FROM}")
        try:
            value = json.loads(text)
            arrays = {
                name: _array(buffer, *where, copy=copy and is_shared)
                for name, *where in value.pop("tensors")
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ChannelError(f"no message: {error!r}") from error
        return value, arrays

    def close(self) -> None:
        self._socket.close()
        self._mine = self._theirs = None

    def _own_file(self, size: int) -> int | None:
        """Makes room for so many bytes; the descriptor to send where that takes a new file."""
        if self._mine is not None and len(self._mine) >= size:
            return None
        if size < _KEPT:
            size = min(_KEPT, 2 * size)  # batches vary
        file = os.memfd_create("inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(file, size)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            self._mine = mmap.mmap(file, size)
        except BaseException:
            os.close(file)
            raise
        return file

    def _send_shared(self, head: bytes, text: bytes, file: int | None) -> None:
        sent = socket.send_fds(self._socket, [head], [] if file is None else [file])
        self._socket.sendall(head[sent:] + text)

    def _receive_head(self) -> tuple[int, int, bool]:
        head = b""
        while len(head) < _HEAD.size:
            received, files, _, _ = socket.recv_fds(self._socket, _HEAD.size - len(head), 1)
            for file in files:
                self._map(file)
            if not received:
                raise EOFError("the other side has closed its end")
            head += received
        length, size, is_shared = _HEAD.unpack(head)
        return length, size, is_shared

    def _map(self, file: int) -> None:
        try:
            if fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
                raise ChannelError("shared memory that could shrink")
            self._theirs = mmap.mmap(file, os.fstat(file).st_size)
        finally:
            os.close(file)

    def _receive_exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            received = self._socket.recv_into(view)
            if not received:
                raise EOFError("the other side has closed its end within a message")
            view = view[received:]
        return buffer


_Part = tuple[int, Array]  # offset; what is written there
_Where = tuple[str, str, list[int], int, int]  # name, datatype, shape, offset, size in bytes


def _layout(arrays: Mapping[str, Array]) -> tuple[Sequence[_Where], Sequence[_Part], int]:
    """Where each array lies, and how much room all take."""
    tensors: list[_Where] = []
    parts: list[_Part] = []
    end = 0
    for name, array in arrays.items():
        datatype = datatype_of(array)
        shape = list(array.shape)
        if datatype == "BYTES":
            array = np.frombuffer(encode(array), np.uint8)  # noqa: PLW2901
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        tensors.append((name, datatype, shape, start, array.nbytes))
        parts.append((start, array))
        end = start + array.nbytes
    return tensors, parts, end


def _write(buffer: bytearray | mmap.mmap, parts: Sequence[_Part]) -> None:
    """Copies with numpy, which gives up the GIL while it copies."""
    for start, array in parts:
        dtype = array.dtype.newbyteorder("<")
        np.frombuffer(buffer, dtype, array.size, start).reshape(array.shape)[...] = array


def _array(
    buffer: bytearray | mmap.mmap,
    datatype: str,
    shape: list[int],
    start: int,
    size: int,
    *,
    copy: bool,
) -> Array:
    if start < 0 or size < 0 or start + size > len(buffer):
        raise ValueError(f"{size} bytes from {start} on of {len(buffer)}")
    if datatype == "BYTES":
        return decode(memoryview(buffer)[start : start + size], datatype, shape)
    dtype = DTYPES[datatype]
    if prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{size} bytes for {datatype}{shape}")
    array: Array = np.frombuffer(buffer, dtype, prod(shape), start).reshape(shape)
    return array.copy() if copy else array
