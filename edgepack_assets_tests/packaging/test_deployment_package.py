"""The deployment package: what was validated and the locked wheels, proven by digest; stamped, and nothing else."""

from __future__ import annotations

import hashlib
import io
import shutil
import uuid
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.errors import CorruptError, EdgepackError, PackageError
from edgepack_assets.filesystem.reproducible_zip import write_zip
from edgepack_assets.packaging import deployment_package as packaging
from edgepack_assets.packaging.deployment_package import expected_contents, size_row
from edgepack_assets.packaging.sdk import quiet_import
from edgepack_assets.packaging.stamp import (
    DATED_FILES,
    STAMPED_FILES,
    Origin,
    Stamp,
    content_digest,
    contents,
    package_id_for,
    read_stamp,
)
from edgepack_assets_tests.crashes import full_disk
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.packaging.conftest import Built

STAMP = Stamp(7, tiny.PACKAGE_ID, tiny.ORIGIN)
COMPONENT = "components/inference_0.0.1.zip"
Rewrite = Callable[[dict[str, bytes]], None]


def unpacked(package: Path | bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(package if isinstance(package, Path) else io.BytesIO(package)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: dict[str, bytes]) -> bytes:
    write_zip(path, files)
    return path.read_bytes()


def inside(rewrite: Rewrite, tmp_path: Path) -> Rewrite:
    def change(outer: dict[str, bytes]) -> None:
        component = unpacked(outer[COMPONENT])
        rewrite(component)
        outer[COMPONENT] = packed(tmp_path / "component", component)

    return change


def test_it_holds_the_validated_files_the_wheels_and_the_runtime(built: Built) -> None:
    outer = unpacked(built.deployment)
    assert built.deployment.name == "Tiny-Echo-edge_7.zip"
    assert set(outer) == {
        "README.html",
        "datalink_metadata.yml",
        "pipeline_config.yml",
        "pipeline_content.yml",
        "runtime_config.yml",
        COMPONENT,
    }
    component = unpacked(outer[COMPONENT])
    assert set(component) == {*tiny.FILES, "requirements.txt", "requirements.lock", "PythonPackages.zip"}
    assert {name: component[name].decode() for name in tiny.FILES} == tiny.FILES
    wheels = unpacked(component["PythonPackages.zip"])
    assert {name: len(data) for name, data in wheels.items()} == {p.file: p.size for p in built.lock.packages}
    runtime = yaml.safe_load(outer["runtime_config.yml"])["runtimeConfiguration"]
    assert runtime["components"] == [{"name": "inference", "device": "IED1", "targetRuntime": "Python"}]
    pipeline = yaml.safe_load(outer["pipeline_config.yml"])
    assert pipeline["dataFlowPipelineInfo"]["dataFlowPipelineVersion"] == "7"
    topics = [o["topic"] for o in pipeline["dataFlowPipeline"]["pipelineOutputs"] if o["metric"]]
    assert topics == ["/siemens/edge/aiinference/Tiny Echo/7/metrics/inference/input_last"]
    assert b"<title>Tiny Echo (7)</title>" in outer["README.html"]
    assert b"<h1>Pipeline Tiny Echo (7)</h1>" in outer["README.html"]
    assert not any(b"unstamped" in data for data in outer.values())


def test_a_lock_without_packages_makes_a_package_without_wheels(built: Built, tmp_path: Path) -> None:
    empty = built.lock.model_copy(update={"packages": ()})
    config = tiny.build_config(tmp_path, empty)
    deployment = tiny.build_deployment(config, empty, built.store, 1, tmp_path)
    assert "PythonPackages.zip" not in unpacked(unpacked(deployment)[COMPONENT])
    assert contents(deployment, Stamp(1, tiny.PACKAGE_ID, tiny.ORIGIN)) == expected_contents(config, empty)


# Stamping ----------------------------------------------------------------------------------------------


def test_two_stamps_differ_in_the_stamped_files_only(built: Built, tmp_path: Path) -> None:
    other = tiny.build_deployment(built.config, built.lock, built.store, 8, tmp_path)
    ours, theirs = unpacked(built.deployment), unpacked(other)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == set(STAMPED_FILES)
    assert contents(built.deployment, STAMP) == contents(other, Stamp(8, tiny.PACKAGE_ID, tiny.ORIGIN))
    assert (read_stamp(built.deployment), read_stamp(other)) == (STAMP, Stamp(8, tiny.PACKAGE_ID, tiny.ORIGIN))


ORIGINS = st.none() | st.builds(
    Origin.of, st.text(), st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
)


@given(st.integers(1, 10**9), st.uuids(), ORIGINS)
def test_stamping_is_pure_and_has_an_inverse(
    built: Built, version: int, package_id: uuid.UUID, origin: Origin | None
) -> None:
    stamp = Stamp(version, package_id, origin)
    with packaging._opened_config(built.config) as config:
        dated = (*DATED_FILES,) if origin else ()
        files = {name: config.read(name) for name in (*STAMPED_FILES, "datalink_metadata.yml")}
        files["runtime_config.yml"] = packaging._runtime_config(config.pipeline)
        for name in (*STAMPED_FILES, *dated):
            before = files[name]
            stamped = stamp.apply(name, before, tiny.NAME)
            assert stamped == stamp.apply(name, before, tiny.NAME)
            assert stamped != before
            assert stamp.remove(name, stamped, tiny.NAME) == before


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("Tiny Echo", "Replaces Tiny Echo (0.0.0-unstamped), not Tiny Echo (7)"),
        ("Tiny Echo", "<title>Tiny Echo (7)</title><h1>Pipeline Tiny Echo (7)</h1>\n  createdOn: 2024"),
        ("A & B <i>", "0.0.0-unstamped"),
        ("a.*(b)[c]{2}+$|^", r"\1 \g<0>"),
        ("7", "7"),
        ("Größe (7)", "é \U0001f600"),
        ("metrics/7/metrics", ""),
    ],
)
def test_odd_names_and_descriptions_are_stamped_and_proven(
    built: Built, tmp_path: Path, name: str, description: str
) -> None:
    config = tiny.build_config(tmp_path, built.lock, name=name.replace("/", "-"), description=description)
    deployment = tiny.build_deployment(config, built.lock, built.store, 7, tmp_path)
    assert contents(deployment, STAMP) == expected_contents(config, built.lock)
    pipeline = yaml.safe_load(unpacked(deployment)["pipeline_config.yml"])
    assert pipeline["dataFlowPipelineInfo"]["description"] == (
        f"{description or 'Created by AI SDK'} ({tiny.ORIGIN.text})"
    )
    assert f"<title>{name.replace('/', '-')} (7)</title>".encode() in unpacked(deployment)["README.html"]


