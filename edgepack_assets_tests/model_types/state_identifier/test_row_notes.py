"""Times and labels of a recording: gaps are found wherever they are, labels reach the windows that they cover."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, adjusted_rand_score

from edgepack_assets.checks import all_pass
from edgepack_assets.errors import PluginError, RawDataError
from edgepack_assets.model_types.interface import Payload, PayloadWriter, read_lines
from edgepack_assets.model_types.state_identifier import payload
from edgepack_assets.model_types.state_identifier.label_agreement import agreement, window_labels
from edgepack_assets.model_types.state_identifier.settings import StateIdentifierSettings

TIMED = StateIdentifierSettings(channels=("x",), sampling_period_ms=100, timestamp_column="time")
LABELLED = StateIdentifierSettings(channels=("x",), label_column="state")


def written(raw: Path, folder: Path, settings: StateIdentifierSettings) -> tuple[dict, Payload]:
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        facts = payload.write_payload(raw, writer, settings)
    return {**facts, "records": writer.count}, Payload(writer.records, writer.sources, writer.count)


def timed(milliseconds: object, folder: Path, unit: str = "us", name: str = "raw.parquet") -> Path:
    times = pd.to_datetime(pd.Series(milliseconds), unit="ms", origin="2026-03-29").astype(f"datetime64[{unit}]")
    pd.DataFrame({"time": times, "x": 1.0}).to_parquet(folder / name)
    return folder / name


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_that_come_in_the_sampling_period_are_taken_and_told(tmp_path, unit):
    jitter = np.random.RandomState(0).uniform(-20, 20, 500).round()
    facts, _ = written(timed(np.arange(500) * 100 + jitter, tmp_path, unit), tmp_path, TIMED)
    assert facts["sampling"]["column"] == "time"
    assert facts["sampling"]["mean_ms"] == pytest.approx(100, abs=0.1)
    assert 60 <= facts["sampling"]["shortest_ms"] < 100 < facts["sampling"]["longest_ms"] <= 140
    assert facts["ignored_columns"] == []
    assert all_pass(payload.payload_rows(facts))


@given(row=st.integers(1, 299), missing=st.integers(1, 40))
def test_a_gap_is_found_wherever_it_is(tmp_path_factory, row, missing):
    folder = tmp_path_factory.mktemp("gap")
    times = np.arange(300) * 100
    times[row:] += missing * 100
    with pytest.raises(
        RawDataError, match=rf"raw\.parquet: row {row} comes {100 + missing * 100} ms after the row bef"
    ):
        written(timed(times, folder), folder, TIMED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda times: times[::-1], r"row 1 comes -100 ms after"),
        (lambda times: np.repeat(times, 2), r"row 1 comes 0 ms after"),
        (lambda times: times * 1.3, r"130 ms apart on average, and sampling_period_ms is 100"),
        (lambda times: times * 0.9, r"90 ms apart on average"),
        (lambda times: np.where(np.arange(len(times)) == 7, np.nan, times), r"has no time in row 7"),
        (lambda times: times + np.where(times > 900, 3_600_000, 0), r"row 10 comes 3.6001e\+06 ms after"),
    ],
)
def test_times_that_are_no_even_sampling_are_refused(tmp_path, change, words):
    with pytest.raises(RawDataError, match=words):
        written(timed(change(np.arange(100) * 100.0), tmp_path), tmp_path, TIMED)


def test_a_gap_between_part_files_is_found_in_the_second(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    timed(np.arange(50) * 100, raw, name="part-0.parquet")
    timed(np.arange(50, 80) * 100, raw, name="part-1.parquet")
    assert written(raw, tmp_path, TIMED)[0]["records"] == 80
    timed(np.arange(52, 80) * 100, raw, name="part-1.parquet")
    with pytest.raises(RawDataError, match=r"part-1\.parquet: row 0 comes 300 ms after the row before it"):
        written(raw, tmp_path, TIMED)


@pytest.mark.parametrize("values", [[1, 2, 3], [0.1, 0.2, 0.3], ["2026-01-01", "2026-01-02", "2026-01-03"]])
def test_what_is_no_timestamp_is_refused_with_what_to_write(tmp_path, values):
    pd.DataFrame({"time": values, "x": 1.0}).to_parquet(tmp_path / "raw.parquet")
    with pytest.raises(RawDataError, match=r"timestamp_column time holds .*, not timestamps: write it as"):
        written(tmp_path / "raw.parquet", tmp_path, TIMED)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (["idle", "run", None, "", "idle"], ["idle", "run", None, None, "idle"]),
        (pd.Categorical(["idle", "run", None, "run", "run"]), ["idle", "run", None, "run", "run"]),
        ([1, 2, None, 1, 2], [1, 2, None, 1, 2]),  # pandas writes floats
        (np.array([0, 255, 3, 4, 5], dtype=np.uint8), [0, 255, 3, 4, 5]),
        ([True, False, True, False, True], [True, False, True, False, True]),
    ],
)
def test_labels_are_kept_by_record(tmp_path, column, labels):
    pd.DataFrame({"x": np.arange(5.0), "state": column}).to_parquet(tmp_path / "raw.parquet")
    facts, made = written(tmp_path / "raw.parquet", tmp_path, LABELLED)
    assert made.labels() == {record: label for record, label in enumerate(labels) if label is not None}
    assert [type(source["label"]) for source in read_lines(made.sources)] == [type(x) for x in labels if x is not None]
    assert facts["labelled"] == sum(facts["labels"].values()) == sum(label is not None for label in labels)
    assert list(read_lines(made.records)) == [{"x": float(at)} for at in range(5)]
    assert all_pass(payload.payload_rows(facts))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([0.5, 1.0, 2.0], r"raw\.parquet: label_column state holds 0.5 in row 0; a label is text, a whole number"),
        ([[1], [2], [3]], r"label_column state holds .*list.*; a label is text"),
        (["a", "b" * 300, "c"], r"text of 300 characters in row 1"),
        (None, r"column state is missing; the columns are: x"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path, column, words):
    frame = pd.DataFrame({"x": np.arange(3.0), **({} if column is None else {"state": column})})
    frame.to_parquet(tmp_path / "raw.parquet")
    with pytest.raises(RawDataError, match=words):
        written(tmp_path / "raw.parquet", tmp_path, LABELLED)


def test_a_column_that_names_no_states_is_refused_and_one_without_labels_is_not_sound(tmp_path):
    pd.DataFrame({"x": np.arange(300.0), "state": np.arange(300)}).to_parquet(tmp_path / "raw.parquet")
    with pytest.raises(RawDataError, match="more than 200 different values"):
        written(tmp_path / "raw.parquet", tmp_path, LABELLED)
    pq.write_table(pa.table({"x": [1.0, 2.0], "state": pa.nulls(2)}), tmp_path / "raw.parquet")
    facts, _ = written(tmp_path / "raw.parquet", tmp_path, LABELLED)
    assert [row.name for row in payload.payload_rows(facts) if not row.passed and not row.warns] == ["labelled rows"]


def test_a_writer_takes_as_many_labels_as_records(tmp_path):
    writer = PayloadWriter(tmp_path / "records", tmp_path / "sources")
    with writer.open(), pytest.raises(PluginError, match="1 labels for 2 records from record 0 on"):
        writer.add_lines(["{}", "{}"], ["a"])


@given(data=st.data(), size=st.integers(1, 9), step=st.integers(1, 12))
def test_a_windows_label_is_the_one_that_most_of_its_records_have(tmp_path_factory, data, size, step):
    labels = data.draw(st.lists(st.sampled_from(["b", "a", "c", None]), min_size=size, max_size=60))
    folder = tmp_path_factory.mktemp("labels")
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        writer.add_lines(["{}"] * len(labels), labels)
    last = np.arange(size - 1, len(labels), step)
    found = window_labels(Payload(writer.records, writer.sources, writer.count), last, size)

    def most(end):
        counted = [label for label in labels[end - size + 1 : end + 1] if label is not None]
        return min(set(counted), key=lambda label: (-counted.count(label), label)) if counted else None

    assert found == [most(end) for end in last]


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.sampled_from([None, "a", "b", "c"])), min_size=1, max_size=40),
    st.permutations(range(-1, 5)),
)
def test_agreement_has_the_laws_of_its_measures(pairs, renamed):
    states = np.array([state for state, _ in pairs], dtype=np.int64)
    labels = [label for _, label in pairs]
    found = agreement(states, labels, None)
    known = [(state, label) for state, label in pairs if label is not None]
    if not known:
        assert math.isnan(found.accuracy) and math.isnan(found.adjusted_rand_index)
        assert not found.rows[0].passed
        return
    # the names of a clustering's states mean nothing
    others = agreement(np.array([renamed[state + 1] for state in states]), labels, None)
    assert others.accuracy == pytest.approx(found.accuracy)
    truth, answers = [label for _, label in known], [state for state, _ in known]
    assert found.adjusted_rand_index == pytest.approx(adjusted_rand_score(truth, answers))
    # no assignment is better: the best of all, tried out
    import itertools

    names = sorted(set(truth))
    used = sorted(set(answers))
    size = max(len(names), len(used))
    padded = [*names, *["-"] * (size - len(names))]
    best = max(
        accuracy_score(truth, [dict(zip(used, order, strict=False))[state] for state in answers])
        for order in itertools.permutations(padded, len(used))
    )
    assert found.accuracy == pytest.approx(best)


def test_a_classifiers_states_mean_its_classes(tmp_path):
    states, labels = np.array([0, 0, 1, 1, 2]), ["idle", "idle", "idle", "run", "odd"]
    found = agreement(states, labels, {0: "run", 1: "idle", 2: "off"})
    assert found.accuracy == pytest.approx(1 / 5)  # swapped classes are wrong, though they would make good clusters
    [row] = [row for row in found.rows if not row.passed]
    assert (row.name, row.found, row.warns) == ("labels that the classifier knows", "not odd", False)
    assert row.wanted.startswith("all; it knows idle, off, run: register the classifier of these labels")
    assert {line["label"]: line["right"] for line in found.table} == {"idle": 0.3333, "odd": 0.0, "run": 0.0}
