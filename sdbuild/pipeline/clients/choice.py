"""Which client draws: the one that is asked for, else the Swift package wherever it can."""

from __future__ import annotations

from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.clients.client import Client
from sdbuild.pipeline.clients.diffusers.client import DiffusersClient
from sdbuild.pipeline.clients.swift.client import SwiftClient
from sdbuild.pipeline.clients.swift.refusals import beyond
from sdbuild.pipeline.request import Request


def client_of(bundle: OpenBundle, request: Request) -> Client:
    """The client of a request."""
    name = request.client or ("diffusers" if beyond(bundle, request) else "swift")
    return SwiftClient(bundle, request) if name == "swift" else DiffusersClient(bundle, request)
