"""A service of jobs that answers late, twice, wrongly or not at all. Its answers are written from the shapes that
Microsoft's REST specification and its recorded traffic have, and know nothing of how we ask."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgepack_assets.compute.base import JobPhase
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets_tests.azure.http import Request, Response
from edgepack_assets_tests.azure.server import Route
from edgepack_assets_tests.compute.conftest import Plant

NAME, LOG = "press-1", "ExperimentRun/dcid.press-1/user_logs/std_log.txt"
_JOB = re.compile(r"(?i)/workspaces/[^/]+/jobs/([^/]+)(/cancel)?$")
_DETAILS = re.compile(r"(?i)/history/v1\.0/.*/runs/([^/]+)/details$")
ABSENT = Response(404, b'{"error":{"code":"UserError","message":"Requested resource of type Job could not be found",'
                       b'"target":null,"details":[]}}', {"Content-Type": "application/json"})  # fmt: skip
QUEUE = "_aml_system_ComputeTargetStatus"
BUSY = {"error": {"code": "Conflict", "message": "another operation is in progress"}}
TAKEN = {"error": {"code": "UserError", "message": "A job with this name already exists. If you are trying to create a "
                   "new job, use a different name.", "details": [], "additionalInfo": [
                       {"type": "InnerError", "info": {"value": {"code": "Immutable", "innerError": {
                           "code": "JobPropertyImmutable", "innerError": None}}}}]}}  # fmt: skip


def told(status: int, body: Any, **headers: str) -> Response:
    return Response(status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8", **headers})


class Liar:
    """Keeps the bodies that were put. `gets`, `puts`, `cancels`, `details` are the next answers in place of true ones;
    the last of `details` is given again and again. `status` is what a job is said to be."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.gets: list[Response | Callable[[dict[str, Any]], Response]] = []
        self.puts: list[Response] = []
        self.cancels: list[Response] = []
        self.details: list[Response] = []
        self.status = "Running"
        self.asked: list[str] = []

    def jobs(self, request: Request) -> Response | None:
        match = _JOB.search(request.path)
        if match is None:
            return None
        self.asked.append(request.method if match[2] is None else "CANCEL")
        if match[2] is not None:
            return self.cancels.pop(0) if self.cancels else Response(200)
        if request.method == "PUT":
            if match[1] not in self.bodies:
                self.bodies[match[1]] = request.json["properties"]
            return self.puts.pop(0) if self.puts else told(201, self.body(match[1], "Starting"))
        if self.gets:
            answer = self.gets.pop(0)
            return answer if isinstance(answer, Response) else answer(self.body(match[1], self.status))
        return told(200, self.body(match[1], self.status)) if match[1] in self.bodies else ABSENT

    def history(self, request: Request) -> Response | None:
        if _DETAILS.search(request.path) is None or not self.details:
            return None
        return self.details.pop(0) if len(self.details) > 1 else self.details[0]

    def body(self, name: str, status: str) -> dict[str, Any]:
        place = "/subscriptions/S/resourceGroups/G/providers/Microsoft.MachineLearningServices/workspaces/W"
        return {
            "id": f"{place}/jobs/{name}", "name": name, "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "properties": {"description": None, "tags": {}, "properties": {}, "displayName": "d", "status": status,
                           "experimentName": "press", "services": {}, "computeId": f"{place}/computes/edge-cpu",
                           "isArchived": False, "identity": None, "componentId": None, "jobType": "Command",
                           "resources": None, "command": "true", "environmentId": f"{place}/environments/e/versions/1",
                           "inputs": {}, "outputs": {}, "distribution": None, "limits": None,
                           "environmentVariables": {}, "parameters": {}, **self.bodies.get(name, {})},
            "systemData": {"createdAt": "2026-01-01T00:00:00.1234567+00:00", "createdBy": "p", "createdByType": "User"},
        }  # fmt: skip


@pytest.fixture
def liar(plant: Plant) -> Iterator[Liar]:
    made, routes = Liar(), plant.azure.proxy._routes

    def before(suffix: str, mine: Callable[[Request], Response | None]) -> tuple[str, Route]:
        true = next(handler for known, handler in routes if known == suffix)
        return suffix, lambda request: mine(request) or true(request)

    added = [before("management.azure.com", made.jobs), before(".api.azureml.ms", made.history)]
    routes[:0] = added
    yield made
    del routes[: len(added)]


@pytest.mark.parametrize("status", [400, 409])
def test_a_job_whose_name_is_taken_and_that_cannot_be_read_yet_is_waited_for(
    plant: Plant, liar: Liar, hurry: Callable[[], float], status: int
) -> None:
    """The answer to the PUT was lost, the SDK's second one is a conflict, and reads are behind."""
    liar.puts = [told(status, TAKEN)]
    liar.gets = [ABSENT] * 4
    assert plant.ready().start(plant.request("true"), plant.log).phase is JobPhase.RUNNING
    assert plant.said[-1] == "job press-1 was started before"
    assert hurry() > 0
    assert liar.asked.count("PUT") == 1


