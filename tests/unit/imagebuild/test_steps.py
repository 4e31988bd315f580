from contextvars import copy_context
from pathlib import Path

import pytest

from extsloader.imagebuild import steps
from extsloader.imagebuild.steps import Step, digest_tree, name_by, run_steps, whole_file
from extsloader.imagebuild.tree import Kind, Node


def step(output: Path, log: list[str]) -> Step:
    def make(out: Path) -> None:
        log.append(output.name)
        out.write_text("whole")

    return Step(title=f"step {output.name}", output=output, make=make)


def test_a_step_is_done_once_and_told_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log: list[str] = []
    steps = [step(tmp_path / "cache/a.1.tar", log)]

    run_steps(steps)
    run_steps(steps)

    assert log == ["a.1.tar"]
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(" s")
    assert second.endswith("unchanged")


def test_a_build_goes_on_where_it_stopped_and_half_an_output_is_none(tmp_path: Path) -> None:
    log: list[str] = []

    def fail(out: Path) -> None:
        out.write_text("half")
        raise OSError("disk full")

    broken = Step(title="broken", output=tmp_path / "b.1.tar", make=fail)
    with pytest.raises(OSError, match="disk full"):
        run_steps([step(tmp_path / "a.1.tar", log), broken])
    assert not broken.output.exists()

    run_steps([step(tmp_path / "a.1.tar", log), step(tmp_path / "b.1.tar", log)])
    assert log == ["a.1.tar", "b.1.tar"]
    assert broken.output.read_text() == "whole"


def test_an_output_replaces_older_ones_of_its_own_name_only(tmp_path: Path) -> None:
    for name in ("a.old.tar", "a-b.old.tar", "a.old.img"):
        (tmp_path / name).write_text("")

    run_steps([step(tmp_path / "a.new.tar", [])])

    assert {path.name for path in tmp_path.iterdir()} == {"a.new.tar", "a-b.old.tar", "a.old.img"}


def test_names_depend_on_every_input() -> None:
    assert name_by("a", [1]) == name_by("a", [1])
    assert len({name_by("a", [1]), name_by("a", [2]), name_by("b", [1]), name_by("a", 1)}) == 4


def test_the_digest_of_a_tree_depends_on_content_mode_and_path() -> None:
    node = Node(kind=Kind.FILE, content=b"x")
    trees = [
        {"a": node},
        {"b": node},
        {"a": Node(kind=Kind.FILE, content=b"y")},
        {"a": Node(kind=Kind.FILE, content=b"x", mode=0o644)},
        {},
    ]
    assert len({digest_tree(tree) for tree in trees}) == len(trees)


def test_a_file_that_was_not_finished_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.yml"
    with whole_file(path) as unfinished:
        unfinished.write_text("old")

    with pytest.raises(UnicodeEncodeError), whole_file(path) as unfinished:
        unfinished.write_text("half\ud800")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_watches_sees_how_long_a_step_has_been_running(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_TICK", 0.001)
    watching = copy_context()
    watching.run(steps.PROGRESS.set, True)

    def work() -> None:
        with steps.timed("slow"):
            while "..." not in (shown := capsys.readouterr().out):
                pass
            assert shown.startswith("slow")

    watching.run(work)
    assert capsys.readouterr().out.endswith(" s\n")
