"""In which records two packages answer differently."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack_assets.model_types.interface import Payload, Results
from edgepack_assets.tasks.reports.answer_differences import answer_differences


def results(folder: Path, name: str, answers: Sequence[Any]) -> Results:
    lines = [
        json.dumps({"record": i, "outputs": None if answer is None else {"prediction": answer, "p": 0.5}})
        for i, answer in enumerate(answers)
    ]
    path = folder / name
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return Results(path)


ANSWERS = st.lists(st.tuples(*[st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["a", "b"]))] * 2), max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ANSWERS)
def test_every_record_is_counted_once(tmp_path: Path, answers: list[tuple[Any, Any]]) -> None:
    before, now = [old for old, _ in answers], [new for _, new in answers]
    found = answer_differences(results(tmp_path, "a", before), results(tmp_path, "b", now), "prediction")
    unanswered = sum(old is None and new is None for old, new in answers)
    assert found.both + found.only_before + found.only_now + unanswered == len(answers)
    differing = [i for i, (old, new) in enumerate(answers) if None not in (old, new) and old != new]
    assert [each.record for each in found.first] == differing
    assert found.differing == len(differing)
    cells = [value for row in found.table for name, value in row.items() if name != "before"]
    assert sum(cells) == found.both
    swapped = answer_differences(results(tmp_path, "a", now), results(tmp_path, "b", before), "prediction")
    assert (swapped.differing, swapped.only_before, swapped.only_now) == (
        found.differing, found.only_now, found.only_before,
    )  # fmt: skip


def test_answers_without_states_are_compared_whole(tmp_path: Path) -> None:
    one, other = results(tmp_path, "a", [1, 2]), results(tmp_path, "b", [1, 3])
    found = answer_differences(one, other, None)
    assert (found.output, found.differing, found.table) == ("", 1, ())
    assert found.first[0].before == {"prediction": 2, "p": 0.5}
    assert str(found) == "1 of 2 answers differ (50 %)"


def test_what_are_no_categories_has_no_table(tmp_path: Path) -> None:
    found = answer_differences(results(tmp_path, "a", [0.5]), results(tmp_path, "b", [0.25]), "prediction")
    assert (found.differing, found.table) == (1, ())


def test_files_of_the_records_are_named(tmp_path: Path) -> None:
    found = answer_differences(results(tmp_path, "a", [1, 2, 3]), results(tmp_path, "b", [1, 0, 0]), "prediction")
    sources = [{"record": i, "file": f"bolt/{i}.png", "label": 0} for i in range(2)]
    path = tmp_path / "sources"
    path.write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in sources).encode()))
    assert [each.file for each in found.with_files(Payload(path, path, 3)).first] == ["bolt/1.png", ""]
