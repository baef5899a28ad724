"""A wheel whose zip is damaged is refused by name, whatever zipfile raises for it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from edgepack_assets.environments import wheels
from edgepack_assets.environments.lock import LockedPackage
from edgepack_assets.errors import EnvironmentBuildError


@pytest.mark.parametrize(("found", "damaged"), [
    ("ü".encode(), b"\xff\xff"), (b"PK\x05\x06", b"PK\x05\x00"),
    (b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xff"),
])  # fmt: skip
def test_a_damaged_wheel_is_refused(tmp_path: Path, found: bytes, damaged: bytes) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("ü.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    before, matched, after = made.getvalue().rpartition(found)
    assert matched
    path = tmp_path / "app-1.0-py3-none-any.whl"
    path.write_bytes(before + damaged + after)
    package = LockedPackage.model_construct(file=path.name)
    with pytest.raises(EnvironmentBuildError, match=r"^app-1\.0-py3-none-any\.whl is no wheel"):
        wheels._check_layout(path, package)
    with pytest.raises(EnvironmentBuildError, match=r"^app-1\.0-py3-none-any\.whl is no wheel"):
        wheels._part(path, package, "WHEEL")
