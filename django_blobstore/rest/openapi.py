"""How drf-spectacular learns of our operations; nothing else here imports it, and nothing needs this without it."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from rest_framework.views import APIView

from django_blobstore.rest.components import SCHEMAS, Schema, problem_response
from django_blobstore.rest.contract import (
    ANY_UPLOAD,
    BUCKET,
    DISCOVER,
    OPERATIONS,
    SHOW_UPLOAD,
    Operation,
)

# How the names of operations tell whose objects they are about.
_ROUTES = {"me": "my_", "global": "global_"}
_READ = {"get_object", "get_my_object", "get_global_object", "get_content", "get_signed_object"}


class StoreSchema(AutoSchema):
    """Describes our views by `OPERATIONS`, and what a project adds to them as drf-spectacular does."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> Schema | None:
        view: Any = self.view
        described = OPERATIONS.get((view.described, view.action))
        if described is None:
            operation: Schema | None = super().get_operation(path, path_regex, path_prefix, method, registry)
            return operation
        self.registry, self.path, self.method = registry, path, method.upper()
        _register(registry, described)
        route = next((name for segment, name in _ROUTES.items() if f"/{segment}/" in path), "")
        return described.as_dict(route, [BUCKET] if "{bucket}" in path else [], self.get_auth())


class DescribedView(OpenApiViewExtension):  # type: ignore[no-untyped-call]
    """Gives each of our views the schema above while drf-spectacular looks at it."""

    target_class = "django_blobstore.rest.viewsets.StoreViewSet"
    match_subclasses = True

    def view_replacement(self) -> type[APIView]:
        """Return the view with its own name kept, by which it is described."""
        replaced: type[APIView] = type(
            self.target.__name__, (self.target,), {"schema": StoreSchema(), "described": self.target.__name__}
        )
        return replaced


def add_bodiless_methods(result: Schema, **_: Any) -> Schema:
    """Add HEAD, and tus' OPTIONS, which drf-spectacular leaves out; for its setting ``POSTPROCESSING_HOOKS``."""
    for methods in result["paths"].values():
        for operation in [*methods.values()]:
            _add_beside(operation, methods)
    return result


def _add_beside(operation: Schema, methods: Schema) -> None:
    """Add to `methods` those that come with `operation`."""
    name, security = operation.get("operationId", ""), operation.get("security", [])
    if name in _READ:
        methods["head"] = _head_of(operation)
    elif name == "begin_upload":
        methods["options"] = DISCOVER.as_dict("uploads", [], security)
    elif name == "append_to_upload":
        methods["head"] = SHOW_UPLOAD.as_dict("", [], security)
        methods["options"] = DISCOVER.as_dict("upload", [ANY_UPLOAD], security)


def _head_of(operation: Schema) -> Schema:
    """Return what HEAD answers where GET is `operation`: the same without bytes, and never a part."""
    responses = {
        status: {key: value for key, value in response.items() if key != "content"}
        for status, response in operation["responses"].items()
        if status not in ("206", "302", "416")
    }
    name = operation["operationId"].replace("get_", "head_", 1)
    summary = "Ask what GET would tell, without the bytes"
    return operation | {"operationId": name, "summary": summary, "responses": responses}


def _register(registry: ComponentRegistry, described: Operation) -> None:
    responses = {f"Problem{status}": problem_response(status) for status in described.statuses}
    for kind, components in ((ResolvedComponent.SCHEMA, SCHEMAS), (ResolvedComponent.RESPONSE, responses)):
        for name, schema in components.items():
            component = ResolvedComponent(name=name, type=kind, schema=schema, object=name)  # type: ignore[no-untyped-call]
            registry.register_on_missing(component)
