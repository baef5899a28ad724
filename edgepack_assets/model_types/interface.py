"""What a model type must say, version 1: the interface that plug-ins implement.

A plug-in is a distribution that registers an instance of a subclass of `ModelType` as an entry point of the group
`edgepack.model_types`; `implementation:` in edgepack.yaml names the entry point. It says how raw data becomes payload
records, what of a registered model ships, what its component declares, what is prepared, and how the answers are scored
and drawn. docs/model-types.md leads through it.

A plug-in never runs model code in this process: functions of its child_tasks.py and the files in its component/ do, in
the sandbox, in the component's own environment. Its modules must not import heavy libraries (pandas, scikit-learn,
matplotlib) when they are imported, only in the functions that need them: every command of edgepack imports the plug-ins
that edgepack.yaml uses. What it raises for the user is a subclass of EdgepackError. Anything else that it raises, or
returns against this interface, is reported as its fault, with its distribution and the method (plugin.py).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.implementations import INTERFACE_VERSION
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.config.section import Section
from edgepack_assets.errors import ComponentError, ModelError, PluginError, RawDataError
from edgepack_assets.model_types.component_spec import SDK_TYPES, ComponentSpec, Parameter, Variable
from edgepack_assets.model_types.conversion import (
    Compared,
    Comparison,
    Conversion,
    Converted,
    SideJob,
    SideJobs,
    SideResult,
)
from edgepack_assets.model_types.pipeline import GpuModel, GpuTensor, PipelineComponent
from edgepack_assets.model_types.records import (
    Answer,
    Label,
    Payload,
    PayloadWriter,
    Prepped,
    Record,
    Results,
    gzip_writer,
    read_lines,
)
from edgepack_assets.model_types.samples import Samples
from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "INTERFACE_VERSION",
    "SDK_TYPES",
    "Answer",
    "Answered",
    "ArrayType",
    "CheckRow",
    "Compared",
    "Comparison",
    "ComponentError",
    "ComponentSpec",
    "Conversion",
    "Converted",
    "GpuModel",
    "GpuTensor",
    "Label",
    "ModelError",
    "ModelSource",
    "ModelType",
    "ModelTypeSettings",
    "Parameter",
    "Payload",
    "PayloadWriter",
    "PipelineComponent",
    "PluginError",
    "Preparation",
    "Prepared",
    "Prepped",
    "RawDataError",
    "Record",
    "Results",
    "Samples",
    "Score",
    "Section",
    "SideJob",
    "SideJobs",
    "SideResult",
    "Text",
    "Trial",
    "UntrustedReport",
    "Variable",
    "gzip_writer",
    "read_lines",
]


@dataclass(frozen=True)
class ModelSource:
    """What a registered model holds, found without executing any of it.

    `files`: path inside the component -> file to ship (the model and its own code). `model`: what the
    component must know to load it, shipped as model.json. `requirements`: PEP 508 lines. `python_version`:
    the `3.x` the model was saved with, or None where it does not say. `constraints`: PEP 508 lines that bound the
    packages which others need. `saved_versions`: distribution, or `python` -> the version that the model says it was
    saved with. `parts`: what of the model's files was passed over, as rows of config_package.is_fit.
    `component_files`: path inside the component -> file of the model type itself that ships in place of the one in
    component/, or beside those. `arguments`: what `inspect_model` gets (JSON). `conversion`: what makes of this
    a model that the component can run; `files` and `model` are then those of `Converted.source`. `pinned_with`: the
    `3.x` that `requirements` were written with, where `python_version` is None as another runs the model too: it is
    taken if the usual one lacks some of them.
    `packaged_requirements`: of a package of several components what its Python components need; `requirements` are
    then those of the environment that stands for the server's GPU runtime, in which the model is inspected, too.
    """

    files: Mapping[str, Path]
    model: Mapping[str, Any]
    requirements: tuple[str, ...]
    python_version: str | None
    constraints: tuple[str, ...] = ()
    saved_versions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[CheckRow, ...] = ()
    component_files: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    conversion: Conversion | None = None
    packaged_requirements: tuple[str, ...] | None = None
    pinned_with: str | None = None


@dataclass(frozen=True)
class ArrayType:
    """The type of an array that a child leaves: a numpy type without objects (float64, int64, bool, <U32), a shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Prepared:
    """Prepared data: `columns` of one length and of numbers, booleans or text, stored as Parquet; `facts` that are
    kept with them (JSON); `rows` of prepped_data.is_sound; `metadata` that the UI shows."""

    columns: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]
    rows: tuple[CheckRow, ...]
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)


