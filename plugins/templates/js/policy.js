// The container `agent` gets a network of its own; pods that ask for the node's processes are refused.
import * as pod from 'husk:plugin/pod@0.1.1';
import * as container from 'husk:plugin/container@0.1.1';

export const scoping = {
  scopeSandbox: () => {
    if (pod.requestedScopes().some(({ kind, scope }) => kind === 'pid' && scope.tag === 'node')) {
      // A refusal; the reason reaches whoever asked for the pod.
      throw { reason: `pod ${pod.name()} would see the node's processes: leave out hostPID` };
    }
    return [];
  },
  scopeContainer: () =>
    container.name() === 'agent' ? [{ kind: 'network', scope: { tag: 'container' } }] : [],
};
