"""The container `agent` gets a network of its own; pods that ask for the node's processes are refused."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import container, pod
from wit_world.imports.types import Assignment, Denial, NamespaceKind, Scope_Container, Scope_Node


class Scoping(exports.Scoping):
    def scope_sandbox(self) -> list[Assignment]:
        for asked in pod.requested_scopes():
            if asked.kind == NamespaceKind.PID and isinstance(asked.scope, Scope_Node):
                # A refusal; the reason reaches whoever asked for the pod.
                raise Err(Denial(f"pod {pod.name()} would see the node's processes: leave out hostPID"))
        return []

    def scope_container(self) -> list[Assignment]:
        if container.name() == "agent":
            return [Assignment(NamespaceKind.NETWORK, Scope_Container())]
        return []
