//! Files that are not what they say: each gives an error with the path, none a panic or a large allocation.

use super::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn error(path: &Path) -> String {
    let e = Archive::open(path).expect_err("the file was accepted");
    assert_eq!(e.exit_code(), 7, "{e}");
    assert!(e.to_string().contains(&path.display().to_string()), "{e}");
    e.to_string()
}

fn sample() -> Vec<(String, Tensor)> {
    vec![
        (
            "a.weight".into(),
            Tensor::randn([3, 5], (Kind::Float, Device::Cpu)),
        ),
        ("b".into(), Tensor::arange(7, (Kind::Int64, Device::Cpu))),
        (
            "half".into(),
            Tensor::randn([4], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16),
        ),
    ]
}

#[test]
fn safetensors_that_lie() {
    let d = folder();
    let path = d.path().join("x.safetensors");
    write_safetensors(&path, &items(sample()), &[]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let header = |json: &str, data: usize| {
        let mut b = (json.len() as u64).to_le_bytes().to_vec();
        b.extend(json.as_bytes());
        b.extend(vec![0; data]);
        b
    };
    let one = |shape: &str, to: usize| {
        format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{to}]}}}}"#)
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("cut short", whole[..whole.len() - 4].to_vec()),
        ("empty", Vec::new()),
        ("a header of 2^60 bytes", (1u64 << 60).to_le_bytes().to_vec()),
        ("data past the end", header(&one("[2]", 8), 4)),
        (
            "a shape that overflows",
            header(&one("[4611686018427387904,4611686018427387904]", 8), 8),
        ),
        ("a shape that does not fill its bytes", header(&one("[3]", 8), 8)),
        (
            "a hole",
            header(r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, 2),
        ),
        (
            "a dtype that is unknown",
            header(r#"{"w":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}}"#, 1),
        ),
        ("no JSON", header("{oops", 0)),
        (
            "overlapping tensors",
            header(
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                3,
            ),
        ),
        (
            "one name twice, the same bytes",
            header(
                &format!("{{{0},{0}}}", &one("[2]", 8)[1..one("[2]", 8).len() - 1]),
                8,
            ),
        ),
        ("a NaN for a number", header(&one("[NaN]", 8), 8)),
        ("a negative size", header(&one("[-2]", 8), 8)),
        (
            "checksums for another number of tensors",
            header(
                r#"{"__metadata__":{"crc32":"0000000000000000"},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
            ),
        ),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        println!("{what}: {}", error(&path));
    }
    // A bool's byte is looked at when it is read.
    std::fs::write(
        &path,
        header(r#"{"w":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}"#, 2),
    )
    .unwrap();
    assert!(Archive::open(&path).unwrap().get("w").is_ok());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() = 2;
    std::fs::write(&path, bytes).unwrap();
    assert!(Archive::open(&path)
        .unwrap()
        .get("w")
        .unwrap_err()
        .to_string()
        .contains("neither 0 nor 1"));
}

/// A zip as torch.save makes it around a pickle, with the storages under `data/`.
fn zip_by(path: &Path, method: zip::CompressionMethod, pickle: &[u8], entries: &[(&str, &[u8])]) {
    let mut z = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in [("data.pkl", pickle)].iter().chain(entries) {
        z.start_file(format!("archive/{name}"), options).unwrap();
        z.write_all(bytes).unwrap();
    }
    z.finish().unwrap();
}

