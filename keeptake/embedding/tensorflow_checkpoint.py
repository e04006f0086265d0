"""Read the tensors of a TensorFlow checkpoint without TensorFlow.

A checkpoint "V2" is two files: `.index`, an uncompressed LevelDB table from tensor names to `BundleEntryProto` messages, and
`.data-00000-of-00001`, the tensors one after the other. Only what our checkpoints need is read: one shard, float32, no
compression, no slices; anything else is refused, never guessed. Belongs here: the file format. Does not: what the tensors mean
(`musicnn.py`).

References
----------
.. [1] LevelDB table format, https://github.com/google/leveldb/blob/main/doc/table_format.md
.. [2] TensorFlow, `tensorflow/core/protobuf/tensor_bundle.proto`
"""

from collections.abc import Iterator

import numpy as np

FOOTER_BYTES = 48
TRAILER_BYTES = 5  # after each block: compression kind and checksum
TABLE_MAGIC = 0xDB4775248B80FB57
DT_FLOAT = 1
# fields of BundleEntryProto
DTYPE, SHAPE, SHARD, OFFSET, SIZE = 1, 2, 3, 4, 5


def read_checkpoint(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """Read all float32 tensors.

    Parameters
    ----------
    index, data : bytes
        Contents of the two files.

    Returns
    -------
    dict of np.ndarray [float32]
        Tensors by name, in the checkpoint's own axis order.

    Raises
    ------
    ValueError
        If the table is of another kind, or a tensor lies outside of the data.
    """
    if len(index) < FOOTER_BYTES or int.from_bytes(index[-8:], "little") != TABLE_MAGIC:
        raise ValueError("not a checkpoint index: the table's magic number is missing")
    footer = index[-FOOTER_BYTES:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)  # handle of the meta-index block, which is empty here
    root_handle = footer[at:]
    tensors = {}
    for _, handle in _block(index, root_handle):
        for name, entry in _block(index, handle):
            if name:  # the empty name is the header of the bundle
                tensors[name.decode()] = _tensor(_message(entry), data)
    return tensors


def _tensor(entry: dict[int, list[int | bytes]], data: bytes) -> np.ndarray:
    if _number(entry, DTYPE) != DT_FLOAT or _number(entry, SHARD) != 0:
        raise ValueError(f"only float32 in one shard is read, got type {_number(entry, DTYPE)} in shard {_number(entry, SHARD)}")
    dimensions = [
        _message(part) for shape in entry.get(SHAPE, []) for part in _message(shape).get(2, []) if isinstance(part, bytes)
    ]
    shape = [_number(dimension, 1) for dimension in dimensions]
    offset, size = _number(entry, OFFSET), _number(entry, SIZE)
    if size != 4 * int(np.prod(shape)) or offset + size > len(data):
        raise ValueError(f"a tensor of shape {shape} cannot lie at bytes {offset}–{offset + size} of {len(data)}")
    return np.frombuffer(data, "<f4", size // 4, offset).reshape(shape)


def _number(message: dict[int, list[int | bytes]], field: int) -> int:
    value = message.get(field, [0])[0]
    if not isinstance(value, int):
        raise ValueError(f"field {field} should be a number")
    return value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Value of a base-128 number and the place behind it."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _message(content: int | bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protobuf message by number."""
    if not isinstance(content, bytes):
        raise ValueError("expected a message, got a number")
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(content, at)
        else:
            length, at = (4, at) if tag & 7 == 5 else _varint(content, at)
            value, at = content[at : at + length], at + length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _block(index: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; keys are stored as what they add to the key before."""
    offset, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    block = index[offset : offset + size]
    if len(index) < offset + size + TRAILER_BYTES or index[offset + size] != 0:
        raise ValueError(f"block at byte {offset} is cut off or compressed")
    restarts = int.from_bytes(block[-4:], "little")
    key, at = b"", 0
    while at < size - 4 * (restarts + 1):
        shared, at = _varint(block, at)
        added, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + added]
        at += added
        yield key, block[at : at + length]
        at += length
