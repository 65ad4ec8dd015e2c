#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_relay_fuzz::fuzz::audit(data));
