"""Reading a registered model's folder: its one model file, its environment, its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.model_folder.model_file import (
    find_model_file,
    merge_requirements,
    model_code,
    saved_environment,
)

SUFFIXES = (".pkl", ".skops")
MLMODEL = "flavors:\n  python_function: {code: code, python_version: 3.12.4}\n  sklearn: {pickled_model: model.pkl}\n"

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


def entry(**values: Any) -> ModelTypeSettings:
    given = {"implementation": "state_identifier", "model_name": "m", "package_name": "p", "raw_data": {"name": "r"}}
    return ModelTypeSettings.model_validate({**given, **values})


def folder(path: Path, **files: str) -> Path:
    """A folder with these files; `__` in a name stands for a dot, `_SLASH_` for a slash."""
    for name, text in files.items():
        file = path / name.replace("__", ".").replace("_SLASH_", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def test_the_model_is_at_the_top_or_one_level_down(tmp_path: Path) -> None:
    for where in ("", "below"):
        top = tmp_path / (where or "flat")
        root = folder(top / where, MLmodel=MLMODEL, model__pkl="x")
        assert find_model_file(top, SUFFIXES) == (root, root / "model.pkl")
    bare = folder(tmp_path / "bare", any__skops="x")
    assert find_model_file(bare, SUFFIXES) == (bare, bare / "any.skops")
    assert find_model_file(bare / "any.skops", SUFFIXES) == (bare, bare / "any.skops")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes__txt": "x"}, r"no model file \(.pkl or .skops\); it holds: notes.txt"),
        ({"a__pkl": "x", "b__skops": "x"}, r"2 model files \(a.pkl, b.skops\)"),
        ({"MLmodel": MLMODEL}, "names model.pkl, but the folder does not hold it"),
        (
            {"MLmodel": MLMODEL.replace("model.pkl", "weights.bin"), "old__pkl": "x"},
            "names weights.bin, but the folder does not hold it",
        ),
        ({"MLmodel": MLMODEL, "other__pkl": "x", "model__pkl": "x"}, "2 model files"),
        ({"MLmodel": MLMODEL.replace("model.pkl", "../model.pkl"), "model__pkl": "x"}, "outside the model folder"),
        ({"MLmodel": "- a list", "model__pkl": "x"}, "MLmodel: must be a mapping"),
        ({"model__pkl": LFS}, r"model.pkl: is a Git LFS pointer, .*; run `git lfs pull`"),
        ({"MLmodel": MLMODEL, "model__pkl": LFS}, r"model.pkl: is a Git LFS pointer"),
        ({"a_SLASH_MLmodel": MLMODEL, "b_SLASH_MLmodel": MLMODEL}, r"2 MLflow models \(a, b\)"),
    ],
)
def test_a_folder_with_no_model_or_two_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_model_file(folder(tmp_path, **files), SUFFIXES)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.bin: not a model file"):
        find_model_file(folder(tmp_path, model__bin="x") / "model.bin", SUFFIXES)


def test_requirements_come_from_requirements_txt_else_from_conda(tmp_path: Path) -> None:
    conda = "dependencies:\n- python=3.11.7\n- pip<=24\n- pip: ['mlflow==2.1', 'numpy==1.26.4']\n"
    found = saved_environment(folder(tmp_path / "a", conda__yaml=conda))
    assert (found.requirements, found.python_version) == (("mlflow==2.1", "numpy==1.26.4"), "3.11")
    both = folder(
        tmp_path / "b", conda__yaml=conda, requirements__txt="# pinned\nscipy==1.13 # why\n\n", MLmodel=MLMODEL
    )
    found = saved_environment(both)
    assert (found.requirements, found.python_version) == (("scipy==1.13",), "3.12")
    assert saved_environment(tmp_path) == saved_environment(folder(tmp_path / "c", notes__txt=""))


@pytest.mark.parametrize("line", ["-e .", "-r more.txt", "numpy ==", "./local.whl"])
def test_a_line_that_cannot_be_carried_over_is_refused_unless_it_is_not_asked_for(tmp_path: Path, line: str) -> None:
    root = folder(tmp_path, requirements__txt=f"scipy==1.13\n{line}\n")
    with pytest.raises(ModelError, match=r"requirements.txt: "):
        saved_environment(root)
    assert saved_environment(root, only={"scipy"}).requirements == ("scipy==1.13",)


def test_the_configuration_replaces_a_line_and_what_is_needed_is_added_once() -> None:
    saved = ("mlflow==2.1", "mlflow-skinny==2.1", "Scikit_Learn==1.5.2", 'numpy<2; python_version<"3.12"', "numpy>=2")
    needed = ["numpy", "joblib"]
    assert merge_requirements(saved, entry(), needed) == (
        "joblib", 'numpy<2; python_version<"3.12"', "numpy>=2", "Scikit_Learn==1.5.2",
    )  # fmt: skip
    assert merge_requirements(saved, entry(requirements=["numpy==1.26.4"]), needed) == (
        "joblib", "numpy==1.26.4", "Scikit_Learn==1.5.2",
    )  # fmt: skip
    assert "mlflow==2.1" in merge_requirements(saved, entry(keep_mlflow=True))


def test_code_ships_under_the_import_path_that_the_pickle_knows(tmp_path: Path) -> None:
    root = folder(tmp_path / "m", MLmodel=MLMODEL, code_SLASH_si_SLASH_prep__py="a", code_SLASH_si_SLASH_x__pyc="b")
    more = folder(tmp_path / "state_identifier", src_SLASH_prep__py="c")
    single = folder(tmp_path / "one", helpers__py="d") / "helpers.py"
    found = model_code(root, entry(code_paths=[more, single]))
    assert sorted(found) == ["helpers.py", "si/prep.py", "state_identifier/src/prep.py"]
    clash = folder(tmp_path / "si", prep__py="another")
    with pytest.raises(ModelError, match=r"both give the component's si/prep.py"):
        model_code(root, entry(code_paths=[clash]))
    (root / "code").rename(root / "elsewhere")
    with pytest.raises(ModelError, match="names the code folder 'code'"):
        model_code(root, entry())


@pytest.mark.parametrize("named", ["/etc", "..", "../..", "code/../..", "linked"])
def test_a_model_ships_no_code_from_outside_its_folder(tmp_path: Path, named: str) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret.py").write_text("word")
    root = folder(tmp_path / "m", MLmodel=f"flavors: {{python_function: {{code: {named}}}}}", model__pkl="x")
    (root / "linked").symlink_to(tmp_path / "host")
    with pytest.raises(ModelError, match=r"MLmodel: flavors\.python_function\.code names"):
        model_code(root, entry())
    (root / "MLmodel").unlink()
    (root / "code").symlink_to(tmp_path / "host")
    with pytest.raises(ModelError, match="is a link"):
        model_code(root, entry())


@pytest.mark.parametrize("key", ["sklearn: {pickled_model", "python_function: {model_path"])
@pytest.mark.parametrize("named", ["/etc/passwd.pkl", "../other.pkl", "linked.pkl"])
def test_a_model_file_outside_the_folder_is_refused(tmp_path: Path, key: str, named: str) -> None:
    (tmp_path / "other.pkl").write_text("x")
    root = folder(tmp_path / "m", MLmodel=f"flavors: {{{key}: {named}}}}}")
    (root / "linked.pkl").symlink_to(tmp_path / "other.pkl")
    with pytest.raises(ModelError, match=r"MLmodel: flavors\..* names|is a link"):
        find_model_file(root, SUFFIXES)
    (root / "MLmodel").unlink()
    with pytest.raises(ModelError, match="is a link"):
        find_model_file(root, SUFFIXES)


def test_what_systems_and_notebooks_leave_is_no_part_of_a_model(tmp_path: Path) -> None:
    clean = {"MLmodel": MLMODEL, "model__pkl": "x", "code_SLASH_si_SLASH_prep__py": "a"}
    root = folder(tmp_path / "top" / "model", **clean)
    for junk in ("._model.pkl", "._MLmodel", ".DS_Store", "code/._si", "code/si/._prep.py", "code/.DS_Store",
                 "code/.ipynb_checkpoints/a.py", "code/si/__pycache__/prep.cpython-311.pyc", "code/Thumbs.db",
                 ".ipynb_checkpoints/model-checkpoint.pkl", "../__MACOSX/model.pkl",
                 "../__MACOSX/MLmodel"):  # fmt: skip
        (root / junk).parent.mkdir(exist_ok=True)
        (root / junk).write_bytes(b"\0\5\26\7")
    assert find_model_file(tmp_path / "top", SUFFIXES) == (root, root / "model.pkl")
    assert find_model_file(root, SUFFIXES) == (root, root / "model.pkl")
    assert sorted(model_code(root, entry())) == ["si/prep.py"]
    (root / "MLmodel").unlink()
    assert find_model_file(tmp_path / "top", SUFFIXES) == (root, root / "model.pkl")


def test_code_never_replaces_the_model_file(tmp_path: Path) -> None:
    root = folder(tmp_path, model__pkl="the model", code_SLASH_model__pkl="another")
    with pytest.raises(ModelError, match=r"both give the component's model.pkl"):
        model_code(root, entry(), {"model.pkl": root / "model.pkl"})
    (root / "code" / "model.pkl").write_text("the model")
    assert sorted(model_code(root, entry(), {"model.pkl": root / "model.pkl"})) == ["model.pkl"]
