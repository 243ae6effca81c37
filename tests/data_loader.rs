//! The loader end to end: order, ranks, interruption, bad items, shards, memory.
#![allow(clippy::unwrap_used)]

mod common;

use af2::curriculum;
use af2::data::feed::Ears;
use af2::data::loader::{BadItems, Loader};
use af2::data::manifest::Manifest;
use af2::data::order::{Cursor, Mixing};
use af2::data::skips::Ledger;
use af2::recipe::Recipe;
use af2::recipe_file;
use af2::text::tokenizer::Tokenizer;
use common::{af2, golden, wav};
use serde_json::{json, Value};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A data root with `sets` of sound files of these lengths in samples (0 is a broken file), and a recipe about them.
struct Data {
    folder: tempfile::TempDir,
    recipe: PathBuf,
}

impl Data {
    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> String {
        self.root().join(name).display().to_string()
    }

    /// Runs `af2 data read` on the recipe.
    fn read(&self, more: &[&str]) -> (i32, String, String) {
        let llm = golden("F_tiny/llm").display().to_string();
        let recipe = self.recipe.display().to_string();
        af2(&[&["-q", "data", "read", &recipe, "--llm", &llm], more].concat())
    }

    /// The lines of `--list`.
    fn list(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        // The last line of a killed run may be cut.
        text.lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()
    }
}

fn data(sets: &[(&str, f64, &[usize])], stage: &str) -> Data {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (mut names, mut weights) = (String::new(), String::new());
    for (set, weight, lengths) in sets {
        fs::create_dir_all(root.join(set)).unwrap();
        let mut items = serde_json::Map::new();
        for (i, samples) in lengths.iter().enumerate() {
            let name = format!("{i}.wav");
            match samples {
                0 => fs::write(root.join(set).join(&name), "no sound").unwrap(),
                n => wav(&root.join(set).join(&name), *n),
            }
            let words = "a sound ".repeat(1 + i % 7);
            let item = json!({"name": name, "prompt": "What is heard?", "output": words,
                              "duration": *samples as f64 / 16e3});
            items.insert(i.to_string(), item);
        }
        let top = json!({"split": "train", "split_path": set, "flamingo_task": set,
                         "total_num": lengths.len(), "data": items});
        fs::write(root.join(set).join("train.json"), top.to_string()).unwrap();
        names += &format!("    {set}: {set}/train.json\n");
        weights += &format!("      {set}: {weight}\n");
    }
    let recipe = root.join("recipe.yaml");
    let text = format!(
        "name: loader\nseed: 7\noutput: {}\nmodel: {{}}\ndata:\n  root: {}\n  skip_budget: 0.5\n  sets:\n{names}\
         stages:\n  - name: one\n    train: [audio_transformer]\n    windows: 3\n    sets:\n{weights}    \
         optim: {{steps: 1, batch_size: 4, learning_rate: 1e-4}}\n{stage}",
        root.join("run").display(),
        root.display()
    );
    fs::write(&recipe, text).unwrap();
    Data { folder, recipe }
}

const BUDGET: &str = "    batch_budget: {windows: 8, tokens: 200, multiple: 2}\n";

/// Some clips of one window, some of two and three.
fn lengths(n: usize) -> Vec<usize> {
    (0..n)
        .map(|i| [1_000, 3_000, 161_000, 2_000, 321_000][i % 5] + i)
        .collect()
}

fn items(line: &Value) -> Vec<String> {
    serde_json::from_value(line["items"].clone()).unwrap()
}

#[test]
fn every_rank_goes_on_after_a_kill_with_exactly_the_remaining_items() {
    goes_on_after_kills("", "seeded");
}

#[test]
fn every_rank_goes_on_after_a_kill_with_batches_by_a_budget() {
    goes_on_after_kills(BUDGET, "seeded");
}

#[test]
fn every_rank_goes_on_after_a_kill_in_the_references_order() {
    goes_on_after_kills("", "reference");
}

