"""The laws of partition keys: they print as they parse, and nothing that parses can leave its folder."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgepack_assets.errors import PartitionKeyError
from edgepack_assets.partitions import ModelKey, is_model_type_name, is_version

model_types = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,63}", fullmatch=True)
keys = st.builds(ModelKey, model_types, st.integers(1, 10**18 - 1))


@given(keys)
def test_a_key_prints_as_it_parses(key: ModelKey) -> None:
    assert ModelKey.parse(str(key)) == key
    assert is_model_type_name(key.model_type)
    assert is_version(str(key.version))


@given(keys, keys)
def test_keys_have_paths_of_their_own(one: ModelKey, other: ModelKey) -> None:
    assert (one.path == other.path) == (one == other)
    assert (str(one) == str(other)) == (one == other)


@given(st.text())
@example("../x:1")
@example("state_identifier:")
@example("state_identifier:0")
@example("state_identifier:01")
@example("state_identifier:-1")
@example("state_identifier:latest")
@example("state_identifier:1\n")
@example("state_identifier:\u0661")  # a digit, but not an ASCII one
@example(":1")
@example("a|b:1")
@example("a/b:1")
@example("")
def test_whatever_parses_is_safe_and_plain(text: str) -> None:
    try:
        key = ModelKey.parse(text)
    except PartitionKeyError as error:
        assert repr(text) in str(error)
        assert "<model_type>:<model_version>" in str(error)
        return
    assert str(key) == text
    path = PurePosixPath(key.path)
    assert len(path.parts) == 2
    assert not path.is_absolute()
    assert not {".", ".."} & set(path.parts)


@pytest.mark.parametrize(("model_type", "version"), [("../x", 1), ("", 1), ("a", 0), ("a", -1), ("a", 10**18)])
def test_a_key_that_would_not_parse_cannot_be_made(model_type: str, version: int) -> None:
    with pytest.raises(PartitionKeyError):
        ModelKey(model_type, version)
