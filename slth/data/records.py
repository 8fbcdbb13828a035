"""The records of TFRecord files, which TFDS writes unless it is asked for array_record, without TensorFlow.

A record is its length (8 bytes, little endian), 4 bytes of checksum, its content and 4 bytes of checksum. The
checksums are not compared: a damaged record is no example any more, or has an image that cannot be read.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

HEAD, TAIL = 12, 4
"""Bytes before and after the content of a record."""


class Records:
    """The records of a split in order, each read when it is asked for.

    Where they begin is found file by file, from length to length, when the first of a file is asked for.

    Args:
      files: the shards.
      counts: how many records each has.
      decode: what is made of the content of one.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int], decode: Callable[[bytes], Any]) -> None:
        self._files, self._decode = files, decode
        self._firsts = [0, *accumulate(counts)]
        self._places: dict[int, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, number: int) -> Any:
        file = bisect_right(self._firsts, number) - 1
        if file not in self._places:
            self._places[file] = self._found(file)
        start, length = self._places[file][number - self._firsts[file]]
        with self._files[file].open("rb") as shard:
            shard.seek(start)
            return self._decode(shard.read(length))

    def _found(self, file: int) -> list[tuple[int, int]]:
        """Where the contents of a file's records begin, and their lengths.

        Raises: ValueError where they do not fill the file, or are not as many as there should be.
        """
        path, places, start = self._files[file], [], 0
        size, count = path.stat().st_size, self._firsts[file + 1] - self._firsts[file]
        with path.open("rb") as shard:
            while start + HEAD <= size:
                shard.seek(start)
                (length,) = struct.unpack("<Q", shard.read(8))
                places.append((start + HEAD, length))
                start += HEAD + length + TAIL
        if start != size or len(places) != count:
            raise ValueError(f"{path.name} does not hold {count} whole records")
        return places
