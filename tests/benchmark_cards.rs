//! Benchmarks' cards: those of the repository are sound and say what the paper's tables say, and what is wrong with one is
//! told with its line and its key.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::benchmark::names::{Aggregation, Mark, Metric, Rule, Task, Unit};
use af2::benchmark::{differences, page, parse, read, Card, Registry};
use common::af2;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data-manifests/benchmarks")
}

fn cards() -> Vec<Card> {
    Registry::built_in().cards().unwrap()
}

fn card(name: &str) -> Card {
    Registry::built_in().card(name).unwrap()
}

/// `af2 benchmark` with these.
fn benchmark(arguments: &[&str]) -> (i32, String, String) {
    af2(&[&["benchmark"], arguments].concat())
}

/// A card of our own to break.
const TEXT: &str = "\
name: mine
version: 1
title: Mine
about: Two kinds of questions.
task: mcq
skills: [sound]
held_out: false
paper: []
splits:
  - name: test
    items: {value: 10, mark: computed}
scored: test
categories:
  - by: kind
    of: {a: 4, b: 6}
    mark: computed
official_format: mmau_json
files:
  - {name: f.json, from: here, mark: computed, sha256: null, why: made up}
obtain: It is made up.
licence: unknown
prompt:
  template: \"{prompt} {question} {options}\"
  pool: [\"Choose.\"]
  chosen: 0
  mark: checked
  source: here
options: lettered_inline
decoding: {temperature: 0.0, max_new_tokens: 256, num_beams: 1, mark: checked, source: here}
rules: {official: mmau, fair: choice, mark: checked, source: here}
metric: accuracy
aggregation: macro
over: kind
chance: {value: 0.25, mark: computed}
constant: {first: null, longest: null, shortest: null, why: made up}
unit: percent
numbers:
  paper: {model: M, value: 50.0, mark: checked, source: here}
  previous: null
  later: []
citation: {key: mine, why: made up}
checks: [nothing]
";

fn fault(text: &str) -> String {
    parse(text, "mine.yaml").unwrap_err().to_string()
}

/// `TEXT` with one thing replaced.
fn broken(old: &str, new: &str) -> String {
    assert_eq!(TEXT.matches(old).count(), 1, "{old}");
    TEXT.replace(old, new)
}

#[test]
fn every_file_of_the_folder_is_built_in_and_sound() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    let registry = Registry::built_in();
    let known: BTreeSet<String> = registry
        .entries()
        .iter()
        .map(|e| format!("{}.yaml", e.name))
        .collect();
    assert_eq!(
        files, known,
        "a card of the repository is its file and its name in src/benchmark/embedded.rs"
    );
    assert_eq!(
        registry.entries().len(),
        known.len(),
        "one name stands there twice"
    );
    let paths: Vec<PathBuf> = files.iter().map(|f| folder().join(f)).collect();
    assert_eq!(read(&paths).unwrap().len(), cards().len());
}

/// The rows of a table: name, value, previous best, its model.
fn holds(table: u32, unit: Unit, rows: &[(&str, f64, f64, &str)]) {
    for (name, value, previous, model) in rows {
        let card = card(name);
        assert!(card.paper.iter().any(|row| row.table == table), "{name}");
        assert_eq!(card.unit, unit, "{name}");
        assert_eq!(card.numbers.paper.value, Some(*value), "{name}");
        assert_eq!(card.numbers.paper.mark, Some(Mark::Checked), "{name}");
        let best = card.numbers.previous.unwrap();
        assert_eq!(
            (best.value, best.model.as_str()),
            (Some(*previous), *model),
            "{name}"
        );
    }
}

/// Names of the cards of a table.
fn of_table(table: u32) -> Vec<String> {
    let in_it = |card: &Card| card.paper.iter().any(|row| row.table == table);
    cards().into_iter().filter(in_it).map(|card| card.name).collect()
}

