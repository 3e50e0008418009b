//! See `husk_fuzz::bootstrap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| husk_fuzz::bootstrap(data));
