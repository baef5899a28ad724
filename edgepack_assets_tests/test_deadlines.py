"""Calls with a deadline: their result, their error, and what is left of one that hangs."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from edgepack_assets.deadlines import DeadlineError, call_within


def test_the_result_is_the_functions_own() -> None:
    answer = object()
    assert call_within(60, lambda: answer) is answer
    assert call_within(60, lambda: None) is None


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), TimeoutError("its own")])
def test_an_error_of_the_function_is_raised_as_it_is(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        call_within(60, fail)
    assert raised.value is error


def test_a_call_that_hangs_is_left_to_its_thread() -> None:
    released, ended = threading.Event(), threading.Event()

    def hang() -> None:
        released.wait(60)
        ended.set()

    with pytest.raises(DeadlineError, match=r"no result within 0\.05 s") as raised:
        call_within(0.05, hang, "hanging-call")
    assert (raised.value.thread.name, raised.value.thread.is_alive()) == ("hanging-call", True)
    released.set()
    assert ended.wait(60)


def test_a_deadline_that_has_passed_is_no_error_of_the_queue() -> None:
    with pytest.raises(DeadlineError):
        call_within(-5, threading.Event().wait)


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    code = (
        "import threading\n"
        "from edgepack_assets.deadlines import DeadlineError, call_within\n"
        "try:\n    call_within(0.05, threading.Event().wait)\n"
        "except DeadlineError:\n    print('left')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "left\n"