#[test]
fn table_1_is_covered_with_its_numbers() {
    let percent = [
        ("clotho-aqa-unanimous", 86.9, 74.9, "Qwen2-Audio"),
        ("clotho-aqa-non-binary", 52.6, 49.5, "Audio Flamingo"),
        ("music-avqa-audio", 72.3, 72.1, "Qwen-Audio"),
        ("nonspeech7k", 84.3, 83.9, "Audio Flamingo"),
        ("cochl-scene", 82.1, 91.6, "Pengi"),
        ("nsynth-source", 62.0, 60.1, "Pengi"),
        ("nsynth-instrument", 71.1, 78.8, "Qwen-Audio"),
        ("fsd50k", 49.2, 47.9, "GAMA"),
        ("crema-d", 36.6, 26.5, "Audio Flamingo"),
        ("ravdess", 26.3, 20.9, "Audio Flamingo"),
        ("gtzan", 69.1, 65.2, "Audio Flamingo"),
        ("medley-solos-db", 85.8, 85.6, "GAMA"),
        ("urbansound8k", 68.0, 71.2, "Audio Flamingo"),
        ("esc-50", 83.9, 80.6, "GAMA"),
    ];
    let plain = [
        ("clotho-v2", 0.46, 0.45, "Qwen2-Audio"),
        ("audiocaps", 0.58, 0.46, "Audio Flamingo"),
    ];
    holds(1, Unit::Percent, &percent);
    holds(1, Unit::Plain, &plain);
    let names: BTreeSet<String> = of_table(1).into_iter().collect();
    let rows: BTreeSet<String> = percent.iter().chain(&plain).map(|row| row.0.to_owned()).collect();
    assert_eq!((names, 16), (rows, of_table(1).len()));
    let zero_shot = [
        "audiocaps",
        "crema-d",
        "ravdess",
        "gtzan",
        "medley-solos-db",
        "urbansound8k",
        "esc-50",
    ];
    for name in of_table(1) {
        assert_eq!(card(&name).held_out, zero_shot.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn table_2_is_covered_with_its_numbers() {
    let rows = [
        ("mmau-sound", 65.1, 61.7, "Gemini F v2"),
        ("mmau-music", 72.9, 56.5, "Gemini F v2"),
        ("audio-entailment-clotho", 92.5, 83.3, "Qwen-Audio"),
        ("audio-entailment-audiocaps", 93.3, 64.2, "Qwen-Audio"),
        ("compa-r-test", 96.4, 80.0, "GAMA-IT"),
        ("muchomusic", 56.5, 51.4, "Qwen-Audio"),
        ("openaqa", 86.0, 80.0, "GAMA-IT"),
        ("music-instruct-long", 90.2, 86.1, "MusiLingo"),
        ("music-qa", 93.0, 90.0, "MusiLingo"),
        ("cmm", 82.0, 76.0, "SALMONN"),
        ("long-audio-bench", 64.2, 45.3, "Gemini F v2"),
    ];
    holds(2, Unit::Percent, &rows);
    let names: Vec<&str> = rows.iter().map(|row| row.0).collect();
    assert_eq!(of_table(2), names);
}

#[test]
fn tables_7_and_10_are_covered_with_their_numbers() {
    holds(
        7,
        Unit::Percent,
        &[
            ("audiocaps-retrieval", 37.3, 36.1, "LAION-CLAP"),
            ("clotho-retrieval", 17.3, 16.1, "LAION-CLAP"),
        ],
    );
    let parts: Vec<f64> = card("clotho-retrieval")
        .numbers
        .paper
        .parts
        .into_values()
        .collect();
    assert_eq!(parts, [17.3, 43.9, 56.8, 23.2, 51.2, 63.5]);
    holds(
        10,
        Unit::Percent,
        &[
            ("esc-50-zero-shot", 91.3, 88.2, "LAION-CLAP"),
            ("urbansound8k-zero-shot", 92.3, 74.1, "LAION-CLAP"),
            ("vggsound-zero-shot", 24.1, 21.2, "LAION-CLAP"),
            ("fsd50k-zero-shot", 27.2, 22.4, "LAION-CLAP"),
            ("tut-zero-shot", 63.2, 58.4, "LAION-CLAP"),
            ("audioset-zero-shot", 23.7, 20.8, "LAION-CLAP"),
            ("nsynth-zero-shot", 15.9, 11.8, "LAION-CLAP"),
        ],
    );
    assert_eq!((of_table(7).len(), of_table(10).len()), (2, 7));
}

#[test]
fn long_audio_bench_is_the_mean_of_its_six_categories() {
    let card = card("long-audio-bench");
    let counts: Vec<u64> = card.categories[0].of.values().flatten().copied().collect();
    assert_eq!(counts, [917, 237, 361, 176, 253, 485]);
    assert_eq!((counts.iter().sum::<u64>(), card.items()), (2429, Some(2429)));
    assert_eq!(
        (card.aggregation, card.over.as_deref()),
        (Aggregation::Macro, Some("category"))
    );
    let parts = &card.numbers.paper.parts;
    let keys: BTreeSet<&String> = parts.keys().collect();
    assert_eq!(keys, card.categories[0].of.keys().collect());
    let mean = parts.values().sum::<f64>() / 6.0;
    assert!((mean - 64.19).abs() < 0.005, "{mean}");
}

/// What is computed in a card, computed again.
#[test]
fn chances_follow_from_the_counts_of_choices() {
    let mut seen = 0;
    for card in cards() {
        let Some(way) = card.categories.iter().find(|way| way.by == "choices") else {
            continue;
        };
        let Some(chance) = card.chance.value else { continue };
        let right = |(choices, items): (&String, &Option<u64>)| {
            items.unwrap() as f64 / choices.parse::<f64>().unwrap()
        };
        let expected = way.of.iter().map(right).sum::<f64>() / card.items().unwrap() as f64;
        assert!((expected - chance).abs() < 1e-9, "{}: {expected}", card.name);
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn what_came_after_the_paper_is_there() {
    for name in [
        "mmau-mini-original",
        "mmau-mini-v05.15.25-first",
        "mmau-mini-v05.15.25",
        "mmau-v05.15.25",
        "mmau-pro",
        "mmar",
        "mmar-rubrics",
        "mmsu",
        "muchomusic-rul",
        "af-reasoning-eval-mcq",
        "af-reasoning-eval-yes-no",
        "af-reasoning-eval-classes",
    ] {
        assert!(card(name).paper.is_empty(), "{name}");
    }
    let newest = card("mmau-mini-v05.15.25");
    assert_eq!(newest.files[0].sha256_begins.as_deref(), Some("9f18fda9"));
    let coinciding = newest.defects.iter().find(|d| d.class == "coinciding_options");
    assert_eq!(coinciding.unwrap().count.value, Some(24));
}

/// What no one has checked is marked, in every card and on its page.
#[test]
fn what_is_not_checked_says_so() {
    for (name, mark) in [
        ("cochl-scene", Mark::Unverified),
        ("urbansound8k", Mark::Unverified),
        ("compa-r-test", Mark::Unverified),
        ("long-audio-bench", Mark::Unverified),
        ("mmau-sound", Mark::Unverified),
        ("nsynth-source", Mark::ThirdParty),
        ("fsd50k", Mark::ThirdParty),
    ] {
        let card = card(name);
        assert_eq!(card.scored_split().unwrap().items.mark, Some(mark), "{name}");
        let n = card.items().unwrap();
        let line = page(&card);
        let line = line.lines().find(|l| l.contains(&format!(" {n} ("))).unwrap();
        assert!(line.contains("NOT CHECKED"), "{name}: {line}");
    }
}

/// Every key of a card, those of lists and parts too.
fn keys(value: &serde_json::Value, own: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                // Names of categories, of parts of a number and of others' fields are no keys.
                let free = matches!(key.as_str(), "of" | "parts" | "filter") && value.is_object();
                own.insert(key.clone());
                if !free {
                    keys(value, own);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| keys(value, own)),
        _ => {}
    }
}

#[test]
fn the_manual_has_every_key_and_its_card_is_sound() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example = page
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let card = parse(example, "kitchen-sounds.yaml").unwrap();
    assert_eq!(card.asked(), "What is the sound?");
    let mut own = BTreeSet::new();
    for card in cards() {
        keys(&serde_json::to_value(card).unwrap(), &mut own);
    }
    assert!(own.len() > 60, "{}", own.len());
    let unknown: Vec<&String> = own
        .iter()
        .filter(|key| !page.contains(&format!("`{key}`")))
        .collect();
    assert_eq!(unknown, [""; 0]);
    let names = [Task::NAMES, Mark::NAMES, Unit::NAMES, Aggregation::NAMES].concat();
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_demos_cards_are_sound() {
    let folder = folder().with_file_name("demo");
    let (code, out, said) = benchmark(&["check", "--cards", folder.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let all = cards().len() + std::fs::read_dir(folder).unwrap().count();
    assert!(out.contains(&format!("{all} cards are sound")), "{out}");
}

#[test]
fn the_example_is_sound() {
    let card = parse(TEXT, "mine.yaml").unwrap();
    assert_eq!(card.asked(), "Choose. {question} {options}");
    assert_eq!(
        (card.items(), card.task, card.metric),
        (Some(10), Task::Mcq, Metric::Accuracy)
    );
    assert_eq!(card.rules.unwrap().official, Rule::Mmau);
}

#[test]
fn a_fault_has_its_line_its_key_and_what_was_meant() {
    for (old, new, place, said) in [
        (
            "official: mmau,",
            "official: mmua,",
            "mine.yaml:30:19: rules.official: ",
            "did you mean `mmau`?",
        ),
        (
            "metric: accuracy\n",
            "metric: acuracy\n",
            "mine.yaml:31:9: metric: ",
            "did you mean `accuracy`?",
        ),
        (
            "task: mcq\n",
            "task: mqc\n",
            "mine.yaml:5:7: task: ",
            "did you mean `mcq`?",
        ),
        (
            "mmau_json\n",
            "mmau_jsn\n",
            "mine.yaml:17:18: official_format: ",
            "did you mean `mmau_json`?",
        ),
        (
            "scored: test\n",
            "scored: tset\n",
            "mine.yaml:12:1: scored: ",
            "did you mean `test`?",
        ),
        (
            "over: kind\n",
            "over: kin\n",
            "mine.yaml:33:1: over: ",
            "did you mean `kind`?",
        ),
        ("title: Mine\n", "", "mine.yaml:1:1: ", "missing field `title`"),
        (
            "from: here, mark: computed, sha256: null",
            "from: here, mark: computed",
            "mine.yaml:19:5: files[0]: ",
            "missing field `sha256`",
        ),
        (
            "title: Mine\n",
            "title: Mine\ntitel: Mine\n",
            "mine.yaml:4:1: ",
            "did you mean `title`?",
        ),
        (
            "about: Two",
            "title: Two",
            "mine.yaml:1:1: ",
            "key `title`: it stands in mine.yaml:3 already",
        ),
        (
            "{a: 4, b: 6}",
            "{a: 4, b: 7}",
            "mine.yaml:15:5: categories.0.of: ",
            "add up to 11, the split test has 10 items",
        ),
        (
            "{a: 4, b: 6}\n    mark: computed",
            "{a: 4, b: null}\n    mark: computed",
            "mine.yaml:14:5: categories.0: ",
            "some categories were not counted",
        ),
        (
            "{value: 10, mark: computed}",
            "{value: ten, mark: computed}",
            "mine.yaml:11:20: splits[0].items.value: ",
            "expected a whole number, 0 or more",
        ),
        (
            "{value: 10, mark: computed}",
            "{value: 10}",
            "mine.yaml:11:5: splits.test.items: ",
            "a value without `mark`",
        ),
        (
            "{value: 10, mark: computed}",
            "{value: null}",
            "mine.yaml:11:5: splits.test.items: ",
            "nothing says why",
        ),
        (
            "{value: 10, mark: computed}",
            "{value: null, mark: checked, why: no}",
            "mine.yaml:11:5: splits.test.items: ",
            "and there is none",
        ),
        (
            "sha256: null, why: made up",
            "sha256: 9f18fda9",
            "mine.yaml:19:48: files.f.json.sha256: ",
            "64 small hexadecimal digits",
        ),
        (
            "sha256: null, why: made up",
            "sha256: null",
            "mine.yaml:19:48: files.f.json.sha256: ",
            "nothing says why",
        ),
        (
            "chosen: 0",
            "chosen: 1",
            "mine.yaml:25:3: prompt.chosen: ",
            "1 of a pool of 1",
        ),
        (
            "{prompt} {question} {options}",
            "{prompt} {questoin} {options}",
            "mine.yaml:23:3: prompt.template: ",
            "did you mean `question`?",
        ),
        (
            "{prompt} {question} {options}",
            "{prompt} {question}",
            "mine.yaml:28:1: options: ",
            "no `{options}`",
        ),
        (
            "value: 0.25",
            "value: 25",
            "mine.yaml:34:10: chance.value: ",
            "is not from 0 to 1",
        ),
        (
            "value: 50.0",
            "value: 500.0",
            "mine.yaml:38:3: numbers.paper: ",
            "500 is not from 0 to 100",
        ),
        (
            "task: mcq",
            "task: closed_label",
            "mine.yaml:5:1: task: ",
            "missing field `labels`",
        ),
        (
            "official: mmau,",
            "official: judge,",
            "mine.yaml:30:1: rules: ",
            "missing field `judge`",
        ),
        (
            "rules: {official: mmau, fair: choice, mark: checked, source: here}\n",
            "",
            "mine.yaml:5:1: task: ",
            "missing field `rules`",
        ),
        (
            "metric: accuracy",
            "metric: recall_at_k",
            "mine.yaml:31:1: metric: ",
            "retrieval",
        ),
        (
            "aggregation: macro\nover: kind",
            "aggregation: macro",
            "mine.yaml:32:1: aggregation: ",
            "a mean over categories",
        ),
        (
            "name: mine",
            "name: My Bench",
            "mine.yaml:1:1: name: ",
            "is no name",
        ),
        (
            "citation: {key: mine, why: made up}",
            "citation: {key: mine, arxiv: \"25.1\"}",
            "mine.yaml:41:23: citation.arxiv: ",
            "no identifier of arXiv",
        ),
        (
            "checks: [nothing]",
            "checks: nothing",
            "mine.yaml:42:9: checks: ",
            "expected a list",
        ),
        ("    items: {", "\titems: {", "mine.yaml:1", "tabs"),
    ] {
        let found = fault(&broken(old, new));
        assert!(
            found.starts_with(place) && found.contains(said),
            "{new:?}: expected {place} … {said}\n{found}"
        );
        // And shows the line.
        assert!(found.contains("^"), "{found}");
    }
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = broken("scored: test\n", "scored: tset\n").replace("chosen: 0", "chosen: 3");
    let found = fault(&text);
    let [first, second] = ["scored: `tset`", "prompt.chosen: 3"].map(|said| found.find(said).unwrap());
    assert!(first < second, "{found}");
    let found = fault(
        &text
            .replace("version: 1", "version: one")
            .replace("metric: accuracy", "metrik: accuracy"),
    );
    for said in ["version: invalid type", "unknown field `metrik`"] {
        assert_eq!(found.matches(said).count(), 1, "{said}: {found}");
    }
    assert!(!found.contains("missing field `metric`"), "{found}");
}

#[test]
fn labels_and_judges_are_held_to_what_they_say() {
    let labels = "labels: {of: [rain, wind], count: 2, mark: checked, source: here}\nunit: percent\n";
    let closed = |labels: &str| {
        broken("unit: percent\n", labels)
            .replace("task: mcq", "task: closed_label")
            .replace("value: 0.25", "value: 0.5")
    };
    parse(&closed(labels), "mine.yaml").unwrap();
    for (old, new, said) in [
        ("count: 2", "count: 3", "labels.count: 3, and `of` has 2"),
        (
            "[rain, wind]",
            "[rain, Rain]",
            "labels.of.1: `Rain` is empty or stands there twice",
        ),
        (
            "[rain, wind], count: 2",
            "null, count: 2",
            "labels.of: no labels, and nothing says why",
        ),
    ] {
        let found = fault(&closed(&labels.replace(old, new)));
        assert!(
            found.contains(&format!(": {said}")) && found.contains("mine.yaml:36:"),
            "{found}"
        );
    }
    let found = fault(&closed(labels).replace("value: 0.5,", "value: 0.25,"));
    assert!(found.contains("one of 2 labels is 0.5"), "{found}");
    let judge = "judge: {model: null, scale: [5.0, 1.0], protocol: p, answer: a, temperature: null, runs: 0, mark: checked, source: here}\nunit: percent\n";
    let found = fault(&broken("unit: percent\n", judge).replace("official: mmau,", "official: judge,"));
    for said in ["judge.scale: expected the lowest", "judge.runs: is 0"] {
        assert!(found.contains(said), "{found}");
    }
}

#[test]
fn files_that_are_no_cards_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let large = TEXT.to_owned() + &format!("# {}\n", "x".repeat(1 << 20));
    let wide = TEXT.to_owned() + &"x".repeat(1_000_000 - TEXT.len());
    for (path, code, said) in [
        (write("large.yaml", large.as_bytes()), 3, "at most 1048576 bytes"),
        // A key of a megabyte.
        (write("wide.yaml", wide.as_bytes()), 6, "wide.yaml:43:"),
        (
            write("binary.yaml", b"\x7fELF\x02\x01\x01\0\xff\xfe"),
            3,
            "expected text in UTF-8",
        ),
        (write("control.yaml", b"name: a\0b\n"), 6, "control.yaml:1:8: "),
        (write("empty.yaml", b"# nothing\n"), 6, "nothing stands in it"),
        (
            write("list.yaml", b"[1, 2]\n"),
            6,
            "expected the keys of a card, found a list",
        ),
        (
            write("other.yaml", TEXT.as_bytes()),
            6,
            "other.yaml:1:1: name: `mine`, and the file is called other.yaml",
        ),
        (folder.path().join("gone.yaml"), 3, "No such file"),
    ] {
        let e = read(std::slice::from_ref(&path)).unwrap_err();
        let shown = e.to_string();
        assert!(
            shown.contains(said),
            "{}",
            shown.chars().take(600).collect::<String>()
        );
        assert_eq!(e.exit_code(), code, "{}", path.display());
        assert!(shown.len() < 3000, "{} characters", shown.len());
    }
}

/// Each card with each of its lines taken out, and cut off behind each: read, or refused with a place.
#[test]
fn a_damaged_card_is_refused_with_a_place_or_is_sound() {
    let (mut sound, mut refused) = (0, 0);
    for entry in Registry::built_in().entries() {
        let lines: Vec<&str> = entry.text.lines().collect();
        for i in 0..lines.len() {
            let without = [&lines[..i], &lines[i + 1..]].concat().join("\n");
            for text in [without, lines[..i].join("\n")] {
                match parse(&text, "damaged.yaml") {
                    Ok(_) => sound += 1,
                    Err(e) => {
                        assert_eq!(e.exit_code(), 6);
                        let e = e.to_string();
                        assert!(e.starts_with("damaged.yaml:") && e.len() < 20_000, "{e}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(sound > 500 && refused > 3000, "{sound} {refused}");
}

/// A megabyte of faults is told as its first ones.
#[test]
fn faults_without_end_are_not_all_told() {
    let labels = format!(
        "labels: {{of: [{}], count: 1, mark: checked, source: here}}\n",
        "a, ".repeat(100_000)
    );
    let e = fault(&(TEXT.to_owned() + &labels));
    assert!(e.matches("stands there twice").count() > 20, "{e}");
    assert!(e.len() < 30_000, "{} characters", e.len());
    let parts = format!("also: [{}]\n", "cider, ".repeat(100_000));
    assert!(fault(&(TEXT.to_owned() + &parts)).len() < 30_000);
    let long = "m".repeat(900_000);
    for (old, new) in [
        ("name: mine", format!("name: {long}")),
        ("scored: test", format!("scored: {long}")),
        ("official: mmau,", format!("official: {long},")),
    ] {
        let found = fault(&broken(old, &new));
        assert!(found.len() < 3000, "{} characters", found.len());
    }
}

#[test]
fn two_files_cannot_have_one_name() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|sub| {
        std::fs::create_dir(folder.path().join(sub)).unwrap();
        let path = folder.path().join(sub).join("mine.yaml");
        std::fs::write(&path, TEXT).unwrap();
        path
    });
    let e = read(&paths).unwrap_err().to_string();
    assert!(e.contains("b/mine.yaml:1:1: name: `mine` is the name of "), "{e}");
}

#[test]
fn a_folder_of_ones_own_adds_cards_and_overrides_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let cmm = std::fs::read_to_string(self::folder().join("cmm.yaml")).unwrap();
    std::fs::write(folder.path().join("mine.yaml"), TEXT).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "no card").unwrap();
    let with = || Registry::with(Some(folder.path()));
    assert_eq!(with().unwrap().card("mine").unwrap().items(), Some(10));
    assert_eq!(with().unwrap().entries().len(), cards().len() + 1);

    let own = folder.path().join("cmm.yaml");
    std::fs::write(&own, cmm.replace("version: 1\n", "version: 2\n")).unwrap();
    let e = with().unwrap_err();
    assert!(e.to_string().contains("a card `cmm` is built in"), "{e}");
    assert_eq!(e.exit_code(), 6);
    let with_reason = cmm.replace(
        "version: 1\n",
        "version: 2\noverrides: our copy of the questions\n",
    );
    std::fs::write(&own, &with_reason).unwrap();
    let registry = with().unwrap();
    assert_eq!(registry.card("cmm").unwrap().version, 2);
    assert_eq!(registry.entries().len(), cards().len() + 1);

    std::fs::write(
        folder.path().join("mine.yaml"),
        TEXT.to_owned() + "overrides: nothing\n",
    )
    .unwrap();
    let e = with().unwrap_err().to_string();
    assert!(e.contains("no card `mine` is built in"), "{e}");
}

#[test]
fn differences_are_told_by_key() {
    let (a, b) = (
        parse(TEXT, "a").unwrap(),
        parse(&broken("value: 10,", "value: 12,").replace("b: 6", "b: 8"), "b").unwrap(),
    );
    assert_eq!(differences(&a, &a), []);
    let found: Vec<_> = differences(&a, &b)
        .into_iter()
        .map(|d| (d.key, d.a.unwrap(), d.b.unwrap()))
        .collect();
    let expected = [
        ("splits[test].items.value", "10", "12"),
        ("categories[kind].of.b", "6", "8"),
    ];
    assert_eq!(
        found,
        expected.map(|(k, a, b)| (k.to_owned(), a.to_owned(), b.to_owned()))
    );
}

#[test]
fn every_page_says_what_its_card_says() {
    for card in cards() {
        let page = page(&card);
        assert!(page.starts_with(&card.title), "{}", card.name);
        assert!(page.contains(card.metric.name()) && page.contains(&card.citation.key));
        for number in card.numbers.later.iter().filter_map(|n| n.value) {
            assert!(page.contains(&number.to_string()), "{}: {number}", card.name);
        }
        assert!(page.lines().all(|l| l.chars().count() <= 130), "{}", card.name);
    }
}

#[test]
fn the_verbs_print_what_is_known() {
    let (code, text, _) = benchmark(&["ls"]);
    assert_eq!(code, 0);
    for card in cards() {
        assert!(
            text.lines().any(|l| l.contains(&format!(" {} ", card.name))),
            "{}",
            card.name
        );
    }
    let (code, text, _) = benchmark(&["ls", "--table", "2", "--task", "mcq", "--json"]);
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = list.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (0, vec!["mmau-sound", "mmau-music", "muchomusic"]));
    assert_eq!(list[2]["paper"]["value"], 56.5);
    assert_eq!(list[2]["items"], 1187);

    let (code, text, _) = benchmark(&["show", "cmm"]);
    assert!(
        code == 0 && text.contains("evaluation/calculate_score.py"),
        "{text}"
    );
    let (_, text, _) = benchmark(&["show", "cmm", "--json"]);
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(whole["rules"]["official"], "cmm");
    // What is printed is a card.
    assert_eq!(serde_json::from_value::<Card>(whole).unwrap(), card("cmm"));

    let (code, text, _) = benchmark(&["check"]);
    assert_eq!((code, text), (0, format!("{} cards are sound\n", cards().len())));
    let file = folder().join("mmar.yaml");
    let file = file.to_str().unwrap();
    assert_eq!(benchmark(&["check", file]).1, "1 card is sound\n");
    assert_eq!(benchmark(&["diff", "mmar", file]).1, "no difference\n");
    let (code, text, _) = benchmark(&["diff", "mmau-mini-original", "mmau-mini-v05.15.25"]);
    assert!(
        code == 0 && text.contains("files[mmau-test-mini.json].from\n  - "),
        "{text}"
    );
}

#[test]
fn a_wrong_name_or_card_ends_with_its_kind_of_error() {
    for (name, said) in [
        ("mmau-musik", "did you mean `mmau-music`?"),
        (
            "entailment",
            "audio-entailment-clotho, audio-entailment-audiocaps",
        ),
        ("zebra", "`af2 benchmark ls` lists all"),
    ] {
        let (code, out, errors) = benchmark(&["show", name]);
        assert_eq!((code, out.as_str()), (2, ""), "{errors}");
        assert!(errors.contains(said), "{errors}");
    }
    let (code, _, errors) = benchmark(&["ls", "--task", "mqc"]);
    assert!(code == 2 && errors.contains("mcq"), "{errors}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    std::fs::write(&path, broken("official: mmau,", "official: mmua,")).unwrap();
    let (code, out, errors) = benchmark(&["check", path.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (6, ""));
    assert!(
        errors.contains("mine.yaml:30:19: ") && errors.contains("did you mean `mmau`?"),
        "{errors}"
    );
    let (code, _, errors) = benchmark(&["ls", "--cards", folder.path().to_str().unwrap()]);
    assert!(code == 6 && errors.contains("mine.yaml:30:19: "), "{errors}");
}
