"""Decides how a log is kept in memory, for the simulator and for tests of pure logic; it has the
contract of the durable stores and loses everything with the process.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.log import GENESIS, Append, Recorded, link
from orchestrator.errors import ConflictError, JournalError
from orchestrator.stores.codec import EVENT_SCHEMA, encode


class MemoryStore:
    """Append-only lists; ``version`` counts appends that another user of the store made."""

    def __init__(self) -> None:
        self._all: list[Recorded] = []
        self._streams: dict[str, list[Recorded]] = {}
        self._plans: dict[str, str] = {}

    def close(self) -> None:
        """Nothing to close: the log goes with the object."""

    def append(self, appends: Sequence[Append]) -> int:
        for append in appends:
            actual = len(self._streams.get(append.stream, ()))
            if actual != append.expected:
                raise ConflictError(append.stream, append.expected, actual)
        for append in appends:
            stream = self._streams.setdefault(append.stream, [])
            for event in append.events:
                seq, stream_seq = len(self._all) + 1, len(stream) + 1
                record = Recorded(seq, append.stream, stream_seq, event)
                self._all.append(record)
                stream.append(record)
        return len(self._all)

    def last_seq(self) -> int:
        return len(self._all)

    def read(self, stream: str, after: int = 0) -> list[Recorded]:
        return self._streams.get(stream, [])[after:]

    def read_all(self, after_seq: int = 0) -> list[Recorded]:
        return self._all[after_seq:]

    def streams(self, prefix: str) -> list[str]:
        return [name for name in self._streams if name.startswith(prefix)]

    def version(self) -> int:
        return len(self._all)

    def put_plan(self, name: str, body: str) -> None:
        self._plans.setdefault(name, body)

    def get_plan(self, name: str) -> str:
        try:
            return self._plans[name]
        except KeyError:
            raise JournalError(f"no plan {name[:12]} lies beside the log") from None

    def verify(self, newest: int = 0) -> list[str]:
        return []

    def head(self) -> str:
        """The chain's last hash, computed as a durable store would have."""
        last = GENESIS
        for r in self._all:
            body, at = encode(r.event), r.event.at.utc_ns
            last = link(last, r.seq, r.stream, r.stream_seq, r.event.KIND, at, body, EVENT_SCHEMA)
        return last
