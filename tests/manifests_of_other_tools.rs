//! Manifests as other tools write them: what can be read is read and loses nothing, what cannot is called by its name.
#![allow(clippy::panic, clippy::unwrap_used)]

use af2::data::manifest::Manifest;
use af2::shapes::Seconds;
use std::path::PathBuf;

const ITEM: &str = r#"{"name": "a.wav", "prompt": "What is heard?", "output": "a tone", "duration": 3.0}"#;

/// The reference's form around items, which are written as they are.
fn around(data: &str, items: usize) -> String {
    format!(
        r#"{{"split": "train", "split_path": "wavs", "flamingo_task": "own-AQA", "total_num": {items}, "data": {data}}}"#
    )
}

fn of(items: &[&str]) -> String {
    let data: Vec<String> = (0..items.len())
        .map(|i| format!("\"{i}\": {}", items[i]))
        .collect();
    around(&format!("{{{}}}", data.join(", ")), items.len())
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(unit).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn open(&self, name: &str, bytes: impl AsRef<[u8]>) -> af2::Result<Manifest> {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Manifest::open(&path)
    }

    /// Fails to open it, and gives the words.
    fn refused(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        match self.open(name, bytes) {
            Ok(m) => panic!("{name} has {} items", m.len()),
            Err(e) => {
                let said = e.to_string();
                assert!(said.contains(name), "{said}");
                said
            }
        }
    }
}

/// Prompt, answer and duration of all items.
fn said(manifest: &Manifest) -> Vec<(String, String, Option<Seconds>)> {
    let items = manifest.items().unwrap().into_iter();
    items.map(|i| (i.prompt, i.output, i.duration)).collect()
}

#[test]
fn a_byte_order_mark_utf_16_and_windows_line_ends_change_nothing() {
    let d = Folder::new();
    let text = of(&[ITEM, &ITEM.replace("a tone", "größe 𝄞 音")]);
    let lines = format!("{ITEM}\n{}\n", ITEM.replace("a tone", "größe 𝄞 音"));
    let expected = said(&d.open("plain.json", &text).unwrap());
    assert_eq!(expected.len(), 2);
    for (name, text) in [("m.json", &text), ("m.jsonl", &lines), ("lines.json", &lines)] {
        for bytes in [
            format!("\u{feff}{text}").into_bytes(),
            text.replace('\n', "\r\n").replace(", ", ",\r\n ").into_bytes(),
            utf16(text, u16::to_le_bytes),
            utf16(text, u16::to_be_bytes),
        ] {
            if name != "m.json" && bytes.windows(2).any(|w| w == b",\r") {
                continue;
            }
            let m = d.open(name, &bytes).unwrap();
            assert_eq!(said(&m), expected, "{name}");
            assert_eq!((m.key(0), m.key(1)), ("0".into(), "1".into()));
        }
    }
    let joined = d
        .open(
            "m.jsonl",
            format!("\u{feff}{ITEM}\r\n\u{feff}\r\n\u{feff}{ITEM}\r\n"),
        )
        .unwrap();
    assert_eq!((joined.len(), joined.key(1)), (2, "2".into()));
    assert_eq!(said(&joined)[1], expected[0]);
    for (name, bytes, found) in [
        (
            "m.json",
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            "UTF-16 without a byte order mark",
        ),
        (
            "m.jsonl",
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            "UTF-16 without a byte order mark",
        ),
        (
            "m.json",
            [b"\xff\xfe\0\0".to_vec(), vec![b'{', 0, 0, 0]].concat(),
            "UTF-32",
        ),
        (
            "m.json",
            text.replace("heard", "h\u{e9}ard")
                .chars()
                .map(|c| c as u32 as u8)
                .collect::<Vec<u8>>(),
            "0xe9 in line 1",
        ),
        (
            "m.jsonl",
            lines
                .replace("heard", "h\u{e9}ard")
                .chars()
                .map(|c| c as u32 as u8)
                .collect(),
            "line 1",
        ),
    ] {
        let said = d.refused(name, bytes);
        assert!(said.contains(found), "{said}");
    }
}

