//! torch.save's files: zip and legacy, pickle, views, the optimizer's state.
#![no_main]

use af2::checkpoint::{read_bytes, Format};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let _ = read_bytes(Format::Torch, Path::new("fuzzed"), bytes);
});