fn goes_on_after_kills(stage: &str, mixing: &str) {
    let d = data(&[("a", 1.0, &lengths(37)), ("b", 1.5, &lengths(20))], stage);
    let mixing = format!("data.order={mixing}");
    for world in 1..=3usize {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut rounds = Vec::new();
        for rank in 0..world {
            let ranks = ["--rank", &rank.to_string(), "--world", &world.to_string()].map(str::to_owned);
            let whole = format!("whole-{rank}");
            let more = ["--epochs", "2", "--list", &d.path(&whole), &mixing].map(str::to_owned);
            let all: Vec<&str> = more.iter().chain(&ranks).map(String::as_str).collect();
            let (code, _, err) = d.read(&all);
            assert_eq!(code, 0, "{err}");
            let expected = d.list(&whole);
            rounds.push(expected.len());
            for item in expected.iter().flat_map(items) {
                *seen.entry(item).or_default() += 1;
            }
            // Killed a few times at whatever moment, then left to end.
            let (cursor, list) = (format!("cursor-{rank}"), format!("list-{rank}"));
            let more = [
                "--epochs",
                "2",
                "--cursor",
                &d.path(&cursor),
                "--list",
                &d.path(&list),
                &mixing,
            ];
            let more: Vec<&str> = more
                .iter()
                .copied()
                .chain(ranks.iter().map(String::as_str))
                .collect();
            let mut read = Vec::new();
            for wait in [1usize, 4, 9, usize::MAX] {
                let before = Cursor::read(Path::new(&d.path(&cursor))).unwrap();
                fs::remove_file(d.path(&list)).ok();
                let ended = run_until(&d, &more, &list, wait);
                let after = Cursor::read(Path::new(&d.path(&cursor))).unwrap();
                // What was done when the cursor was last written; a batch behind it is done again.
                for line in d.list(&list) {
                    let at: Cursor = serde_json::from_value(line["after"].clone()).unwrap();
                    if (at.epoch, at.batches) <= (after.epoch, after.batches) {
                        read.push(line);
                    }
                }
                assert!((after.epoch, after.batches) >= (before.epoch, before.batches));
                assert!(ended || wait < usize::MAX);
            }
            assert_eq!(read, expected, "rank {rank} of {world}, {mixing} {stage}");
            for file in [whole, cursor, list] {
                fs::remove_file(d.path(&file)).ok();
            }
        }
        assert!(
            rounds.iter().all(|r| *r == rounds[0]),
            "as many batches for each rank"
        );
        let (all, twice) = (2 * 37 + 2 * 30, seen.values().sum::<usize>());
        match mixing.as_str() {
            // DistributedSampler fills up both epochs to a multiple of the ranks.
            "data.order=reference" => {
                assert_eq!(twice, 2 * (67usize.next_multiple_of(world)), "{world} ranks")
            }
            _ => assert_eq!(twice, all, "{world} ranks"),
        }
        let of_a = seen.iter().filter(|(name, _)| name.contains("/a/"));
        if !mixing.contains("reference") {
            // Two epochs of weight 1: each item twice, whatever the ranks.
            assert!(of_a.clone().all(|(_, n)| *n == 2) && of_a.count() == 37);
        }
    }
}

/// Runs until the list has `lines` lines, then kills; whether it ended by itself.
fn run_until(d: &Data, more: &[&str], list: &str, lines: usize) -> bool {
    let llm = golden("F_tiny/llm");
    let mut child = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args(["-q", "data", "read"])
        .arg(&d.recipe)
        .arg("--llm")
        .arg(llm)
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return true;
        }
        if d.list(list).len() >= lines {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_cursor_of_another_order_is_refused() {
    let d = data(&[("a", 1.0, &lengths(9))], "");
    let cursor = d.path("cursor");
    let (code, _, err) = d.read(&["--batches", "1", "--cursor", &cursor]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = d.read(&["--cursor", &cursor, "seed=8"]);
    assert!(
        code == 8 && err.contains("the data cursor is of another order"),
        "{code} {err}"
    );
    fs::write(&cursor, "{").unwrap();
    let (code, _, err) = d.read(&["--cursor", &cursor]);
    assert!(
        code == 6 && err.contains("line 1: expected a cursor"),
        "{code} {err}"
    );
}

#[test]
fn the_order_does_not_depend_on_the_threads() {
    let d = data(&[("a", 1.0, &lengths(40))], BUDGET);
    let mut lists = Vec::new();
    for threads in ["1", "2", "5"] {
        let list = format!("list-{threads}");
        let (code, out, err) = d.read(&[
            "--json",
            "--list",
            &d.path(&list),
            &format!("data.threads={threads}"),
        ]);
        assert_eq!(code, 0, "{err}");
        let sums: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&sums["items"], &sums["windows"]), (&json!(40), &json!(64)));
        assert!(sums["padding_windows"].as_f64().unwrap() < 0.1);
        lists.push(d.list(&list));
    }
    assert!(!lists[0].is_empty() && lists[0] == lists[1] && lists[0] == lists[2]);
}

