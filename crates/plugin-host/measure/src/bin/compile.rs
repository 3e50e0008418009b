//! Compiles components ahead, and says what that takes: `compile CACHE FILE…`.
//!
//! Built apart from `measure`, which must not have a compiler in it:
//!
//! ```sh
//! cargo run --profile quick -p husk-plugin-measure --features compile --bin compile -- /tmp/cache *.wasm
//! ```
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use husk_plugin_host::artifact::{self, Cache};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let cache = Cache::new(arguments.next().ok_or("which cache? compile CACHE FILE…")?);
    let mut out = std::io::stdout().lock();
    for file in arguments {
        let path = Path::new(&file);
        let (component, digest) = artifact::read(path, None)?;
        let started = Instant::now();
        let code = artifact::compile(path, &component)?;
        let took = started.elapsed();
        cache.store(&digest, &code)?;
        let (size, machine_code) = (component.len(), code.len());
        writeln!(
            out,
            "{file}: {size} bytes, compiled {machine_code} bytes in {took:.1?}"
        )?;
    }
    Ok(())
}
