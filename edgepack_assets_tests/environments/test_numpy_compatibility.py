"""NumPy 1 for libraries that were compiled before NumPy 2, where nobody asks for another one."""

from __future__ import annotations

import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments import lock as locks
from edgepack_assets.environments import resolver
from edgepack_assets.environments.lock import Lock, generation_for, refresh_lock
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets_tests.environments.wheels import Index, wheel


@pytest.fixture
def numpies(index: Index) -> RuntimeSettings:
    index.add(*(wheel("numpy", version) for version in ("1.26.4", "2.1.0")))
    for name, versions in {"scikit_learn": ("1.2.2", "1.4.2"), "pandas": ("2.0.3", "2.2.2")}.items():
        index.add(*(wheel(name, version, requires=["numpy>=1.17"]) for version in versions))
    index.add(wheel("app", "1.0", requires=["scikit-learn<1.3"]), wheel("new", "1.0", requires=["numpy>=2"]))
    return RuntimeSettings.model_validate({"index_url": index.url, "time_limit": 60.0})


def numpy_of(lock: Lock) -> str:
    return next(package.version for package in lock.packages if package.name == "numpy")


@pytest.mark.parametrize(
    ("requirements", "numpy"),
    [
        (["scikit-learn==1.2.2", "numpy"], "1.26.4"),
        (["scikit_learn<1.4"], "1.26.4"),
        (["scikit-learn", "pandas==2.0.3", "numpy>=1.20"], "1.26.4"),
        (["app"], "1.26.4"),  # nobody names it: another package needs it
        (["scikit-learn==1.4.2", "numpy"], "2.1.0"),
        (["numpy"], "2.1.0"),
        (["scikit-learn==1.2.2", "numpy==2.1.0"], "2.1.0"),  # asked for in so many words
        (["scikit-learn==1.2.2", "numpy>=2"], "2.1.0"),
    ],
)
def test_an_old_library_gets_a_numpy_of_its_time(
    numpies: RuntimeSettings, store: ArtefactStore, requirements: list[str], numpy: str
) -> None:
    generation, _ = generation_for(requirements, "3.11", store, numpies)
    assert numpy_of(generation.lock) == numpy
    assert sorted(generation.lock.requirements) == sorted(line.replace("_", "-") for line in requirements)
    assert generation_for(requirements, "3.11", store, numpies) == (generation, True)
    assert refresh_lock(generation.lock, store, numpies) == (generation, generation)


def test_where_another_package_needs_numpy_2_the_error_says_why_numpy_1_was_asked_for(
    numpies: RuntimeSettings, store: ArtefactStore
) -> None:
    with pytest.raises(
        EnvironmentBuildError, match=r"^numpy<2 was added, since scikit-learn 1\.2\.2 was compiled before"
    ):
        generation_for(["scikit-learn==1.2.2", "new"], "3.11", store, numpies)


def test_a_lock_of_before_is_followed_by_a_generation_that_works(
    numpies: RuntimeSettings, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(locks, "too_old_for_numpy", lambda *_: [])
        patch.setattr(resolver, "too_old_for_numpy", lambda *_: [])
        before, _ = generation_for(["scikit-learn==1.2.2"], "3.11", store, numpies)
    assert numpy_of(before.lock) == "2.1.0"
    after, kept = generation_for(["scikit-learn==1.2.2"], "3.11", store, numpies)
    assert (numpy_of(after.lock), after.number, after.lock.key, kept) == ("1.26.4", 2, before.lock.key, False)
    assert generation_for(["scikit-learn==1.2.2"], "3.11", store, numpies) == (after, True)
