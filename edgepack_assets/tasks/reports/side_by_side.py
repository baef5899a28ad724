"""Two packages side by side: their facts, how many of their answers to one payload differ, a picture of both.

`compare_candidates` is for a person who names two. `PredecessorComparison` is what each metrics asset shows of the
package before: it takes the answers that metrics.pass_gates has compared already, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.model_types.interface import Answered, Payload, Results
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.payload_data import make_payload, open_payload, raw_data_of
from edgepack_assets.tasks.pictures import comparison_picture
from edgepack_assets.tasks.predecessor.find import Predecessor, Recorded
from edgepack_assets.tasks.reports.answer_differences import AnswerDifferences, answer_differences
from edgepack_assets.tasks.reports.comparison import Comparison, differences
from edgepack_assets.tasks.reports.facts import (
    Candidate,
    answered,
    facts_of,
    inspection_of,
    latency_of,
    registered_candidate,
)
from edgepack_assets.text_format import counted


def compare_candidates(before: Candidate, now: Candidate, context: TaskContext) -> Comparison:
    """Compare two, on the payload that the second was validated on, else on that of the first, else on the raw data
    that edgepack.yaml names now. Raises EdgepackError if either cannot answer it."""
    payload_data = next(
        (each.known.payload_data for each in (now, before) if each.known is not None), None
    ) or _payload_now(now, context)  # fmt: skip
    payload = open_payload(payload_data, context)
    with ExitStack() as stack:
        old, old_latency = stack.enter_context(answered(before, payload_data, context))
        new, new_latency = stack.enter_context(answered(now, payload_data, context))
        answers, picture = _compare_answers(before.key, payload_data, old, new, context)
        facts = (
            facts_of(before, payload_data.digest, old_latency, context),
            facts_of(now, payload_data.digest, new_latency, context),
        )
    return Comparison(
        *facts, differences(*facts), _in_words(payload_data, payload), answers, picture=picture
    )  # fmt: skip


def _payload_now(candidate: Candidate, context: TaskContext) -> Artefact:
    artefact, _ = make_payload(candidate.key, context)
    return artefact


def _in_words(payload_data: Artefact, payload: Payload) -> str:
    raw = raw_data_of(payload_data)
    return f"{counted(payload.count, 'record')} of {raw['name']}:{raw['version']}"


def _compare_answers(
    key: ModelKey, payload_data: Artefact, before: Answered, now: Answered, context: TaskContext
) -> tuple[AnswerDifferences, bytes | None]:
    answers = answer_differences(before.results, now.results, context.model_type(key).category_output)
    picture = comparison_picture(key, payload_data, before, now, context)
    return answers.with_files(open_payload(payload_data, context)), picture


@dataclass
class PredecessorComparison:
    """What a model version's metrics show of the package before. `add_answers` is given to `numbers_report`, which has
    the answers of that package at hand; `comparison` is asked for afterwards."""

    key: ModelKey
    recorded: Recorded
    metrics: Artefact
    context: TaskContext
    _before: Candidate | None = None
    _answers: AnswerDifferences | None = None
    _picture: bytes | None = None
    _latency: Mapping[str, float] = field(default_factory=dict)
    _why_not: str = "the answers are not compared"

    def add_answers(self, predecessor: Predecessor, before: Results) -> None:
        """Compare with the answers of the package before. What cannot be compared or drawn is said, and no reason to
        fail: the gates decide about the package. Raises TransientError."""
        context = self.context
        try:
            key = ModelKey(self.key.model_type, predecessor.model_version)
            self._before = registered_candidate(key, predecessor.package, context)
            old = Answered(self._before.name, before, inspection_of(self._before, context))
            now = Answered(str(self.key), self._results(), self._inspection())
            known = self._before.known
            if known is not None:
                self._latency = latency_of(known.validation_results, context)
            self._answers, self._picture = _compare_answers(self.key, self.recorded.payload_data, old, now, context)
        except TransientError:
            raise
        except EdgepackError as error:
            self._why_not = f"the answers cannot be compared: {error}"
            context.log.warning(self._why_not)

    def comparison(self) -> Comparison | None:
        """All of it; None if there is no package before, or if its facts cannot be read. Raises TransientError."""
        before, context = self._before, self.context
        if before is None:
            return None
        now = Candidate(self.key, None, self.recorded, self.metrics)
        latency = latency_of(self.recorded.validation_results, context)
        digest = self.recorded.payload_data.digest
        try:
            facts = facts_of(before, digest, self._latency, context), facts_of(now, digest, latency, context)
            facts = facts[0], replace(facts[1], name=str(self.key))  # it may get its package yet
        except TransientError:
            raise
        except EdgepackError as error:
            context.log.warning(f"{self.key} is not compared with {before}: {error}")
            return None
        payload = _in_words(self.recorded.payload_data, open_payload(self.recorded.payload_data, context))
        return Comparison(*facts, differences(*facts), payload, self._answers, self._why_not, self._picture)

    def _results(self) -> Results:
        return self.context.results_of(self.recorded.validation_results)

    def _inspection(self) -> Mapping[str, object]:
        inspection: Mapping[str, object] = self.context.store.read_json(
            self.recorded.config_package.parts["inspection"]
        )
        return inspection
