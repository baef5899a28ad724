"""Anomaly detector: a model type for edgepack-assets."""

from edgepack_anomaly_detector.model_type import AnomalyDetector

MODEL_TYPE = AnomalyDetector()
