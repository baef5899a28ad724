"""The digest of the configuration: of every setting, of no secret, and the same on every machine."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets.config.digest import config_digest
from edgepack_assets.config.loader import load_settings

BASE: dict[str, Any] = {
    "registry": {"path": "registry"},
    "artefacts": {"root": "artefacts"},
    "runtime": {"index_url": "https://user:word@mirror.example/simple"},
    "run": {"environment": "prod", "build_reference": "7"},
    "sensors": {"webhook": "https://chat.example/key"},
    "model_types": {
        "press": {
            "implementation": "state_identifier",
            "model_name": "press_model",
            "package_name": "Press",
            "raw_data": {"name": "press_raw"},
            "gates": {"silhouette": {"min": 0.2, "reference": "previous", "tolerance": "5%"}},
        }
    },
}


def digest(folder: Path, **changes: Any) -> str:
    """The digest with the values of dotted keys replaced."""
    document = copy.deepcopy(BASE)
    for dotted, value in changes.items():
        *place, key = dotted.split(".")
        section = document
        for name in place:
            section = section.setdefault(name, {})
        section[key] = value
    folder.mkdir(exist_ok=True)
    (folder / "edgepack.yaml").write_text(yaml.safe_dump(document))
    return config_digest(load_settings(folder / "edgepack.yaml"))


@pytest.mark.parametrize(("key", "value"), [
    ("registry.path", "elsewhere"), ("artefacts.root", "abfs://c@a.dfs.core.windows.net/x"),
    ("artefacts.cache", "/var/cache/x"), ("runtime.isolation", "required"), ("runtime.memory_limit", 4),
    ("runtime.index_url", "https://other.example/simple"), ("runtime.readable_folders", ["/usr"]),
    ("run.environment", "dev"), ("run.output_folders", ["/tmp"]), ("sensors.start", "all"), ("sensors.webhook", ""),
    ("model_types.press.gates", {}), ("model_types.press.gates.silhouette.min", 0.1),
    ("model_types.press.gates.silhouette.tolerance", "6%"), ("model_types.press.gates.silhouette.tolerance", 0.05),
    ("model_types.press.approval", "required"), ("model_types.press.run_whole_payload", True),
    ("model_types.press.raw_data.version", 3),
    ("model_types.saw", {**BASE["model_types"]["press"], "package_name": "S"}),
])  # fmt: skip
def test_every_setting_counts(tmp_path: Path, key: str, value: Any) -> None:
    assert digest(tmp_path, **{key: value}) != digest(tmp_path)


@pytest.mark.parametrize(("key", "value"), [
    ("runtime.index_url", "https://other:secret@mirror.example/simple"),
    ("runtime.index_url", "https://mirror.example/simple"),
    ("sensors.webhook", "https://chat.example/another"),
    ("run.build_reference", "8"), ("run.experiment_name", "x"), ("run.display_name", "y"),
    ("runtime.time_limit", 900), ("sensors.start", "latest"),
])  # fmt: skip
def test_secrets_what_changes_from_run_to_run_and_defaults_written_out_do_not(
    tmp_path: Path, key: str, value: Any
) -> None:
    assert digest(tmp_path, **{key: value}) == digest(tmp_path)


def test_it_is_the_same_in_another_folder_and_however_a_value_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert digest(one) == digest(two)
    assert digest(one, **{"registry.path": str(one / "registry")}) == digest(two)
    monkeypatch.setenv("WHERE", "registry")
    assert digest(one, **{"registry.path": "${WHERE}"}) == digest(two)
    # Two machines that name one shared folder have the same registry, and the digest says so.
    assert digest(one, **{"registry.path": "/mnt/registry"}) == digest(two, **{"registry.path": "/mnt/registry"})
    assert digest(one, **{"registry.path": "../shared"}) != digest(one)
