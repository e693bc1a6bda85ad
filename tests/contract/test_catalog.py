"""Every entry of the catalog keeps the contract of its kind; one test per check."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genba.core.resolve import installed, names
from genba.targets.cataloged import catalog_names
from genba.testing.checks import CheckFailed
from genba.testing.engines import engine_checks
from genba.testing.kit import checks_of_engine
from genba.testing.sources import check_source, source_checks
from genba.testing.subject import Subject, prepared
from genba.testing.targets import target_checks
from genba.testing.tasks import task_checks

ENGINES = [
    pytest.param(check, id=f"{name}: {title}")
    for name in installed("engine")
    for title, check in checks_of_engine(name).items()
]
TARGETS = [
    pytest.param(check, id=f"{name}: {title}")
    for name in (*names("target"), *catalog_names())
    for title, check in target_checks(name).items()
]


@pytest.mark.parametrize("check", ENGINES)
def test_engine(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("check", TARGETS)
def test_target(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("title", sorted(source_checks("files", Path(), address="nothing")))
def test_files_by_address(title: str, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("time,pump,flow,pressure,temperature,power\n2024-01-01,north,1,2,3,4\n")
    source_checks("files", tmp_path, address=str(path))[title]()


@pytest.mark.parametrize(
    "title",
    [
        "facts are stable",
        "batches have one schema",
        "the same rows twice",
        "a cursor resumes behind its batch",
        "nothing there is a Problem",
        "other content has another fingerprint",
        "memory is bounded on ten times the rows",
    ],
)
def test_files(title: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    source_checks("files", tmp_path_factory.mktemp("source"))[title]()


@pytest.mark.network
def test_package() -> None:
    failed = [result for result in check_source("package") if not result.passed]
    assert failed == []


@pytest.fixture(scope="module", params=names("task"))
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with prepared(request.param) as made:
        yield made


TASK_TITLES = [
    "settings are JSON",
    "the same seed gives the same model",
    "a saved model loads unchanged",
    "samples are as the signature says",
    "predictions are as the signature says",
    "a batch of one equals a batch of many",
    "missing inputs do not break a prediction",
    "every engine decides as the reference",
    "scores have intervals",
    "a model is neither better nor worse than itself",
    "the drift reference is JSON",
    "an explanation adds up",
    "nonsense is no label",
    "another seed is allowed to differ, not to fail",
    "an unknown option is refused",
    "served rows are found again",
    "every word of its own is a label",
    "a lesson changes its row and no other",
    "a label judges an answer",
    "uncertainty is a share",
    "samples that are alike lie together",
    "parameters have defaults that change nothing",
    "hindsight is measured",
    "a changed world is noticed",
]


@pytest.mark.parametrize("title", TASK_TITLES)
def test_task(subject: Subject, title: str) -> None:
    task_checks(subject)[title]()


def test_no_task_check_is_left_out(subject: Subject) -> None:
    assert sorted(task_checks(subject)) == sorted(TASK_TITLES)


def test_a_check_that_does_not_hold_says_so_in_a_sentence() -> None:
    checks = engine_checks("onnxruntime", [{"precision": "float64"}])
    with pytest.raises(Exception, match="precision"):
        checks["offers settings"]()
    assert issubclass(CheckFailed, AssertionError)