/// Two broken items of ten.
fn broken() -> Data {
    let mut some = lengths(10);
    (some[3], some[7]) = (0, 0);
    data(&[("a", 1.0, &some)], "")
}

#[test]
fn bad_items_are_left_out_named_and_bounded() {
    let d = broken();
    let (code, out, err) = d.read(&["--json"]);
    let sums: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &sums["items"], &sums["skipped"]),
        (0, &json!(8), &json!(2)),
        "{err}"
    );
    let mut named: Vec<String> = d
        .list("run/skipped.jsonl")
        .iter()
        .map(|l| l["item"].to_string())
        .collect();
    named.sort();
    assert_eq!(named, ["\"3\"", "\"7\""]);
    let (code, _, err) = d.read(&["data.skip_budget=0.1"]);
    assert!(code == 10 && err.contains("skipped.jsonl"), "{code} {err}");
}

/// Reference: item i of an epoch's list is replaced by item (i − 42) mod 99, if that fails too by (i − 84) mod 99.
#[test]
fn the_references_replacement_is_a_switch() {
    let mut some: Vec<usize> = (0..120).map(|i| 800 + i).collect();
    for bad in [5, 50, 51] {
        some[bad] = 0;
    }
    let d = data(&[("a", 1.0, &some)], "");
    let recipe = recipe_file::load(
        &d.recipe,
        &["data.order=reference".into(), "data.bad_items=replace".into()],
    )
    .unwrap();
    let order = curriculum::order(&recipe, &recipe.stages[0], 0, 1).unwrap();
    let epoch = order.blend.epoch(0);
    let is_bad = |i: usize| [5, 50, 51].contains(&epoch[i].item);
    let expected: BTreeMap<String, Option<String>> = (0..120usize)
        .filter(|i| is_bad(*i))
        .map(|i| {
            let other = [42, 84].map(|back| (i as i64 - back).rem_euclid(99) as usize);
            let by = other.into_iter().find(|o| !is_bad(*o));
            (epoch[i].item.to_string(), by.map(|o| epoch[o].item.to_string()))
        })
        .collect();
    let (code, out, err) = d.read(&["--json", "data.order=reference", "data.bad_items=replace"]);
    let sums: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &sums["items"]), (0, &json!(120)), "{err}");
    let found: BTreeMap<String, Option<String>> = d
        .list("run/skipped.jsonl")
        .iter()
        .map(|l| {
            let by = l["replaced_by"]
                .as_str()
                .map(|p| Path::new(p).file_stem().unwrap());
            (
                l["item"].as_str().unwrap().to_owned(),
                by.map(|s| s.to_string_lossy().into_owned()),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

/// Each item's mel, bit for bit, by its key.
fn mels(recipe: &Recipe) -> BTreeMap<String, (String, Vec<u32>)> {
    let stage = &recipe.stages[0];
    let tokenizer = Tokenizer::open(&golden("F_tiny/llm")).unwrap();
    let ears = Ears::new(0);
    let log = recipe.output.join("skipped.jsonl");
    let order = curriculum::order(recipe, stage, 0, 1).unwrap();
    let ledger = Ledger::new(&log, "one", order.blend.len(), 0.0);
    let loader = Loader {
        order,
        root: recipe.data_root(),
        windows: stage.windows,
        ears: &ears,
        tokenizer: &tokenizer,
        max_tokens: 512,
        ledger,
        bad_items: BadItems::Skip,
        known: HashSet::new(),
        threads: 2,
        ahead: 2,
    };
    let mut all = BTreeMap::new();
    let collect = |next: &mut dyn FnMut() -> af2::Result<af2::data::loader::Prepared>| loop {
        let batch = next()?;
        for (example, mel) in batch.examples.iter().zip(&batch.mels) {
            let bits = mel.iter().map(|v| v.to_bits()).collect();
            all.insert(example.item.key.clone(), (example.item.output.clone(), bits));
        }
        if batch.after.epoch > 0 {
            return Ok(());
        }
    };
    loader.run(Cursor::default(), collect).unwrap();
    all
}

#[test]
fn packed_sound_is_heard_bit_for_bit_and_read_shard_by_shard() {
    let d = data(&[("a", 1.0, &lengths(23))], "");
    // Sounds that need work: another rate, more channels, another format, a start in the middle.
    for (i, from) in [
        "mono_44k_2p3s_24bit.wav",
        "mono_48k_1p1s.flac",
        "stereo_22k_4p5s.wav",
    ]
    .iter()
    .enumerate()
    {
        fs::copy(
            golden("wavs").join(from),
            d.root().join("a").join(format!("{i}.wav")),
        )
        .unwrap();
    }
    let recipe = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        recipe_file::load(&d.recipe, &overrides).unwrap()
    };
    let expected = mels(&recipe(&[]));
    let (manifest, out) = (d.path("a/train.json"), d.path("shards/a/train"));
    let root = d.root().display().to_string();
    let pack = |windows: &str, out: &str| {
        let arguments = [
            "-q",
            "data",
            "pack",
            &manifest,
            "--out",
            out,
            "--data-root",
            &root,
            "--shard-mb",
            "1",
        ];
        af2(&[&arguments[..], &["--windows", windows]].concat())
    };
    let (code, said, err) = pack("3", &out);
    assert_eq!(code, 0, "{err}");
    assert!(said.starts_with("23 items in "), "{said}");
    let (code, _, err) = pack("3", &out);
    assert!(code == 6 && err.contains("no shards yet"), "{code} {err}");
    let packed = recipe(&["data.sets.a=shards/a/train"]);
    assert_eq!(mels(&packed), expected);
    let (code, _, err) = pack("30", &d.path("shards/a/long"));
    assert_eq!(code, 0, "{err}");
    assert_eq!(mels(&recipe(&["data.sets.a=shards/a/long"])), expected);

    // Several shards, each read from front to back.
    let order = curriculum::order(&packed, &packed.stages[0], 0, 1).unwrap();
    let manifest = &order.blend.sets[0].manifest;
    assert_eq!((manifest.task.as_str(), manifest.split.as_str()), ("a", "train"));
    let epoch = order.epoch(&Cursor::default(), |_, _| unreachable!()).unwrap();
    let items: Vec<usize> = epoch.picks.iter().map(|p| p.item).collect();
    let shards: Vec<_> = items
        .chunk_by(|a, b| manifest.shard(*a) == manifest.shard(*b))
        .collect();
    assert!(
        shards.len() > 2 && shards.iter().all(|s| s.is_sorted()),
        "{items:?}"
    );
    assert_eq!(
        shards.len(),
        items
            .iter()
            .map(|i| manifest.shard(*i))
            .collect::<HashSet<_>>()
            .len()
    );

    // What ends within both budgets is the same in both; what does not has another loudness. A missing shard is a missing shard.
    let (code, _, err) = d.read(&[
        "data.sets.a=shards/a/train",
        "stages.0.windows=2",
        "data.skip_budget=0",
    ]);
    assert!(
        code == 10 && err.contains("a sound packed for 2 windows"),
        "{code} {err}"
    );
    fs::remove_file(Path::new(&out).join("shard-000000.tar")).unwrap();
    let e = Manifest::open(Path::new(&out)).unwrap_err().to_string();
    assert!(
        e.contains("index.json") && e.contains("shards are missing"),
        "{e}"
    );
}

fn tar(path: &Path, members: &[(&str, &[u8])]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
}

#[test]
fn shards_made_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("0.tar");
    let flac = fs::read(golden("wavs/mono_48k_1p1s.flac")).unwrap();
    let wav = fs::read(golden("wavs/speech_16k_mono_3p7s.wav")).unwrap();
    let long = format!("{}/clip.one.flac", "deep/".repeat(60));
    let long_text = format!("{}/clip.one.txt", "deep/".repeat(60));
    tar(
        &shard,
        &[
            ("a.flac", &flac),
            ("a.json", br#"{"text": ["a dog", "an animal"], "tag": []}"#),
            ("b.txt", b" a bird sings \n"),
            ("b.wav", &wav),
            ("c.wav", &wav),
            (
                "c.json",
                br#"{"prompt": "What?", "output": "Speech.", "labels": ["Speech.", "Music."]}"#,
            ),
            ("._c.wav", b"what a Mac leaves"),
            ("cover.png", b"not ours"),
            (&long, &flac),
            (&long_text, b"deep"),
        ],
    );
    let manifest = Manifest::open(folder.path()).unwrap();
    let items = manifest.items().unwrap();
    let said: Vec<_> = items
        .iter()
        .map(|i| (i.prompt.as_str(), i.output.as_str()))
        .collect();
    let caption = af2::data::shards::CAPTION_PROMPT;
    assert_eq!(
        said,
        [
            (caption, "a dog"),
            (caption, "a bird sings"),
            ("What?", "Speech."),
            (caption, "deep")
        ]
    );
    let clip = |i: usize| af2::data::feed::Clip::of(&manifest, &items[i], Path::new(""), 1);
    assert!(clip(0).path().ends_with("0.tar/a.flac"));
    let file = af2::audio::load(&golden("wavs/mono_48k_1p1s.flac"), clip(0).span()).unwrap();
    for i in [0, 3] {
        assert_eq!(clip(i).samples().unwrap(), af2::audio::windows(&file, 1));
    }

    for (members, message) in [
        (
            vec![("a.wav", &wav[..])],
            "a: expected a .json or .txt beside the sound",
        ),
        (vec![("a.txt", b"text")], "a: expected a sound beside the text"),
        (
            vec![("a.wav", &wav), ("a.flac", &flac), ("a.txt", b"text")],
            "a.flac: expected one sound of a name",
        ),
        (
            vec![("a.wav", &wav), ("a.json", b"{")],
            "a.json: expected a JSON object",
        ),
        (
            vec![("a.wav", &wav), ("a.json", b"{\"tag\": 1}")],
            "a.json.prompt: expected a string",
        ),
    ] {
        tar(&shard, &members);
        let e = Manifest::open(&shard).unwrap_err();
        assert!(
            e.to_string().contains(message) && e.exit_code() == 6,
            "{e}\ninstead of {message}"
        );
    }
    // Cut at every block and in between: an error or fewer samples' worth of shard, never a panic.
    tar(&shard, &[("a.wav", &wav), ("a.txt", b"text")]);
    let whole = fs::read(&shard).unwrap();
    for end in (0..whole.len()).step_by(256).chain([whole.len() - 1]) {
        fs::write(&shard, &whole[..end]).unwrap();
        let opened = Manifest::open(&shard);
        assert!(
            end > 512 + wav.len() || opened.is_err() || opened.unwrap().is_empty(),
            "cut at {end}"
        );
    }
    // A link is not followed.
    let mut builder = tar::Builder::new(fs::File::create(&shard).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "a.wav", "/etc/passwd").unwrap();
    builder.finish().unwrap();
    let e = Manifest::open(&shard).unwrap_err().to_string();
    assert!(
        e.contains("a.wav: expected a regular file, found \"Symlink\""),
        "{e}"
    );
}

/// A hundred thousand items over a few files; the mels are not kept, so that each is decoded.
#[test]
fn memory_stays_flat_over_a_hundred_thousand_items() {
    let d = data(&[("a", 1.0, &[400; 8])], "");
    let lines = |n: usize| {
        let line = |i: usize| {
            json!({"name": format!("a/{}.wav", i % 8), "prompt": format!("What is heard? {i}"), "output": "a sound",
                   "duration": 0.025})
        };
        let text: String = (0..n).map(|i| format!("{}\n", line(i))).collect();
        fs::write(d.path("a/many.jsonl"), text).unwrap();
    };
    let peak = |n: usize| {
        lines(n);
        let (code, out, err) = d.read(&["--json", "data.sets.a=a/many.jsonl", "data.cache_mib=0"]);
        assert_eq!(code, 0, "{err}");
        let sums: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(sums["items"], n);
        sums["peak_memory_bytes"].as_u64().unwrap()
    };
    let (few, many) = (peak(5_000), peak(100_000));
    println!(
        "peak memory: {} MiB over 5,000 items, {} MiB over 100,000",
        few >> 20,
        many >> 20
    );
    // Offsets, keys and an epoch's order are some 60 bytes an item; the allocator keeps some MiB more or less. A kilobyte
    // kept of each item would be 93 MiB.
    assert!(many < few + 95_000 * 100 + (48 << 20), "{few} {many}");
}

#[test]
fn mixing_is_the_references_or_the_seeds() {
    let d = data(&[("a", 1.0, &lengths(11)), ("b", 1.0, &lengths(5))], "");
    let order = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let recipe = recipe_file::load(&d.recipe, &overrides).unwrap();
        curriculum::order(&recipe, &recipe.stages[0], 0, 1).unwrap()
    };
    let picks = |o: &af2::data::order::Order, epoch: u64| {
        let cursor = Cursor {
            epoch,
            ..Cursor::default()
        };
        let e = o.epoch(&cursor, |_, _| unreachable!()).unwrap();
        let flat: Vec<usize> = e.batches.concat();
        flat.iter()
            .map(|i| (e.picks[*i].set, e.picks[*i].item))
            .collect::<Vec<_>>()
    };
    let seeded = order(&[]);
    assert_eq!(picks(&seeded, 0), picks(&order(&[]), 0));
    assert_ne!(picks(&seeded, 0), picks(&seeded, 1));
    assert_ne!(picks(&seeded, 0), picks(&order(&["seed=8"]), 0));
    let reference = order(&["data.order=reference"]);
    assert_eq!(reference.mixing, Mixing::Reference);
    let list = reference.blend.epoch(0);
    let torch: Vec<_> = af2::data::numpy::randperm(16, 0)
        .iter()
        .map(|i| (list[*i].set, list[*i].item))
        .collect();
    assert_eq!(picks(&reference, 0), torch);
    // Half of a set in one epoch, the other half in the next.
    let halves = order(&["stages.0.sets.a=0.5"]);
    let of_a = |e: &u64| picks(&halves, *e).into_iter().filter(|p| p.0 == 0).map(|p| p.1);
    let mut both: Vec<usize> = [0, 1].iter().flat_map(of_a).collect();
    both.sort();
    assert_eq!(both, (0..11).collect::<Vec<_>>());
}

#[test]
fn an_item_with_a_special_token_is_text_or_refused() {
    let d = data(&[("a", 1.0, &[1_000; 6])], "");
    let path = d.path("a/train.json");
    let text = fs::read_to_string(&path).unwrap();
    let answer = "a sound a sound a sound ";
    assert_eq!(text.matches(&format!("\"{answer}\"")).count(), 1);
    fs::write(
        &path,
        text.replace(&format!("\"{answer}\""), "\"a <|endofchunk|> sound\""),
    )
    .unwrap();
    for (more, code, items, skipped) in [
        (&[][..], 0, 6, 0),
        (&["data.special_tokens_in_texts=as_tokens"], 0, 6, 0),
        (&["data.special_tokens_in_texts=refuse"], 0, 5, 1),
        (
            &[
                "data.special_tokens_in_texts=refuse",
                "stages.0.batch_budget={windows: 8, tokens: 200}",
            ],
            0,
            5,
            1,
        ),
        (
            &["data.special_tokens_in_texts=refuse", "data.skip_budget=0"],
            10,
            0,
            0,
        ),
        (&["data.special_tokens_in_texts=words"], 2, 0, 0),
    ] {
        let (found, out, err) = d.read(&[&["--json"], more].concat());
        assert_eq!(found, code, "{more:?}: {out}{err}");
        if code == 0 {
            let sums: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(
                (&sums["items"], &sums["skipped"]),
                (&json!(items), &json!(skipped)),
                "{more:?}"
            );
        } else if code == 10 {
            assert!(err.contains("item 2") && err.contains("<|endofchunk|>"), "{err}");
        }
    }
    let ledger = fs::read_to_string(d.path("run/skipped.jsonl")).unwrap();
    assert!(
        ledger.contains("<|endofchunk|>") && ledger.contains("data.special_tokens_in_texts"),
        "{ledger}"
    );
    let (_, out, _) = af2(&["recipe", "show", d.recipe.to_str().unwrap()]);
    assert!(out.contains("special_tokens_in_texts: text"), "{out}");
}

/// Numbers at the ends of what can be written: the right items, or a bound in words.
#[test]
fn epochs_and_ranks_beyond_reason() {
    let d = data(&[("a", 1.0, &[400; 7])], "");
    let recipe = d.recipe.display().to_string();
    let blend = |more: &[&str]| af2(&[&["data", "blend", &recipe], more].concat());
    let lines = |more: &[&str]| {
        let (code, out, err) = blend(more);
        assert_eq!(code, 0, "{err}");
        out.lines().count()
    };
    let last = "1286742750677283"; // (last + 1) x 7 stays below 2^53
    for (more, items) in [
        (&["--epoch", "1000000000000"][..], 7),
        (&["--epoch", last], 7),
        (&["--rank", "5", "--world", "18446744073709551615"], 1),
        (
            &[
                "--rank",
                "18446744073709551614",
                "--world",
                "18446744073709551615",
            ],
            1,
        ),
        (&["--rank", "2", "--world", "4"], 2),
    ] {
        assert_eq!(lines(more), items, "{more:?}");
    }
    for epoch in [
        "1286742750677284",
        "9007199254740992",
        "18446744073709551614",
        "18446744073709551615",
    ] {
        let (code, out, err) = blend(&["--epoch", epoch]);
        assert_eq!((code, out.as_str()), (6, ""), "{err}");
        assert!(
            err.contains(&format!("expected a virtual epoch up to {last}, found {epoch}")),
            "{err}"
        );
    }
    let world = ["--rank", "0", "--world", "18446744073709551615"];
    let (code, _, err) = d.read(&world);
    assert!(code == 2 && err.contains("at most 1048576"), "{code} {err}");
    for cursor in [
        r#"{"epoch": 18446744073709551614, "batches": 0}"#,
        r#"{"epoch": 0, "batches": 18446744073709551615}"#,
        r#"{"epoch": 0, "batches": 1, "size": 18446744073709551615}"#,
    ] {
        fs::write(d.path("cursor"), cursor).unwrap();
        let epochs = ["--epochs", "18446744073709551615", "--cursor", &d.path("cursor")].map(str::to_owned);
        let (code, _, err) = d.read(&epochs.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(code == 8 && err.contains("where no run comes"), "{code} {err}");
    }
    fs::write(
        d.path("weights.yaml"),
        "dataset_blending_global_weight: 1.0e15\ndataset_blending_config: {a/train: {weight: 1.0}}\n",
    )
    .unwrap();
    let (code, _, err) = af2(&[
        "data",
        "blend",
        &d.path("weights.yaml"),
        "--manifests",
        &d.path(""),
    ]);
    assert!(code == 4 && err.contains("from 0 to 1000"), "{code} {err}");
}
