"""The report of a package: made of what was recorded, escaped, whole in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import EdgepackError, PackageError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import ResolvedVersion
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.deployment_package import Validated, deploy
from edgepack_assets.tasks.reports import package_page
from edgepack_assets.tasks.reports.comparison import differences
from edgepack_assets.tasks.reports.facts import facts_of, registered_candidate
from edgepack_assets.tasks.reports.package_page import REPORT, read_report, report_page, with_report, with_shown
from edgepack_assets.tasks.reports.side_by_side import Comparison
from edgepack_assets_tests.needs import find_chromium
from edgepack_assets_tests.tasks.plant import Plant

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
KEY = ModelKey("press", 1)


@pytest.fixture
def context(plant: Plant) -> Iterator[TaskContext]:
    with Sandbox(plant.built.settings) as sandbox:
        yield plant.task_context(sandbox)


def shown(plant: Plant, png: bytes = b"\x89PNG\r\n\x1a\n") -> Validated:
    """What was validated, with everything that is shown named by somebody hostile."""
    validated, store = plant.validated(1), plant.built.store
    row = CheckRow(EVIL, False, EVIL, EVIL, EVIL, EVIL, warns=True)
    return replace(
        validated,
        validation_results=with_shown(
            validated.validation_results, store, rows={"pace": [row]}, pictures={EVIL: png}, isolation=EVIL
        ),
        metrics=with_shown(
            validated.metrics, store, rows={"gates": [row]}, pictures={"b": png, "a": png},
            tables={EVIL: [{"z": np.int64(3), EVIL: np.float64(0.123456789), "a": float("nan")}]},
        ),
    )  # fmt: skip


def packaged(plant: Plant, context: TaskContext, validated: Validated) -> tuple[ResolvedVersion, Any]:
    artefact, report = deploy(KEY, validated, {"run_id": EVIL, "display_name": EVIL}, "", context)
    return report.registered, artefact


def test_what_is_shown_is_no_part_of_what_identifies_it(plant: Plant) -> None:
    plain, with_all = plant.validated(1), shown(plant)
    assert [each.digest for each in with_all.inputs().values()] == [each.digest for each in plain.inputs().values()]
    blobs = [blob.digest for blob in with_all.metrics.blobs()]
    assert with_all.metrics.observations[REPORT].digest in blobs, "it is kept by the garbage collection"


def test_the_page_holds_what_a_person_asks_and_nothing_acts(plant: Plant, context: TaskContext) -> None:
    validated = shown(plant)
    registered, artefact = packaged(plant, context, validated)
    registered = context.registry.set_tags(registered, {EVIL: EVIL, "gates_overridden": EVIL}).resolve()
    page = report_page(registered, KEY, validated, artefact, context).decode()
    for text in (
        "Tiny-Echo-edge:1", registered.digest, "silhouette", "press_model:1", "press_raw:1", "echo-helper", "1.5",
        "edgepack model download Tiny-Echo-edge:1 .", "sha256sum --check Tiny-Echo-edge_1.sha256", "0.123457",
        "Gates were overridden", "There was none to compare with",
    ):  # fmt: skip
        assert text in page
    assert "<script" not in page and "<img src=x" not in page
    assert "http://" not in page and "https://" not in page
    assert page.index("<th>z</th>") < page.index("<th>a</th>"), "columns keep their order"


def test_the_report_is_kept_with_the_artefact_and_found_again(plant: Plant, context: TaskContext) -> None:
    validated = shown(plant)
    registered, artefact = packaged(plant, context, validated)
    made = with_report(artefact, registered, KEY, validated, context)
    assert made.digest == artefact.digest
    context.store.save(made)
    page = read_report(registered, 1, context.store)
    assert page.startswith(b"<!doctype html>")
    other = replace(registered, version=7)
    with pytest.raises(EdgepackError, match=r"Tiny-Echo-edge:7 has no report .* packaged again as Tiny-Echo-edge:1"):
        read_report(other, 1, context.store)
    context.store.save(artefact)
    with pytest.raises(EdgepackError, match="has no report in the artefact store: edgepack package press:1 --from"):
        read_report(registered, 1, context.store)
    with pytest.raises(EdgepackError, match="has no report in the artefact store: "):
        read_report(registered, 77, context.store)


def test_a_report_that_cannot_be_made_takes_nothing_from_the_package(
    plant: Plant, context: TaskContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise PackageError("no interface")

    validated = shown(plant)
    registered, artefact = packaged(plant, context, validated)
    monkeypatch.setattr(package_page, "report_page", broken)
    assert with_report(artefact, registered, KEY, validated, context) == artefact
    assert "Tiny-Echo-edge:1 has no report: no interface" in caplog.text


def test_artefacts_of_earlier_versions_have_a_report_too(plant: Plant, context: TaskContext) -> None:
    validated = plant.validated(1)
    registered, artefact = packaged(plant, context, validated)
    page = report_page(registered, KEY, validated, artefact, context).decode()
    assert "Not recorded: metrics were made by an earlier version of edgepack" in page


@pytest.mark.browser
def test_it_fits_a_browser_and_loads_nothing(plant: Plant, context: TaskContext, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    from edgepack_assets.model_types.figures import new_figure, png

    figure = new_figure(10, 3.6)
    figure.add_subplot().plot([1, 2, 3])
    validated = shown(plant, png(figure))
    registered, artefact = packaged(plant, context, validated)
    facts = facts_of(registered_candidate(KEY, registered, context), "", {"p50": 0.001}, context)
    long = replace(facts, name="N" * 150, metrics={"m" * 120: 1.0})
    comparison = Comparison(long, facts, differences(long, facts), not_answered=EVIL)
    metrics = with_shown(
        validated.metrics, context.store, rows={"gates": [CheckRow("x" * 200, True, "y" * 200, "z")]},
        comparison=comparison,
    )  # fmt: skip
    file = tmp_path / "report.html"
    file.write_bytes(report_page(registered, KEY, replace(validated, metrics=metrics), artefact, context))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        page = browser.new_page()
        asked: list[str] = []
        dialogs: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        for width in (1280, 800):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        assert page.locator("h1").inner_text() == "Tiny-Echo-edge:1"
        assert page.locator("script").count() == 0
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        assert widths and all(widths), "every picture is drawn"
        assert page.pdf(format="A4").startswith(b"%PDF")
        browser.close()
    assert dialogs == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
