"""The Dagster UI in a real browser: the graph, a materialization launched by clicking, the metrics and their plots."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import dagster as dg
import pytest

from edgepack_assets_tests.e2e.conftest import PROJECT, Plant
from edgepack_assets_tests.e2e.dev import Dev

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the UI cannot be driven")
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def ui(plant: Plant) -> Iterator[str]:
    """The address of `dagster dev`, started in the plant as the quickstart's last lines say.

    Its model types are the quickstart's alone: other tests' models would be packaged beside it, and be the newest."""
    whole = plant.config.read_text()
    shutil.copyfile(PROJECT / "edgepack.yaml", plant.config)
    dev = Dev(plant.folder, plant.environment)
    try:
        dev.wait_until("the UI", dev.answers)
        yield dev.address
    finally:
        dev.stop()
        plant.config.write_text(whole)


@pytest.fixture(scope="module")
def page(ui: str) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950}, base_url=ui)
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def test_the_graph_shows_every_asset_and_no_newsletter(page) -> None:
    page.goto("/asset-groups")
    page.get_by_text("Global asset lineage").wait_for()
    for asset in ["raw_data", "registered_model", "payload_data", "config_package", "prepped_data",
                  "validation_results", "metrics", "deployment_package"]:  # fmt: skip
        page.get_by_text(asset, exact=True).first.wait_for()
    assert page.get_by_text("newsletter").count() == 0


def test_a_materialization_is_launched_by_clicking(page, plant: Plant) -> None:
    def finished() -> list[dg.DagsterRun]:
        with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
            runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "state_identifier:1"}))
            assert not [run for run in runs if run.is_failure]
            return [run for run in runs if run.is_success]

    before = len(finished())
    page.goto("/assets/metrics")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("Select a partition or create one").click()
    page.get_by_placeholder("Filter partitions").fill("state_identifier:1")
    page.get_by_text("state_identifier:1", exact=True).locator("visible=true").last.click()
    page.get_by_text("Launch runs to materialize metrics").click()  # closes the list
    page.get_by_role("button", name="Launch 1 run").click()
    for _ in range(180):
        if len(finished()) > before:
            break
        page.wait_for_timeout(500)
    assert len(finished()) == before + 1


def test_the_metrics_have_numbers_and_plots(page) -> None:
    page.goto("/assets/metrics?view=overview")
    page.get_by_text("Plots", exact=True).click()
    page.get_by_text("accuracy_validation").first.wait_for()
    page.locator("canvas").first.wait_for()
    page.goto("/assets/metrics?view=partitions&partition=image_classification%3A1")
    page.get_by_text("avg_recall_validation").first.wait_for()
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.locator("img").last
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 300


def test_a_check_shows_its_gates_and_of_which_partition(page) -> None:
    page.goto("/assets/metrics?view=checks")
    page.get_by_text("gate on silhouette").or_(page.get_by_text("gate on accuracy_validation")).first.wait_for()
    page.get_by_text("at least 0.").first.wait_for()
    page.get_by_text(re.compile(r"^(state_identifier|image_classification):1$")).first.wait_for()


def test_the_states_are_shown_over_time(page) -> None:
    page.goto("/assets/validation_results?view=partitions&partition=state_identifier%3A1")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.locator("img").last
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 300
