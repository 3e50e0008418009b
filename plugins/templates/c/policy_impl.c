// The container `agent` gets a network of its own; pods that ask for the node's processes are refused.
// policy.h is written by wit-bindgen.
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

typedef exports_husk_plugin_scoping_list_assignment_t answer;
typedef exports_husk_plugin_scoping_denial_t denial;

static bool as_requested(answer *ok) {
  ok->ptr = NULL;
  ok->len = 0;
  return true;
}

bool exports_husk_plugin_scoping_scope_sandbox(answer *ok, denial *err) {
  static const char reason[] = "this pod would see the node's processes: leave out hostPID";
  husk_plugin_pod_list_assignment_t asked;
  husk_plugin_pod_requested_scopes(&asked);
  bool refused = false;
  for (size_t i = 0; i < asked.len; i++)
    refused |= asked.ptr[i].kind == HUSK_PLUGIN_TYPES_NAMESPACE_KIND_PID &&
               asked.ptr[i].scope.tag == HUSK_PLUGIN_TYPES_SCOPE_NODE;
  husk_plugin_pod_list_assignment_free(&asked);
  if (!refused) return as_requested(ok);
  // A refusal; the reason reaches whoever asked for the pod, and the bindings free it.
  policy_string_dup(&err->reason, reason);
  return false;
}

bool exports_husk_plugin_scoping_scope_container(answer *ok, denial *err) {
  (void)err;
  policy_string_t name;
  husk_plugin_container_name(&name);
  bool agent = name.len == 5 && memcmp(name.ptr, "agent", 5) == 0;
  policy_string_free(&name);
  if (!agent) return as_requested(ok);
  // The bindings free what is returned.
  ok->ptr = malloc(sizeof *ok->ptr);
  if (!ok->ptr) abort();
  ok->len = 1;
  ok->ptr[0].kind = HUSK_PLUGIN_TYPES_NAMESPACE_KIND_NETWORK;
  ok->ptr[0].scope.tag = HUSK_PLUGIN_TYPES_SCOPE_CONTAINER;
  return true;
}
