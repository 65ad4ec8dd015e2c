#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_ssh_client::fuzz::packets(data));
