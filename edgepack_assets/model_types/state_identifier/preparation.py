"""Prepared data of a state identifier: the features of each window, and what the model's clustering says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.interface import ArrayType, Preparation, Prepared, Prepped
from edgepack_assets.model_types.renumbering import shipped
from edgepack_assets.model_types.state_identifier import figures
from edgepack_assets.model_types.state_identifier.scoring import LIKELIHOOD, due_windows, states_of
from edgepack_assets.sandbox.untrusted_values import UntrustedReport

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WindowReport(UntrustedReport):
    """What `prepare` returns: windows, features of each, windows with values that nothing fills."""

    windows: int = Field(ge=0)
    features: int = Field(ge=0)
    unfilled: int = Field(ge=0)


class WindowFeatures(Preparation[WindowReport]):
    """A row per window: the record that completes it, the model's own prediction, and a column per feature."""

    files: ClassVar[tuple[str, ...]] = ("features", "windows")
    report: ClassVar[type[UntrustedReport]] = WindowReport
    part: ClassVar[str] = "features"

    def arrays(self, report: WindowReport, inspection: Mapping[str, Any], records: int) -> Mapping[str, ArrayType]:
        """As many windows as the records hold, and as many features as the inspection found; of a mixture also the log
        likelihood of each window, as a last column."""
        size, step = inspection["window_size"], inspection["window_step"]
        expected = max(0, (records - size) // step + 1)
        if report.windows != expected or report.unfilled > report.windows:
            raise ComponentError(
                f"gave {report.windows} windows, {report.unfilled} of them unfilled; {records} records have "
                f"{expected} windows of {size}, {step} apart"
            )
        if report.features != len(inspection["feature_names"]):
            raise ComponentError(
                f"gave {report.features} features; the inspection found {len(inspection['feature_names'])}"
            )
        columns = report.features + (1 if "mixture" in inspection else 0)
        return {
            "features": ArrayType("float64", (report.windows, columns)),
            "windows": ArrayType("int64", (report.windows, 2)),
        }

    def prepared(
        self, report: WindowReport, arrays: Mapping[str, NDArray[Any]], inspection: Mapping[str, Any], records: int
    ) -> Prepared:
        """The columns, where the records rise and the predictions are states of the model."""
        features, windows = arrays["features"], arrays["windows"]
        numbers, predictions = windows[:, 0], windows[:, 1]
        if (numbers[:1] < 0).any() or (numbers[-1:] >= records).any() or (numbers[1:] <= numbers[:-1]).any():
            raise ComponentError(f"the windows' record numbers do not rise from 0 to {records - 1}")
        due = due_windows(features, predictions, inspection)
        _check_states(predictions[due], inspection)
        if int((~due).sum()) != report.unfilled or (predictions[~due] != -1).any():
            raise ComponentError(f"not {report.unfilled} windows are without a prediction, as reported")
        columns = {"record": numbers, "model_prediction": _as_shipped(predictions, inspection)}
        columns |= {name: features[:, i] for i, name in enumerate(inspection["feature_names"])}
        if "mixture" in inspection:
            columns[LIKELIHOOD] = features[:, -1]
        return Prepared(
            columns=columns,
            facts={
                "windows": report.windows, "features": report.features, "unfilled_windows": report.unfilled,
            },
            rows=_rows(report, inspection),
            metadata={
                "shape": f"{report.windows} windows x {report.features} features",
                "unfilled_windows": report.unfilled,
            },
        )  # fmt: skip

    def picture(self, prepped: Prepped) -> bytes:
        """The features of every window, as a map."""
        return figures.features(prepped)


def _as_shipped(predictions: NDArray[Any], inspection: Mapping[str, Any]) -> NDArray[Any]:
    """The model's states with the numbers under which the package answers them."""
    import numpy as np

    return np.array(shipped(predictions.tolist(), inspection), dtype=predictions.dtype)


def _check_states(predictions: NDArray[Any], inspection: Mapping[str, Any]) -> None:
    import numpy as np

    known = states_of(inspection)
    if known is not None and not np.isin(predictions, np.asarray(known)).all():
        raise ComponentError(
            f"predictions are not states from {known[0]} to {known[-1]}"
            if list(known) == list(range(len(known)))
            else f"predictions are not all among the states {', '.join(map(str, known[:20]))}"
        )


def _rows(report: WindowReport, inspection: Mapping[str, Any]) -> tuple[CheckRow, ...]:
    return (
        CheckRow("windows", report.windows > 0, str(report.windows), "at least 1"),
        CheckRow(
            "features",
            report.features == inspection["features"],
            str(report.features),
            f"{inspection['features']}, as the model's clustering takes",
        ),
        CheckRow(
            "windows with values",
            report.unfilled < report.windows,
            f"{report.windows - report.unfilled} of {report.windows}",
            "at least 1",
        ),
    )
