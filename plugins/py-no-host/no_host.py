"""Refuses pods and containers that ask for a namespace of the node, and says why."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import container, pod
from wit_world.imports.types import Assignment, Denial, NamespaceKind, Scope_Node

# What may not be the node's, and what in a Kubernetes pod asks for it.
REFUSED = {
    NamespaceKind.NETWORK: "hostNetwork",
    NamespaceKind.PID: "hostPID",
    NamespaceKind.IPC: "hostIPC",
}


def refuse(who: str, requested: list[Assignment]) -> list[Assignment]:
    for assignment in requested:
        if isinstance(assignment.scope, Scope_Node) and assignment.kind in REFUSED:
            kind = assignment.kind.name.lower()
            field = REFUSED[assignment.kind]
            raise Err(
                Denial(
                    f"{who} asks for the node's {kind} namespace, "
                    f"which is not allowed here: leave out {field}"
                )
            )
    return []


class Scoping(exports.Scoping):
    def scope_sandbox(self) -> list[Assignment]:
        return refuse(f"pod {pod.name()}", pod.requested_scopes())

    def scope_container(self) -> list[Assignment]:
        return refuse(f"container {container.name()}", container.requested_scopes())