#[test]
fn pythons_nan_is_nothing_where_that_may_be_and_named_elsewhere() {
    let d = Folder::new();
    let with = |from: &str, to: &str| ITEM.replace(from, to);
    let none = with("3.0", "NaN, \"x\": [-Infinity, {\"y\": NaN}], \"chance\": NaN");
    let text = with("a tone", "NaN is -Infinity");
    let lines = format!("{none}\n{text}\n{ITEM}");
    for (name, text) in [
        ("m.json", of(&[&none, &text, ITEM]).into_bytes()),
        ("m.json", lines.clone().into_bytes()),
        ("m.jsonl", lines.clone().into_bytes()),
        ("m.json", format!("\u{feff}[{none}, {text}, {ITEM}]").into_bytes()),
        ("m.json", utf16(&of(&[&none, &text, ITEM]), u16::to_le_bytes)),
    ] {
        let m = d.open(name, text).unwrap();
        let items = m.items().unwrap();
        assert_eq!((items[0].duration, items[0].chance), (None, None));
        assert_eq!(items[1].output, "NaN is -Infinity");
        assert_eq!(
            (items[0].prompt.as_str(), items[2].duration),
            ("What is heard?", Some(Seconds(3.0)))
        );
    }
    for (item, field) in [
        (with("\"a tone\"", "NaN"), "output: expected a string, found NaN"),
        (with("\"a.wav\"", "NaN"), "name: expected a string, found NaN"),
        (
            with("3.0", "Infinity"),
            "duration: expected seconds, 0 or more, found Infinity",
        ),
        (
            with("3.0", "-Infinity"),
            "duration: expected seconds, 0 or more, found -Infinity",
        ),
        (
            with("3.0", "3.0, \"labels\": [\"a\", NaN]"),
            "labels: expected a list of strings, found NaN",
        ),
        (
            with("3.0", "3.0, \"audio_start\": [NaN]"),
            "audio_start: expected seconds, 0 or more, found NaN",
        ),
    ] {
        for (name, text, place) in [
            ("m.json", of(&[ITEM, &item]), "data.1."),
            ("m.jsonl", format!("{ITEM}\n{item}"), "line 2."),
            ("m.json", format!("[{ITEM}, {item}]"), "[1]."),
        ] {
            let said = d.refused(name, text);
            assert!(
                said.contains(&format!("{place}{field}")),
                "{said}\ninstead of {place}{field}"
            );
        }
    }
    let said = d.refused(
        "m.json",
        of(&[ITEM]).replace("\"total_num\": 1", "\"total_num\": NaN"),
    );
    assert!(
        said.contains("total_num: expected 1, the number of items, found NaN"),
        "{said}"
    );
}

#[test]
fn json_lines_and_lists_under_any_name() {
    let d = Folder::new();
    let other = ITEM.replace("a tone", "two tones");
    for (name, text, items) in [
        ("m.json", format!("{ITEM}\n{other}\n"), 2),
        ("m.json", format!("\n{ITEM}\n\n{other}"), 2),
        ("m.json", ITEM.to_owned(), 1),
        ("m.ndjson", format!("{ITEM}\n{other}\n"), 2),
        ("m.txt", format!("{ITEM}\n{other}\n"), 2),
        ("m.json", format!(" [\n{ITEM},\n{other}\n]\n"), 2),
        ("m.json", "[]".to_owned(), 0),
    ] {
        let m = d.open(name, &text).unwrap();
        let outputs: Vec<String> = said(&m).into_iter().map(|(_, output, _)| output).collect();
        assert_eq!(outputs, ["a tone", "two tones"][..items], "{name} {text}");
        assert_eq!(m.split, "m");
    }
    for (name, text, words) in [
        (
            "m.json",
            format!("{ITEM}\n{{\"name\": 1}}\n"),
            "line 2.name: expected a string",
        ),
        (
            "m.json",
            format!("[{ITEM}, null]"),
            "[1]: expected an object with name, prompt and output, found null",
        ),
        (
            "m.json",
            format!("{ITEM}\noops"),
            "line 2: expected a JSON object",
        ),
        (
            "m.json",
            around(&format!("[{ITEM}]"), 1),
            "data: expected an object of items, found a list",
        ),
        ("m.jsonl", of(&[ITEM]), "let its name end in .json"),
        ("m.jsonl", format!("[\n{ITEM}\n]"), "let its name end in .json"),
        ("m.json", String::new(), "line 1"),
        (
            "m.csv",
            "name,prompt,output\na.wav,What?,a tone\n".to_owned(),
            "found \"name,prompt,output",
        ),
    ] {
        let said = d.refused(name, text);
        assert!(said.contains(words), "{said}\ninstead of {words}");
    }
}

