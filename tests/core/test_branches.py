"""Which part of a run that went back is alive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.branches import items_on_branch, snapshot_events_on_branch
from holdfast.core.records import Branch


class Walk:
    """A run that goes on or back, told by hand: ``path`` is what it stands on."""

    def __init__(self) -> None:
        self.taken: list[tuple[Branch, int]] = [(Branch(), 0)]
        self.path = list(self.taken)
        self.branch = Branch()

    def step(self) -> None:
        self.path.append((self.branch, self.path[-1][1] + 1))
        self.taken.append(self.path[-1])

    def back(self, place: int) -> None:
        del self.path[place + 1 :]
        parent, step = self.path[-1]
        self.branch = Branch(self.branch.number + 1, parent.number, step)


def walked(moves: list[int]) -> Walk:
    """0 goes on, n goes back by n looks, or to the first."""
    walk = Walk()
    for move in moves:
        if move:
            walk.back(max(0, len(walk.path) - 1 - move))
        else:
            walk.step()
    return walk


MOVES = st.lists(st.one_of(st.just(0), st.just(0), st.integers(1, 4)), max_size=30)


@given(MOVES)
def test_what_is_alive_is_the_path_that_the_run_stands_on(moves: list[int]) -> None:
    walk = walked(moves)
    assert items_on_branch(walk.taken, walk.branch, lambda look: look) == walk.path


@given(MOVES)
def test_the_lines_of_a_journal_tell_it_too(moves: list[int]) -> None:
    walk, lines = Walk(), [{"event": "snapshot", "step": 0}]
    for move in moves:
        if move:
            walk.back(max(0, len(walk.path) - 1 - move))
            lines.append({"event": "action", "step": 0, "branch": _line(walk.branch)})
        else:
            walk.step()
            named = {"branch": _line(walk.branch)} if walk.branch.number else {}
            lines.append({"event": "snapshot", "step": walk.path[-1][1], **named})
    assert [line["step"] for line in snapshot_events_on_branch(lines)] == [
        step for _, step in walk.path
    ]


def test_a_file_that_names_its_own_child_as_parent_ends() -> None:
    loop = [(Branch(1, 2, 0), 1), (Branch(2, 1, 0), 2)]
    assert items_on_branch(loop, Branch(1, 2, 0), lambda look: look) == [loop[0]]


def _line(branch: Branch) -> dict[str, int | None]:
    return {"number": branch.number, "parent": branch.parent, "from_step": branch.from_step}
