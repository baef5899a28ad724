"""What differs between use cases: one folder per model type, behind the interface in interface.py."""

from __future__ import annotations

from importlib import import_module

from edgepack_assets.model_types.interface import ModelType

__all__ = ["ModelType", "model_type"]


def model_type(implementation: str) -> ModelType:
    """The implementation in the folder of that name (its `MODEL_TYPE`)."""
    found = import_module(f"{__name__}.{implementation}").MODEL_TYPE
    assert isinstance(found, ModelType)
    return found
