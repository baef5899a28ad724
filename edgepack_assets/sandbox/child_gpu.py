"""A GPU component of a package, run on the processor: what runs in the child in place of the server's GPU runtime.

Laid beside the component's own files, config.pbtxt and 1/model.onnx, with the SDK's model_config_pb2.py. It does what
run_gpuruntime_component.py of the SDK does, record by record. What differs: a batch that is larger than max_batch_size
is refused, as the server refuses it, where the SDK only warns. Needs onnxruntime, numpy and protobuf.
"""

from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


class UnfitBatch(ValueError):  # noqa: N818 - as UnfitModel of the components
    """The record has more items than the component takes; the text says so."""

    is_for_user = True


def _read_config() -> Any:
    text_format, messages = import_module("google.protobuf.text_format"), import_module("model_config_pb2")
    return text_format.Parse((_FOLDER / "config.pbtxt").read_text(encoding="utf-8"), messages.ModelConfig())


def _load() -> Any:
    onnxruntime = import_module("onnxruntime")
    getattr(onnxruntime, "disable_telemetry_events", lambda: None)()  # it would tell its maker of every session
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    model = str(_FOLDER / "1" / "model.onnx")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


_config, _session = _read_config(), _load()
_dims = {tensor.name: [int(size) for size in tensor.dims] for tensor in _config.input}
_outputs = [output.name for output in _session.get_outputs()]


def process_input(data: dict[str, Any]) -> dict[str, Any]:
    """The model's outputs by name, as arrays. The server gives flat arrays; with a batch size, config.pbtxt says what
    one item of a batch is, else the model itself says the whole shape."""
    tensors = {}
    for entered in _session.get_inputs():
        value = data[entered.name]
        if _config.max_batch_size > 0:
            dims = _dims[entered.name]
            count = value.size // prod(dims)
            if count > _config.max_batch_size:
                raise UnfitBatch(
                    f"input {entered.name!r} has {count} items; max_batch_size of the component is "
                    f"{_config.max_batch_size}"
                )
            tensors[entered.name] = value.reshape([count, *dims])
        else:
            tensors[entered.name] = value.reshape(entered.shape)
    return dict(zip(_outputs, _session.run(_outputs, tensors), strict=True))
