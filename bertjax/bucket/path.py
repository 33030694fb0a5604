"""A path in a bucket, with the methods that pathlib's paths have, as far as there can be such of objects.

`etils.epath` is told of it, so that Orbax reads and writes its small files the same way as bertjax, with the same
patience and the same errors; the large ones it gives to TensorStore itself.
"""

import fnmatch
import io
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath
from etils.epath import gpath

from bertjax import workers
from bertjax.bucket import objects


@epath.register_path_cls("gs://")
class BucketPath(gpath.PosixGPath):  # type: ignore[misc]  # of a package without types
    """gs://BUCKET/NAME. A directory is there where an object is below it; making one does nothing.

    There is no rename and nothing can be appended to: what needs that raises NotImplementedError.
    """

    def exists(self) -> bool:
        """Whether there is such an object, or one below."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return objects.exists(str(self))

    def is_dir(self) -> bool:
        """Whether there is an object below."""
        return bool(objects.below(str(self)))

    def iterdir(self) -> Iterator["BucketPath"]:
        """What is directly below, sorted."""
        names = dict.fromkeys(name.partition("/")[0] for name in objects.below(str(self)))
        yield from (self / name for name in names if name)

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """What is below with such a name; `*` and `?` stand for parts of a name, not for levels."""
        first, _, rest = pattern.partition("/")
        for path in self.iterdir():
            if fnmatch.fnmatch(path.name, first):
                yield from path.glob(rest) if rest else [path]

    def absolute(self) -> "BucketPath":
        """The same path: there are no others."""
        return self

    def files(self) -> list[str]:
        """Every object below, by its path from here, sorted."""
        return objects.below(str(self))

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing, unless there is something that must not be."""
        if not exist_ok and self.exists():
            raise FileExistsError(str(self))

    def rmdir(self) -> None:
        """Nothing: a directory is gone with its last object."""

    def rmtree(self, missing_ok: bool = False) -> None:
        """Remove every object below."""
        found = objects.below(str(self))
        if not found and not missing_ok:
            raise FileNotFoundError(str(self))
        workers.each(objects.delete, [f"{self}/{name}" for name in found])

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(str(self))
        objects.delete(str(self))

    def open(self, mode: str = "r", *, encoding: str | None = None, **others: Any) -> Any:
        """The object to read, or to write when it is closed."""
        kind = mode.replace("b", "").replace("t", "")
        if kind == "w":
            file: Any = _Written(str(self))
        elif kind == "r":
            content = objects.get(str(self))
            if content is None:
                raise FileNotFoundError(2, "No such object", str(self))
            file = io.BytesIO(content)
        else:
            raise NotImplementedError(f"{self}: mode {mode}: an object is read or written whole")
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

    def _refuse(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError(f"{self}: objects are not renamed or copied")

    rename: Callable[..., Any] = _refuse
    replace: Callable[..., Any] = _refuse
    copy: Callable[..., Any] = _refuse


class _Written(io.BytesIO):
    """What is written is an object once it is closed."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            super().close()
            objects.put(self._url, content)
