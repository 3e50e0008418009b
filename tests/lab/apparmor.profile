# A profile for the tests of AppArmor, in a guest: all but what is secret.
profile husk-lab flags=(attach_disconnected, mediate_deleted) {
  file,
  capability,
  network,
  mount,
  umount,
  signal,
  ptrace,
  unix,
  deny /srv/secret/** rwklx,
}