_Report = TypeVar("_Report", bound=UntrustedReport)


class Preparation(ABC, Generic[_Report]):
    """What the packaged model makes of the payload before it answers, to be scored and drawn.

    `prepare(arguments)` of child_tasks.py gets `records`, the path of the payload, `count`, the number of its records,
    and for each name in `files` a path at which it leaves an array (numpy.save, no pickles). It returns `report`. The
    child is not trusted: `arrays` says, from the report, which arrays are expected, and only those are read.
    """

    files: ClassVar[tuple[str, ...]]
    """Names of the arrays."""
    report: ClassVar[type[UntrustedReport]]
    """The shape of what `prepare` returns."""
    part: ClassVar[str] = "prepared"
    """The name of the stored table among the parts of prepped_data."""

    @abstractmethod
    def arrays(self, report: _Report, inspection: Mapping[str, Any], records: int) -> Mapping[str, ArrayType]:
        """The exact type of each array of `files`, for a payload of so many records.

        Raises ComponentError where the report cannot be true: the size of what is read follows from it."""

    @abstractmethod
    def prepared(
        self, report: _Report, arrays: Mapping[str, NDArray[Any]], inspection: Mapping[str, Any], records: int
    ) -> Prepared:
        """What is stored. Raises ComponentError where values are out of bounds."""

    @abstractmethod
    def picture(self, prepped: Prepped) -> bytes:
        """A PNG of it."""


@dataclass(frozen=True)
class Score:
    """Metrics of a package: the model type's `metric_names`, of the `optional_metrics` among them those that this model
    has; NaN where one is not defined. `parts` are what must hold before any gate is looked at (e.g. that every record
    has an answer). `tables` maps a title to rows, `pictures` a title to PNG bytes. `samples` are the records of which
    metrics are means, for gates with a confidence."""

    metrics: Mapping[str, float]
    parts: tuple[CheckRow, ...]
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    samples: Samples | None = None


class Trial(ABC):
    """Something to try with the packaged model in the sandbox: `function` of child_tasks.py with `arguments` and the
    files `inputs`, and what its answer means."""

    function: ClassVar[str]
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Path]

    @abstractmethod
    def rows(self, answer: object) -> tuple[list[CheckRow], list[dict[str, Any]]]:
        """Rows of the check, which only warn, and a table. Raises ComponentError where `answer` is not what the
        function returns."""


@dataclass(frozen=True)
class Answered:
    """What a package, called `name`, answered to a payload. `inspection` is what `inspect_model` returned for its
    model, None where that is not at hand any more."""

    name: str
    results: Results
    inspection: Mapping[str, Any] | None = None


