//! The engine: one per process, for all plugins.
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, WasmFeatures};

use crate::bindings;
use crate::state::{Data, State};

/// How often the epoch moves on while a plugin runs, and so how exact a deadline is.
pub const TICK: Duration = Duration::from_millis(5);

/// The stack of the thread that moves the epoch on: it sleeps and adds one.
const TICKER_STACK: usize = 64 * 1024;

/// Runs plugins. Made once; cheap to share.
#[derive(Clone)]
pub struct Host {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    /// None where the caller moves the epoch on.
    ticker: Option<Arc<Ticker>>,
    /// Whether its code counts fuel, and so is another one.
    pub(crate) counts_fuel: bool,
}

/// Moves the epoch of a host on that has no thread for it.
#[derive(Clone)]
pub struct Clock {
    engine: Engine,
    last: Arc<Mutex<Instant>>,
}

/// Why plugins cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine refused its configuration.
    #[error("preparing the WebAssembly engine: {0:#}")]
    Engine(wasmtime::Error),
    /// The component does not compile.
    #[error("compiling the component: {0:#}")]
    Compile(wasmtime::Error),
    /// No thread for the clock of deadlines.
    #[error("starting the thread that keeps plugins' deadlines: {0}")]
    Ticker(#[source] std::io::Error),
}

/// What both sides must agree on: code compiled with other settings is refused when it is loaded.
///
/// Of WebAssembly there is what compilers of today write without being asked to, and no more. What is
/// not named here is off in wasmtime itself: threads, exceptions, garbage-collected types and
/// asynchronous calls are not compiled in, the rest are proposals that wasmtime leaves off.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        // Deadlines: an endless loop ends.
        .epoch_interruption(true)
        // What a plugin is.
        .wasm_component_model(true)
        // rustc and clang write both for wasm32 since LLVM 20, and cannot do without the first.
        .wasm_multi_value(true)
        .wasm_bulk_memory(true)
        // Python's shared libraries compute where their data goes.
        .wasm_extended_const(true)
        // Needed by wasmtime's own code between a component and one inside it, which reads one memory
        // and writes another one. No module of a plugin may have it: see `admission`.
        .wasm_multi_memory(true)
        // A memory is as large as a plugin may be given with 32 bits, whose bounds cost no checks.
        .wasm_memory64(false)
        // Nothing is tuned by it that a decision needs; it widens what a guest can ask of the host.
        .wasm_tail_call(false)
        // Nobody's compiler uses vectors unless told to, and their relaxed kind is not even the same
        // on every CPU: a decision is a function of what was asked.
        .wasm_simd(false)
        .wasm_relaxed_simd(false)
        // Reference types stay as far as `call_indirect` and tables of functions go; references to
        // objects, and what is built on them, do not.
        .wasm_features(WasmFeatures::REFERENCE_TYPES, true)
        .wasm_features(WasmFeatures::FUNCTION_REFERENCES, false)
        .wasm_gc(false)
        // Pages of one byte would make of a limit in bytes a limit in calls of the host.
        .wasm_custom_page_sizes(false)
        .wasm_stack_switching(false)
        .wasm_wide_arithmetic(false);
    config
}

impl Host {
    /// Makes the engine and what plugins may import.
    ///
    /// # Errors
    /// The engine refuses its configuration, or there is no thread to be had.
    pub fn new() -> Result<Self, HostError> {
        Self::with(&config())?.with_ticker()
    }

    /// The same without a thread that wakes at every call: deadlines pass only while somebody calls
    /// [`Clock::tick`], at least every [`TICK`] while a plugin runs.
    ///
    /// # Errors
    /// The engine refuses its configuration.
    pub fn timed_by_caller() -> Result<(Self, Clock), HostError> {
        let host = Self::with(&config())?;
        let clock = Clock {
            engine: host.engine.clone(),
            last: Arc::new(Mutex::new(Instant::now())),
        };
        Ok((host, clock))
    }

    /// The same, counting fuel: what a call costs, exactly and at every time the same. Its code is
    /// another one than that which is compiled ahead.
    ///
    /// # Errors
    /// See [`Host::new`].
    #[cfg(feature = "compile")]
    pub fn counting_fuel() -> Result<Self, HostError> {
        let host = Self::with(config().consume_fuel(true))?.with_ticker()?;
        Ok(Self {
            counts_fuel: true,
            ..host
        })
    }

