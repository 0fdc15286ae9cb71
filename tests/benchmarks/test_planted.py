"""The faults that are planted can be: what each replaces stands in its file, once."""

from pathlib import Path

import holdfast

SOURCE = Path(holdfast.__file__).parents[1]


def test_every_fault_finds_the_line_that_it_replaces() -> None:
    from planted_faults import faults

    assert [fault.name for fault in faults() if not fault.found(SOURCE)] == []


def test_every_fault_names_tests_that_are_there() -> None:
    from planted_faults import faults

    root = Path(__file__).parents[2]
    named = {test.split("::")[0] for fault in faults() for test in fault.tests}
    assert sorted(name for name in named if not (root / name).is_file()) == []
