"""What the methods of a plug-in may return. A function's docstring says it in words, for errors.

Each function returns the value if it is one, and raises UnfitValueError with what was found instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from packaging.requirements import InvalidRequirement, Requirement

from edgepack_assets.checks import CheckRow
from edgepack_assets.model_types.interface import (
    SDK_TYPES,
    ArrayType,
    Comparison,
    ComponentSpec,
    Conversion,
    Converted,
    GpuModel,
    ModelSource,
    Parameter,
    PipelineComponent,
    Preparation,
    Prepared,
    Samples,
    Score,
    Variable,
)
from edgepack_assets.sandbox.untrusted_values import UntrustedReport
from edgepack_assets.text_format import counted

_T = TypeVar("_T")
_PNG = b"\x89PNG\r\n\x1a\n"
_ARRAY = re.compile(r"(?P<type>[A-Za-z0-9]+Array)\[[1-9][0-9]{0,8}\]")
_PARAMETERS: Mapping[str, tuple[type, ...]] = {
    "Integer": (int,), "Double": (int, float), "String": (str,), "Boolean": (bool,),
}  # fmt: skip


class UnfitValueError(Exception):
    """What a plug-in returned instead."""


def _is(answer: Any, kind: type[_T], subject: str = "") -> _T:
    if not isinstance(answer, kind) or (kind in (int, float) and isinstance(answer, bool)):
        raise UnfitValueError(f"{subject}{': ' if subject else ''}{shown(answer)} ({type(answer).__name__})")
    return answer


def shown(value: object, form: Callable[[object], str] = repr, length: int = 200) -> str:
    """The beginning of it as text, whatever its own methods do."""
    try:
        return form(value)[:length]
    except Exception as error:  # noqa: BLE001 - a class of the plug-in's
        return f"what cannot be shown, {type(error).__name__}"


def instance_of(*kinds: type) -> Callable[[Any], Any]:
    """A check for instances of classes."""

    def check(answer: Any) -> Any:
        if not isinstance(answer, kinds):
            _is(answer, kinds[0])
        return answer

    check.__doc__ = " or ".join("None" if kind is type(None) else f"a {kind.__name__}" for kind in kinds)
    return check


def names(answer: Any) -> Iterable[str]:
    """a set, tuple or list of names."""
    if not isinstance(answer, (frozenset, set, tuple, list)):
        _is(answer, tuple)
    for name in answer:
        _is(name, str)
    return list(answer)


def mapping(answer: Any) -> Mapping[str, Any]:
    """a mapping with names as keys."""
    for key in _is(answer, Mapping):  # type: ignore[type-abstract]
        _is(key, str, "a key")
    return dict(answer)


def report_class(answer: Any) -> type[UntrustedReport]:
    """a subclass of UntrustedReport."""
    if not (isinstance(answer, type) and issubclass(answer, UntrustedReport)):
        _is(None, UntrustedReport, shown(answer))
    return answer  # type: ignore[no-any-return]


def preparation(answer: Any) -> Preparation[Any] | None:
    """None or an instance of a subclass of Preparation, with the names of its files and the class of its report."""
    if answer is not None:
        names(getattr(_is(answer, Preparation), "files", None))  # type: ignore[type-abstract]
        report_class(getattr(answer, "report", None))
        _is(answer.part, str, "part")
    return answer  # type: ignore[no-any-return]


def json_object(answer: Any) -> dict[str, Any]:
    """a dict that is JSON."""
    try:
        text = json.dumps(dict(_is(answer, Mapping)), allow_nan=False)  # type: ignore[type-abstract]
    except (TypeError, ValueError, RecursionError) as error:
        raise UnfitValueError(f"what is not JSON ({error}): {shown(answer)}") from None
    document: dict[str, Any] = json.loads(text)
    return document


def categories(answer: Any) -> list[int | str] | None:
    """None or a sequence of different numbers and texts."""
    if answer is None:
        return None
    if isinstance(answer, (str, bytes)):
        raise UnfitValueError(shown(answer))
    listed = list(_is(answer, Sequence))  # type: ignore[type-abstract]
    if not all(isinstance(each, (int, str)) and not isinstance(each, bool) for each in listed):
        raise UnfitValueError(shown(answer))
    if len(set(listed)) != len(listed):
        raise UnfitValueError(shown(answer))
    return listed


def texts(answer: Any) -> dict[str, str]:
    """a mapping of texts to texts."""
    names = dict(mapping(answer))
    if not all(isinstance(value, str) for value in names.values()):
        raise UnfitValueError(shown(answer))
    return names


def rows(answer: Any) -> list[CheckRow]:
    """a list of CheckRows, whose `passed` and `warns` are booleans and whose other fields are text."""
    for row in _is(answer, list):
        _row(row)
    return answer  # type: ignore[no-any-return]


def settings_and_rows(answer: Any) -> tuple[dict[str, Any], list[CheckRow]]:
    """a JSON object and a list of CheckRows."""
    if len(_is(answer, tuple)) != 2:
        raise UnfitValueError(f"a tuple of {len(answer)}")
    return json_object(answer[0]), rows(answer[1])


def _row(row: Any) -> None:
    for name, value in vars(_is(row, CheckRow, "a row")).items():
        _is(value, bool if name in ("passed", "warns") else str, f"a CheckRow with {name}")


def rows_and_table(answer: Any) -> tuple[list[CheckRow], list[dict[str, Any]]]:
    """a list of CheckRows and a list of dicts with equal keys."""
    if len(_is(answer, tuple)) != 2:
        raise UnfitValueError(f"a tuple of {len(answer)}")
    rows(answer[0])
    _table(answer[1], "the table")
    return answer  # type: ignore[no-any-return]


def _table(answer: Any, subject: str) -> None:
    for row in _is(answer, list, subject):
        if _is(row, dict, f"{subject}, a row").keys() != answer[0].keys():
            raise UnfitValueError(
                f"{subject} with rows of differing keys: {shown(list(row))}, {shown(list(answer[0]))}"
            )


def png(answer: Any) -> bytes:
    """the bytes of a PNG."""
    if not _is(answer, bytes).startswith(_PNG):
        raise UnfitValueError(f"bytes that are no PNG: {answer[:20]!r}")
    return answer  # type: ignore[no-any-return]


def optional_png(answer: Any) -> bytes | None:
    """None or the bytes of a PNG."""
    return None if answer is None else png(answer)


def model_source(answer: Any) -> ModelSource:
    """a ModelSource: `files` from relative paths to existing files, `model` JSON, the rest text as it says."""
    source = _is(answer, ModelSource)
    for subject in ("files", "component_files"):
        for name, file in _is(getattr(source, subject), Mapping, subject).items():  # type: ignore[type-abstract]
            path = PurePosixPath(_is(name, str, f"{subject}, a key"))
            if path.is_absolute() or ".." in path.parts or not path.parts or str(path) != name:
                raise UnfitValueError(f"{subject} with {name!r}, which is no path inside the component")
            if not _is(file, Path, f"{subject}, {name}").is_file():
                raise UnfitValueError(f"{subject} with {name}: {file}, which is no file")
    json_object(source.model), json_object(source.arguments)
    if source.packaged_requirements is not None:
        _is(source.packaged_requirements, tuple, "packaged_requirements")
    for field in ("requirements", "constraints", "packaged_requirements"):
        for line in _is(getattr(source, field) or (), tuple, field):
            try:
                Requirement(_is(line, str, field))
            except InvalidRequirement as error:
                why = str(error).splitlines()[0]  # the others show the place in the line
                raise UnfitValueError(f"{field} with {line!r}, which is no requirement: {why}") from None
    if source.python_version is not None:
        _is(source.python_version, str, "python_version")
    for name, version in _is(source.saved_versions, Mapping, "saved_versions").items():  # type: ignore[type-abstract]
        _is(name, str, "saved_versions, a key"), _is(version, str, f"saved_versions, {name}")
    for row in _is(source.parts, tuple, "parts"):
        _row(row)
    if source.conversion is not None:
        _is(source.conversion, Conversion, "conversion")  # type: ignore[type-abstract]
    return source


def converted(answer: Any) -> Converted:
    """a Converted: a ModelSource, a record that is JSON, existing files or folders of the original."""
    conversion = _is(answer, Converted)
    model_source(conversion.source)
    json_object(conversion.record)
    for name, path in _is(conversion.original, Mapping, "original").items():  # type: ignore[type-abstract]
        if not re.fullmatch(r"[A-Za-z0-9_-]+", _is(name, str, "original, a key")):
            raise UnfitValueError(f"original with {name!r}, which is no name of letters and digits")
        if not _is(path, Path, f"original, {name}").exists():
            raise UnfitValueError(f"original with {name}: {path}, which does not exist")
    json_object(conversion.metadata)
    return conversion


def comparison(answer: Any) -> Comparison:
    """a Comparison: rows, and a table of dicts with equal keys."""
    compared = _is(answer, Comparison)
    for row in _is(compared.rows, tuple, "rows"):
        _row(row)
    _table(list(_is(compared.table, tuple, "table")), "the table")
    return compared


def component_spec(answer: Any) -> ComponentSpec:
    """a ComponentSpec: inputs and outputs of the server's types, each name once."""
    spec = _is(answer, ComponentSpec)
    _is(spec.description, str, "description")
    for field in ("inputs", "outputs", "metrics"):
        for variable in _is(getattr(spec, field), tuple, field):
            kind = _is(_is(variable, Variable, field).type, str, f"{field}: type of {shown(variable.name)}")
            _is(variable.name, str, f"{field}: name"), _is(variable.description, str, f"{field}: description")
            sized = _ARRAY.fullmatch(kind)
            if (sized["type"] if sized else kind) not in SDK_TYPES:
                raise UnfitValueError(
                    f"{field} with {variable.name!r} of type {kind!r}, which the server does not know; it knows: "
                    f"{', '.join(sorted(SDK_TYPES))}"
                )
    for parameter in _is(spec.parameters, tuple, "parameters"):
        _is(parameter, Parameter, "parameters")
        kinds = _PARAMETERS.get(parameter.type)
        if (
            kinds is None
            or not isinstance(parameter.default, kinds)
            or (isinstance(parameter.default, bool) and bool not in kinds)
        ):
            raise UnfitValueError(
                f"parameters with {parameter.name!r} of type {parameter.type!r} and the default "
                f"{shown(parameter.default)}; types are {', '.join(_PARAMETERS)}, and the default is of that type"
            )
    if not spec.inputs or not spec.outputs:
        raise UnfitValueError(f"a ComponentSpec without {'outputs' if spec.inputs else 'inputs'}")
    _once("inputs", spec.inputs)
    _once("outputs and metrics", (*spec.outputs, *spec.metrics))
    _once("inputs and outputs", (*spec.inputs, *spec.outputs))
    _once("parameters", spec.parameters)
    if spec.periodicity is not None and _is(spec.periodicity, int, "periodicity") < 1:
        raise UnfitValueError(f"a periodicity of {spec.periodicity} ms")
    return spec


