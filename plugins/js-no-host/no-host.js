// Refuses pods and containers that ask for a namespace of the node, and says why.
import * as pod from 'husk:plugin/pod@0.1.1';
import * as container from 'husk:plugin/container@0.1.1';

// What may not be the node's, and what in a Kubernetes pod asks for it.
const refused = { network: 'hostNetwork', pid: 'hostPID', ipc: 'hostIPC' };

function refuse(who, requested) {
  for (const { kind, scope } of requested) {
    if (scope.tag === 'node' && kind in refused) {
      throw {
        reason: `${who} asks for the node's ${kind} namespace, which is not allowed here: `
          + `leave out ${refused[kind]}`,
      };
    }
  }
  return [];
}

export const scoping = {
  scopeSandbox: () => refuse(`pod ${pod.name()}`, pod.requestedScopes()),
  scopeContainer: () => refuse(`container ${container.name()}`, container.requestedScopes()),
};
