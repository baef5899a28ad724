"""The sample data: the same each time, of the shape that the model types take, with three states to find."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from edgepack_assets.quickstart import samples
from edgepack_assets.quickstart.training.si_training.preprocessing import (
    FeatureTransformer,
    FillMissingValues,
    SumColumnsTransformer,
    WindowTransformer,
)
from edgepack_assets.registry.base import content_digest


def test_the_recording_is_the_same_each_time(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        file = samples.write_recording(tmp_path / name)
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_the_recording_is_what_a_state_identifier_takes(tmp_path: Path) -> None:
    frame = pd.read_parquet(samples.write_recording(tmp_path))
    assert list(frame.columns) == ["DateTime", "ph1", "ph2", "ph3"]
    assert len(frame) == samples.ROWS
    assert frame["DateTime"].diff().dropna().eq(pd.Timedelta(milliseconds=250)).all()
    assert all(frame[phase].dtype == np.float64 for phase in samples.PHASES)


def test_values_are_missing_but_never_in_the_first_rows() -> None:
    missing = samples.power_recording(samples.VALIDATION_SEED).frame[list(samples.PHASES)].isna()
    assert 200 <= missing.to_numpy().sum() <= 900
    assert not missing.iloc[:100].to_numpy().any()
    assert missing.iloc[600::300].to_numpy().any(), "a window that begins with a missing value"


def test_the_model_is_not_validated_on_what_it_was_trained_on() -> None:
    training = samples.power_recording(samples.TRAINING_SEED).frame["ph1"]
    assert not training.equals(samples.power_recording(samples.VALIDATION_SEED).frame["ph1"])


def test_the_three_states_are_found_in_another_recording() -> None:
    preprocessing = Pipeline(
        [
            ("fillmissing", FillMissingValues("ffill")),
            ("summarization", SumColumnsTransformer()),
            ("windowing", WindowTransformer()),
            ("featurization", FeatureTransformer()),
            ("scaling", MinMaxScaler()),
        ]
    )
    model = Pipeline(
        [("preprocessing", preprocessing), ("clustering", KMeans(n_clusters=3, random_state=0, n_init=10))]
    )
    phases = list(samples.PHASES)
    model.fit(samples.power_recording(samples.TRAINING_SEED).frame[phases].to_numpy())

    recording = samples.power_recording(samples.VALIDATION_SEED)
    raw = recording.frame[phases].to_numpy()
    clusters = model.predict(raw)
    windows = recording.states.reshape(-1, 300)
    within_one_state = (windows == windows[:, :1]).all(axis=1)
    pairs = set(zip(windows[within_one_state, 0], clusters[within_one_state], strict=True))
    assert len(pairs) == 3, "each state is one cluster"
    assert len({cluster for _, cluster in pairs}) == 3
    assert silhouette_score(preprocessing.transform(raw), clusters) > 0.6


def test_missing_values_are_filled_from_before_as_pandas_does() -> None:
    nan = np.nan
    values = np.array([[nan, 1.0], [2.0, nan], [nan, nan], [5.0, 3.0], [nan, nan]])
    filled = FillMissingValues("ffill").fit_transform(values)
    np.testing.assert_array_equal(filled, pd.DataFrame(values).ffill().to_numpy())


@pytest.mark.parametrize(("rows", "step", "first"), [(2, 3, []), (3, 3, [0]), (7, 3, [0, 3]), (8, 4, [0, 4])])
def test_windows_are_cut_at_each_step(rows: int, step: int, first: list[int]) -> None:
    windows = WindowTransformer(window_size=3, window_step=step).fit_transform(np.arange(rows)[:, np.newaxis])
    assert windows.shape == (len(first), 3)
    assert windows[:, 0].tolist() == first


def test_features_of_a_window() -> None:
    features = FeatureTransformer().fit_transform(np.array([[1.0, 4.0, 2.0, 5.0]]))
    np.testing.assert_allclose(features, [[5.0, 1.0, 3.0, float(np.std([1, 4, 2, 5])), 6.0, -2.0]])


def test_the_images_are_the_same_each_time(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        digests.append(content_digest(samples.write_images(tmp_path / name)))
    assert digests[0] == digests[1]


def test_the_images_lie_in_folders_that_the_tags_know(tmp_path: Path) -> None:
    root = samples.write_images(tmp_path)
    tags = samples.image_tags()
    assert {folder.name for folder in root.iterdir()} == tags.keys()
    assert sorted(map(int, tags.values())) == list(range(10))
    for folder in root.iterdir():
        files = sorted(folder.iterdir())
        assert len(files) == samples.IMAGES_PER_CLASS
        with Image.open(files[0]) as image:
            assert (image.format, image.size) == ("PNG", (32, 32))


def test_no_image_is_both_trained_and_validated_on() -> None:
    training, validation = samples.digits()
    assert len(training.numbers) > 1_500
    assert not set(training.numbers) & set(validation.numbers)
