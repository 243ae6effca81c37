//! Files that are not what they say: each gives an error with the path, none a panic or a large allocation.

use super::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn error(path: &Path) -> String {
    let e = Archive::open(path).err().expect("the file was accepted");
    assert_eq!(e.exit_code(), 7, "{e}");
    assert!(e.to_string().contains(&path.display().to_string()), "{e}");
    e.to_string()
}

fn sample() -> Vec<(String, Tensor)> {
    vec![
        ("a.weight".into(), Tensor::randn([3, 5], (Kind::Float, Device::Cpu))),
        ("b".into(), Tensor::arange(7, (Kind::Int64, Device::Cpu))),
        ("half".into(), Tensor::randn([4], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16)),
        ("scalar".into(), Tensor::from(2.5f32)),
        ("strided".into(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).tr()),
    ]
}

#[test]
fn what_is_written_comes_back_bit_for_bit_in_chunks_and_whole() {
    let d = folder();
    let tensors = sample();
    write_safetensors(&d.path().join("x.safetensors"), &tensors, &[("format", "pt")]).unwrap();
    write_released(&d.path().join("old"), &tensors, 1).unwrap();
    write_released(&d.path().join("old"), &tensors, 1 << 20).unwrap();
    assert!(!d.path().join("old/chunk_1.safetensors").exists());
    for place in ["x.safetensors", "old"] {
        let archive = Archive::open(&d.path().join(place)).unwrap();
        assert_eq!(archive.names().count(), tensors.len());
        for (name, t) in &tensors {
            let back = archive.get(name).unwrap();
            assert_eq!((back.kind(), back.size()), (t.kind(), t.size()));
            assert!(back == *t, "{name}");
        }
    }
}

#[test]
fn safetensors_that_lie() {
    let d = folder();
    let path = d.path().join("x.safetensors");
    write_safetensors(&path, &sample(), &[]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let header = |json: &str, data: usize| {
        let mut b = (json.len() as u64).to_le_bytes().to_vec();
        b.extend(json.as_bytes());
        b.extend(vec![0; data]);
        b
    };
    let one = |shape: &str, to: usize| format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{to}]}}}}"#);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("cut short", whole[..whole.len() - 4].to_vec()),
        ("empty", Vec::new()),
        ("a header of 2^60 bytes", (1u64 << 60).to_le_bytes().to_vec()),
        ("data past the end", header(&one("[2]", 8), 4)),
        ("a shape that overflows", header(&one("[4611686018427387904,4611686018427387904]", 8), 8)),
        ("a shape that does not fill its bytes", header(&one("[3]", 8), 8)),
        ("no JSON", header("{oops", 0)),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        println!("{what}: {}", error(&path));
    }
}

/// A zip as torch.save makes it around a pickle.
fn zip(path: &Path, pickle: &[u8], storages: &[(&str, &[u8])]) {
    let mut z = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    z.start_file("archive/data.pkl", stored).unwrap();
    z.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        z.start_file(format!("archive/data/{key}"), stored).unwrap();
        z.write_all(bytes).unwrap();
    }
    z.finish().unwrap();
}

/// {"w": a view of storage 0}, as protocol 2.
fn view(elements: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |o: &mut Vec<u8>, i: i32| {
        o.push(b'J');
        o.extend(i.to_le_bytes());
    };
    let text = |o: &mut Vec<u8>, s: &str| {
        o.push(b'X');
        o.extend((s.len() as u32).to_le_bytes());
        o.extend(s.bytes());
    };
    let mut o = vec![0x80, 2, b'}'];
    text(&mut o, "w");
    o.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(&mut o, "storage");
    o.extend(b"ctorch\nFloatStorage\n");
    text(&mut o, "0");
    text(&mut o, "cpu");
    int(&mut o, elements);
    o.extend(b"tQ");
    int(&mut o, offset);
    for list in [shape, strides] {
        o.push(b'(');
        list.iter().for_each(|i| int(&mut o, *i));
        o.push(b't');
    }
    o.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    o
}

fn numbers(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

#[test]
fn a_strided_view_of_a_torch_save_file_is_read_right() {
    let d = folder();
    let path = d.path().join("x.pt");
    zip(&path, &view(8, 1, &[3, 2], &[1, 3]), &[("0", &numbers(8))]);
    let w = Archive::open(&path).unwrap().get("w").unwrap();
    assert_eq!(Vec::<f32>::try_from(w.flatten(0, 1)).unwrap(), [1., 4., 2., 5., 3., 6.]);
}

#[test]
fn torch_save_files_that_lie() {
    let d = folder();
    let path: PathBuf = d.path().join("x.pt");
    let data = numbers(8);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a view outside of its storage", view(8, 4, &[5], &[1]), "a view inside of 8 elements"),
        ("strides outside of the storage", view(8, 0, &[2, 2], &[7, 7]), "a view inside of 8 elements"),
        ("negative strides", view(8, 0, &[2], &[-1]), "a view inside of 8 elements"),
        ("a negative shape", view(8, 0, &[-2], &[1]), "a shape"),
        ("a million copies of one element", view(8, 0, &[1000, 1000], &[0, 0]), "at most 8 elements"),
        ("a storage larger than its bytes", view(1 << 30, 0, &[2], &[1]), "a storage of 1073741824 elements"),
        ("a call of os.system", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.".to_vec(), "the global `os.system`"),
        ("builtins.eval by name", b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.".to_vec(), "the global `builtins.eval`"),
        ("an end too early", b"\x80\x02}".to_vec(), "the end of the pickle"),
        ("an empty stack", b"\x80\x02s.".to_vec(), "an empty stack"),
        ("an unknown operation", b"\x80\x02\xff.".to_vec(), "pickle operation 0xff"),
    ];
    for (what, pickle, said) in cases {
        zip(&path, &pickle, &[("0", &data)]);
        let e = error(&path);
        assert!(e.contains(said), "{what}: {e}");
    }
    // Deep nesting must not end in a stack overflow, neither reading nor dropping.
    let mut deep = vec![0x80, 2];
    deep.extend(vec![b']'; 1_000_000]);
    deep.extend(vec![b'a'; 999_999]);
    deep.push(b'.');
    zip(&path, &deep, &[]);
    assert!(error(&path).contains("nested deeper"));
    zip(&path, &view(8, 0, &[8], &[1]), &[]);
    assert!(error(&path).contains("data/0"));
    let whole = {
        zip(&path, &view(8, 0, &[8], &[1]), &[("0", &data)]);
        std::fs::read(&path).unwrap()
    };
    for cut in [0, 1, 30, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        error(&path);
    }
}

#[test]
fn an_index_leads_to_no_file_that_is_not_beside_it() {
    let d = folder();
    for (index, text) in [
        ("metadata.json", r#"["chunk_0"]"#),
        ("metadata.json", r#"{"../chunk_0": []}"#),
        ("metadata.json", "7"),
        ("model.safetensors.index.json", r#"{"weight_map": {"w": "gone.safetensors"}}"#),
        ("model.safetensors.index.json", r#"{"weight_map": {"w": "/etc/passwd"}}"#),
    ] {
        let own = d.path().join(format!("{}", text.len()));
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join(index), text).unwrap();
        let e = Archive::open(&own).err().expect("accepted");
        assert!(e.to_string().contains(index), "{e}");
    }
}
