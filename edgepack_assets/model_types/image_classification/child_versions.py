"""Which versions of ONNX the component's onnxruntime runs. Runs in the sandbox, beside child_tasks.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OLD_IR, _OLD_OPSET = 7, 13
"""Of an .onnx file that every onnxruntime runs which runs on Python 3.11."""
_MOST_VERSIONS = 100
"""No version of ONNX is near this; a number in one byte."""


def beyond_onnxruntime(settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
    """Why onnxruntime is too old for the model, with the newest that it runs; None where it is not too old.

    That is found out with models of one operation: no table of versions has to be kept."""
    if settings["runtime"] != "onnxruntime" or "ir_version" not in arguments:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4

    def runs(ir_version: int, opset: int) -> bool:
        try:
            onnxruntime.InferenceSession(_smallest_onnx(ir_version, opset), options, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001 - its errors have no common base; the model itself is as simple as can be
            return False
        return True

    def runs_ir(version: int) -> bool:
        return runs(version, _OLD_OPSET)

    def runs_opset(version: int) -> bool:
        return runs(_OLD_IR, version)

    found = []
    for what, version, check in (
        ("ONNX IR version", arguments["ir_version"], runs_ir),
        ("opset", arguments["opset"], runs_opset),
    ):
        if not check(version):
            newest = next((number for number in range(min(version, _MOST_VERSIONS), 0, -1) if check(number)), None)
            if newest is not None:
                found.append(f"it has {what} {version}, and onnxruntime {onnxruntime.__version__} runs up to {newest}")
    if not found:
        return None
    return (
        f"{'; '.join(found)}: export the model for that, or allow a newer onnxruntime (requirements in edgepack.yaml, "
        "or of the model)"
    )


def _smallest_onnx(ir_version: int, opset: int) -> bytes:
    """A model of one Identity, in the protobuf of onnx.proto."""

    def message(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    def number(field: int, value: int) -> bytes:
        return bytes([field << 3, value])

    tensor = message(1, number(1, 1) + message(2, message(1, number(1, 1))))
    node = message(1, b"x") + message(2, b"y") + message(4, b"Identity")
    graph = message(1, node) + message(2, b"g")
    graph += message(11, message(1, b"x") + message(2, tensor)) + message(12, message(1, b"y") + message(2, tensor))
    return number(1, ir_version) + message(7, graph) + message(8, number(2, opset))
