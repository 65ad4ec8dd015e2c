#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_transport::fuzz::read_proxy(data));