#[test]
fn half_a_character_is_named_where_it_would_be_read() {
    let d = Folder::new();
    let whole = ITEM.replace("a tone", r"a tone \ud83d\ude00");
    let unread = ITEM.replace("3.0", r#"3.0, "source": "\ud83d", "\ude00": 1"#);
    for m in [
        d.open("m.json", of(&[&whole, &unread])).unwrap(),
        d.open("m.jsonl", format!("{whole}\n{unread}")).unwrap(),
    ] {
        let items = m.items().unwrap();
        assert_eq!(
            (items[0].output.as_str(), items[1].output.as_str()),
            ("a tone 😀", "a tone")
        );
    }
    for (from, to, field) in [
        (
            "a tone",
            r"a tone \ud83d",
            r"output: expected whole characters, found half a character, \ud83d",
        ),
        (
            "What",
            r"\ude00 What",
            r"prompt: expected whole characters, found half a character, \ude00",
        ),
        (
            "a.wav",
            r"\ud83d\ud83d.wav",
            r"name: expected whole characters, found half a character, \ud83d",
        ),
    ] {
        let item = ITEM.replace(from, to);
        let said = d.refused("m.json", of(&[ITEM, &item]));
        assert!(said.contains(&format!("data.1.{field}")), "{said}");
        let said = d.refused("m.jsonl", format!("{ITEM}\n{item}"));
        assert!(said.contains(&format!("line 2.{field}")), "{said}");
    }
}

#[test]
fn what_stands_twice_loses_nothing_in_silence() {
    let d = Folder::new();
    let two = format!(
        r#"{{"split": "train", "split_path": "wavs", "flamingo_task": "own-AQA", "total_num": 1, "data": {{"0": {ITEM}}}, "data": {{"0": {ITEM}}}}}"#
    );
    for (text, place) in [
        (two, "data: expected each key once"),
        (
            of(&[ITEM]).replace("\"split\"", "\"split\": \"val\", \"split\""),
            "split: expected each key once",
        ),
        (
            of(&[ITEM]).replace("\"total_num\"", "\"note\": 1, \"note\": 2, \"total_num\""),
            "note: expected each key once",
        ),
        (
            around(&format!("{{\"7\": {ITEM}, \"7\": {ITEM}}}"), 2),
            "data.7: expected each key once",
        ),
        (
            of(&[&ITEM.replace("}", ", \"output\": \"b\"}")]),
            "data.0.output: expected each field once",
        ),
        (
            of(&[&ITEM.replace("}", r#", "\u006eame": "b"}"#)]),
            "data.0.name: expected each field once",
        ),
        (
            of(&[&ITEM.replace("}", ", \"x\": 1, \"x\": 1}")]),
            "data.0.x: expected each field once",
        ),
    ] {
        let said = d.refused("m.json", text);
        assert!(said.contains(place), "{said}\ninstead of {place}");
    }
    let item = ITEM.replace("}", ", \"prompt\": \"b\"}");
    let said = d.refused("m.jsonl", format!("{ITEM}\n{item}"));
    assert!(said.contains("line 2.prompt: expected each field once"), "{said}");
}

#[test]
fn what_is_no_manifest_is_called_by_its_name() {
    let d = Folder::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for name in ["m.json", "m.jsonl", "m.tar"] {
        let said = d.refused(name, pointer);
        assert!(
            said.contains("a git-lfs pointer to a file of 12345 bytes"),
            "{said}"
        );
        let said = d.refused(name, b"\x1f\x8b\x08\0rest of it");
        assert!(said.contains("found gzip") && said.contains("gunzip"), "{said}");
    }
    for (name, bytes, found) in [
        ("m.json.zst", &b"\x28\xb5\x2f\xfdrest"[..], "found zstd"),
        ("m.parquet", b"PAR1rest", "found Parquet"),
        ("m.json", b"PK\x03\x04rest", "found a zip archive"),
        ("m.json", b"RIFF\0\0\0\0WAVE", "found a sound file"),
        ("m.json", b"{\"split\": \"a\0\"}", "found bytes that are no text"),
        ("m.jsonl", b"\n<!DOCTYPE html>\n<p>404", "found a web page"),
        ("m.tar", b"", "found 0 bytes"),
    ] {
        let said = d.refused(name, bytes);
        assert!(said.contains(found), "{said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_devices_are_no_manifests() {
    let d = Folder::new();
    for (name, target, found) in [
        ("pipe.json", None, "a pipe"),
        ("pipe.jsonl", None, "a pipe"),
        ("pipe.tar", None, "a pipe"),
        ("zero.json", Some("/dev/zero"), "a device"),
        ("zero.jsonl", Some("/dev/zero"), "a device"),
        ("zero.tar", Some("/dev/zero"), "a device"),
    ] {
        let path: PathBuf = d.0.path().join(name);
        match target {
            None => {
                let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                assert!(made.success());
            }
            Some(device) => std::os::unix::fs::symlink(device, &path).unwrap(),
        }
        let e = Manifest::open(&path).unwrap_err().to_string();
        assert!(e.contains(name) && e.contains(found), "{e}");
    }
    let cursor = af2::data::order::Cursor::read(&d.0.path().join("pipe.json"));
    assert!(cursor.unwrap_err().to_string().contains("a pipe"));
    // A file of holes is refused by its size or its first bytes, before it is read.
    for (name, words) in [
        ("holes.json", "no text"),
        ("holes.jsonl", "no text"),
        ("holes.tar", ""),
    ] {
        let path = d.0.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(1 << 42).unwrap();
        match Manifest::open(&path) {
            Ok(m) => assert!(name == "holes.tar" && m.is_empty()),
            Err(e) => assert!(e.to_string().contains(words), "{e}"),
        }
    }
}

/// A manifest that was opened is read later on: not what stands in its place by then.
#[test]
fn a_manifest_that_changes_under_way_is_named() {
    let d = Folder::new();
    for (to, words) in [
        (ITEM.replace("\"prompt\"", "\"Prompt\""), "line 1.prompt"),
        (String::new(), "the file that was there"),
    ] {
        let m = d.open("m.jsonl", format!("{ITEM}\n")).unwrap();
        std::fs::write(&m.path, to).unwrap();
        let e = m.item(0).unwrap_err().to_string();
        assert!(
            e.contains(words) && e.contains("changed while it was open"),
            "{e}"
        );
    }
}

#[test]
fn the_manifest_that_the_page_shows_is_one() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/data-manifests/README.md");
    let page = std::fs::read_to_string(page).unwrap();
    let shown = page
        .split("```json\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let m = Folder::new().open("train.json", shown).unwrap();
    let items = m.items().unwrap();
    assert_eq!((items.len(), items[1].audio_start), (2, Seconds(30.0)));
    assert!(items[0].labels.contains(&items[0].output));
    for label in &items[0].labels {
        assert!(items[0].prompt.contains(label), "{label}");
    }
}