def test_what_carries_another_stamp_is_refused(built: Built) -> None:
    outer = unpacked(built.deployment)
    with pytest.raises(PackageError, match=r"carries version 7 and package id 11111111-.*, not 0.0.0-unstamped"):
        STAMP.apply("pipeline_config.yml", outer["pipeline_config.yml"], tiny.NAME)
    with pytest.raises(PackageError, match=r"README.html: does not hold <title>Tiny Echo \(0.0.0-unstamped\)<"):
        STAMP.apply("README.html", outer["README.html"], tiny.NAME)
    document = yaml.safe_load(outer["pipeline_config.yml"])
    document["dataFlowPipeline"]["pipelineOutputs"][-1]["topic"] = "/elsewhere/7"
    with pytest.raises(PackageError, match="the topic of input_last is /elsewhere/7, not below /siemens/edge"):
        STAMP.remove("pipeline_config.yml", yaml.safe_dump(document).encode(), tiny.NAME)
    with pytest.raises(PackageError):
        contents(built.deployment, Stamp(8, tiny.PACKAGE_ID, tiny.ORIGIN))


def test_a_package_id_belongs_to_a_name() -> None:
    assert package_id_for("a-edge") == package_id_for("a-edge") != package_id_for("b-edge")


def test_a_package_says_what_it_was_made_from_and_when_the_model_was_registered(built: Built) -> None:
    outer = unpacked(built.deployment)
    documents = {name: yaml.safe_load(data) for name, data in outer.items() if name.endswith(".yml")}
    info = documents["pipeline_config.yml"]["dataFlowPipelineInfo"]
    text = "made from model echo:3, sha256 0123456789ab"
    assert info["description"] == f"Echoes ({text})"
    datalink = documents["datalink_metadata.yml"]
    times = {info["createdOn"], documents["runtime_config.yml"]["runtimeInfo"]["createdOn"], datalink["createdOn"],
             datalink["updatedOn"]}  # fmt: skip
    assert times == {"2026-03-04T05:06:07Z"}
    assert f"<h1>Pipeline Tiny Echo (7)</h1>\n<p>{text}</p>\n<p>Echoes</p>".encode() in outer["README.html"]
    assert not any(b"1980" in data for name, data in outer.items() if name != COMPONENT)


