// Refuses pods and containers that ask for a namespace of the node, and says why.
//
// No stdio: it would bring WASI's files into a component that needs none. What a policy returns is
// freed by the bindings, so it is allocated.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

typedef husk_plugin_types_assignment_t assignment;
typedef exports_husk_plugin_scoping_list_assignment_t answer;
typedef exports_husk_plugin_scoping_denial_t denial;

// What may not be the node's, and what in a Kubernetes pod asks for it.
static const struct {
  uint8_t kind;
  const char *name;
  const char *field;
} refused[] = {
    {HUSK_PLUGIN_TYPES_NAMESPACE_KIND_NETWORK, "network", "hostNetwork"},
    {HUSK_PLUGIN_TYPES_NAMESPACE_KIND_PID, "pid", "hostPID"},
    {HUSK_PLUGIN_TYPES_NAMESPACE_KIND_IPC, "ipc", "hostIPC"},
};

// Appends a string to a reason that has room for it.
static void append(policy_string_t *reason, const char *text, size_t length) {
  memcpy(reason->ptr + reason->len, text, length);
  reason->len += length;
}

// "WHAT NAME asks for the node's KIND namespace, which is not allowed here: leave out FIELD"
static void explain(policy_string_t *reason, const char *what, const policy_string_t *name,
                    const char *kind, const char *field) {
  static const char asks[] = " asks for the node's ";
  static const char instead[] = " namespace, which is not allowed here: leave out ";
  reason->len = 0;
  reason->ptr = malloc(strlen(what) + name->len + sizeof asks + strlen(kind) + sizeof instead +
                       strlen(field));
  if (!reason->ptr) abort();
  append(reason, what, strlen(what));
  append(reason, (const char *)name->ptr, name->len);
  append(reason, asks, sizeof asks - 1);
  append(reason, kind, strlen(kind));
  append(reason, instead, sizeof instead - 1);
  append(reason, field, strlen(field));
}

// True when nothing is refused; the answer is then that all stays as requested.
static bool judge(const assignment *requested, size_t count, const char *what,
                  const policy_string_t *name, answer *ok, denial *err) {
  for (size_t i = 0; i < count; i++) {
    if (requested[i].scope.tag != HUSK_PLUGIN_TYPES_SCOPE_NODE) continue;
    for (size_t j = 0; j < sizeof refused / sizeof refused[0]; j++) {
      if (refused[j].kind != requested[i].kind) continue;
      explain(&err->reason, what, name, refused[j].name, refused[j].field);
      return false;
    }
  }
  ok->ptr = NULL;
  ok->len = 0;
  return true;
}

bool exports_husk_plugin_scoping_scope_sandbox(answer *ok, denial *err) {
  husk_plugin_pod_list_assignment_t requested;
  policy_string_t name;
  husk_plugin_pod_requested_scopes(&requested);
  husk_plugin_pod_name(&name);
  bool admitted = judge(requested.ptr, requested.len, "pod ", &name, ok, err);
  policy_string_free(&name);
  husk_plugin_pod_list_assignment_free(&requested);
  return admitted;
}

bool exports_husk_plugin_scoping_scope_container(answer *ok, denial *err) {
  husk_plugin_container_list_assignment_t requested;
  policy_string_t name;
  husk_plugin_container_requested_scopes(&requested);
  husk_plugin_container_name(&name);
  bool admitted = judge(requested.ptr, requested.len, "container ", &name, ok, err);
  policy_string_free(&name);
  husk_plugin_container_list_assignment_free(&requested);
  return admitted;
}
