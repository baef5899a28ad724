"""A plug-in as the tasks call it: what its methods return is held to the interface, and every fault names distribution
and method.

What they may return is in returned_values.py. Errors that a plug-in raises for the user (EdgepackError) pass as they
are.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.implementations import load, settings_class
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.config.section import Section
from edgepack_assets.errors import ComponentError, EdgepackError, ModelError, PluginError, TransientError
from edgepack_assets.filesystem.atomic_files import is_transient
from edgepack_assets.model_types import returned_values as returned
from edgepack_assets.model_types.interface import (
    Answered,
    ArrayType,
    Compared,
    Comparison,
    ComponentSpec,
    Converted,
    ModelSource,
    ModelType,
    Payload,
    PayloadWriter,
    PipelineComponent,
    Preparation,
    Prepared,
    Prepped,
    Results,
    Score,
    SideJobs,
    Trial,
)
from edgepack_assets.sandbox.untrusted_values import UntrustedReport

_T = TypeVar("_T")
_FILES = ("child_tasks.py", "component/entrypoint.py")
_NAMING_METRICS = {"lower_is_better", "optional_metrics", "metric_settings", "no_intervals", "sliced_metrics"}


class _UnforeseenError(PluginError):
    """A method raised something else than an EdgepackError."""


class Plugin:
    """The implementation called `name` with the methods of `ModelType`. Raises PluginError if it cannot be used."""

    def __init__(self, name: str) -> None:
        self.name = name
        plugin, origin = load(name)
        self._title = f"the model type {name} ({origin})"
        if not isinstance(plugin, ModelType):
            self._refuse("its entry point", f"names {plugin!r:.200}, not an instance of a subclass of ModelType")
        self._plugin = plugin
        self.settings: type[Section] = settings_class(name)
        if clash := sorted(plugin.keys_beside_settings & ModelTypeSettings.model_fields.keys()):
            self._refuse("keys_beside_settings", f"holds {', '.join(clash)}: keys of edgepack's own")
        self.metric_names = frozenset(self._attribute("metric_names", returned.names))
        self.lower_is_better = frozenset(self._attribute("lower_is_better", returned.names))
        self.optional_metrics = frozenset(self._attribute("optional_metrics", returned.names))
        self.metric_settings: Mapping[str, str] = self._attribute("metric_settings", returned.mapping)
        self.no_intervals: Mapping[str, str] = self._attribute("no_intervals", returned.mapping)
        self.slices = frozenset(self._attribute("slices", returned.names))
        self.sliced_metrics = frozenset(self._attribute("sliced_metrics", returned.names))
        self.host_imports: tuple[str, ...] = tuple(self._attribute("host_imports", returned.names))
        self.child_imports: Mapping[str, tuple[str, ...]] = self._attribute("child_imports", returned.mapping)
        self.category_output: str | None = self._attribute("category_output", returned.instance_of(str, type(None)))
        self.envelope_per: str | None = self._attribute("envelope_per", returned.instance_of(str, type(None)))
        self.envelope_tasks: str = self._attribute("envelope_tasks", returned.instance_of(str))
        self.inspection: type[UntrustedReport] = self._attribute("inspection", returned.report_class)
        self.preparation: Preparation[Any] | None = self._attribute("preparation", returned.preparation)
        self.folder = self._attribute("folder", returned.instance_of(Path))
        if lacking := [file for file in _FILES if not (self.folder / file).is_file()]:
            self._refuse("its folder", f"{self.folder} has no {', '.join(lacking)}")
        for which in _NAMING_METRICS & vars(type(plugin)).keys():  # what a subclass inherits may name more
            if stray := sorted(set(getattr(self, which)) - self.metric_names):
                self._refuse(which, f"names {', '.join(stray)}: none of its metric_names")

    def __str__(self) -> str:
        return self._title

    def check_settings(self, given: object) -> None:
        """Raise a PluginError if a validator of its settings raises what validators should not, for those that were
        given. What they refuse as they should has its line in edgepack.yaml."""
        if isinstance(given, self.settings):
            return
        try:
            self.settings.model_validate({} if given is None else given)
        except ValidationError:
            return
        except Exception as error:  # noqa: BLE001 - a plug-in's code
            self._refuse(
                "settings",
                f"raised an unforeseen {type(error).__name__} for {returned.shown(given)}: "
                f"{returned.shown(error, str)}. A validator should raise ValueError with words for the user",
            )

    def component_folders(self, entry: ModelTypeSettings, inspection: Mapping[str, Any] | None) -> tuple[Path, ...]:
        """See ModelType."""
        return self._call("component_folders", returned.folders, self._plugin.component_folders, entry, inspection)

    def write_payload(
        self, raw: Path, tags: Mapping[str, str], writer: PayloadWriter, entry: ModelTypeSettings
    ) -> dict[str, Any]:
        """See ModelType."""
        return self._call("write_payload", returned.json_object, self._plugin.write_payload, raw, tags, writer, entry)

    def payload_rows(self, facts: Mapping[str, Any]) -> list[CheckRow]:
        """See ModelType."""
        return self._call("payload_rows", returned.rows, self._plugin.payload_rows, facts)

    def read_model(self, model: Path, entry: ModelTypeSettings, subject: str = "reading the model") -> ModelSource:
        """See ModelType. What nobody foresaw there is the model's failure; errors of it name `subject`."""
        try:
            return self._call("read_model", returned.model_source, self._plugin.read_model, model, entry)
        except _UnforeseenError as error:
            raise ModelError(f"{subject}: {error}") from error.__cause__
        except TransientError as error:
            raise TransientError(f"{subject}: {error}") from error

    def tag_settings(
        self, tags: Mapping[str, str], entry: ModelTypeSettings, numbers: Mapping[Any, Any], subject: str
    ) -> tuple[Mapping[str, Any], list[CheckRow]]:
        """See ModelType; ModelErrors name `subject`."""
        check = returned.settings_and_rows
        try:
            return self._call("tag_settings", check, self._plugin.tag_settings, tags, entry, numbers)
        except ModelError as error:
            raise ModelError(f"{subject}: {error}") from None

    def convert(self, source: ModelSource, jobs: SideJobs, work: Path) -> Converted:
        """See Conversion.convert."""
        assert source.conversion is not None
        method, component = source.conversion.convert, self.folder / "component"
        return self._call("conversion.convert", returned.converted, method, source, component, jobs, work)

    def compare(self, compared: Compared, entry: ModelTypeSettings, jobs: SideJobs, work: Path) -> Comparison:
        """See ModelType."""
        return self._call("compare", returned.comparison, self._plugin.compare, compared, entry, jobs, work)

    def finish_component(self, component: Path, source: ModelSource) -> None:
        """See ModelType."""
        nothing = returned.instance_of(type(None))
        self._call("finish_component", nothing, self._plugin.finish_component, component, source)

    def pipeline(
        self, component: Path, source: ModelSource, inspection: Mapping[str, Any], work: Path
    ) -> tuple[PipelineComponent, ...]:
        """See ModelType."""
        check = returned.pipeline(source.packaged_requirements is not None)
        return self._call("pipeline", check, self._plugin.pipeline, component, source, inspection, work)

    def component_spec(self, inspection: Mapping[str, Any]) -> ComponentSpec:
        """See ModelType."""
        return self._call("component_spec", returned.component_spec, self._plugin.component_spec, inspection)

    def component_settings(self, inspection: Mapping[str, Any]) -> dict[str, Any]:
        """See ModelType."""
        return self._call("component_settings", returned.json_object, self._plugin.component_settings, inspection)

    def inspection_rows(self, inspection: Mapping[str, Any], entry: ModelTypeSettings) -> list[CheckRow]:
        """See ModelType."""
        return self._call("inspection_rows", returned.rows, self._plugin.inspection_rows, inspection, entry)

    def numbers_are_free(self, inspection: Mapping[str, Any]) -> bool:
        """See ModelType."""
        free: bool = self._call(
            "numbers_are_free", returned.instance_of(bool), self._plugin.numbers_are_free, inspection
        )
        return free

    def categories(self, inspection: Mapping[str, Any]) -> list[int | str] | None:
        """See ModelType."""
        return self._call("categories", returned.categories, self._plugin.categories, inspection)

    def category_names(self, payload: Payload, inspection: Mapping[str, Any]) -> dict[str, str]:
        """See ModelType."""
        return self._call("category_names", returned.texts, self._plugin.category_names, payload, inspection)

    def trial(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """See ModelType."""
        check = returned.instance_of(Trial, type(None))
        trial: Trial | None = self._call("trial", check, self._plugin.trial, payload, results, inspection, entry, work)
        return trial

    def probes(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """See ModelType."""
        check = returned.instance_of(Trial, type(None))
        probes: Trial | None = self._call(
            "probes", check, self._plugin.probes, payload, results, inspection, entry, work
        )
        return probes

    def trial_rows(self, trial: Trial, answer: object) -> tuple[list[CheckRow], list[dict[str, Any]]]:
        """See Trial.rows."""
        return self._call(f"{type(trial).__name__}.rows", returned.rows_and_table, trial.rows, answer)

    def prepared_arrays(
        self, subject: str, report: UntrustedReport, inspection: Mapping[str, Any], records: int
    ) -> Mapping[str, ArrayType]:
        """See Preparation.arrays; ComponentErrors name `subject`."""
        assert self.preparation is not None
        method, files = self.preparation.arrays, self.preparation.files
        with _named(subject):
            return self._call("preparation.arrays", returned.array_types(files), method, report, inspection, records)

    def prepared(
        self,
        subject: str,
        report: UntrustedReport,
        arrays: Mapping[str, Any],
        inspection: Mapping[str, Any],
        records: int,
    ) -> Prepared:
        """See Preparation.prepared; ComponentErrors name `subject`."""
        assert self.preparation is not None
        method = self.preparation.prepared
        with _named(subject):
            return self._call("preparation.prepared", returned.prepared, method, report, arrays, inspection, records)

    def prepped_picture(self, prepped: Prepped) -> bytes:
        """See Preparation.picture."""
        assert self.preparation is not None
        return self._call("preparation.picture", returned.png, self.preparation.picture, prepped)

    def score(
        self, payload: Payload, results: Results, prepped: Prepped | None, inspection: Mapping[str, Any]
    ) -> Score:
        """See ModelType."""
        check = returned.score_of(self.metric_names, self.optional_metrics)
        return self._call("score", check, self._plugin.score, payload, results, prepped, inspection)

    def results_picture(self, payload: Payload, results: Results, inspection: Mapping[str, Any]) -> bytes:
        """See ModelType."""
        return self._call("results_picture", returned.png, self._plugin.results_picture, payload, results, inspection)

    def comparison_picture(self, payload: Payload, before: Answered, now: Answered) -> bytes | None:
        """See ModelType."""
        return self._call(
            "comparison_picture", returned.optional_png, self._plugin.comparison_picture, payload, before, now
        )

    def write_recording(
        self, recording: Path, writer: PayloadWriter, entry: ModelTypeSettings, work: Path
    ) -> dict[str, Any]:
        """See ModelType."""
        method = self._plugin.write_recording
        return self._call("write_recording", returned.json_object, method, recording, writer, entry, work)

    def _attribute(self, name: str, check: Callable[[Any], _T]) -> _T:
        return self._call(name, check, lambda: getattr(self._plugin, name))

    def _call(self, method: str, check: Callable[[Any], _T], function: Callable[..., Any], *arguments: Any) -> _T:
        try:
            answer = function(*arguments)
        except PluginError as error:  # of the writer, say, which knows neither plug-in nor method
            self._refuse(method, f"gives what it must not: {error}")
        except (EdgepackError, MemoryError):
            raise
        except (Exception, SystemExit, GeneratorExit) as error:  # others, such as Ctrl-C, are not the plug-in's
            if isinstance(error, OSError) and is_transient(error):
                raise TransientError(f"{self} {method}: {error}") from error
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            raise _UnforeseenError(
                f"{self}: {method} raised an unforeseen {type(error).__name__} at {where}: "
                f"{returned.shown(error, str, 500)}. Either its input is not as it expects, or it has a defect: report "
                f"it to those who made it. It should return {_wanted(check)}, or raise an EdgepackError with words for "
                "the user"
            ) from error
        try:
            return check(answer)
        except returned.UnfitValueError as error:
            raise PluginError(f"{self}: {method} returned {error}; it should return {_wanted(check)}") from None
        except Exception as error:  # of a method that the answer itself has
            raise PluginError(
                f"{self}: {method} returned {returned.shown(answer)} ({type(answer).__name__}), which raises "
                f"{type(error).__name__}: {returned.shown(error, str)}; it should return {_wanted(check)}"
            ) from error

    def _refuse(self, subject: str, why: str) -> NoReturn:
        raise PluginError(f"{self._title}: {subject} {why}")


class _named:  # noqa: N801 - used as a function
    """Puts what was done before the words of a ComponentError."""

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if type(error) is ComponentError:
            raise ComponentError(f"{self._subject}: {error}") from None


def _wanted(check: Callable[[Any], Any]) -> str:
    return " ".join((check.__doc__ or "").split()).rstrip(".")
