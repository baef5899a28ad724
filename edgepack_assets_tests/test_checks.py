"""The rows of a check: which decide, which only warn."""

from __future__ import annotations

from edgepack_assets.checks import CheckRow, all_pass, in_words
from edgepack_assets.defs.assets.declare import rows_table

HOLDS = CheckRow("a", True, "1", "1")
WARNS = CheckRow("b", False, "2", "1", warns=True)
FAILS = CheckRow("c", False, "3", "1")


def test_a_row_that_only_warns_does_not_fail_its_check_and_is_said() -> None:
    assert all_pass([HOLDS, WARNS])
    assert not all_pass([HOLDS, WARNS, FAILS])
    assert not all_pass([])
    assert in_words([HOLDS, WARNS]) == "warning: b: 2, wanted 1"


def test_the_table_says_which_rows_warn_where_there_are_any() -> None:
    assert [row.data.get("warns") for row in rows_table([HOLDS, WARNS]).records] == [False, True]
    assert "warns" not in rows_table([HOLDS, FAILS]).records[0].data
