"""What a failed inspection says: the versions that meet, and the setting that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import pytest

from edgepack_assets.environments.environment import Environment
from edgepack_assets.environments.lock import Lock
from edgepack_assets.environments.wheels import LockedPackage
from edgepack_assets.errors import ComponentError, ModelError
from edgepack_assets.model_types.model_folder.model_failures import Loading, Origin, explained
from edgepack_assets.sandbox.child_death import ChildDiedError
from edgepack_assets.sandbox.sandbox import ChildFailure, TaskFailedError

VERSIONS = {"scikit-learn": "1.5.2", "numpy": "1.26.4", "scipy": "1.14.1"}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    site = tmp_path / "lib/python3.11/site-packages"
    for name, module in {"scikit-learn": "sklearn", "numpy": "numpy", "scipy": "scipy"}.items():
        info = site / f"{name.replace('-', '_')}-{VERSIONS[name]}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSIONS[name]}\n")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{info.name}/METADATA,,\n")
    packages = tuple(
        LockedPackage(
            name=name,
            version=version,
            file=f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
            digest="0" * 64,
            size=1,
        )
        for name, version in VERSIONS.items()
    )
    lock = Lock(key="0" * 64, python="3.11", platform="x", requirements=(), packages=packages)
    return Environment(tmp_path, tmp_path / "bin/python", lock, kept=True)


def failed(kind: str, message: str, name: str | None = None, **more: Any) -> TaskFailedError:
    return TaskFailedError("inspecting it", ChildFailure(kind, message, name, None, "| the traceback", **more))


def said(
    environment: Environment, error: ComponentError, saved: dict[str, str] | None = None, origin: Origin | None = None
) -> str:
    found = explained(error, "inspecting it", "their code", Loading(environment, saved or {}), origin or Origin())
    assert isinstance(found, ModelError)
    return str(found)


@pytest.mark.parametrize(
    ("error", "saved", "origin", "words"),
    [
        (failed("ModuleNotFoundError", "No module named 'mlflow.pyfunc'", "mlflow.pyfunc"), {}, Origin(),
         ["imports mlflow", "put `keep_mlflow: true` of its model type in edgepack.yaml"]),
        # a module that moved between versions
        (failed("ModuleNotFoundError", "No module named 'sklearn.externals'", "sklearn.externals"),
         {"scikit-learn": "0.20.3"}, Origin(),
         ["scikit-learn 0.20.3", "loaded with scikit-learn 1.5.2", "pin scikit-learn==0.20.3"]),
        (failed("ModuleNotFoundError", "No module named 'sklearn.cluster.k_means_'", "sklearn.cluster.k_means_"),
         {}, Origin(scikit_learn="0.21.0"), ["pin scikit-learn==0.21.0"]),
        (failed("ModuleNotFoundError", "No module named 'sklearn.preprocessing.label'", "sklearn.preprocessing.label"),
         {}, Origin(), ["scikit-learn 1.5.2 lacks", "scikit-learn==VERSION"]),
        (failed("ModuleNotFoundError", "No module named 'numpy._core'", "numpy._core"), {"numpy": "2.1.0"}, Origin(),
         ["numpy 2.1.0", "loaded with numpy 1.26.4", "pin numpy==2.1.0"]),
        (failed("ImportError", "cannot import name 'joblib' from 'sklearn.utils'", "sklearn.utils"), {}, Origin(),
         ["scikit-learn 1.5.2 lacks"]),
        (failed("AttributeError", "Can't get attribute '_Old' on <module 'sklearn.tree' from 'x'>"), {},
         Origin(scikit_learn="1.1.0"), ["pin scikit-learn==1.1.0"]),
        # the model's own code
        (failed("ModuleNotFoundError", "No module named 'training.steps'", "training"), {}, Origin(),
         ["'training'", "code_paths", "requirements"]),
        (failed("AttributeError", "Can't get attribute 'Step' on <module 'training' from 'x'>"), {}, Origin(),
         ["Step", "training", "ship the code"]),
        (failed("AttributeError", "Can't get attribute 'Step' on <module '__main__'>"), {}, Origin(),
         ["the script that trained it"]),
        # libraries that do not fit each other
        (failed("ImportError", "numpy.core.multiarray failed to import", importing="sklearn.cluster"), {}, Origin(),
         ["sklearn.cluster cannot be imported on Python 3.11 with scikit-learn 1.5.2, numpy 1.26.4, scipy 1.14.1",
          "multiarray failed", "`requirements`"]),
        # another Python's bytecode
        (failed("TypeError", "code() argument 13 must be str, not int"), {"python": "3.10"}, Origin(bytecode="older"),
         ["compiled code of Python 3.10 ", "loaded with Python 3.11", "save the model again with Python 3.11 or 3.12"]),
        (failed("TypeError", "code() argument 13 must be str, not int"), {}, Origin(bytecode="older"),
         ["Python 3.10 or older"]),
        (ChildDiedError("inspecting it was killed by signal 11", -11), {}, Origin(bytecode="other"),
         ["another Python than 3.11", 'python_version: "3.12"', "signal 11"]),
        (ChildDiedError("inspecting it was killed by signal 11", 139), {"python": "3.12.4"}, Origin(bytecode="other"),
         ["compiled code of Python 3.12.4", 'python_version: "3.12"']),
        (ChildDiedError("inspecting it was killed by signal 11", 139), {"python": "3.13"}, Origin(bytecode="other"),
         ["compiled code of Python 3.13", "save the model again"]),
        (failed("ValueError", "unfit", for_user=True), {"python": "3.12"}, Origin(bytecode="other"), ["Python 3.12"]),
        # a crash whose cause the pickle does not tell
        (ChildDiedError("inspecting it was killed by signal 6", -6), {"scikit-learn": "1.2.2"}, Origin(),
         ["scikit-learn 1.2.2, here 1.5.2", "`requirements`"]),
        (ChildDiedError("inspecting it was killed by signal 4", -4), {}, Origin(), ["`python_version`", "signal 4"]),
        # anything else is shown with what may have caused it
        (failed("KeyError", "'x'"), {"scikit-learn": "1.2.2", "python": "3.11.7"}, Origin(),
         ["KeyError: 'x'", "scikit-learn 1.2.2, here 1.5.2", "| the traceback"]),
    ],
)  # fmt: skip
def test_the_reason_and_the_setting_are_named(
    environment: Environment, error: ComponentError, saved: dict[str, str], origin: Origin, words: list[str]
) -> None:
    text = said(environment, error, saved, origin)
    assert [word for word in words if word not in text] == [], text
    assert "add sklearn" not in text
    assert "add numpy" not in text


def test_a_refusal_of_our_own_is_one_sentence(environment: Environment) -> None:
    text = said(environment, failed("UnfitModel", "its input has 5 dimensions", for_user=True))
    assert text == "the model cannot be packaged: its input has 5 dimensions"


def test_an_error_of_the_models_own_code_is_none(environment: Environment) -> None:
    text = said(environment, failed("ValueError", "its input has 5 dimensions"))
    assert text == "inspecting it failed in their code: ValueError: its input has 5 dimensions\n| the traceback"


@pytest.mark.parametrize(
    "error",
    [ChildDiedError("was killed by signal 9", -9), ChildDiedError("exited with code 3", 3), ComponentError("x")],
)
def test_what_says_nothing_of_the_model_is_left_as_it_is(environment: Environment, error: ComponentError) -> None:
    assert explained(error, "inspecting it", "their code", Loading(environment, {}), Origin(bytecode="other")) is error


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz", "lz4", "none"])
@pytest.mark.parametrize("damage", ["cut short", "changed"])
def test_a_damaged_file_is_called_that(environment: Environment, tmp_path: Path, method: str, damage: str) -> None:
    """As joblib itself finds it. lz4 is no part of this environment: what it says was seen."""
    file = tmp_path / "model.joblib"
    if method == "lz4":
        ended = "Compressed file ended before the end-of-stream marker was reached"
        failed_decompression = "LZ4F_decompress failed with code: ERROR_decompressionFailed"
        error = failed("EOFError", ended) if damage == "cut short" else failed("RuntimeError", failed_decompression)
    else:
        joblib.dump({"a": list(range(9000))}, file, compress=0 if method == "none" else (method, 3))
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        if damage == "changed" and method != "none":
            data[middle : middle + 40] = bytes(byte ^ 255 for byte in data[middle : middle + 40])
        file.write_bytes(data if damage == "changed" and method != "none" else data[:middle])
        with pytest.raises(Exception) as excinfo:
            joblib.load(file)
        error = failed(excinfo.type.__name__, str(excinfo.value))
    assert "it is damaged or cut short. Save the model again" in said(environment, error)