class ModelType(ABC):
    """A kind of model. The folder of the module that defines the subclass holds component/ (ships to the edge, with
    entrypoint.py) and child_tasks.py (runs in the sandbox, beside the component's files; it can import modules named
    child_*.py beside itself).

    child_tasks.py defines `inspect_model(arguments) -> dict`, where there is a `preparation` also
    `prepare(arguments) -> dict`, and the functions of its trials. They run with the component's folder as working
    directory and first on sys.path, and return JSON.
    """

    interface_version: ClassVar[int]
    """The INTERFACE_VERSION that it was written for, as a number of its own: 1."""
    settings: ClassVar[type[Section]] = Section
    """Its own settings: what stands under `settings` of an entry in edgepack.yaml, in `entry.settings`. Paths among
    them are relative to that file. None by default."""
    keys_beside_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings that may also stand directly under the entry; for keys of before there was a place for them."""
    metric_names: ClassVar[frozenset[str]]
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """Those of `metric_names` that are worse the higher they are."""
    optional_metrics: ClassVar[frozenset[str]] = frozenset()
    """Those of `metric_names` that not every model has, or only with certain settings."""
    metric_settings: ClassVar[Mapping[str, str]] = {}
    """Metric -> the setting without which no model has it."""
    no_intervals: ClassVar[Mapping[str, str]] = {}
    """Metric -> why no interval of it is sound, whatever the records, in words for the user."""
    slices: ClassVar[frozenset[str]] = frozenset()
    """The ways in which `Samples.slices` of a score may divide the records, for gates on the worst part."""
    sliced_metrics: ClassVar[frozenset[str]] = frozenset()
    """Those of `metric_names` that may be among `Samples.values`: only these have a value in each part."""
    inspection: ClassVar[type[UntrustedReport]]
    """The shape of what `inspect_model` returns."""
    preparation: ClassVar[Preparation[Any] | None] = None
    """None where answers are scored directly."""
    host_imports: ClassVar[tuple[str, ...]] = ()
    """Modules that payload, scoring and pictures import here, which a run may import in the background."""
    child_imports: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Distribution name -> modules that a child may import before its job when the lock holds it."""
    category_output: ClassVar[str | None] = None
    """The output that says which of several states or classes a record belongs to, as a number or a text. A new model
    version is compared in it with the package before. None: it is not compared."""
    envelope_per: ClassVar[str | None] = None
    """What gives a value of the envelope's metrics: a window, an image. None: there is no envelope. Else, where the
    entry sets `envelope`, envelope/component/ and the folder component_envelope/ are laid over the component's others,
    `learn_envelope(arguments)` of child_tasks.py gets `records` and `count` as `prepare` does and returns what
    envelope.LearnedEnvelope says. That goes into model.json and the inspection, under `envelope`, and `component_spec`
    declares the metrics then."""
    envelope_tasks: ClassVar[str] = "child_tasks.py"
    """The file that defines `learn_envelope` and `probe_faults`. One of another name is alone in the sandbox."""

    @property
    def folder(self) -> Path:
        """The folder of this implementation."""
        return Path(inspect.getfile(type(self))).parent

    def component_folders(self, entry: ModelTypeSettings, inspection: Mapping[str, Any] | None) -> tuple[Path, ...]:
        """Folders whose .py files ship, entrypoint.py among them; of files of one name that of the last folder.

        `inspection` is what `inspect_model` returned, None for the inspection itself. A part that few models need is
        better put into a folder of its own: what the others ship stays the same then."""
        return (self.folder / "component",)

    @abstractmethod
    def write_payload(
        self, raw: Path, tags: Mapping[str, str], writer: PayloadWriter, entry: ModelTypeSettings
    ) -> dict[str, Any]:
        """Turn raw data (a file or folder, with its tags in the registry) into payload records and return facts about
        them (JSON). The records are what the server would pass to the component, in time order.

        Raises RawDataError naming the file, column and row that is wrong."""

    @abstractmethod
    def payload_rows(self, facts: Mapping[str, Any]) -> list[CheckRow]:
        """What must hold for the payload, from the facts of `write_payload` plus `records`, their number."""

    @abstractmethod
    def read_model(self, model: Path, entry: ModelTypeSettings) -> ModelSource:
        """Find out what of the registered model (a file or folder) ships. Executes none of it, and writes nothing
        there: the files may be the registry's own.

        Raises ModelError saying what the model lacks and what to do."""

    def tag_settings(
        self, tags: Mapping[str, str], entry: ModelTypeSettings, numbers: Mapping[Any, Any]
    ) -> tuple[Mapping[str, Any], list[CheckRow]]:
        """What the tags of the model version say of the model: keys (JSON) that model.json and the inspection get, and
        rows of config_package.is_fit. `numbers`: category of the model -> the one that the package answers, where
        these are others; it is empty before that is known.

        Raises ModelError naming the tag."""
        return {}, []

    def finish_component(self, component: Path, source: ModelSource) -> None:  # noqa: B027 - nothing by default
        """Change the files of the component, which were laid out in the folder `component`, before it is inspected. A
        file of the model may share its bytes with others: replace it, and never write into it.

        Raises ModelError."""

    @abstractmethod
    def component_spec(self, inspection: Mapping[str, Any]) -> ComponentSpec:
        """What the component declares, given what `inspect_model` returned."""

    def component_settings(self, inspection: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the component must know of the inspection: added to model.json (JSON)."""
        return {}

    def pipeline(
        self, component: Path, source: ModelSource, inspection: Mapping[str, Any], work: Path
    ) -> tuple[PipelineComponent, ...]:
        """The components that ship one after the other in place of the one that was laid out in `component` and
        inspected there; none where that one ships. Their folders are made in `work`. A source with
        `packaged_requirements` has some, with exactly one for the GPU runtime. Trials then get the files of the first
        component, with the model of the GPU component.

        Raises ModelError."""
        return ()

    def inspection_rows(self, inspection: Mapping[str, Any], entry: ModelTypeSettings) -> list[CheckRow]:
        """Rows of the config package's check on the inspection: what is only assumed, for example."""
        return []

    def numbers_are_free(self, inspection: Mapping[str, Any]) -> bool:
        """Whether the numbers of `category_output` mean nothing by themselves, as those of clusters, which every
        training numbers anew. Then a package may give them the numbers of the package before: the answers of the
        component's entrypoint are changed. What else tells answers of the model, as a `preparation` may, must change
        them in the same way: `renumbering.shipped` does, from the inspection."""
        return False

    def categories(self, inspection: Mapping[str, Any]) -> Sequence[int | str] | None:
        """All states or classes that the model can answer; None where it does not tell."""
        return None

    def category_names(self, payload: Payload, inspection: Mapping[str, Any]) -> Mapping[str, str]:
        """State or class, as text, -> what it is called in the payload or by the model, as far as that is known."""
        return {}

    def trial(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """What to try on the packaged model beside what it answered; None where there is nothing to find out."""
        return None

    def probes(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """What faults to try on the packaged model, where `fault_probes` is set; None where there are none. Rows that
        do more than warn fail validation_results.are_complete."""
        return None

    def compare(self, compared: Compared, entry: ModelTypeSettings, jobs: SideJobs, work: Path) -> Comparison:
        """How far the answers of a converted model are those of the original. Only asked where there is one."""
        return Comparison((), ())

    @abstractmethod
    def score(
        self, payload: Payload, results: Results, prepped: Prepped | None, inspection: Mapping[str, Any]
    ) -> Score:
        """The metrics of the package's answers. `prepped` is None without a `preparation`."""

    @abstractmethod
    def results_picture(self, payload: Payload, results: Results, inspection: Mapping[str, Any]) -> bytes:
        """A PNG of the answers."""

    def comparison_picture(self, payload: Payload, before: Answered, now: Answered) -> bytes | None:
        """A PNG of what two packages answer to the same payload; None where a table says it as well."""
        return None

    def write_recording(
        self, recording: Path, writer: PayloadWriter, entry: ModelTypeSettings, work: Path
    ) -> dict[str, Any]:
        """As `write_payload`, of a file or folder of a user's: without tags, and without what is there for scoring
        alone, such as labels. `work` is an empty folder. Raises RawDataError."""
        return self.write_payload(recording, {}, writer, entry)
