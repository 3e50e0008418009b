//! See `husk_fuzz::layer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| husk_fuzz::layer(data));
