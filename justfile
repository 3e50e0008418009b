# The commands of this repository: `just` lists them.

# Lists the commands.
default:
    @just --list

# From a fresh machine to a running pod.
try:
    examples/try

# The optimized binaries: `just build` what is shipped, `just build quick` in a third of the time.
build profile="release":
    crates/build {{profile}}

# Unit and property tests, the suite, and the suite in the guest; words select tests by name.
test *words:
    tests/run {{words}}

# The same without the guest.
test-host *words:
    tests/run --host {{words}}

# What husk costs beside runc and crun; without words it writes docs/performance.md.
bench *words:
    tests/bench {{words}}

# Archives, a Debian package and an OCI image for those who do not build, in target/dist.
dist profile="release":
    packaging/dist {{profile}}

# Installs, uses and removes the Debian package in a new system.
dist-test:
    HUSK_FRESH_FILES="$(echo target/dist/*.deb)" tests/fresh packaging/try-package

# The plugins, with the tools of C, JavaScript and Python.
plugins:
    plugins/build --all

# Format and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Licences, bans, advisories.
deny:
    cargo deny check

# What a change must pass.
ci:
    .ci/run
