"""Image classification: photos in class folders, a .tflite or .onnx model, one class index per image."""

from __future__ import annotations

from edgepack_assets.model_types.image_classification.model_type import ImageClassification

MODEL_TYPE = ImageClassification()
