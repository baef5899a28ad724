"""Wheels of what is installed beside these tests, for a loopback index: real libraries without a network."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

_LEFT_OUT = ("tests", "tools", "transformers", "quantization", "f2py")
"""Folders that no component imports; they make wheels twice as large."""


def installed_wheel(name: str, requires: Sequence[str] = ()) -> tuple[str, bytes]:
    """(file name, bytes) of a wheel with the files of an installed distribution. `requires` is what it asks for."""
    found = distribution(name)
    top = Path(str(found.locate_file("")))
    plain = name.replace("-", "_")
    info = f"{plain}-{found.version}.dist-info"
    buffer, record = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w") as archive:

        def add(path: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(content)}\n")

        for file in found.files or ():
            parts = file.parts
            if ".." in parts or parts[0].endswith(".dist-info") or "__pycache__" in parts:
                continue
            if any(part in _LEFT_OUT for part in parts[:-1]) or file.suffix in (".a", ".h", ".pyi"):
                continue
            add(file.as_posix(), (top / file).read_bytes())
        needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
        add(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {found.version}\n{needs}".encode())
        add(f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{''.join(record)}{info}/RECORD,,\n")
    return f"{plain}-{found.version}-py3-none-any.whl", buffer.getvalue()