    /// Compiles a component for this host alone.
    ///
    /// # Errors
    /// See [`crate::artifact::compile`].
    #[cfg(feature = "compile")]
    pub fn compile(&self, component: &[u8]) -> Result<wasmtime::component::Component, HostError> {
        crate::admission::admit(component)
            .map_err(|problem| HostError::Compile(wasmtime::Error::msg(problem)))?;
        wasmtime::component::Component::new(&self.engine, component).map_err(HostError::Compile)
    }

    /// The machine code of a component for this host, as [`crate::artifact::Cache::store_for`] keeps
    /// it.
    ///
    /// # Errors
    /// See [`crate::artifact::compile`].
    #[cfg(feature = "compile")]
    pub fn precompile(&self, component: &[u8]) -> Result<Vec<u8>, HostError> {
        crate::admission::admit(component)
            .map_err(|problem| HostError::Compile(wasmtime::Error::msg(problem)))?;
        let code = self.engine.precompile_component(component);
        code.map_err(HostError::Compile)
    }

    fn with(config: &Config) -> Result<Self, HostError> {
        let engine = Engine::new(config).map_err(HostError::Engine)?;
        let mut linker = Linker::new(&engine);
        bindings::PluginWithLinks::add_to_linker::<_, Data>(&mut linker, |state| state)
            .map_err(HostError::Engine)?;
        Ok(Self {
            engine,
            linker,
            ticker: None,
            counts_fuel: false,
        })
    }

    fn with_ticker(self) -> Result<Self, HostError> {
        let ticker = Ticker::start(&self.engine).map_err(HostError::Ticker)?;
        Ok(Self {
            ticker: Some(ticker),
            ..self
        })
    }

    /// Keeps the epoch moving until the guard is dropped, unless the caller does.
    pub(crate) fn running(&self) -> Option<Running<'_>> {
        let ticker = self.ticker.as_deref()?;
        ticker.set_running(|running| running.saturating_add(1));
        Some(Running(ticker))
    }

    /// Gives a store more fuel than it can use, where the engine counts fuel; says how much.
    pub(crate) fn fill_fuel(&self, store: &mut wasmtime::Store<State>) -> u64 {
        match store.set_fuel(u64::MAX) {
            Ok(()) => u64::MAX,
            Err(_) => 0,
        }
    }

    /// The number of ticks after which a call of this length is over.
    pub(crate) fn ticks(deadline: Duration) -> u64 {
        let ticks = deadline.as_micros().div_ceil(TICK.as_micros());
        // One more: the first tick may come at once.
        u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Clock {
    /// Moves the epoch on, at most once per [`TICK`], however many callers there are.
    pub fn tick(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= TICK {
            *last = Instant::now();
            self.engine.increment_epoch();
        }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// Moves the epoch on while calls run, and sleeps otherwise.
struct Ticker {
    running: Mutex<usize>,
    changed: Condvar,
}

impl Ticker {
    fn start(engine: &Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self {
            running: Mutex::new(0),
            changed: Condvar::new(),
        });
        let (weak_ticker, weak_engine) = (Arc::downgrade(&ticker), engine.weak());
        std::thread::Builder::new()
            .name("husk-deadline".into())
            .stack_size(TICKER_STACK)
            .spawn(move || {
                while let Some(ticker) = weak_ticker.upgrade() {
                    // Wakes now and then, so that the thread ends with its host.
                    let idle = ticker.wait_until_running();
                    drop(ticker);
                    if idle {
                        continue;
                    }
                    std::thread::sleep(TICK);
                    let Some(engine) = weak_engine.upgrade() else {
                        return;
                    };
                    engine.increment_epoch();
                }
            })?;
        Ok(ticker)
    }

    fn set_running(&self, change: impl FnOnce(usize) -> usize) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = change(*running);
        if *running == 1 {
            self.changed.notify_one();
        }
    }

    /// Waits for a call; true when none came for a while.
    fn wait_until_running(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |running: &mut usize| *running == 0;
        let waited = self
            .changed
            .wait_timeout_while(running, Duration::from_secs(60), idle);
        waited.map_or(true, |(running, _)| *running == 0)
    }
}

/// A call is under way.
pub(crate) struct Running<'a>(&'a Ticker);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set_running(|running| running.saturating_sub(1));
    }
}
