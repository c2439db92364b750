"""A field has one type in all points: InfluxDB keeps a type for each field of a measurement."""

from __future__ import annotations

from test_manual_data import SECTIONS


def test_no_two_kinds_of_points_have_a_field_of_the_same_name_with_another_type() -> None:
    types: dict[str, set[type]] = {}
    for points in SECTIONS.values():
        for point in points:
            for name, value in point.fields.items():
                types.setdefault(name, set()).add(type(value))
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}
