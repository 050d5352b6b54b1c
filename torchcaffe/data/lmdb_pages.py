"""Checks the pages of an LMDB before LMDB reads them.

LMDB maps its file and trusts every offset in it: a truncated or damaged file kills the process (SIGBUS, SIGSEGV or
an assertion) instead of failing the read. `Pages` checks the header before the file is opened, and `leaves` each page of
the tree just before the cursor reads it, in the same order. The format is LMDB 0.9's, data version 1, 64 bits, little-endian.
"""

from __future__ import annotations

import mmap
import os
import struct

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_KIND = 0x6F  # the bits of a page's flags that say what it is; the others say how it was written
_FIXED_MAP = 1  # an environment's flag
_BIG = 1  # a node's flag: its value lies in overflow pages
_HEADER = struct.Struct("<QHHHH")  # page: number, pad, flags, lower, upper (of an overflow page: uint32 count)
_META_PAGE = struct.Struct("<IIQQ48sIHHQQQQQQQ")  # magic, version, address, size, free pages' tree, main tree, last, id
_NODE = struct.Struct("<HHHH")  # low and high half of the size, flags, size of the key
_NUMBER = struct.Struct("<Q")
_DEEPEST = 32  # LMDB's cursor holds no more pages
_NONE = 2**64 - 1  # root of an empty tree


class PageError(ValueError):
    """The file is not an LMDB, or is damaged; the message names the page."""


class Pages:
    """The file of an LMDB, data.mdb, as it is now, mapped; a context manager. Raises PageError, OSError.

    descriptor: of the open file, not its path: what lies there may have been replaced since LMDB opened it.
    """

    def __init__(self, descriptor: int):
        self.size = os.fstat(descriptor).st_size
        if self.size < 2 * 256:
            raise PageError(f"its file has {self.size:,} bytes: truncated, or not an LMDB")
        self.map = mmap.mmap(descriptor, self.size, access=mmap.ACCESS_READ)
        try:
            self.page_size = self._read_meta(0)[4]
            if self.page_size not in (1 << shift for shift in range(8, 17)) or self.size < 2 * self.page_size:
                raise PageError(f"page 0: invalid page size {self.page_size}")
            self.metas = [self._read_meta(0), self._read_meta(self.page_size)]
            for number, (root, depth, flags, last, page_size, _) in enumerate(self.metas):
                self._check_meta(number, root, depth, flags, last, page_size)
        except BaseException:
            self.map.close()
            raise

    def close(self):
        self.map.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read_meta(self, start):
        """(root, depth, flags, last page, page size, transaction) of the meta page that begins at `start`."""
        if start + _HEADER.size + _META_PAGE.size > self.size:
            raise PageError(f"its file has {self.size:,} bytes: truncated")
        flags = _HEADER.unpack_from(self.map, start)[2]
        found = _META_PAGE.unpack_from(self.map, start + _HEADER.size)
        if not flags & _META or found[:2] != (_MAGIC, _VERSION):
            raise PageError("the file does not start with an LMDB header")
        page_size, environment_flags = struct.unpack_from("<IH", found[4])
        if environment_flags & _FIXED_MAP:
            raise PageError("the file asks for a fixed memory address (MDB_FIXEDMAP)")
        _, tree_flags, depth, _, _, _, _, root, last, transaction = found[5:]
        return root, depth, tree_flags, last, page_size, transaction

    def _check_meta(self, number, root, depth, flags, last, page_size):
        if page_size != self.page_size:
            raise PageError(f"page {number}: page size {page_size} differs from page 0's")
        if (last + 1) * page_size > self.size:
            raise PageError(
                f"it is truncated: {self.size:,} bytes of {(last + 1) * page_size:,} ({last + 1:,} pages)"
            )
        if flags:
            raise PageError(f"page {number}: duplicate keys or another key order, which Caffe does not write")
        if depth > _DEEPEST or (root != _NONE and not 2 <= root <= last):
            raise PageError(f"page {number}: invalid tree: root page {root} of {last + 1}, depth {depth}")

    def leaves(self, transaction: int):
        """Yield the number of records of each leaf page, in key order, after checking every page that LMDB reads for them.

        `transaction`: number of the snapshot that is read.
        """
        found = [meta for meta in self.metas if meta[5] == transaction]
        if not found:
            raise PageError("another process is writing to it")
        root, depth, _, self.last, _, _ = found[0]
        self.left = self.last + 1  # pages that a walk can meet: more means that some are met twice
        if root != _NONE:
            yield from self._walk(root, depth)

    def _walk(self, number, depth):
        flags, offsets = self._page(number)
        if flags != (_LEAF if depth == 1 else _BRANCH):
            raise PageError(f"page {number}: unexpected page type {flags} at height {depth}")
        if flags == _LEAF:
            for start in offsets:
                self._check_record(number, start)
            yield len(offsets)
            return
        if len(offsets) < 2:
            raise PageError(f"page {number}: a branch page with {len(offsets)} entries")
        for start in offsets:
            low, high, highest, key = _NODE.unpack_from(self.map, start)
            self._check_inside(number, start + _NODE.size + key)
            yield from self._walk(low | high << 16 | highest << 32, depth - 1)

    def _page(self, number):
        """(kind, positions of the nodes in the file) of a page."""
        self.left -= 1
        if not 2 <= number <= self.last:
            raise PageError(f"page {number} is referenced, but there are {self.last + 1} pages")
        if self.left < 0:
            raise PageError(f"page {number}: the tree has more pages than the file")
        start = number * self.page_size
        _, _, flags, lower, upper = _HEADER.unpack_from(self.map, start)
        count = (lower - _HEADER.size) // 2
        if lower % 2 or count < 1 or not lower <= upper <= self.page_size:
            raise PageError(f"page {number}: invalid free space, {lower} to {upper}")
        offsets = struct.unpack_from(f"<{count}H", self.map, start + _HEADER.size)
        if min(offsets) < upper or max(offsets) + _NODE.size > self.page_size:
            raise PageError(f"page {number}: an entry outside its page")
        return flags & _KIND, [start + offset for offset in offsets]

    def _check_inside(self, number, end):
        if end > (number + 1) * self.page_size:
            raise PageError(f"page {number}: an entry that extends beyond its page")

    def _check_record(self, number, start):
        low, high, flags, key = _NODE.unpack_from(self.map, start)
        size, data = low | high << 16, start + _NODE.size + key
        if not flags:
            self._check_inside(number, data + size)
            return
        if flags != _BIG:
            raise PageError(f"page {number}: a record with flags {flags}, which Caffe does not write")
        self._check_inside(number, data + _NUMBER.size)
        (first,) = _NUMBER.unpack_from(self.map, data)
        pages = (_HEADER.size + size + self.page_size - 1) // self.page_size
        if not 2 <= first <= self.last + 1 - pages:
            raise PageError(f"page {number}: a record of {size:,} bytes that starts at page {first} of {self.last + 1}")

