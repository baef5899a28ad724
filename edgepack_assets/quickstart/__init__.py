"""The quickstart: sample data, a model of each type trained on it, and the main job on the embedded default.

`python -m edgepack_assets.quickstart`, or `make quickstart`. Nothing else in the project imports from here.
"""
