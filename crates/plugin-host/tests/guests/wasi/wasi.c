// A policy that uses what WASI would give it, for the tests: its refusal says what it got.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "policy.h"

typedef exports_husk_plugin_scoping_list_assignment_t answer;
typedef exports_husk_plugin_scoping_denial_t denial;

// Asks the clock, the source of randomness, the environment and the files.
bool exports_husk_plugin_scoping_scope_sandbox(answer *ok, denial *err) {
  (void)ok;
  struct timespec now = {0, 0};
  clock_gettime(CLOCK_REALTIME, &now);
  unsigned char random[4] = {0};
  getentropy(random, sizeof random);
  FILE *file = fopen("/etc/passwd", "r");
  char reason[128];
  snprintf(reason, sizeof reason, "second %lld, random %02x%02x%02x%02x, PATH %s, file %s",
           (long long)now.tv_sec, random[0], random[1], random[2], random[3],
           getenv("PATH") ? "set" : "unset", file ? "open" : "closed");
  policy_string_dup(&err->reason, reason);
  return false;
}

// Prints.
bool exports_husk_plugin_scoping_scope_container(answer *ok, denial *err) {
  (void)err;
  printf("hello\n");
  fflush(stdout);
  ok->ptr = NULL;
  ok->len = 0;
  return true;
}
