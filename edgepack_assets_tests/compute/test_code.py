"""The code of a job: uploaded once for each content, whatever the network and other runs do meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack_assets.azure.calls import Remote
from edgepack_assets.azure.errors import AccessError
from edgepack_assets.compute.azure_ml.code import Codes, code_digest
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.registry.azure_ml.client import Assets
from edgepack_assets_tests.azure.faults import changed, lost_answer, reset, status
from edgepack_assets_tests.compute.conftest import Plant

UPLOAD = "PUT plantstorage.*/code/"


@pytest.fixture
def codes(plant: Plant) -> Codes:
    return Codes(Assets(Remote(plant.workspace)))


def uploaded(plant: Plant, asset: str) -> dict[str, bytes]:
    """Name -> bytes of what a node would get."""
    container, folder = plant.azure.azure_ml.compute.code_place(asset)
    with plant.azure.storage.client(container) as client:
        names = [str(blob.name) for blob in client.list_blobs(name_starts_with=f"{folder}/")]
        return {name[len(folder) + 1 :]: client.get_blob_client(name).download_blob().readall() for name in names}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {"run.py": b"print()", "wheels/edgepack-1.whl": b"\0" * 9_000_000, "empty": b""}.items():
        (tmp_path / "job" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "job" / name).write_bytes(content)
    return tmp_path / "job"


def test_every_file_goes_up_once_for_each_content(plant: Plant, codes: Codes, folder: Path) -> None:
    asset = codes.obtain(folder)
    assert uploaded(plant, asset) == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    plant.azure.proxy.seen.clear()
    assert codes.obtain(folder.rename(folder.with_name("elsewhere"))) == asset
    assert plant.asked(".blob.") == []
    (folder.with_name("elsewhere") / "run.py").rename(folder.with_name("elsewhere") / "main.py")
    assert codes.obtain(folder.with_name("elsewhere")) != asset


@pytest.mark.parametrize("fault", [reset, status(503, "ServerBusy"), lost_answer])
def test_faults_of_the_network_are_got_over(
    plant: Plant, codes: Codes, folder: Path, hurry: Callable[[], float], fault: Callable[..., object]
) -> None:
    storage = plant.azure.faults.add(UPLOAD, fault, times=3)
    put = plant.azure.faults.add("PUT management.*/codes/", fault, times=1)
    assert len(uploaded(plant, codes.obtain(folder))) == 3
    assert (len(storage.hits), len(put.hits)) == (3, 1)
    assert hurry() > 0


def test_storage_that_refuses_is_told_as_such(plant: Plant, codes: Codes, folder: Path) -> None:
    plant.azure.faults.add(UPLOAD, status(403, "AuthorizationFailure"), times=99)
    with pytest.raises(AccessError, match=r"the storage account does not accept the key or signature"):
        codes.obtain(folder)
    assert plant.azure.azure_ml.compute.codes == {}


def test_a_place_that_moved_meanwhile_is_no_half_of_the_code(plant: Plant, codes: Codes, folder: Path) -> None:
    plant.azure.faults.add(UPLOAD, status(403, "AuthenticationFailed"), times=1)
    moved = changed(lambda body: body.replace(b'"blobUri": "https://', b'"blobUri": "https://another-'))
    plant.azure.faults.add("startPendingUpload", moved, times=1, after=1)
    with pytest.raises(TransientError, match="gave another place meanwhile"):
        codes.obtain(folder)


def test_an_answer_without_a_place_is_told(plant: Plant, codes: Codes, folder: Path) -> None:
    plant.azure.faults.add("startPendingUpload", changed(lambda _: json.dumps({"pendingUploadId": "1"}).encode()))
    with pytest.raises(EdgepackError, match=r"asking where to upload .*the answer names no place"):
        codes.obtain(folder)


def test_no_files_are_no_code(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EdgepackError, match="is no folder with files"):
            code_digest(path)
