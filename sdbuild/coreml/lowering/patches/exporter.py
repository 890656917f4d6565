"""Store constants in another way than coremltools' exporter of ML Programs does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.known_source import known


@contextmanager
def _made(store: Callable[[Any], tuple[str, int]], check: Callable[[Any], None]) -> Iterator[type]:
    """Coremltools' exporter as a class.

    Args:
        store: writes a large constant; returns the file's name in a package and where in it the constant begins.
        check: is shown every constant that stands in the program itself.
    """
    from coremltools.converters.mil.backend.mil import load as backend

    class Exporter(backend.MILProtoExporter):  # type: ignore[misc]
        def create_file_value(self, var: Any) -> Any:
            value = self.weight_id_to_file_value.get(var.name)
            if value is None:
                name, offset = store(var)
                value = self.weight_id_to_file_value[var.name] = backend.create_file_value_tensor(
                    file_name=name,
                    offset=offset,
                    dim=var.val.shape,
                    data_type=backend.types_to_proto_primitive(var.sym_type.get_primitive()),
                )
            return value

        def get_milproto_value(self, var: Any) -> Any:
            check(var)
            return super().get_milproto_value(var)

    yield Exporter


PATCH = Patch(
    name="weights written by ourselves",
    why="coremltools writes them from memory, by a library that exists on a Mac and for some Linux only",
    without="the weights could not be written",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=(
        *known(
            "coremltools.converters.mil.backend.mil.load",
            {
                "MILProtoExporter.create_file_value": ("02287a36f40d6fe1",),
                "MILProtoExporter.get_milproto_value": ("febeff9f9a1dbabb",),
            },
        ),
        *known(
            "coremltools.converters.mil.backend.mil.helper",
            {
                "create_file_value_tensor": ("0abc6763f7dda622",),
                "types_to_proto_primitive": ("bb7a9d859390e007",),
            },
        ),
    ),
    made=_made,
    required=True,
)