def test_the_digest_of_contents_is_that_of_earlier_releases(built: Built, tmp_path: Path) -> None:
    """Else the first run after an upgrade would register every package once more. Neither origin nor list count."""
    stamp = Stamp(7, tiny.PACKAGE_ID, lists_content=False)
    old = packaging.build_deployment_package(built.config, built.lock, built.store, tiny.REGISTERED, stamp, tmp_path)
    outer = unpacked(old)
    assert "pipeline_content.yml" not in outer
    assert b"1980-01-01T00:00:00Z" in outer["datalink_metadata.yml"]
    assert read_stamp(old) == stamp
    assert contents(old, stamp) == contents(built.deployment, STAMP) == expected_contents(built.config, built.lock)
    assert "pipeline_content.yml" not in contents(built.deployment, STAMP)
    # What an earlier release did, in its own words: the sha256 of each file without its stamp.
    with packaging._opened_config(built.config) as config:
        for name in ("pipeline_config.yml", "README.html", "datalink_metadata.yml"):
            assert contents(old, stamp)[name] == hashlib.sha256(config.read(name)).hexdigest()


def test_what_was_read_before_is_not_read_again_and_is_not_believed(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = expected_contents(built.config, built.lock)
    arguments = built.config, built.lock, built.store, tiny.REGISTERED, STAMP, tmp_path
    monkeypatch.setattr(packaging, "expected_contents", None)
    made = packaging.build_deployment_package(*arguments, expected)
    assert made.read_bytes() == built.deployment.read_bytes()
    entrypoint = next(name for name in expected if name.endswith("entrypoint.py"))
    odd = packaging.build_deployment_package(*arguments, {**expected, entrypoint: "0" * 64})
    with pytest.raises(PackageError, match=r"pipeline_content\.yml lists other files than its components hold"):
        contents(odd, STAMP)


@pytest.mark.parametrize("text", ["a (made from b)", "x) (made from y", "<script>", "é\n\x00", "", "(" * 500])
def test_an_origin_of_any_text_is_read_back(built: Built, tmp_path: Path, text: str) -> None:
    config = tiny.build_config(tmp_path, built.lock, description="Old (made from x, y) (made from")
    origin = Origin.of(text, datetime(1980, 1, 1, tzinfo=UTC))
    stamp = Stamp(7, tiny.PACKAGE_ID, origin)
    made = packaging.build_deployment_package(config, built.lock, built.store, tiny.REGISTERED, stamp, tmp_path)
    assert read_stamp(made) == stamp
    assert contents(made, stamp) == expected_contents(config, built.lock)
    assert b"<script>" not in unpacked(made)["README.html"]


def test_the_sdk_s_reader_takes_it_for_an_earlier_package(built: Built, tmp_path: Path) -> None:
    """Without pipeline_content.yml it dies: nobody could make a delta package on top of ours."""
    with quiet_import():
        from simaticai.deploy.pipeline import _validate_with_schema
        from simaticai.deployment import Pipeline, PythonComponent
        from simaticai.helpers import calc_sha

    shutil.copy(built.deployment, tmp_path)
    component = PythonComponent(name="inference", python_version=built.lock.python)
    pins = tmp_path / "requirements.txt"
    pins.write_text(built.lock.as_requirements())
    component.set_requirements(pins)
    reader = Pipeline.from_components([component], name=tiny.NAME)
    found = reader._find_latest_full_package_and_version(tmp_path)
    assert found is not None
    assert (found["packageId"], found["version"], found["type"]) == (str(tiny.PACKAGE_ID), "7", "full")
    assert not reader._did_python_env_change_in_any_component(found)
    outer = unpacked(built.deployment)
    for name, schema in (
        ("pipeline_config", "pipeline"),
        ("runtime_config", "runtime"),
        ("datalink_metadata", "datalink"),
    ):
        _validate_with_schema(name, yaml.safe_load(outer[f"{name}.yml"]), f"{schema}.schema.json")
    # It lists what the SDK's own functions count of the same component.
    folder = tmp_path / "component"
    for name, data in unpacked(outer[COMPONENT]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, data in unpacked((folder / "PythonPackages.zip").read_bytes()).items():
        (wheels / name).write_bytes(data)

    def listed(path: Path) -> list[dict[str, Any]]:
        return sorted(component._collect_file_sizes_and_hashes(path), key=lambda entry: entry["path"])

    (tmp_path / "component.zip").write_bytes(outer[COMPONENT])
    manifest = {
        "sizeInBytes": len(outer[COMPONENT]),
        "files": listed(folder),
        "dependencies": listed(wheels),
        "requirements": [str(each) for each in component.python_dependencies.dependencies.values()],
    }
    assert found["contents"] == {"totalSizeInBytes": len(outer[COMPONENT]), "components": {"inference": manifest}}
    assert manifest["dependencies"][0]["hash"] == calc_sha(wheels / manifest["dependencies"][0]["path"])
    reader.save_pipeline_manifest(tmp_path, {"inference": manifest})
    assert yaml.safe_load((tmp_path / "pipeline_content.yml").read_bytes()) == found["contents"]


# Proof -------------------------------------------------------------------------------------------------


def test_its_contents_are_what_was_validated(built: Built) -> None:
    expected = expected_contents(built.config, built.lock)
    assert contents(built.deployment, STAMP) == expected
    assert len(content_digest(expected)) == 64


def test_a_changed_byte_anywhere_is_seen(built: Built, tmp_path: Path) -> None:
    """In each file of the package, of the component and of the wheels: changed, gone or added."""
    expected = expected_contents(built.config, built.lock)
    tampered = tmp_path / built.deployment.name

    def is_seen(rewrite: Rewrite) -> bool:
        outer = unpacked(built.deployment)
        rewrite(outer)
        packed(tampered, outer)
        try:
            return contents(tampered, STAMP) != expected
        except PackageError:
            return True

    def each(files: dict[str, bytes], place: Callable[[Rewrite], Rewrite], whole: set[str]) -> None:
        for name in set(files) - whole:
            changed = bytes([files[name][0] ^ 1]) + files[name][1:] if files[name] else b"x"
            assert is_seen(place(lambda f, n=name, c=changed: f.update({n: c}))), name  # type: ignore[misc]
            assert is_seen(place(lambda f, n=name: f.pop(n))), name  # type: ignore[misc]
            assert is_seen(place(lambda f, n=name: f.update({f"{n}.more": b""}))), name  # type: ignore[misc]

    def in_component(rewrite: Rewrite) -> Rewrite:
        return inside(rewrite, tmp_path)

    def in_wheels(rewrite: Rewrite) -> Rewrite:
        def change(component: dict[str, bytes]) -> None:
            wheels = unpacked(component["PythonPackages.zip"])
            rewrite(wheels)
            component["PythonPackages.zip"] = packed(tmp_path / "wheels", wheels)

        return in_component(change)

    assert not is_seen(lambda _: None)
    assert not is_seen(in_wheels(lambda _: None))
    outer = unpacked(built.deployment)
    component = unpacked(outer[COMPONENT])
    each(outer, lambda rewrite: rewrite, {COMPONENT})
    each(component, in_component, {"PythonPackages.zip"})
    each(unpacked(component["PythonPackages.zip"]), in_wheels, set())


def test_a_second_component_and_a_folder_are_seen(built: Built, tmp_path: Path) -> None:
    """Even one with the same files: the server would take what it finds."""
    expected = expected_contents(built.config, built.lock)
    outer = unpacked(built.deployment)
    twin = tmp_path / "twin.zip"
    write_zip(twin, {**outer, "components/inference_0.0.2.zip": outer[COMPONENT]})
    assert contents(twin, STAMP) != expected
    write_zip(twin, {**outer, "components/": b""})
    with pytest.raises(PackageError, match="holds folders of their own"):
        contents(twin, STAMP)


def link(outer: dict[str, bytes], tmp_path: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("model.json")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return packed(tmp_path / "linked", {**outer, COMPONENT: buffer.getvalue()})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda outer, tmp: b"not a zip", "is not a zip file that can be read"),
        (lambda outer, tmp: packed(tmp / "z", {"a": b""}), "holds no pipeline_config.yml"),
        (
            lambda outer, tmp: packed(tmp / "z", {**outer, "pipeline_config.yml": b"a: ["}),
            "pipeline_config.yml is not Y",
        ),
        (lambda outer, tmp: packed(tmp / "z", {**outer, "pipeline_config.yml": b"- 1"}), "is not a mapping"),
        (
            lambda outer, tmp: packed(tmp / "z", {**outer, "pipeline_config.yml": b"{}"}),
            "(names no project|not stamped)",
        ),
        (lambda outer, tmp: packed(tmp / "z", {**outer, COMPONENT: b"no zip"}), "inference_0.0.1.zip: is not a zip"),
        (link, "inference_0.0.1.zip: the entry 'model.json' is a link"),
    ],
)
def test_a_package_not_to_be_trusted_is_refused(
    built: Built, tmp_path: Path, make: Callable[[dict[str, bytes], Path], bytes], told: str
) -> None:
    path = tmp_path / "hostile.zip"
    path.write_bytes(make(unpacked(built.deployment), tmp_path))
    with pytest.raises(PackageError, match=f"^hostile.zip.*{told}"):
        read_stamp(path)
        contents(path, STAMP)


