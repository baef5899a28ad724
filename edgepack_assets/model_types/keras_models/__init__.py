"""Keras and TensorFlow models, which a component cannot run: finding them, reading what can be read without running
anything, and what runs in the sandbox with TensorFlow (child_tasks.py): converting them to TensorFlow Lite, and
answering a payload with them. What becomes of a converted model is its model type's affair.
"""
