"""The Dagster UI in a real browser: the graph, a materialization launched by clicking, the metrics and their plots."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from urllib.parse import quote

import dagster as dg
import pytest
import yaml

from edgepack_assets_tests.e2e.conftest import PROJECT, Plant
from edgepack_assets_tests.e2e.dev import Dev
from edgepack_assets_tests.needs import find_chromium

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP *.example 127.0.0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def ui(plant: Plant) -> Iterator[str]:
    """The address of `edgepack ui`, started in the plant as the quickstart's last lines say.

    Its model types are the quickstart's alone: other tests' models would be packaged beside it, and be the newest."""
    whole = plant.config.read_text()
    model_types = yaml.safe_load((PROJECT / "edgepack.yaml").read_text())["model_types"]
    plant.config.write_text(yaml.safe_dump({**yaml.safe_load(whole), "model_types": model_types}))
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
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950}, base_url=ui)
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def _open(page, address: str, *shown: str | re.Pattern[str]) -> None:
    """Open a page of the UI that must show these texts.

    On a busy machine a page may lose an answer, and then shows nothing for good: it is loaded again, as a person would.
    """
    from playwright.sync_api import TimeoutError as NotShown

    for attempt in range(3):
        page.goto(address)
        try:
            for text in shown:
                page.get_by_text(text).first.wait_for(timeout=30_000)
        except NotShown as error:
            if attempt == 2:
                raise AssertionError(f"{address} does not show {text}:\n{page.inner_text('body')}") from error
        else:
            return


def test_the_graph_shows_every_asset_and_no_newsletter(page) -> None:
    _open(page, "/asset-groups", "Global asset lineage")
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
    with page.expect_websocket(lambda live: live.url.endswith("/graphql")) as opened:
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
    # what shows a run while it is under way
    assert not opened.value.is_closed()


def test_the_metrics_have_numbers_and_plots(page) -> None:
    page.goto("/assets/metrics?view=overview")
    page.get_by_text("Plots", exact=True).click()
    page.get_by_text("accuracy_validation").first.wait_for()
    page.locator("canvas").first.wait_for()
    _open(page, "/assets/metrics?view=partitions&partition=image_classification%3A1", "avg_recall_validation")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.locator("img").last
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 300


def test_a_check_shows_its_gates_and_of_which_partition(page) -> None:
    gate, partition = r"gate on (silhouette|accuracy_validation)", r"^(state_identifier|image_classification):1$"
    _open(page, "/assets/metrics?view=checks", re.compile(gate), "at least 0.", re.compile(partition))


def test_the_states_are_shown_over_time(page) -> None:
    _open(page, "/assets/validation_results?view=partitions&partition=state_identifier%3A1", "[Show Markdown]")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.locator("img").last
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 300


# What a page of another site tries. A mutation that needs no run is enough: launching one is another of the kind.
ATTACKS = """
async ([ui, mutation]) => {
  const wait = promise => Promise.race([promise, new Promise(done => setTimeout(done, 10000, "nothing"))]);
  const event = (target, names) => wait(new Promise(done => names.forEach(
    name => target.addEventListener(name, () => done(name)))));
  const query = ui + "/graphql?query=" + encodeURIComponent(mutation);
  const body = JSON.stringify({query: mutation});
  const tried = [];
  const attempt = async (name, promise) => tried.push([name, await wait(promise.catch(error => "error"))]);
  await attempt("get", fetch(query, {mode: "no-cors"}).then(answer => answer.type));
  await attempt("text", fetch(ui + "/graphql", {mode: "no-cors", method: "POST", body}).then(answer => answer.type));
  await attempt("empty", fetch(query, {mode: "no-cors", method: "POST"}).then(answer => answer.type));
  await attempt("json", fetch(ui + "/graphql",
    {method: "POST", body, headers: {"Content-Type": "application/json"}}).then(answer => "" + answer.status));
  navigator.sendBeacon(ui + "/graphql", new Blob([body], {type: "text/plain"}));
  const image = new Image();
  image.src = query;
  await event(image, ["load", "error"]);
  const frame = document.createElement("iframe");
  frame.name = "frame";
  document.body.append(frame);
  const form = document.createElement("form");
  Object.assign(form, {method: "post", enctype: "text/plain", action: query, target: "frame"});
  document.body.append(form);
  form.submit();
  await event(frame, ["load"]);
  const live = new WebSocket(ui.replace("http", "ws") + "/graphql", "graphql-ws");
  tried.push(["websocket", await event(live, ["open", "error"])]);
  return Object.fromEntries(tried);
}
"""


@pytest.fixture
def foreign_page() -> Iterator[str]:
    """The address of another site's page, which the browser takes for that of `evil.example`."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>harmless</title><body>")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://evil.example:{server.server_port}"
        server.shutdown()


def test_a_foreign_page_changes_and_shows_nothing(page, ui: str, plant: Plant, foreign_page: str) -> None:
    def partitions() -> set[str]:
        with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
            return set(instance.get_dynamic_partitions("models"))

    selector = '{repositoryName: "__repository__", repositoryLocationName: "edgepack_assets.definitions"}'
    mutation = (
        f'mutation {{ addDynamicPartition(partitionsDefName: "models", partitionKey: "state_identifier:99", '
        f"repositorySelector: {selector}) {{ __typename ... on PythonError {{ message }} }} }}"
    )
    before = partitions()
    for origin in (foreign_page, foreign_page.replace("evil.example", "127.0.0.1")):
        page.goto(origin)
        tried = page.evaluate(ATTACKS, [ui, mutation])
        assert tried.pop("json") == "error"
        assert tried.pop("websocket") == "error"
        assert set(tried) == {"get", "text", "empty"}
        assert partitions() == before

    # The frame that the form opened, and one with the UI itself, show an error of the browser or our refusal.
    page.evaluate("ui => { document.querySelector('iframe').src = ui + '/runs' }", ui)
    page.wait_for_timeout(2000)
    assert "Runs" not in page.frames[1].locator("body").inner_text()

    # A name that a foreign site lets point to this machine.
    answer = page.goto(ui.replace("127.0.0.1", "rebound.example") + "/graphql?query=" + quote(mutation))
    assert answer.status == 403
    assert "is not allowed" in answer.text()
    assert partitions() == before

    # The same mutation from the UI's own page takes effect: it is the page that was refused.
    page.goto("/runs")
    said = page.evaluate(
        """body => fetch("/graphql", {method: "POST", body, headers: {"Content-Type": "application/json"}})
             .then(answer => answer.text())""",
        json.dumps({"query": mutation}),
    )
    assert partitions() == before | {"state_identifier:99"}, said
    with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
        instance.delete_dynamic_partition("models", "state_identifier:99")
