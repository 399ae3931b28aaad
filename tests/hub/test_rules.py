"""The rules that stand in pure functions: twins, tokens, bags, usernames, the spool."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vedette_tools.hub import bag, sas, spool, twin
from vedette_tools.hub.errors import RequestError

NOW = "2026-01-01T00:00:00.000Z"

keys = st.text("abcä_-:/", min_size=1, max_size=3)
leaves = st.one_of(
    st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text("aä. $\n", max_size=5)
) | st.integers(-(2**52), 2**52 - 1)
documents = st.recursive(
    st.dictionaries(keys, leaves, max_size=4),
    lambda below: st.dictionaries(keys, leaves | below, max_size=4),
    max_leaves=10,
).filter(lambda document: _depth(document) <= twin.DEPTH)
patches = st.recursive(
    st.dictionaries(keys, leaves | st.none(), max_size=4),
    lambda below: st.dictionaries(keys, leaves | st.none() | below, max_size=4),
    max_leaves=10,
).filter(lambda document: _depth(document) <= twin.DEPTH)


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value.values()), default=0) if isinstance(value, dict) else 0


def _nulls(value: Any) -> bool:
    return any(map(_nulls, value.values())) if isinstance(value, dict) else value is None


# --- twins ---


@given(documents, patches)
def test_merge_patch(target: dict[str, Any], patch: dict[str, Any]) -> None:
    merged = twin.merge(target, patch)
    assert not _nulls(merged)
    assert twin.merge(merged, patch) == merged
    for key in set(target) | set(patch):
        if key not in patch:
            assert merged[key] == target[key]
        elif patch[key] is None:
            assert key not in merged
        elif not isinstance(patch[key], dict):
            assert merged[key] == patch[key]
        else:
            below = target.get(key)
            expected = twin.merge(below if isinstance(below, dict) else {}, patch[key])
            assert merged[key] == expected


@given(st.lists(patches, max_size=4), st.sampled_from(["desired", "reported"]))
def test_a_twin_counts_its_versions_and_describes_all_it_holds(
    changes: list[dict[str, Any]], name: str
) -> None:
    document = twin.new(NOW)
    expected: dict[str, Any] = {}
    for number, patch in enumerate(changes, 2):
        document = twin.update(document, name, patch, f"t{number}")
        expected = twin.merge(expected, patch)
        section = document["properties"][name]
        assert twin.properties(section) == expected
        assert section["$version"] == number
        assert _described(section["$metadata"], expected)
        for key, value in patch.items():
            if value is not None:
                assert section["$metadata"][key]["$lastUpdated"] == f"t{number}"
    assert json.loads(json.dumps(document)) == document


def _described(metadata: dict[str, Any], values: dict[str, Any]) -> bool:
    named = {key for key in metadata if not key.startswith("$")}
    return named == set(values) and all(
        "$lastUpdated" in metadata[key]
        and _described(metadata[key], value if isinstance(value, dict) else {})
        for key, value in values.items()
    )


def _nested(depth: int) -> dict[str, Any]:
    document: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        document = {"a": document}
    return document


@pytest.mark.parametrize(
    "patch",
    [
        _nested(10),
        {"a" * 1024: 1},
        {"a": "x" * 4096},
        {"a": 2**52 - 1, "b": -(2**52)},
        {"a": [1, {"b": None}]},
        {f"k{n}": "x" * 4000 for n in range(8)},
    ],
)
def test_what_is_within_the_limits(patch: dict[str, Any]) -> None:
    twin.update(twin.new(NOW), "reported", patch, NOW)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (_nested(11), "deeper than 10"),
        ({"a" * 1025: 1}, "over 1024"),
        ({"": 1}, "empty"),
        ({"a": "x" * 4097}, "over 4096"),
        ({"a": 2**52}, "-2^52"),
        ({"a": -(2**52) - 1}, "-2^52"),
        ({"a.b": 1}, "holds"),
        ({"a": {"b c": 1}}, "holds"),
        ({"$a": 1}, "holds"),
        ({"a": [{"b.c": 1}]}, "holds"),
        ({"a\n": 1}, "holds"),
        ({f"k{n}": "x" * 4000 for n in range(9)}, "32768 is the limit"),
        ([], "object"),
        (None, "object"),
    ],
)
def test_what_breaks_a_limit(patch: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says.replace("^", r"\^")) as refused:
        twin.update(twin.new(NOW), "reported", patch, NOW)
    assert refused.value.status == 400


def test_tags_have_8_kb() -> None:
    twin.update_tags(twin.new(NOW), {"a": "x" * 4000, "b": "x" * 4000})
    with pytest.raises(RequestError, match="8192"):
        twin.update_tags(twin.new(NOW), {"a": "x" * 4096, "b": "x" * 4096})


@pytest.mark.parametrize("tags", [5, "x", ["a"], _nested(11), _nested(150)])
def test_tags_that_are_no_object_or_too_deep(tags: Any) -> None:
    with pytest.raises(RequestError) as refused:
        twin.update_tags(twin.new(NOW), tags)
    assert refused.value.status == 400


# --- tokens ---


def test_a_token_as_the_documentation_makes_it() -> None:
    key = base64.b64encode(b"0123456789abcdef").decode()
    token = sas.make("h.example/devices/d 1", key, lifetime=60, policy="device")
    resource = quote("h.example/devices/d 1", safe="")
    fields = dict(part.split("=", 1) for part in token.partition(" ")[2].split("&"))
    assert fields["sr"] == resource and fields["skn"] == "device"
    assert abs(int(fields["se"]) - time.time() - 60) < 5
    message = f"{resource}\n{fields['se']}".encode()
    signature = base64.b64encode(hmac.new(b"0123456789abcdef", message, hashlib.sha256).digest())
    assert fields["sig"] == quote(signature, safe="")
    parsed = sas.Token.parse(token)
    assert parsed.signed_with(key) and not parsed.signed_with(sas.new_key())
    assert fields["sig"] not in repr(parsed) and signature.decode() not in repr(parsed)


def test_the_key_of_a_device_in_a_group() -> None:
    group = base64.b64encode(b"group").decode()
    expected = base64.b64encode(hmac.new(b"group", b"dev-1", hashlib.sha256).digest())
    assert sas.derive_key(group, "dev-1") == expected.decode()


@given(st.text())
def test_any_text_is_a_token_or_refused(text: str) -> None:
    for candidate in (text, sas.PREFIX + text, f"{sas.PREFIX}sr=a&sig={text}&se=1"):
        try:
            assert not sas.Token.parse(candidate).signed_with("c2VjcmV0")
        except sas.SasError:
            pass


@pytest.mark.parametrize(
    ("resource", "path", "covered"),
    [
        ("h/devices/d", "devices/d", True),
        ("h/devices/d", "devices/d/modules/m", True),
        ("h/devices/d/modules/m", "devices/d", False),
        ("h/devices/d", "devices/d2", False),
        ("h/devices/d2", "devices/d", False),
        ("h", "devices/d", True),
        ("h/", "devices/d", True),
        ("h:8883/devices", "devices/d", True),
    ],
)
def test_what_a_token_covers(resource: str, path: str, covered: bool) -> None:
    assert sas.Token(resource, None, 0, "", "").covers(path) is covered


# --- property bags ---


@given(st.dictionaries(st.text(min_size=1), st.none() | st.text()))
def test_a_bag_survives_its_encoding(properties: bag.Bag) -> None:
    encoded = bag.encode(properties)
    assert bag.decode(encoded) == properties
    assert not set(encoded) & set(" +#/$")


@given(st.text())
def test_any_text_is_some_bag(text: str) -> None:
    bag.decode(text)


def test_a_bag_as_devices_send_it() -> None:
    decoded = bag.decode("$.ct=application%2Fjson&%24.mid=a+b&k&e=&x=1=2")
    assert decoded == {"$.ct": "application/json", "$.mid": "a+b", "k": None, "e": "", "x": "1=2"}
    own, system = bag.split(decoded)
    assert set(own) == {"k", "e", "x"} and set(system) == {"$.ct", "$.mid"}


# --- the spool ---


def _record(payload: bytes) -> bytes:
    session, topic = b"p1 devices/d", b"devices/d/messages/events/"
    header = spool._HEADER.pack(
        spool._MAGIC, len(payload), 1, len(session), len(topic), spool.PUBLISH, 1, 0
    )
    return header + session + topic + payload


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.data())
def test_a_torn_record_is_dropped_and_all_before_it_is_kept(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    records = [_record(payload) for payload in payloads]
    whole = b"".join(records)
    cut = data.draw(st.integers(0, len(whole)))
    (directory / f"{1:012d}").write_bytes(whole[:cut])
    reader = spool.Spool(directory)
    complete, length = [], 0
    for record, payload in zip(records, payloads, strict=True):
        length += len(record)
        if length <= cut:
            complete.append(payload)
    assert _read_all(reader) == complete
    (directory / f"{2:012d}").write_bytes(_record(b"next"))
    assert _read_all(reader) == [*complete, b"next"]


def test_read_files_are_forgotten_and_numbers_never_used_again(tmp_path: Path) -> None:
    reader = spool.Spool(tmp_path)
    (tmp_path / f"{1:012d}").write_bytes(_record(b"a"))
    (tmp_path / f"{2:012d}").write_bytes(_record(b"b"))
    assert reader.next_number(spool.Position()) == 3
    reader.forget(spool.Position(2, 0))
    assert [path.name for path in tmp_path.iterdir()] == [f"{2:012d}"]
    reader.forget(spool.Position(3, 0))
    assert reader.next_number(spool.Position(7, 0)) == 8


def _read_all(reader: spool.Spool) -> list[bytes]:
    position, found = spool.Position(), []
    while True:
        records, position = reader.read(position)
        if not records:
            return found
        found += [record.payload for record in records]
