// The container `agent` gets a network of its own.
import * as container from 'husk:plugin/container@0.1.0';

export const scoping = {
  scopeSandbox: () => [],
  scopeContainer: () =>
    container.name() === 'agent' ? [{ kind: 'network', scope: { tag: 'container' } }] : [],
};
