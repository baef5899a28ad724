"""An .onnx file that needs more than inference.py knows: one of several outputs, an image size that the file leaves
open, or a large file, which must not be in memory more than once.

`onnx` in model.json says which. It ships, with its entrypoint.py, only where it is needed: packages of other models
stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference import Classifier, Onnx, Tensor, UnfitModel, read_settings
from preprocessing import Preprocessing


class OnnxWithOptions(Onnx):
    """A .onnx file with `output` (name), `size` ([height, width]), `is_large` and `has_huge_tensor` of model.json."""

    def __init__(self, file: Path, options: Mapping[str, Any]) -> None:
        import onnxruntime

        getattr(onnxruntime, "disable_telemetry_events", lambda: None)()  # as in inference.py
        session = onnxruntime.SessionOptions()
        session.log_severity_level = 3
        if options.get("is_large"):
            # The next level stores weights of convolutions a second time, in another order.
            session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        if options.get("has_huge_tensor"):
            # Prepacking holds one tensor twice for a moment.
            session.add_session_config_entry("session.disable_prepacking", "1")
        self._session = onnxruntime.InferenceSession(str(file), session, providers=["CPUExecutionProvider"])
        [source] = self._session.get_inputs()
        self.input = _with_size(self._describe(source), options.get("size"))
        outputs = {output.name: output for output in self._session.get_outputs()}
        wanted = options.get("output") or next(iter(outputs))
        if wanted not in outputs:
            raise UnfitModel(f"it has no output {wanted!r}; its outputs: {', '.join(outputs)}")
        self.output = self._describe(outputs[wanted])


def _with_size(tensor: Tensor, size: list[int] | None) -> Tensor:
    if size is None or len(tensor.shape) != 4:
        return tensor
    height, width = size
    channels_last = tensor.shape[3] in (1, 3) and tensor.shape[1] not in (1, 3)
    image = (height, width, tensor.shape[3]) if channels_last else (tensor.shape[1], height, width)
    return replace(tensor, shape=(tensor.shape[0], *image))


def load_model(folder: Path) -> OnnxWithOptions:
    """The model that model.json in this folder names."""
    settings = read_settings(folder)
    try:
        return OnnxWithOptions(folder / settings["file"], settings["onnx"])
    except (UnfitModel, ImportError):
        raise
    except Exception as error:  # the runtime's own errors have no common base
        raise UnfitModel(f"{settings['runtime']} cannot load it: {error}") from error


def load(folder: Path) -> Classifier:
    """The classifier that model.json in this folder describes."""
    settings = read_settings(folder)
    return Classifier(load_model(folder), settings.get("scores"), Preprocessing.of(settings.get("input", {})))
