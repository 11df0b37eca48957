"""Settings as plain values: what a cache, a checkpoint or a file says of how something was made."""

from dataclasses import asdict, fields, is_dataclass
from typing import Any


class Configured:
    """A class whose subclasses are dataclasses: their fields are the settings that a configuration may change."""

    def settings(self) -> dict[str, Any]:
        """Return the class path and the settings, as plain values."""
        assert is_dataclass(self)
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            **{field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.init},
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Configured):
        return value.settings()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