# What cannot be built ----------------------------------------------------------------------------------


def test_a_wheel_whose_bytes_changed_stops_the_build(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.store.root_url, tmp_path / "artefacts")
    store = type(built.store)(str(tmp_path / "artefacts"), tmp_path / "cache")
    blob = store.fetch(built.lock.packages[0].blob)
    blob.chmod(0o644)
    blob.write_bytes(b"another wheel")
    with pytest.raises(CorruptError):
        tiny.build_deployment(built.config, built.lock, store, 1, tmp_path)
    assert not (tmp_path / "Tiny-Echo-edge_1.zip").exists()


def test_a_config_package_of_another_shape_is_refused(built: Built, tmp_path: Path) -> None:
    for files, told in [
        ({"a/b": b"", "c/d": b""}, "must hold one top folder, it holds a, c"),
        ({}, "must hold one top folder, it holds nothing"),
        ({"a/b": b""}, "holds no pipeline_config.yml and no README.html"),
    ]:
        write_zip(tmp_path / "odd.zip", files)
        with pytest.raises(PackageError, match=f"^odd.zip: {told}"):
            expected_contents(tmp_path / "odd.zip", built.lock)


def test_a_package_that_breaks_the_schema_is_refused(built: Built, tmp_path: Path) -> None:
    files = unpacked(built.config)
    (config,) = (name for name in files if name.endswith("/pipeline_config.yml"))
    files[config] = files[config].replace(b"pipelineDag:", b"surprise:")
    write_zip(tmp_path / "odd.zip", files)
    with pytest.raises(
        PackageError, match=r"pipeline_config.yml holds to the SDK's schema: .*'pipelineDag' is a required property"
    ):
        tiny.build_deployment(tmp_path / "odd.zip", built.lock, built.store, 1, tmp_path)


def test_a_package_too_large_for_the_server_is_refused_before_it_is_written(built: Built, tmp_path: Path) -> None:
    huge = built.lock.packages[0].model_copy(update={"size": 21 * 10**9})
    lock = built.lock.model_copy(update={"packages": (huge,)})
    with pytest.raises(PackageError, match=r"Tiny-Echo-edge: 210000\d+ bytes .*; at most 20000000000 bytes"):
        tiny.build_deployment(built.config, lock, built.store, 1, tmp_path)
    assert [part.passed for part in map(size_row, (10, 3 * 10**9, 21 * 10**9))] == [True, True, False]
    assert "may refuse it" in size_row(3 * 10**9).found


@pytest.mark.parametrize("room", [200, 3_000, 6_000])
def test_a_full_disk_is_told_and_leaves_no_package(built: Built, tmp_path: Path, room: int) -> None:
    with full_disk(room), pytest.raises(EdgepackError, match="cannot be written: File too large"):
        tiny.build_deployment(built.config, built.lock, built.store, 1, tmp_path)
    assert not (tmp_path / "Tiny-Echo-edge_1.zip").exists()
