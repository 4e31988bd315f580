"""The checked settings and the daemon's own are the same thing twice."""

from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_type_hints

import msgspec
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from extsloader.model.settings import Settings
from extsloader.settings.schema import SettingsTable, Size


def _shape(kind: Any) -> dict[str, Any]:
    """Field names, and below the tables theirs."""
    hints = get_type_hints(kind)
    names = kind.model_fields if issubclass(kind, BaseModel) else [f.name for f in fields(kind)]
    nested = {n for n in names if is_dataclass(hints[n]) or _is_model(hints[n])}
    return {name: _shape(hints[name]) if name in nested else None for name in names}


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def test_both_have_the_same_keys_in_the_same_order() -> None:
    assert list(_shape(SettingsTable)) == list(_shape(Settings))
    assert _shape(SettingsTable) == _shape(Settings)


def test_both_have_the_same_defaults() -> None:
    assert SettingsTable().model_dump() == asdict(Settings())


def test_what_is_checked_can_be_read_by_the_daemon() -> None:
    table = SettingsTable.model_validate({"filters": {"fs_types": ["ext4"], "removable": True}})
    settings = msgspec.json.decode(table.model_dump_json(), type=Settings, strict=True)
    assert asdict(settings) == table.model_dump()


@pytest.mark.parametrize(
    ("value", "size"),
    [(0, 0), (4096, 4096), ("64K", 65536), ("64M", 64 << 20), ("2G", 2 << 30), ("1TiB", 1 << 40)],
)
def test_sizes(value: object, size: int) -> None:
    assert TypeAdapter(Size).validate_python(value, strict=True) == size


@pytest.mark.parametrize("value", [-1, "64", "64m", "1.5G", "G", "", True, 1.0, "9" * 15 + "T"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Size).validate_python(value, strict=True)