def test_a_name_that_is_taken_by_what_can_never_be_read_is_an_outage(
    plant: Plant, liar: Liar, hurry: Callable[[], float]
) -> None:
    liar.puts, liar.gets = [told(400, TAKEN)], [ABSENT] * 999
    with pytest.raises(TransientError, match=r"there is a job press-1 already, which cannot be read"):
        plant.ready().start(plant.request("true"), plant.log)
    assert hurry() >= 50


def test_a_job_that_is_not_found_right_after_its_start_is_no_error(plant: Plant, liar: Liar) -> None:
    jobs = plant.ready()
    assert jobs.start(plant.request("true"), plant.log).service_status == "Starting"
    liar.gets = [ABSENT]
    assert jobs.status(NAME) is None
    now = jobs.status(NAME)
    assert now is not None
    assert now.phase is JobPhase.RUNNING


def _with(**properties: Any) -> Callable[[dict[str, Any]], Response]:
    return lambda body: told(200, {**body, "properties": {**body["properties"], **properties}})


@pytest.mark.parametrize(
    "answer",
    [
        Response(200, b"<html><body>Sign in</body></html>", {"Content-Type": "text/html"}),
        Response(200, b'{"id": "/subscr', {"Content-Type": "application/json"}),
        Response(200, b"", {"Content-Type": "application/json"}),
        told(503, {"error": {"code": "ServiceUnavailable", "message": "busy"}}),
    ],
    ids=["a page", "cut", "empty", "busy"],
)
def test_an_answer_that_is_none_is_asked_for_again(
    plant: Plant, liar: Liar, hurry: Callable[[], float], answer: Response
) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("true"), plant.log)
    liar.gets = [answer]
    try:
        now = jobs.status(NAME)
    except TransientError:
        now = jobs.status(NAME)
    assert now is not None
    assert now.phase is JobPhase.RUNNING


@pytest.mark.parametrize(
    "answer",
    [
        _with(services=None, tags=None, properties=None, outputs=None, experimentName=None, displayName=None),
        _with(
            services={"Studio": {"jobServiceType": "Studio"}},
            tags={"_aml_system_ComputeTargetStatus": "[[["},
            status="Queued",
        ),
        _with(environmentId=None, status="Hibernating"),
        lambda body: told(200, {**body, "systemData": None}),
    ],
    ids=["nothing", "odd", "new", "no system data"],
)
def test_what_a_job_does_not_tell_is_left_out(
    plant: Plant, liar: Liar, answer: Callable[[dict[str, Any]], Response]
) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("true"), plant.log)
    liar.gets = [answer]
    now = jobs.status(NAME)
    assert now is not None
    assert not now.phase.is_over
    assert all(isinstance(value, str) and value for value in now.details.values())


@pytest.mark.parametrize("status", ["Completed", "Canceled", "Failed"])
@pytest.mark.parametrize(
    "details",
    [
        told(403, {"error": {"code": "UserError", "message": "no access to the run history"}}),
        told(404, {"error": {"code": "UserError", "message": "Run press-1 was not found"}}),
        told(200, []),
        told(200, {"error": {"error": "?"}, "startTimeUtc": 5}),
    ],
    ids=["forbidden", "absent", "a list", "odd"],
)
def test_an_end_is_known_without_the_history(plant: Plant, liar: Liar, status: str, details: Response) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("true"), plant.log)
    liar.status, liar.details = status, [details]
    ended = jobs.status(NAME)
    assert ended is not None
    assert ended.phase.is_over
    assert ended.service_status == status
    assert (ended.error is None) is (status != "Failed")


@pytest.mark.parametrize(
    ("answers", "is_error"),
    [
        ([told(202, {}, Location="https://management.azure.com/never/ends")], False),
        ([ABSENT], False),
        ([told(409, BUSY), Response(200)], False),
        ([told(400, {"error": {"code": "UserError", "message": "no"}})], True),
    ],
    ids=["never ends", "absent", "busy", "refused"],
)  # fmt: skip
def test_cancelling(
    plant: Plant, liar: Liar, hurry: Callable[[], float], answers: list[Response], is_error: bool
) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("true"), plant.log)
    liar.cancels = answers
    if is_error:
        with pytest.raises(EdgepackError, match="cancelling job press-1"):
            jobs.cancel(NAME)
    else:
        jobs.cancel(NAME)
    assert "CANCEL" in liar.asked


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b"x" * 200_000, "x" * (64 << 10)),
        (b"\xff\x00\r\nlast", "\ufffd\x00\nlast"),
        (b"first\n" * 50_000 + b"password=canary-secret\n", "first\npassword=***"),
    ],
    ids=["empty", "one long line", "no text", "a secret"],
)
def test_a_log_of_any_kind_has_an_end(plant: Plant, liar: Liar, content: bytes, expected: str) -> None:
    jobs = plant.ready()
    with plant.azure.storage.client("azureml") as client:
        client.upload_blob(f"{LOG}.other", b"another file", overwrite=True)
        client.upload_blob(LOG, content, overwrite=True)
    try:
        tail = jobs.log_tail(NAME, 2)
        assert "canary" not in tail
        assert tail.replace("*", "") == expected.replace("*", "")
    finally:
        with plant.azure.storage.client("azureml") as client:
            for name in (LOG, f"{LOG}.other"):
                client.delete_blob(name)
