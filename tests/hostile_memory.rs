//! Files that promise more than they hold must not cost more memory than they are worth. Alone in its process: every
//! allocation of Rust is counted.
#![allow(clippy::unwrap_used)]

#[path = "common/counting.rs"]
mod counting;

use af2::checkpoint::{read_bytes, Format};
use counting::{Counting, NOW, PEAK};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

#[global_allocator]
static COUNTING: Counting = Counting;

fn zip(method: zip::CompressionMethod, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    let mut z = zip::ZipWriter::new(&mut out);
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        z.start_file(format!("a/{name}"), options).unwrap();
        z.write_all(bytes).unwrap();
    }
    z.finish().unwrap();
    out.into_inner()
}

/// {"w": eight floats}, of a storage that says `elements`.
fn view(elements: &[u8]) -> Vec<u8> {
    let mut o = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu".to_vec();
    o.extend(elements);
    o.extend(b"tQK\x00(K\x08t(K\x01t\x89ccollections\nOrderedDict\n)RtRs.");
    o
}

#[test]
fn promises_cost_nothing() {
    let stored = |pickle: &[u8]| {
        zip(
            zip::CompressionMethod::Stored,
            &[("data.pkl", pickle), ("data/0", &[0; 32])],
        )
    };
    let safetensors =
        |length: u64, json: &str| [length.to_le_bytes().to_vec(), json.as_bytes().to_vec()].concat();
    let flood = |byte: u8| [b"\x80\x02".to_vec(), vec![byte; 1 << 20], b".".to_vec()].concat();
    let mut legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    legacy.extend(view(b"K\x08"));
    legacy.extend(b"\x80\x02]X\x01\x00\x00\x000a.");
    legacy.extend(i64::MAX.to_le_bytes());
    let whole = |json: &str| safetensors(json.len() as u64, json);
    let bomb = zip(
        zip::CompressionMethod::Deflated,
        &[
            ("data.pkl", &view(b"J\x00\x00\x00\x10")),
            ("data/0", &vec![0; 1 << 30]),
        ],
    );
    let cases: Vec<(&str, Format, Vec<u8>)> = vec![
        (
            "a header of 2^60 bytes",
            Format::Safetensors,
            safetensors(1 << 60, "{}"),
        ),
        (
            "a shape of 2^62 floats",
            Format::Safetensors,
            whole(r#"{"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}"#),
        ),
        (
            "a storage of 2^31 elements",
            Format::Torch,
            stored(&view(b"J\xff\xff\xff\x7f")),
        ),
        (
            "a storage of 2^63 elements",
            Format::Torch,
            stored(&view(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f")),
        ),
        (
            "a text of 4 GiB",
            Format::Torch,
            stored(b"\x80\x02X\xff\xff\xff\xff"),
        ),
        ("a gigabyte of zeros in a megabyte", Format::Torch, bomb),
        ("a legacy storage of 2^63 elements", Format::Torch, legacy),
        ("a million empty tuples", Format::Torch, stored(&flood(b')'))),
        ("a million marks", Format::Torch, stored(&flood(b'('))),
        ("a million nothings", Format::Torch, stored(&flood(b'N'))),
        ("an index of brackets", Format::Index, vec![b'['; 1 << 20]),
    ];
    for (what, format, bytes) in cases {
        PEAK.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
        let before = NOW.load(Ordering::Relaxed);
        let result = read_bytes(format, Path::new("hostile"), &bytes);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        println!("{what}: {} bytes, peak {peak}", bytes.len());
        // PyTorch, too, takes the last of a million values for the file.
        let harmless = ["a million empty tuples", "a million nothings"].contains(&what);
        assert!(result.is_err() || harmless, "{what} was accepted");
        // A pickle's byte becomes a value of 24 bytes in a list that doubles as it grows, and the file is here twice.
        assert!(
            peak <= 160 * bytes.len() + (1 << 20),
            "{what}: {peak} bytes for a file of {}",
            bytes.len()
        );
        assert!(peak < 1 << 28, "{what}: {peak} bytes");
    }
}
