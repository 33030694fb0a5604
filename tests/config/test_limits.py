"""`bertjax.config.limits`: a field of a dataclass carries what it may hold."""

from dataclasses import dataclass

from bertjax.config.limits import Limits, limits, value


@dataclass(frozen=True)
class Section:
    size: int = value(3, "how many", least=1, below=9)
    kind: str = value("a", "which", choices=("a", "b"), may_change=True)


def test_a_section_tells_the_limits_of_its_fields():
    assert Section() == Section(size=3, kind="a")
    assert (
        limits(Section)
        == limits(Section())
        == {
            "size": Limits("how many", least=1, below=9),
            "kind": Limits("which", choices=("a", "b"), may_change=True),
        }
    )