fn zip(path: &Path, pickle: &[u8], entries: &[(&str, &[u8])]) {
    zip_by(path, zip::CompressionMethod::Stored, pickle, entries);
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
    zip(&path, &view(8, 1, &[3, 2], &[1, 3]), &[("data/0", &numbers(8))]);
    let w = Archive::open(&path).unwrap().get("w").unwrap();
    assert_eq!(
        Vec::<f32>::try_from(w.flatten(0, 1)).unwrap(),
        [1., 4., 2., 5., 3., 6.]
    );
    // A slice, an expanded mask, nothing at all, a scalar.
    type Case<'a> = (i32, &'a [i32], &'a [i32], Vec<f32>);
    let cases: [Case; 4] = [
        (2, &[2, 2], &[2, 1], vec![2., 3., 4., 5.]),
        (7, &[2, 2], &[0, 0], vec![7.; 4]),
        (8, &[0, 3], &[3, 1], vec![]),
        (5, &[], &[], vec![5.]),
    ];
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        for (offset, shape, strides, expected) in &cases {
            zip_by(
                &path,
                method,
                &view(8, *offset, shape, strides),
                &[("data/0", &numbers(8)), ("byteorder", b"little")],
            );
            let w = Archive::open(&path).unwrap().get("w").unwrap();
            assert_eq!(w.size(), shape.iter().map(|d| i64::from(*d)).collect::<Vec<_>>());
            assert!(w.is_contiguous());
            assert_eq!(&Vec::<f32>::try_from(w.reshape(-1)).unwrap(), expected);
        }
    }
    // Two values, of which a seed of 9 bytes is none that a tensor needs.
    let mut seed = view(8, 0, &[8], &[1]);
    seed.pop();
    seed.extend(b"X\x04\0\0\0seed\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00s.");
    zip(&path, &seed, &[("data/0", &numbers(8))]);
    assert_eq!(Archive::open(&path).unwrap().names().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn a_training_checkpoint_gives_its_model_alone() {
    let d = folder();
    let path = d.path().join("x.pt");
    let inner = view(8, 0, &[8], &[1]);
    for key in ["state_dict", "model_state_dict", "optimizer"] {
        // {key: {"w": …}, "other": {"w": …}}, each inner pickle without its header and its stop.
        let mut pickle = vec![0x80, 2, b'}'];
        for k in [key, "other"] {
            pickle.push(b'X');
            pickle.extend((k.len() as u32).to_le_bytes());
            pickle.extend(k.bytes());
            pickle.extend(&inner[2..inner.len() - 1]);
            pickle.push(b's');
        }
        pickle.push(b'.');
        zip(&path, &pickle, &[("data/0", &numbers(8))]);
        let archive = Archive::open(&path).unwrap();
        let names: Vec<_> = archive.names().collect();
        let expected: &[&str] = if key == "optimizer" {
            &["optimizer.w", "other.w"]
        } else {
            &["w"]
        };
        assert_eq!(names, expected);
    }
}

#[test]
fn torch_save_files_that_lie() {
    let d = folder();
    let path: PathBuf = d.path().join("x.pt");
    let data = numbers(8);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a view outside of its storage",
            view(8, 4, &[5], &[1]),
            "a view inside of 8 elements",
        ),
        (
            "strides outside of the storage",
            view(8, 0, &[2, 2], &[7, 7]),
            "a view inside of 8 elements",
        ),
        (
            "negative strides",
            view(8, 0, &[2], &[-1]),
            "a view inside of 8 elements",
        ),
        ("a negative shape", view(8, 0, &[-2], &[1]), "a shape"),
        (
            "64 TiB of one element",
            view(8, 0, &[1 << 22, 1 << 22], &[0, 0]),
            "of repeated elements",
        ),
        (
            "a storage larger than its bytes",
            view(1 << 30, 0, &[2], &[1]),
            "a storage of 1073741824 elements",
        ),
        (
            "a storage smaller than its bytes",
            view(4, 0, &[2], &[1]),
            "a storage of 4 elements",
        ),
        (
            "shape without strides",
            view(8, 0, &[2, 2], &[1]),
            "a shape and its strides",
        ),
        (
            "elements without number",
            view(8, 0, &[i32::MAX; 9], &[1; 9]),
            "a shape",
        ),
        (
            "a hundred dimensions",
            view(8, 0, &[1; 100], &[1; 100]),
            "100 dimensions",
        ),
        (
            "a call of os.system",
            b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.".to_vec(),
            "the global `os.system`",
        ),
        (
            "builtins.eval by name",
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.".to_vec(),
            "the global `builtins.eval`",
        ),
        (
            "posix.system as a persistent id",
            b"\x80\x02cposix\nsystem\nQ.".to_vec(),
            "the global `posix.system`",
        ),
        ("an end too early", b"\x80\x02}".to_vec(), "the end of the pickle"),
        ("an empty stack", b"\x80\x02s.".to_vec(), "an empty stack"),
        (
            "an unknown operation",
            b"\x80\x02\xff.".to_vec(),
            "pickle operation 0xff",
        ),
    ];
    for (what, pickle, said) in cases {
        zip(&path, &pickle, &[("data/0", &data)]);
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
    // {"k": [d, d]} over and over: 2^60 paths to nothing, and a key that makes them long.
    let mut laughs = b"\x80\x02]".to_vec();
    for i in 0..60u8 {
        laughs.extend([b'q', i, b'0', b']', b'h', i, b'a', b'h', i, b'a']);
    }
    laughs.push(b'.');
    zip(&path, &laughs, &[]);
    assert!(error(&path).contains("more values than its bytes can hold"));
    let mut long = b"\x80\x02}X\x00\x00\x01\x00".to_vec();
    long.extend(vec![b'k'; 1 << 16]);
    long.extend(b"]s.");
    zip(&path, &long, &[]);
    assert!(error(&path).contains("a name longer than"));
    zip(
        &path,
        &view(8, 0, &[8], &[1]),
        &[("data/0", &data), ("byteorder", b"big")],
    );
    assert!(error(&path).contains("expected little, found big"));
    // Zeros that unpack to a thousand times the file.
    let zeros = vec![0; 32 << 20];
    zip_by(
        &path,
        zip::CompressionMethod::Deflated,
        &view(8 << 20, 0, &[1], &[1]),
        &[("data/0", &zeros)],
    );
    assert!(error(&path).contains("64 times the file"));
    zip(&path, &view(8, 0, &[8], &[1]), &[]);
    assert!(error(&path).contains("data/0"));
    let whole = {
        zip(&path, &view(8, 0, &[8], &[1]), &[("data/0", &data)]);
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
        (
            "model.safetensors.index.json",
            r#"{"weight_map": {"w": "gone.safetensors"}}"#,
        ),
        (
            "model.safetensors.index.json",
            r#"{"weight_map": {"w": "/etc/passwd"}}"#,
        ),
    ] {
        let own = d.path().join(format!("{}", text.len()));
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join(index), text).unwrap();
        let e = Archive::open(&own).expect_err("accepted");
        assert!(e.to_string().contains(index), "{e}");
    }
}

