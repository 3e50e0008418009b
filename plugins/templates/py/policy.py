"""The container `agent` gets a network of its own."""

from wit_world import exports
from wit_world.imports import container
from wit_world.imports.types import Assignment, NamespaceKind, Scope_Container


class Scoping(exports.Scoping):
    def scope_sandbox(self) -> list[Assignment]:
        return []

    def scope_container(self) -> list[Assignment]:
        if container.name() == "agent":
            return [Assignment(NamespaceKind.NETWORK, Scope_Container())]
        return []
