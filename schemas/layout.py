"""How a model's entries lie in one flat vector.

Everything between the device's trainer and the aggregator's evaluation is one contiguous float32 vector: parameters
first, in the model's own order, then statistics (floating-point buffers such as BatchNorm's running mean).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast, get_args

import msgpack
import numpy as np
import numpy.typing as npt

from fedmq.schemas.errors import ProtocolError

__all__ = ["Entry", "Kind", "Layout", "Vector"]

Vector = npt.NDArray[np.float32]
"""A flat float32 vector, shape [layout.size] unless said otherwise."""

Kind = Literal["parameter", "statistic"]
_DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
_MAX_ENTRIES = 100_000
_MAX_SIZE = 1 << 32
_MAX_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the model.

    Attributes:
        name: its key in the `state_dict`.
        shape: its dimensions; empty for a scalar.
        dtype: the model's own dtype; in the vector it is float32 whatever this says.
        kind: a parameter travels as a delta, a statistic as its trained value.

    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    kind: Kind = "parameter"

    @property
    def size(self) -> int:
        """How many floats it takes."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Names, shapes, dtypes and kinds in vector order, with the offsets and the digest that follow from them.

    Raises:
        ProtocolError: (`layout`) entries that cannot be one vector: a name twice, a statistic before a parameter.

    """

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        kinds = [entry.kind for entry in self.entries]
        if len({entry.name for entry in self.entries}) != len(self.entries):
            raise ProtocolError("layout", "a layout names one entry twice")
        if kinds != sorted(kinds, key=get_args(Kind).index):
            raise ProtocolError(
                "layout", "a layout has a parameter behind a statistic; statistics are one slice at the end"
            )
        if not self.entries or len(self.entries) > _MAX_ENTRIES or not 0 < self.size <= _MAX_SIZE:
            raise ProtocolError(
                "layout", f"a layout has {len(self.entries)} entries and {self.size} floats: none, or too many"
            )

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Layout:
        """The layout of these entries, statistics moved to the end, order kept otherwise."""
        return cls(tuple(sorted(entries, key=lambda entry: get_args(Kind).index(entry.kind))))

    @cached_property
    def size(self) -> int:
        """Floats in the vector."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def parameter_size(self) -> int:
        """Floats that are parameters: the vector's first part; what follows are statistics."""
        return sum(entry.size for entry in self.entries if entry.kind == "parameter")

    @cached_property
    def encoded(self) -> bytes:
        """The canonical form: a msgpack array of [name, shape, dtype, kind]."""
        rows = [[entry.name, list(entry.shape), entry.dtype, entry.kind] for entry in self.entries]
        return cast(bytes, msgpack.packb(rows))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `encoded`, in hex: equal digests are equal layouts."""
        return hashlib.sha256(self.encoded).hexdigest()

    @classmethod
    def decode(cls, encoded: bytes | memoryview) -> Layout:
        """The layout whose `encoded` this is.

        Raises:
            ProtocolError: (`malformed`) it is not one.

        """
        try:
            return cls(tuple(_entry(row) for row in _rows(memoryview(encoded))))
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise ProtocolError("malformed", f"a layout that cannot be read: {error}") from error

    def views(self, vector: Vector) -> dict[str, Vector]:
        """Each entry's part of `vector`, in its shape, without copying."""
        views: dict[str, Vector] = {}
        offset = 0
        for entry in self.entries:
            views[entry.name] = vector[offset : offset + entry.size].reshape(entry.shape)
            offset += entry.size
        return views

    def flatten(self, arrays: Mapping[str, npt.NDArray[Any]], into: Vector | None = None) -> Vector:
        """One vector of arrays by name.

        Args:
            arrays: each in its entry's shape.
            into: where, float32 [size]; a new vector if None. Arrays that lie there already are not copied.

        Raises:
            ProtocolError: (`layout`) an entry is missing, one is too many, or a shape differs; the first is named.

        """
        vector = np.empty(self.size, np.float32) if into is None else into
        views = self.views(vector)
        for name in [*views, *arrays]:
            if name not in arrays or name not in views:
                raise ProtocolError("layout", f"entry {name!r}: {'missing' if name in views else 'not in the layout'}")
            if arrays[name].shape != views[name].shape:
                found, expected = list(arrays[name].shape), list(views[name].shape)
                raise ProtocolError("layout", f"entry {name!r}: shape {found}, expected {expected}")
        for name, view in views.items():
            view[...] = arrays[name]
        return vector

    def difference(self, theirs: Layout) -> str | None:
        """The first thing in which their layout differs from ours, as a sentence; None if nothing does."""
        for number, ours in enumerate(self.entries):
            if number >= len(theirs.entries):
                return f"entry {number} {ours.name!r} is here and not there"
            other = theirs.entries[number]
            if ours != other:
                return f"entry {number}: {_describe(ours)} here, {_describe(other)} there"
        if len(theirs.entries) > len(self.entries):
            return f"entry {len(self.entries)} {theirs.entries[len(self.entries)].name!r} is there and not here"
        return None


def _describe(entry: Entry) -> str:
    return f"{entry.kind} {entry.name!r} {entry.dtype}{list(entry.shape)}"


def _rows(encoded: memoryview) -> Iterator[Any]:
    # One by one: msgpack takes memory for what the head of an array announces, however deep it is nested.
    head = msgpack.Unpacker(max_array_len=_MAX_ENTRIES)
    head.feed(encoded[:5])
    announced = head.read_array_header()
    rest = msgpack.Unpacker(use_list=False, max_array_len=_MAX_DIMENSIONS, max_map_len=0, max_bin_len=0)
    rest.feed(encoded[head.tell() :])
    for _ in range(announced):
        yield rest.unpack()
    if head.tell() + rest.tell() != len(encoded):
        raise ValueError("bytes behind its last entry")


def _entry(row: Any) -> Entry:
    name, shape, dtype, kind = row
    if not (isinstance(name, str) and 0 < len(name) <= 512):
        raise ValueError("an entry's name is not a text of 1 to 512 characters")
    if not (
        isinstance(shape, tuple)
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n <= _MAX_SIZE for n in shape)
    ):
        raise ValueError(f"entry {name!r}: its shape is not a list of sizes")
    if dtype not in _DTYPES or kind not in get_args(Kind):
        raise ValueError(f"entry {name!r}: dtype {dtype!r}, kind {kind!r}")
    return Entry(name, shape, dtype, kind)