/// Reads every tensor, so that checksums are looked at.
fn read_all(path: &Path) -> crate::error::Result<()> {
    let archive = Archive::open(path)?;
    for name in archive.names() {
        let _ = archive.get(name)?;
    }
    Ok(())
}

#[test]
fn a_flipped_bit_is_found_in_what_we_wrote_and_the_tensor_is_named() {
    let d = folder();
    let (safe, torch) = (d.path().join("x.safetensors"), d.path().join("x.pt"));
    write_safetensors(&safe, &items(sample()), &[]).unwrap();
    write_torch(&torch, &Node::tensors(items(sample()))).unwrap();
    for path in [&safe, &torch] {
        read_all(path).unwrap();
        let whole = std::fs::read(path).unwrap();
        let b = Vec::<u8>::try_from(sample()[1].1.view_dtype(Kind::Uint8)).unwrap();
        let at = whole.windows(b.len()).position(|w| w == b).unwrap();
        let mut broken = whole.clone();
        broken[at + 9] ^= 1;
        std::fs::write(path, broken).unwrap();
        let e = read_all(path).unwrap_err().to_string();
        assert!(
            e.contains("b: expected the 56 bytes") && e.contains("CRC-32"),
            "{e}"
        );
        // What is not read is not in the way of what is.
        let _ = Archive::open(path).unwrap().get("a.weight").unwrap();
    }
    // A view of a part: the storage's checksum is over all of it.
    let storage: Vec<u8> = (0..8u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    zip(&torch, &view(8, 2, &[2], &[1]), &[("data/0", &storage)]);
    read_all(&torch).unwrap();
    let mut broken = std::fs::read(&torch).unwrap();
    let at = broken.windows(32).position(|w| w == storage).unwrap();
    broken[at + 31] ^= 1;
    std::fs::write(&torch, broken).unwrap();
    assert!(read_all(&torch).unwrap_err().to_string().contains("CRC-32"));
}

/// Magic number, protocol, system, object, keys, then lengths and bytes: as torch.save's legacy form.
fn legacy(object: &[u8], keys: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut all = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    all.extend(b"\x80\x02M\xe9\x03.");
    all.extend(b"\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u.");
    all.extend(object);
    all.extend(keys);
    all.extend(rest);
    all
}

#[test]
fn legacy_files_that_lie() {
    let d = folder();
    let path = d.path().join("x.pt");
    let keys = b"\x80\x02]X\x01\x00\x00\x000a.";
    let data = |n: i64, bytes: usize| [n.to_le_bytes().to_vec(), vec![0; bytes]].concat();
    let object = view(8, 0, &[8], &[1]);
    std::fs::write(&path, legacy(&object, keys, &data(8, 32))).unwrap();
    read_all(&path).unwrap();
    for (what, bytes, said) in [
        (
            "cut short",
            legacy(&object, keys, &data(8, 31)),
            "the bytes of its storage",
        ),
        (
            "a length that overflows",
            legacy(&object, keys, &data(i64::MAX, 32)),
            "the bytes of its storage",
        ),
        (
            "a negative length",
            legacy(&object, keys, &data(-8, 32)),
            "the bytes of its storage",
        ),
        (
            "another length",
            legacy(&object, keys, &data(7, 28)),
            "a storage of 8 elements",
        ),
        ("no storage", legacy(&object, b"\x80\x02].", &[]), "no storage 0"),
        (
            "an unknown storage",
            legacy(b"\x80\x02}.", keys, &data(8, 32)),
            "that the object names",
        ),
        (
            "a view outside",
            legacy(&view(8, 1, &[8], &[1]), keys, &data(8, 32)),
            "a view inside of 8 elements",
        ),
        ("no keys", legacy(&object, b"\x80\x02}.", &[]), "a list of texts"),
        (
            "a call",
            legacy(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00a\x85R.", keys, &[]),
            "the global `os.system`",
        ),
        (
            "big endian",
            legacy(&object, keys, &data(8, 32))
                .into_iter()
                .map(|b| if b == 0x88 { 0x89 } else { b })
                .collect(),
            "little_endian",
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let e = error(&path);
        assert!(e.contains(said), "{what}: {e}");
    }
}

#[cfg(unix)]
#[test]
fn a_loop_of_links_is_an_error_with_its_path() {
    let d = folder();
    let (a, b) = (d.path().join("a.pt"), d.path().join("b.pt"));
    std::os::unix::fs::symlink(&a, &b).unwrap();
    std::os::unix::fs::symlink(&b, &a).unwrap();
    let e = Archive::open(&a).expect_err("opened");
    assert!(e.to_string().contains("a.pt") && e.exit_code() == 3, "{e}");
    let index = d.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"w": "a.pt"}}"#).unwrap();
    let e = Archive::open(d.path()).expect_err("opened").to_string();
    assert!(e.contains("a.pt") && e.contains("a file beside the index"), "{e}");
}

#[test]
fn an_optimizers_numbers_are_checked() {
    let d = folder();
    let path = d.path().join("checkpoint_0.pt");
    let decayed = |lr: f64, decay: f64, params: Vec<i64>| training::Group {
        lr,
        initial_lr: 1.0,
        settings: [("weight_decay".to_owned(), Plain::Float(decay))]
            .into_iter()
            .collect(),
        params,
        names: None,
    };
    let group = |lr: f64, params: Vec<i64>| decayed(lr, 0.1, params);
    let ones = || Tensor::ones([3], (Kind::Float, Device::Cpu)).into();
    let kept = || training::State {
        steps: 2,
        tensors: ["exp_avg", "exp_avg_sq"].map(|n| (n.to_owned(), ones())).into(),
    };
    let write = |groups: Vec<training::Group>, at: i64| {
        let state = training::Training {
            random: Vec::new(),
            epoch: 0,
            steps: 2,
            groups,
            state: [(at, kept())].into_iter().collect(),
            stage: Some("stage1".into()),
            data: Some("where".into()),
            made_with: None,
        };
        training::write(&path, items(sample()), &state).unwrap();
    };
    let read = || {
        training::read(&open_torch(&path).unwrap()).map(|t| (t.epoch, t.steps, (t.stage, t.data), t.groups))
    };
    write(vec![group(0.5, vec![0]), group(0.5, vec![1])], 1);
    let good = (
        0,
        2,
        (Some("stage1".to_owned()), Some("where".to_owned())),
        vec![group(0.5, vec![0]), group(0.5, vec![1])],
    );
    assert_eq!(read().unwrap(), good);
    for (groups, at, said) in [
        (
            vec![group(f64::NAN, vec![0])],
            0,
            "param_groups.0.lr: expected a finite number, found NaN",
        ),
        (
            vec![group(0.5, vec![1])],
            1,
            "param_groups.0.params: expected numbers in a row from 0",
        ),
        (
            vec![group(0.5, vec![0])],
            7,
            "state.7: expected one of the groups' 1 parameters",
        ),
        (
            vec![decayed(0.5, f64::INFINITY, vec![0])],
            0,
            "param_groups.0.weight_decay: expected a finite number, found inf",
        ),
        (
            Vec::new(),
            0,
            "param_groups: expected the optimizer's parameter groups",
        ),
    ] {
        write(groups, at);
        let e = read().unwrap_err().to_string();
        assert!(e.contains(said) && e.contains("checkpoint_0.pt"), "{e}");
    }
}

/// What trainers save beside the weights: DeepSpeed's sets, the command line as a namespace, paths, dtypes. Protocol 2 and 4.
#[test]
fn plain_values_of_other_trainers_are_read_as_data() {
    let d = folder();
    let path = d.path().join("x.pt");
    let text = |s: &str| -> Vec<u8> {
        let mut o = vec![b'X'];
        o.extend((s.len() as u32).to_le_bytes());
        o.extend(s.bytes());
        o
    };
    let global = |m: &str, n: &str| format!("c{m}\n{n}\n").into_bytes();
    let cases: Vec<(Vec<Vec<u8>>, &str, &str)> = vec![
        (
            vec![global("__builtin__", "set"), b"](K\x01K\x02e\x85R".to_vec()],
            "v",
            "[1, 2]",
        ),
        (vec![global("builtins", "set"), b")R".to_vec()], "v", "[]"),
        (
            vec![global("builtins", "frozenset"), b"](K\x03e\x85R".to_vec()],
            "v",
            "[3]",
        ),
        (vec![b"\x8f(K\x01K\x02\x90".to_vec()], "v", "[1, 2]"),
        (vec![b"(K\x01K\x02\x91".to_vec()], "v", "[1, 2]"),
        (
            vec![
                global("argparse", "Namespace"),
                b")\x81}(".to_vec(),
                text("lr"),
                b"K\x07ub".to_vec(),
            ],
            "v.lr",
            "7",
        ),
        (
            vec![
                global("collections", "defaultdict"),
                global("__builtin__", "list"),
                b"\x85R(".to_vec(),
                text("k"),
                b"K\x07u".to_vec(),
            ],
            "v.k",
            "7",
        ),
        (
            vec![
                global("pathlib", "PosixPath"),
                b"(".to_vec(),
                text("/"),
                text("data"),
                text("run"),
                b"tR".to_vec(),
            ],
            "v",
            "\"/data/run\"",
        ),
    ];
    for (parts, key, value) in cases {
        let mut pickle = vec![0x80, 2, b'}'];
        pickle.extend(text("v"));
        pickle.extend(parts.concat());
        pickle.push(b's');
        pickle.extend(text("w"));
        let tensor = view(8, 0, &[8], &[1]);
        // Of {"w": …} the value alone.
        pickle.extend(&tensor[2 + 1 + 6..tensor.len() - 2]);
        pickle.extend(b"s.");
        zip(&path, &pickle, &[("data/0", &numbers(8))]);
        let file = open_torch(&path).unwrap();
        assert_eq!(file.plain.get(key).map(Plain::to_string).as_deref(), Some(value));
        assert!(file.tensors.info("w").is_some());
    }
    // A dtype says nothing that is kept, and is no reason to refuse the file.
    let mut pickle = vec![0x80, 2, b'}'];
    pickle.extend(text("dtype"));
    pickle.extend(global("torch", "bfloat16"));
    pickle.extend(b"s.");
    zip(&path, &pickle, &[]);
    assert!(open_torch(&path).unwrap().plain.is_empty());
    // Another class is refused, with the way out.
    zip(&path, b"\x80\x02comegaconf.dictconfig\nDictConfig\n)\x81.", &[]);
    let e = error(&path);
    assert!(
        e.contains("omegaconf.dictconfig.DictConfig") && e.contains("weights_only=False"),
        "{e}"
    );
}
