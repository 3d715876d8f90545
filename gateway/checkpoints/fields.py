"""A JSON object that somebody else wrote: each getter gives the value if it has the wanted type, and None otherwise."""

from collections.abc import Iterator, Mapping

_LARGEST = 2**63


class Fields:
    """Typed access to values of unknown type. Never raises."""

    def __init__(self, data: Mapping[str, object] | None = None) -> None:
        self._data: Mapping[str, object] = data or {}

    def __bool__(self) -> bool:
        return bool(self._data)

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __contains__(self, key: str) -> bool:
        return self._data.get(key) is not None

    def get(self, key: str) -> object:
        """The value as it is, None where there is none."""
        return self._data.get(key)

    def text(self, key: str) -> str | None:
        """The value if it is a string."""
        value = self._data.get(key)
        return value if isinstance(value, str) else None

    def whole(self, key: str) -> int | None:
        """The value if it is an integer of 64 bits; true and false are none."""
        value = self._data.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if -_LARGEST < value < _LARGEST else None

    def first_whole(self, *keys: str) -> int | None:
        """The first integer under any of the keys."""
        return next((value for key in keys if (value := self.whole(key)) is not None), None)

    def number(self, key: str) -> float | None:
        """The value if it is a number that 64 bits hold."""
        value = self._data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if -_LARGEST < value < _LARGEST else None

    def flag(self, key: str) -> bool | None:
        """The value if it is true or false."""
        value = self._data.get(key)
        return value if isinstance(value, bool) else None

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings of a list, or a lone string; anything else is left out."""
        value = self._data.get(key)
        if isinstance(value, str):
            return (value,)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def sections(self, key: str) -> tuple["Fields", ...]:
        """The objects of a list."""
        value = self._data.get(key)
        return tuple(Fields(item) for item in value if isinstance(item, dict)) if isinstance(value, list) else ()

    def section(self, key: str) -> "Fields":
        """The object under `key`, an empty one where there is none."""
        value = self._data.get(key)
        return Fields(value) if isinstance(value, dict) else Fields()
