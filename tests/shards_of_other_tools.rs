//! Tar shards as other tools write them: WebDataset's names, Macs' leftovers, long names, joined and packed files.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::data::manifest::Manifest;
use common::{af2, wav};
use serde_json::Value;
use std::path::PathBuf;
use tar::EntryType;

const JSON: &[u8] = br#"{"prompt": "What?", "output": "a tone"}"#;

struct Folder {
    folder: tempfile::TempDir,
    sound: Vec<u8>,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        wav(&path, 800);
        let sound = std::fs::read(&path).unwrap();
        Folder { folder, sound }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Members by their names; a sound has no bytes here.
    fn tar(&self, members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let bytes = if bytes.is_empty() { &self.sound } else { *bytes };
            raw(&mut tar, EntryType::Regular, name, bytes);
        }
        tar.into_inner().unwrap()
    }

    fn open(&self, bytes: &[u8]) -> af2::Result<Manifest> {
        let path = self.path("0.tar");
        std::fs::write(&path, bytes).unwrap();
        Manifest::open(&path)
    }

    fn refused(&self, bytes: &[u8]) -> String {
        match self.open(bytes) {
            Ok(m) => panic!("{} items", m.len()),
            Err(e) => e.to_string(),
        }
    }
}

fn add(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// A header with the name as it is, which tar's own writer would change.
fn raw(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(bytes.len() as u64);
    header.set_entry_type(kind);
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}

fn keys(manifest: &Manifest) -> Vec<String> {
    (0..manifest.len()).map(|i| manifest.key(i)).collect()
}

type Members<'a> = &'a [(&'a str, &'a [u8])];
/// Members, and key and answer of each sample.
type Case<'a> = (Members<'a>, &'a [(&'a str, &'a str)]);

#[test]
fn names_end_at_their_first_dot_and_the_plain_one_counts() {
    let d = Folder::new();
    let about = br#"{"prompt": "wrong", "output": "wrong"}"#;
    let other = br#"{"prompt": "What?", "output": "two tones"}"#;
    let cases: &[Case] = &[
        (
            &[("x.wav", b""), ("x.json", JSON), ("x.meta.json", about)],
            &[("x", "a tone")],
        ),
        (
            &[("x.meta.json", about), ("x.json", JSON), ("x.wav", b"")],
            &[("x", "a tone")],
        ),
        (
            &[("x.json", JSON), ("x.mono.wav", b"no sound"), ("x.wav", b"")],
            &[("x", "a tone")],
        ),
        (
            &[("x.caption.txt", b"a tone"), ("x.flac", b"")],
            &[("x", "a tone")],
        ),
        (
            &[("x.meta.json", about), ("x.txt", b"a tone"), ("x.wav", b"")],
            &[("x", "a tone")],
        ),
        (&[("a.b.wav", b""), ("a.b.json", JSON)], &[("a", "a tone")]),
        (
            &[
                ("a.1.json", JSON),
                ("a.1.wav", b""),
                ("a.2.json", other),
                ("a.2.wav", b""),
            ],
            &[("a.1", "a tone"), ("a.2", "two tones")],
        ),
        (&[("./a.wav", b""), ("./a.json", JSON)], &[("./a", "a tone")]),
        (
            &[("d.v1/a.WAV", b""), ("d.v1/a.JSON", JSON)],
            &[("d.v1/a", "a tone")],
        ),
        (
            &[
                ("__MACOSX/._a.wav", b"left"),
                (".DS_Store", b"left"),
                ("._a.json", b"left"),
                ("a.wav", b""),
                ("a.json", JSON),
                ("README", b"left"),
                ("__key__", b"left"),
                ("a.cls", b"7"),
            ],
            &[("a", "a tone")],
        ),
        (
            &[("a.wav", b""), ("a.txt", "\u{feff}größe \r\n".as_bytes())],
            &[("a", "größe")],
        ),
    ];
    for (members, samples) in cases {
        let m = d
            .open(&d.tar(members))
            .unwrap_or_else(|e| panic!("{members:?}: {e}"));
        let items = m.items().unwrap();
        let keys = keys(&m);
        let found: Vec<(&str, &str)> = keys
            .iter()
            .zip(&items)
            .map(|(key, item)| (key.as_str(), item.output.as_str()))
            .collect();
        assert_eq!(found, *samples, "{members:?}");
        for item in &items {
            let place = &item.sound.as_ref().unwrap().place;
            let bytes = std::fs::read(&place.file).unwrap();
            assert_eq!(bytes[place.at as usize..][..place.len as usize], d.sound);
        }
    }
}

#[test]
fn what_would_be_lost_or_taken_for_another_is_named() {
    let d = Folder::new();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let cases: &[(Members, &str)] = &[
        (
            &[("x.wav", b""), ("x.json", JSON), ("x.json", JSON)],
            "x.json: expected each member once",
        ),
        (
            &[("x.wav", b""), ("x.wav", b""), ("x.json", JSON)],
            "x.wav: expected each member once",
        ),
        (
            &[("x.a.txt", b"a"), ("x.b.txt", b"b"), ("x.wav", b"")],
            "found x.a.txt and x.b.txt",
        ),
        (
            &[("a.1.wav", b""), ("a.2.wav", b""), ("a.json", JSON)],
            "a.1: expected a .json or .txt beside the sound",
        ),
        (
            &[("a.wav", b""), ("b.wav", b""), ("a.json", JSON), ("b.json", JSON)],
            "tar --sort=name",
        ),
        (
            &[("a.wav", pointer), ("a.json", JSON)],
            "a.wav: expected the file itself, found a git-lfs pointer to a file of 12345 bytes",
        ),
        (
            &[("a.wav", b""), ("a.json", pointer)],
            "a.json: expected the file itself, found a git-lfs pointer",
        ),
        (
            &[("a.wav", b""), ("a.txt", b"gr\xf6\xdfe")],
            "a.txt: expected text in UTF-8, found the byte 0xf6",
        ),
        (
            &[("a.wav", b""), ("a.json", br#"{"text": "a \ud83d"}"#)],
            r"a.json.output: expected whole characters, found half a character, \ud83d",
        ),
        (
            &[("a.wav", b""), ("a.json", br#"{"text": NaN}"#)],
            "a.json.output: expected a string, found NaN",
        ),
        (
            &[("a.wav", b""), ("a.json", br#"{"text": "a", "text": "b"}"#)],
            "a.json.text: expected each field once",
        ),
    ];
    for (members, words) in cases {
        let said = d.refused(&d.tar(members));
        assert!(
            said.contains(words) && said.contains("0.tar"),
            "{said}\ninstead of {words}"
        );
    }
}

#[test]
fn long_names_headers_about_members_and_odd_members() {
    let d = Folder::new();
    let long = format!("{}/clip", "folder".repeat(30));
    let mut gnu = tar::Builder::new(Vec::new());
    add(&mut gnu, EntryType::Regular, &format!("{long}.wav"), &d.sound);
    add(&mut gnu, EntryType::Regular, &format!("{long}.json"), JSON);
    let mut pax = tar::Builder::new(Vec::new());
    raw(
        &mut pax,
        EntryType::XGlobalHeader,
        "pax_global_header",
        b"19 comment=abcdefg\n",
    );
    for (end, bytes) in [("wav", d.sound.as_slice()), ("json", JSON)] {
        // A value with a line end in it, as Macs write.
        let record = |key: &str, value: &str| {
            let rest = format!(" {key}={value}\n");
            let digits = (rest.len() + 3).to_string().len();
            format!("{}{rest}", rest.len() + digits)
        };
        let words = record("LIBARCHIVE.xattr.a", "b\nc") + &record("path", &format!("{long}.{end}"));
        raw(&mut pax, EntryType::XHeader, "PaxHeaders/x", words.as_bytes());
        raw(&mut pax, EntryType::Regular, &format!("short.{end}"), bytes);
    }
    let mut folders = tar::Builder::new(Vec::new());
    raw(&mut folders, EntryType::Directory, "folder.d/", b"");
    raw(&mut folders, EntryType::Regular, "old.folder/", b"");
    add(&mut folders, EntryType::Regular, "clip.wav", &d.sound);
    add(&mut folders, EntryType::Regular, "clip.json", JSON);
    for (bytes, key) in [(gnu, long.as_str()), (pax, &long), (folders, "clip")] {
        let m = d.open(&bytes.into_inner().unwrap()).unwrap();
        assert_eq!(keys(&m), [key]);
        assert_eq!(m.item(0).unwrap().output, "a tone");
    }
    let mut sparse = tar::Builder::new(Vec::new());
    raw(
        &mut sparse,
        EntryType::XHeader,
        "PaxHeaders/x",
        b"22 GNU.sparse.major=1\n",
    );
    raw(&mut sparse, EntryType::Regular, "a.wav", &d.sound);
    let said = d.refused(&sparse.into_inner().unwrap());
    assert!(said.contains("found a sparse one"), "{said}");
    let mut link = tar::Builder::new(Vec::new());
    raw(&mut link, EntryType::Link, "a.wav", b"");
    let said = d.refused(&link.into_inner().unwrap());
    assert!(
        said.contains("a.wav: expected a regular file, found \"Link\""),
        "{said}"
    );
    // A name that would cost a gigabyte, in a file that is mostly a hole.
    let mut bomb = tar::Builder::new(Vec::new());
    raw(&mut bomb, EntryType::GNULongName, "././@LongLink", b"");
    let mut bytes = bomb.into_inner().unwrap();
    let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
    header.set_size(1 << 33);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    std::fs::write(d.path("0.tar"), &bytes).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(d.path("0.tar"))
        .unwrap();
    file.set_len(1 << 34).unwrap();
    let said = Manifest::open(&d.path("0.tar")).unwrap_err().to_string();
    assert!(
        said.contains("expected at most 1048576 bytes about a member"),
        "{said}"
    );
}

#[test]
fn joined_and_packed_shards_are_named() {
    let d = Folder::new();
    let one = d.tar(&[("a.wav", b""), ("a.json", JSON)]);
    let two = d.tar(&[("b.wav", b""), ("b.json", JSON)]);
    assert_eq!(
        d.open(&[one.clone(), vec![0; 1 << 16]].concat()).unwrap().len(),
        1
    );
    let said = d.refused(&[one.clone(), two].concat());
    assert!(
        said.contains("more behind it") && said.contains("--concatenate"),
        "{said}"
    );
    let said = d.refused(b"\x1f\x8b\x08\0packed");
    assert!(
        said.contains("expected a tar shard, found gzip") && said.contains("gunzip"),
        "{said}"
    );

    let folder = d.path("shards");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("0.tar"), &one).unwrap();
    std::fs::write(folder.join("._0.tar"), "what a Mac leaves").unwrap();
    assert_eq!(Manifest::open(&folder).unwrap().len(), 1);
    for name in ["1.tar.gz", "1.TGZ", "1.tar.zst"] {
        std::fs::write(folder.join(name), "packed").unwrap();
        let said = Manifest::open(&folder).unwrap_err().to_string();
        assert!(said.contains(name) && said.contains("packed once more"), "{said}");
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    // A shard by any other name.
    std::fs::write(d.path("shard.data"), &one).unwrap();
    assert_eq!(Manifest::open(&d.path("shard.data")).unwrap().len(), 1);
}

/// The program runs with fewer descriptors than there are shards.
#[cfg(target_os = "linux")]
#[test]
fn more_shards_than_may_be_open() {
    let d = Folder::new();
    let folder = d.path("shards");
    std::fs::create_dir(&folder).unwrap();
    let shards = 150;
    for i in 0..shards {
        let text = format!(r#"{{"prompt": "What is {i}?", "output": "a tone"}}"#);
        let bytes = d.tar(&[("a.wav", b""), ("a.json", text.as_bytes())]);
        std::fs::write(folder.join(format!("{i:04}.tar")), bytes).unwrap();
    }
    let limited = |descriptors: usize| {
        let out = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!(
                "ulimit -n {descriptors}; exec \"$0\" data check --no-hash --json \"$1\""
            ))
            .arg(assert_cmd::cargo::cargo_bin("af2"))
            .arg(&folder)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let (code, out, err) = limited(48);
    assert_eq!(code, Some(0), "{out}{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["manifests"][0]["items"], shards);
    assert_eq!(found["counts"], serde_json::json!({}));
    // One file that does not open for want of descriptors is not called damaged.
    let (_, out, _) = limited(4);
    if !out.is_empty() {
        assert!(
            !out.contains("damaged") && !out.contains("a whole tar file"),
            "{out}"
        );
    }
}

#[test]
fn a_sound_in_a_shard_is_checked_like_any_other() {
    let d = Folder::new();
    let path = d.path("0.tar");
    std::fs::write(&path, d.tar(&[("a.wav", b"RIFF but no sound"), ("a.json", JSON)])).unwrap();
    let (code, out, _) = af2(&["data", "check", "--json", path.to_str().unwrap()]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &found["counts"]["unreadable_audio"]),
        (6, &Value::from(1)),
        "{out}"
    );
}

/// A doctor that knows sounds by their names alone would look at the first shard's only.
#[test]
fn sounds_of_one_name_in_several_shards_are_several() {
    let d = Folder::new();
    let folder = d.path("shards");
    std::fs::create_dir(&folder).unwrap();
    let path = d.path("other.wav");
    wav(&path, 900);
    let other = std::fs::read(&path).unwrap();
    for (i, sound) in [&d.sound[..], &other, b"RIFF but no sound", &d.sound]
        .iter()
        .enumerate()
    {
        std::fs::write(
            folder.join(format!("{i}.tar")),
            d.tar(&[("a.wav", sound), ("a.json", JSON)]),
        )
        .unwrap();
    }
    let (code, out, _) = af2(&["data", "check", "--json", folder.to_str().unwrap()]);
    let found: Value = serde_json::from_str(&out).unwrap();
    let expected = serde_json::json!({"unreadable_audio": 1, "duplicate_audio": 1});
    assert_eq!((code, &found["counts"]), (6, &expected), "{out}");
    assert_eq!(found["manifests"][0]["files"], 4);
    let what = found["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains("2.tar/a.wav"), "{what}");
}
