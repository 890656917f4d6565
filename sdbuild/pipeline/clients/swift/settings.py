"""What an app sets: the section `swift_package` of `bundle.json`, and what a request says instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sdbuild.bundle.settings import Configuration, Pipeline, swift_package
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.errors import RequestError
from sdbuild.pipeline.request import DEFAULT_SCHEDULER, SWIFT_SCHEDULERS, Request

_NAMES = {field.alias for field in Configuration.model_fields.values()}


def pipeline_of(bundle: OpenBundle) -> Pipeline:
    """The type of the package that loads a bundle."""
    pipeline: Pipeline = _section(bundle)["pipeline"]
    return pipeline


def configuration_of(bundle: OpenBundle, request: Request) -> Configuration:
    """The package's configuration as an app that follows `bundle.json` sets it, but for what the request sets.

    Raises:
        RequestError: the request asks for a scheduler or a value that the package does not have.
    """
    if request.scheduler not in (DEFAULT_SCHEDULER, *SWIFT_SCHEDULERS):
        raise RequestError(
            f"scheduler={request.scheduler}: the Swift package has {', '.join(SWIFT_SCHEDULERS)}; "
            "client=diffusers draws it"
        )
    settings = {name: value for name, value in _section(bundle)["configuration"].items() if name in _NAMES}
    settings |= request.configuration
    if pipeline_of(bundle) != "StableDiffusion3Pipeline" and request.scheduler != DEFAULT_SCHEDULER:
        settings["schedulerType"] = SWIFT_SCHEDULERS[request.scheduler]
    if request.guidance_scale is not None:
        settings["guidanceScale"] = request.guidance_scale
    try:
        return Configuration.model_validate(settings)
    except ValidationError as error:
        (first, *_) = error.errors()
        where = ".".join(map(str, first["loc"]))
        raise RequestError(f"configuration={where}:{first['input']}: {first['msg']}") from None


def _section(bundle: OpenBundle) -> Mapping[str, Any]:
    """The section, or what it would say of a bundle that was made before there was one."""
    section: Mapping[str, Any] | None = bundle.document.get("swift_package")
    if section is not None:
        return section
    return swift_package(bundle.document, reduce_memory=False).model_dump(by_alias=True)