def pipeline(is_wanted: bool) -> Callable[[Any], tuple[PipelineComponent, ...]]:
    """A check for the components of a package of several, which `is_wanted` or must not be."""

    def check(answer: Any) -> tuple[PipelineComponent, ...]:
        for each in _is(answer, tuple):
            _is(_is(each, PipelineComponent).name, str, "a name"), _is(each.spec, ComponentSpec, f"{each.name}: spec")
            if not re.fullmatch(r"[-a-zA-Z0-9_]{1,100}", each.name):
                raise UnfitValueError(f"a component {each.name!r:.120}; names are of letters, digits, - and _")
            file = "entrypoint.py" if each.gpu is None else "1/model.onnx"
            if not (_is(each.folder, Path, f"{each.name}: folder") / file).is_file():
                raise UnfitValueError(f"a component {each.name} whose folder holds no {file}")
            if each.gpu is not None:
                _is(each.gpu, GpuModel, f"{each.name}: gpu")
        if len({each.name for each in answer}) != len(answer):
            raise UnfitValueError(f"components of one name: {', '.join(each.name for each in answer)}")
        if sum(each.gpu is not None for each in answer) != is_wanted:
            raise UnfitValueError(
                f"{len(answer)} components, of which {'not one is' if is_wanted else 'some are'} for the GPU runtime"
            )
        if answer:
            first, last = answer[0].spec, answer[-1].spec
            component_spec(ComponentSpec("", first.inputs, last.outputs, last.metrics))
        return answer  # type: ignore[no-any-return]

    check.__doc__ = "a tuple of PipelineComponents" if is_wanted else "an empty tuple, for there is one component"
    return check


