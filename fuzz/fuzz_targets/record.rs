//! See `husk_fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| husk_fuzz::record(data));
