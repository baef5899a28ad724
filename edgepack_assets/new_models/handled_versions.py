"""The versions of a model that a sensor has handled, in a form that is small enough for the sensor's cursor.

A version is its number and the time of its registration: a number that was deleted and registered again is another
version. The times of the latest versions are kept one by one. Older versions are kept as ranges of numbers with one
time, the latest of them all: a version with such a number and a later time is another version.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from edgepack_assets.errors import EdgepackError

KEPT_ONE_BY_ONE = 200


class Ranges:
    """A set of whole numbers, stored as ranges; `1-4,7` as text."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._low: list[int] = []
        self._high: list[int] = []
        for number in sorted(set(numbers)):
            self.add(number)

    @classmethod
    def parse(cls, text: str) -> Ranges:
        """Read what `str` wrote. Raises ValueError."""
        ranges = cls()
        for part in filter(None, text.split(",")):
            low, _, high = part.partition("-")
            bounds = int(low), int(high or low)
            if bounds[0] > bounds[1] or (ranges._high and bounds[0] <= ranges._high[-1]):
                raise ValueError(f"{text!r} is no list of ranges")
            ranges._low.append(bounds[0])
            ranges._high.append(bounds[1])
        return ranges

    def __str__(self) -> str:
        pairs = zip(self._low, self._high, strict=True)
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in pairs)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._low, number) - 1
        return at >= 0 and number <= self._high[at]

    def __iter__(self) -> Iterator[int]:
        for low, high in list(zip(self._low, self._high, strict=True)):
            yield from range(low, high + 1)

    def __len__(self) -> int:
        return sum(self._high) - sum(self._low) + len(self._low)

    def copy(self) -> Ranges:
        """A set that changes apart from this one."""
        copied = Ranges()
        copied._low, copied._high = self._low.copy(), self._high.copy()
        return copied

    def add(self, number: int) -> None:
        """Add a number; no error if it is in the set."""
        if number in self:
            return
        at = bisect_left(self._low, number)
        joins_left = at > 0 and self._high[at - 1] == number - 1
        joins_right = at < len(self._low) and self._low[at] == number + 1
        if joins_left and joins_right:
            self._high[at - 1] = self._high.pop(at)
            self._low.pop(at)
        elif joins_left:
            self._high[at - 1] = number
        elif joins_right:
            self._low[at] = number
        else:
            self._low.insert(at, number)
            self._high.insert(at, number)

    def discard(self, number: int) -> None:
        """Remove a number; no error if it is not in the set."""
        if number not in self:
            return
        at = bisect_right(self._low, number) - 1
        low, high = self._low.pop(at), self._high.pop(at)
        for part in ((number + 1, high), (low, number - 1)):
            if part[0] <= part[1]:
                self._low.insert(at, part[0])
                self._high.insert(at, part[1])


class VersionRecord:
    """The handled versions. Times are in milliseconds since 1970, by the registry's clock."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._older = Ranges()
        self._older_until = 0

    def __contains__(self, version: tuple[int, int]) -> bool:
        """Whether (number, time of registration) has been handled."""
        number, created = version
        if number in self._recent:
            return self._recent[number] == created
        return number in self._older and created <= self._older_until

    def has_number(self, number: int) -> bool:
        """Whether any version of this number has been handled."""
        return number in self._recent or number in self._older

    def copy(self) -> VersionRecord:
        """A record that changes apart from this one."""
        copied = VersionRecord()
        copied._recent, copied._older = self._recent.copy(), self._older.copy()
        copied._older_until = self._older_until
        return copied

    def add(self, number: int, created: int) -> None:
        """Record a version as handled."""
        self._recent[number] = created

    def as_json(self) -> dict[str, object]:
        """The record for a cursor. All versions but the latest are merged into ranges."""
        by_age = sorted(self._recent, key=lambda number: (self._recent[number], number))
        for number in by_age[: max(0, len(by_age) - KEPT_ONE_BY_ONE)]:
            self._older.add(number)
            self._older_until = max(self._older_until, self._recent.pop(number))
        return {
            "recent": {str(number): created for number, created in self._recent.items()},
            "older": str(self._older),
            "older_until": self._older_until,
        }

    @classmethod
    def from_json(cls, value: dict[str, object]) -> VersionRecord:
        """Read what `as_json` wrote. Raises EdgepackError."""
        record = cls()
        try:
            recent, older, until = value["recent"], value["older"], value["older_until"]
            if not isinstance(recent, dict) or not isinstance(older, str) or not isinstance(until, int):
                raise TypeError(f"{value!r}")
            record._recent = {int(number): int(created) for number, created in recent.items()}
            record._older, record._older_until = Ranges.parse(older), until
        except (KeyError, TypeError, ValueError) as error:
            raise EdgepackError(f"this is no record of handled versions: {error}") from None
        return record