def _once(subject: str, variables: Iterable[Variable | Parameter]) -> None:
    names = [variable.name for variable in variables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnfitValueError(f"{subject} with two of one name: {', '.join(map(repr, twice))}")


def array_types(files: Iterable[str]) -> Callable[[Any], Mapping[str, ArrayType]]:
    """A check for the types of the arrays `files`."""

    def check(answer: Any) -> Mapping[str, ArrayType]:
        for name, array in _is(answer, Mapping).items():  # type: ignore[type-abstract]
            _is(array, ArrayType, f"{name}"), _is(array.dtype, str, f"{name}: dtype")
            for size in _is(array.shape, tuple, f"{name}: shape"):
                if _is(size, int, f"{name}: shape") < 0:
                    raise UnfitValueError(f"{name} of the shape {array.shape}")
        if answer.keys() != set(files):
            raise UnfitValueError(f"types of the arrays {', '.join(map(str, answer)) or 'none'}")
        return answer  # type: ignore[no-any-return]

    check.__doc__ = f"an ArrayType for each of {', '.join(files)}"
    return check


def prepared(answer: Any) -> Prepared:
    """a Prepared: columns of one length, numbers, booleans or text; facts in JSON; rows; metadata."""
    import numpy as np

    result = _is(answer, Prepared)
    lengths = set()
    columns: Mapping[str, Any] = mapping(result.columns)
    for name, column in columns.items():
        if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "biufU":
            shape = f"{column.ndim} dimensions of {column.dtype}" if isinstance(column, np.ndarray) else shown(column)
            raise UnfitValueError(f"a column {name!r} of {shape}")
        lengths.add(len(column))
    if len(lengths) != 1:
        raise UnfitValueError(f"columns of {'differing lengths' if lengths else 'nothing'}")
    json_object(result.facts), json_object(result.metadata)
    rows(list(_is(result.rows, tuple, "rows")))
    return result


def folders(answer: Any) -> tuple[Path, ...]:
    """a tuple of existing folders."""
    for folder in _is(answer, tuple):
        if not _is(folder, Path).is_dir():
            raise UnfitValueError(f"{folder}, which is no folder")
    return answer  # type: ignore[no-any-return]


def score_of(metric_names: frozenset[str], optional: frozenset[str] = frozenset()) -> Callable[[Any], Score]:
    """A check for scores with these metrics, of which the optional ones may be left out."""

    def check(answer: Any) -> Score:
        score = _is(answer, Score)
        if not metric_names - optional <= mapping(score.metrics).keys() <= metric_names:
            raise UnfitValueError(f"metrics {', '.join(sorted(score.metrics)) or 'none'}")
        for name, value in mapping(score.metrics).items():
            if not isinstance(value, float):
                _is(value, int, f"the metric {name}")
        rows(list(_is(score.parts, tuple, "parts")))
        for title, rows_of_it in mapping(score.tables).items():
            _table(rows_of_it, f"the table {title!r}")
        for title, picture in mapping(score.pictures).items():
            png(_is(picture, bytes, f"the picture {title!r}"))
        if score.samples is not None:
            _samples(_is(score.samples, Samples), metric_names)
        return score

    check.__doc__ = (
        f"a Score with the metrics {', '.join(sorted(metric_names))} as numbers, rows, tables and pictures; in its "
        "samples, sequences of one length"
    )
    return check


def _samples(found: Samples, metric_names: frozenset[str]) -> None:
    count = len(found.records)
    if stray := sorted({*found.values, *found.macro, *found.scaled} - metric_names):
        raise UnfitValueError(f"samples of {', '.join(stray)}, which is no metric")
    labels = {"truth": found.truth, "predicted": found.predicted} if found.macro else {}
    for name, values in {**found.values, **labels, **found.slices}.items():
        if len(values) != count:
            raise UnfitValueError(f"samples with {counted(count, 'record')} and {len(values)} entries of {name}")
    for name, numbers in {"records": found.records, **found.values, **labels}.items():
        for number in numbers:
            if not math.isfinite(number):
                raise UnfitValueError(f"samples of {name} with {shown(number)}")
    for name, (of, factor, added) in found.scaled.items():
        if of not in found.values or not math.isfinite(factor) or not math.isfinite(added):
            raise UnfitValueError(f"samples of {name} that do not follow from values")
    if any(one >= other for one, other in pairwise(found.records)):
        raise UnfitValueError("samples whose records do not ascend")
