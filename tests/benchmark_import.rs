//! `af2 benchmark import` and `submit`: each official form, written here from its description, becomes a manifest that the real
//! loader opens; what is wrong with files, rows and sounds is told, all of it at once.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::data::item::Item;
use af2::data::manifest::Manifest;
use common::{af2, wav};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with official files, sounds and what is made of them.
struct Set(tempfile::TempDir);

type Done = (i32, String, String);

impl Set {
    fn new(sounds: &[&str]) -> Self {
        let set = Set(tempfile::tempdir().unwrap());
        fs::create_dir_all(set.path("audio")).unwrap();
        for (n, sound) in sounds.iter().enumerate() {
            let path = set.path("audio").join(sound);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // No two alike.
            wav(&path, 16_000 + n);
        }
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn json(&self, name: &str, value: &Value) -> String {
        self.file(name, value.to_string())
    }

    fn import(&self, card: &str, from: &[&str], more: &[&str]) -> Done {
        let (audio, out) = (
            self.path("audio").display().to_string(),
            self.path("out").display().to_string(),
        );
        let head = [
            "benchmark",
            "import",
            card,
            "--audio",
            &audio,
            "--out",
            &out,
            "--from",
        ];
        af2(&[&head[..], from, more].concat())
    }

    /// Imported with `--accept`; the manifest, and its items as the loader has them.
    fn imported(&self, card: &str, from: &[&str], more: &[&str]) -> (Value, Vec<Item>) {
        let (code, out, err) = self.import(card, from, &[&["--accept"], more].concat());
        assert_eq!(code, 0, "{card}: {err}{out}");
        let path = PathBuf::from(out.lines().last().unwrap());
        let manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let opened = Manifest::open(&path).unwrap();
        let items = opened.items().unwrap();
        assert_eq!(manifest["total_num"].as_u64().unwrap() as usize, items.len());
        assert_eq!(
            (opened.task.as_str(), &manifest["benchmark"]["card"]),
            (card, &json!(card))
        );
        for item in &items {
            assert!(self.path("audio").join(&item.name).is_file(), "{}", item.name);
        }
        (manifest, items)
    }

    /// What an import that must not succeed says, and that it has written nothing.
    fn refused(&self, card: &str, from: &[&str], more: &[&str]) -> (i32, String) {
        let (code, out, err) = self.import(card, from, more);
        assert_ne!(code, 0, "{out}");
        assert!(!self.path("out").exists(), "{err}");
        (code, err)
    }
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
}

fn near(value: &Value, wanted: f64) -> bool {
    (value.as_f64().unwrap() - wanted).abs() < 1e-12
}

fn mmau(n: usize) -> Value {
    json!({
        "id": format!("id-{n}"), "audio_id": format!("./test-mini-audios/{n}.wav"), "question": format!("Question {n}?"),
        "choices": ["a dog", "Rain", "a longer answer"], "answer": "Rain", "dataset": "d", "task": "sound", "split": "test-mini",
        "category": "Reasoning", "sub-category": "s", "difficulty": "easy"
    })
}

#[test]
fn mmau_becomes_a_manifest_that_the_loader_and_its_doctor_take() {
    let set = Set::new(&["0.wav", "deep/test-mini-audios/1.wav", "2.flac.wav", "2.wav"]);
    let mut rows = [mmau(0), mmau(1), mmau(2)];
    rows[1]["category"] = json!(["Reasoning"]);
    rows[1]["answer"] = json!("a longer answer");
    rows[2]["answer"] = json!(" a  DOG ");
    let file = set.json("mmau-test-mini.json", &json!(rows));
    let (manifest, items) = set.imported("mmau-mini-v05.15.25", &[&file], &[]);
    assert_eq!(items[0].prompt, "Question 0?\nChoose the correct option from the following options:\n(A) a dog\n(B) Rain\n(C) a longer answer");
    assert_eq!(
        (items[0].output.as_str(), items[0].labels[2].as_str()),
        ("(B) Rain", "(C) a longer answer")
    );
    assert_eq!(
        (items[1].output.as_str(), items[1].name.as_str()),
        ("(C) a longer answer", "deep/test-mini-audios/1.wav")
    );
    assert_eq!(items[2].output, "(A) a dog");
    assert!((items[0].chance.unwrap() - 1.0 / 3.0).abs() < 1e-12);
    let facts = &manifest["benchmark"];
    assert_eq!(
        facts["counts"],
        json!({"card": 1000, "rows": 3, "items": 3, "sounds": 3, "missing_sounds": 0, "hidden_answers": 0, "left_out": {}})
    );
    assert_eq!(facts["name"], "mmau-mini-v05.15.25 (3 of 1000 items)");
    assert_eq!(
        facts["faults"]["category_is_a_list"],
        json!({"count": 1, "first": ["item 2"]})
    );
    let text = fs::read(&file).unwrap();
    let sha: String = Sha256::digest(&text).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        facts["files"],
        json!([{"name": "mmau-test-mini.json", "sha256": sha, "known": "other", "card": "9f18fda9…"}])
    );
    assert_eq!(facts["card_sha256"].as_str().unwrap().len(), 64);
    // The official row is there, for official rules and categories.
    let item = &manifest["data"]["1"];
    for (key, value) in [
        ("id", json!("id-1")),
        ("task", json!("sound")),
        ("category", json!(["Reasoning"])),
        ("answer", json!("a longer answer")),
    ] {
        assert_eq!(item[key], value);
    }
    assert_eq!(item["choices"], rows[1]["choices"]);
    // What the constants get, counted by hand.
    for kind in ["first", "longest", "shortest"] {
        assert!(near(&facts["constant"][kind], 1.0 / 3.0), "{facts}");
    }
    let path = set
        .path("out/mmau-mini-v05.15.25/test-mini.json")
        .display()
        .to_string();
    let (code, out, err) = af2(&[
        "data",
        "check",
        &path,
        "--data-root",
        &set.path("audio").display().to_string(),
    ]);
    assert_eq!(code, 0, "{out}{err}");
    // With predictions of the official ids its items are those of the official file.
    let said: Vec<Value> = (0..3)
        .map(|n| json!({"id": format!("id-{n}"), "prediction": "rain"}))
        .collect();
    let said = set.json("said.json", &json!(said));
    let (code, out, err) = af2(&[
        "score",
        "--benchmark",
        "mmau-mini-v05.15.25",
        "--predictions",
        &said,
        "--items",
        &path,
        "--json",
    ]);
    assert_eq!(code, 0, "{err}");
    let scored: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (scored["n"].as_u64(), scored["items"][0]["correct"].as_bool()),
        (Some(3), Some(true))
    );
}

#[test]
fn other_sets_of_questions_with_options() {
    let set = Set::new(&[
        "a.wav",
        "Sound_AQA_clotho/b.wav",
        "Audio_Grounding_x/b.flac",
        "x-1.wav",
    ]);
    let mmar = json!({"id": "m1", "audio_path": "./audio/a.wav", "question": "Q?", "choices": ["x", "y"], "answer": "y", "modality": "mix",
        "category": "Perception", "sub-category": "s", "language": null, "timestamp": "00:01", "cue": ["c"], "rubric": [{"name": "r"}]});
    let lines = format!("\u{feff}{mmar}\r\n\r\n");
    let (manifest, items) = set.imported("mmar", &[&set.file("MMAR-meta.json", lines)], &[]);
    assert_eq!(
        (items[0].output.as_str(), items[0].name.as_str(), items[0].chance),
        ("(B) y", "a.wav", Some(0.5))
    );
    assert_eq!(manifest["data"]["0"]["rubric"], mmar["rubric"]);
    assert_eq!(manifest["benchmark"]["faults"]["language_is_null"]["count"], 1);

    let air = |task: &str, set: &str, path: &str, d: Value| {
        json!({"path": path, "question": "Which?", "choice_a": "one", "choice_b": "two",
        "choice_c": "three", "choice_d": d, "answer_gt": "two", "task_name": task, "dataset_name": set, "uniq_id": path.len()})
    };
    let rows = json!([
        air("Sound_AQA", "clotho", "b.wav", json!("four")),
        air("Audio_Grounding", "x", "b.wave", Value::Null)
    ]);
    let (manifest, items) = set.imported(
        "air-bench-foundation",
        &[&set.json("Foundation_meta.json", &rows)],
        &[],
    );
    assert_eq!(
        (items[0].name.as_str(), items[1].name.as_str()),
        ("Sound_AQA_clotho/b.wav", "Audio_Grounding_x/b.flac")
    );
    assert!(
        items[0]
            .prompt
            .ends_with("\nWhich?\nA. one\nB. two\nC. three\nD. four"),
        "{}",
        items[0].prompt
    );
    assert!(items[1].prompt.ends_with("C. three\nD. None") && items[1].labels.len() == 3);
    assert_eq!(
        (items[0].output.as_str(), &manifest["data"]["0"]["task_name"]),
        ("B. two", &json!("Sound_AQA"))
    );

    let mmsu = json!({"id": "x-1", "task_name": "pitch", "audio": {"bytes": null, "path": null}, "question": "Which?", "choice_a": "low",
        "choice_b": "high", "choice_c": "both", "choice_d": "none", "answer_gt": "high", "category": "c", "sub-category": "s"});
    let (manifest, items) = set.imported("mmsu", &[&set.file("train.jsonl", format!("{mmsu}\n"))], &[]);
    assert_eq!(
        (items[0].output.as_str(), items[0].name.as_str()),
        ("(B) high", "x-1.wav")
    );
    assert!(manifest["data"]["0"].get("audio").is_none() && manifest["data"]["0"]["category"] == "c");

    let rows = json!([
        {"id": 1, "audio_path": ["data/a.wav"], "question": "Which?", "choices": ["x", "y"], "answer": "x", "category": "sound"},
        {"id": 2, "audio_path": "['data/a.wav']", "question": "Say it.", "choices": null, "answer": "It rains.", "category": "open"},
        {"id": 3, "audio_path": ["a.wav"], "question": "Use 3 bullets.", "choices": [], "answer": "", "task_identifier": "Number Bullets", "kwargs": {"N": 3}},
        {"id": 4, "audio_path": ["a.wav", "x-1.wav"], "question": "Which is louder?", "choices": ["x", "y"], "answer": "x"},
    ]);
    let (manifest, items) = set.imported("mmau-pro", &[&set.json("rows.json", &rows)], &[]);
    let kinds: Vec<&str> = (0..3)
        .map(|n| manifest["data"][n.to_string()]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["multiple choice", "open", "instruction following"]);
    assert_eq!(
        (
            items[1].prompt.as_str(),
            items[1].output.as_str(),
            items[1].labels.len()
        ),
        ("Say it.", "It rains.", 0)
    );
    assert_eq!(
        manifest["benchmark"]["counts"]["left_out"],
        json!({"asks about several sounds": 1})
    );
    assert_eq!(manifest["data"]["2"]["kwargs"], json!({"N": 3}));
}

/// As Hugging Face's data sets are packed: the sound's bytes within, lists of texts, two row groups.
#[test]
fn parquet_is_read_but_for_its_sounds() {
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    let schema = "message schema {
        optional binary id (UTF8);
        optional group audio { optional binary bytes; optional binary path (UTF8); }
        optional binary question (UTF8);
        optional binary choice_a (UTF8); optional binary choice_b (UTF8); optional binary choice_c (UTF8); optional binary choice_d (UTF8);
        optional binary answer_gt (UTF8);
        optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
    }";
    for (name, packed) in [
        ("s", Compression::SNAPPY),
        ("z", Compression::ZSTD(ZstdLevel::default())),
        ("u", Compression::UNCOMPRESSED),
    ] {
        let set = Set::new(&["0.wav", "1.wav"]);
        let path = set.path(&format!("{name}.parquet"));
        let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(packed).build();
        let mut file =
            SerializedFileWriter::new(fs::File::create(&path).unwrap(), schema, properties.into()).unwrap();
        for n in 0..2 {
            let mut group = file.next_row_group().unwrap();
            let audio = format!("{n}.wav");
            let texts: [&[&str]; 10] = [
                &["id"],
                &["RIFF"],
                &[&audio],
                &["Which?"],
                &["low"],
                &["high"],
                &[],
                &[],
                &["high"],
                &["x", "y"],
            ];
            for (column, texts) in texts.iter().enumerate() {
                let id = format!("id-{n}");
                let own = |t: &&str| ByteArray::from(if *t == "id" { id.as_str() } else { t });
                let values: Vec<ByteArray> = texts.iter().map(own).collect();
                let deep = [1, 2, 2, 1, 1, 1, 1, 1, 1, 3][column];
                let levels = if values.is_empty() {
                    vec![0]
                } else {
                    vec![deep; values.len()]
                };
                let mut writer = group.next_column().unwrap().unwrap();
                let again = [0i16, 1];
                let repeated = (column == 9).then_some(&again[..]);
                writer
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&levels), repeated)
                    .unwrap();
                writer.close().unwrap();
            }
            group.close().unwrap();
        }
        file.close().unwrap();
        let (manifest, items) = set.imported("mmsu", &[&path.display().to_string()], &[]);
        assert_eq!(
            (
                items[1].name.as_str(),
                items[1].output.as_str(),
                items[1].labels.len()
            ),
            ("1.wav", "(B) high", 2)
        );
        assert_eq!(
            (&manifest["data"]["1"]["id"], &manifest["data"]["1"]["tags"]),
            (&json!("id-1"), &Value::Null)
        );
        assert_eq!(manifest["data"]["1"]["official_tags"], json!(["x", "y"]));
        // Cut off anywhere, or with other bytes, it is an error and no panic.
        let whole = fs::read(&path).unwrap();
        let every = if name == "s" { 311 } else { whole.len() };
        for at in (4..whole.len()).step_by(every) {
            let mut other = whole.clone();
            other[at] ^= 0x55;
            for bytes in [&whole[..at], &other] {
                let (code, _, err) = set.import(
                    "mmsu",
                    &[&set.file("x.parquet", bytes)],
                    &["--accept", "--accept-faulty"],
                );
                assert!(
                    [0, 3, 6].contains(&code) && !err.contains("fault of af2"),
                    "{name} {at}: {code} {err}"
                );
            }
        }
    }
}

const MUCHO: &str = "question,dataset,dataset_identifier,correct_answer,distractor_1_answer,distractor_2_answer,distractor_3_answer,genre,music_knowledge,music_reasoning\r\n";

#[test]
fn muchomusic_draws_the_order_of_options_by_its_seed() {
    let set = Set::new(&["sdd/02/1234.2min.wav", "mc/[abcdefghij0]-[30-40].wav", "77.wav"]);
    let mut csv = MUCHO.to_owned();
    for n in 0..20 {
        csv += &format!(
            "\"What, {n}?\",sdd,1234.json,right,near,true,far,rock,['melody'],\"['mood', \"\"x's\"\"]\"\r\n"
        );
    }
    csv += "Who?,musiccaps,abcdefghij0_30.json,one,two,three,four,,,\r\n";
    let file = set.file("muchomusic.csv", csv);
    let (manifest, items) = set.imported("muchomusic", &[&file], &[]);
    let item = |n: usize| &manifest["data"][n.to_string()];
    let original = ["right", "near", "true", "far"];
    let mut firsts = std::collections::BTreeSet::new();
    for (n, own) in items.iter().enumerate().take(20) {
        let orders: Vec<usize> = serde_json::from_value(item(n)["answer_orders"].clone()).unwrap();
        let shown: Vec<&str> = orders.iter().map(|i| original[*i]).collect();
        assert_eq!(item(n)["answers"], json!(shown));
        let at = orders.iter().position(|i| *i == 0).unwrap();
        assert_eq!(own.output, format!("({}) right", ["A", "B", "C", "D"][at]));
        firsts.insert(orders[0]);
    }
    assert_eq!(firsts.len(), 4, "the right answer is not always at one place");
    assert!(
        items[0].prompt.starts_with("What, 0? (A) ") && items[0].prompt.ends_with('.'),
        "{}",
        items[0].prompt
    );
    assert_eq!(
        (items[20].name.as_str(), items[0].name.as_str()),
        ("mc/[abcdefghij0]-[30-40].wav", "sdd/02/1234.2min.wav")
    );
    assert_eq!(
        (&item(0)["reasoning"], &item(0)["knowledge"]),
        (&json!(["mood", "x's"]), &json!(["melody"]))
    );
    assert_eq!(
        (
            &item(0)["genre"],
            &item(0)["dataset"],
            &manifest["benchmark"]["seed"]
        ),
        (&json!("rock"), &json!("sdd"), &json!(0))
    );
    let (again, _) = set.imported("muchomusic", &[&file], &[]);
    assert_eq!(again, manifest);
    let (other, _) = set.imported("muchomusic", &[&file], &["--seed", "7"]);
    assert_ne!(other["data"], manifest["data"]);
    assert_eq!(other["benchmark"]["seed"], 7);

    // The harder variant, and the prompts of the official script.
    let rul = json!({"77": {"question": "Which?", "caption": "c", "correct_answer": "r", "distractors": ["s", "t", "u", "v"], "PI": 0.9}});
    let (manifest, items) = set.imported("muchomusic-rul", &[&set.json("RUL-MuchoMusic.json", &rul)], &[]);
    assert_eq!(
        (
            items[0].labels.len(),
            items[0].chance,
            &manifest["data"]["0"]["id"]
        ),
        (5, Some(0.2), &json!("77"))
    );
    let prompts = json!([{"id": 1234, "prompt": "Question: No? \n Options: (A) z The correct answer is: A\n Question: Yes?\n Options: (A) p (B) q \n The correct answer is: ",
        "answers": ["p", "q"], "answer_orders": [1, 0], "dataset": "sdd", "genre": "", "reasoning": [], "knowledge": [], "audio_path": "data/sdd/audio/02/1234.2min.mp3"}]);
    let (manifest, items) = set.imported("muchomusic", &[&set.json("prompts.json", &prompts)], &[]);
    assert_eq!(
        (items[0].output.as_str(), &manifest["data"]["0"]["question"]),
        ("(B) q", &json!("Yes?"))
    );
    assert_eq!(manifest["benchmark"]["seed"], Value::Null);
}

#[test]
fn questions_with_free_answers() {
    let set = Set::new(&["Yabcdefghij0.wav", "m/0001.wav", "clip.wav"]);
    let rows = json!([{"audio_id": "Yabcdefghij0.wav", "caption": "c", "timestamp_events": "['(a-0-1)']",
        "instruction_output": [{"instruction": "Why?", "output": "So."}, {"instruction": "How?", "output": "Thus."}]}]);
    let (manifest, items) = set.imported("compa-r-test", &[&set.json("compa.json", &rows)], &[]);
    assert_eq!(
        (items[1].prompt.as_str(), items[1].output.as_str()),
        ("How?", "Thus.")
    );
    let item = &manifest["data"]["1"];
    assert_eq!(
        (&item["id"], &item["timestamp_events"]),
        (&json!("Yabcdefghij0.wav#2"), &json!("['(a-0-1)']"))
    );

    let rows = json!([{"instruction": "What?", "input": "", "audio_id": "/data/owner/audio/abcdefghij0.flac", "dataset": "as", "task": "t", "output": "Rain."}]);
    let (manifest, items) = set.imported("openaqa", &[&set.json("open.json", &rows)], &[]);
    assert_eq!(
        (
            items[0].name.as_str(),
            items[0].prompt.as_str(),
            &manifest["data"]["0"]["task"]
        ),
        ("Yabcdefghij0.wav", "What?", &json!("t"))
    );

    let pair = |eval: Value| json!({"ytid": "abcdefghij0", "question": "Tell.", "answer": "Jazz.", "is_audioset_eval": eval, "sampling_rate": 16000});
    let rows = json!({"QA": [pair(json!(true)), pair(json!(false)), pair(json!("True"))]});
    let (manifest, items) = set.imported(
        "music-instruct-long",
        &[&set.json("music_instruct_long.json", &rows)],
        &[],
    );
    assert_eq!(
        (items.len(), &manifest["benchmark"]["counts"]["left_out"]),
        (2, &json!({"is_audioset_eval false": 1}))
    );

    let rows = json!([{"audio_name": "0001.mp3", "conversation": [{"from": "human", "value": "Mood?"}, {"from": "gpt", "value": "Calm."}]}]);
    let (_, items) = set.imported("music-qa", &[&set.json("EvalMusicQA.json", &rows)], &[]);
    assert_eq!(
        (
            items[0].name.as_str(),
            items[0].prompt.as_str(),
            items[0].output.as_str()
        ),
        ("m/0001.wav", "Mood?", "Calm.")
    );

    let line = |kind: &str, answer: &str| {
        json!({"category": "c", "sub_category": kind, "granularity": "object-level", "audio_path": "./a/clip.wav",
        "video_path": "", "question": "Did you hear a dog in the audio? Answer with yes or no.", "answer": answer}).to_string()
    };
    let lines = [
        line("audio-language", "Yes"),
        line("visual-language", "no"),
        line("audio-language", "no"),
        line("audio-language", "no"),
    ]
    .join("\n");
    let (manifest, items) = set.imported("cmm", &[&set.file("all.jsonl", lines)], &[]);
    assert_eq!(
        (items[0].output.as_str(), &items[0].labels, items[0].chance),
        ("yes", &vec!["no".to_owned(), "yes".to_owned()], Some(0.5))
    );
    let constant = &manifest["benchmark"]["constant"];
    assert!(
        near(&constant["always yes"], 1.0 / 3.0) && near(&constant["most frequent: no"], 2.0 / 3.0),
        "{constant}"
    );

    let rows = json!({"split": "test", "flamingo_task": "x", "total_num": 1, "data": {"0": {"name": "clip.wav", "prompt": "When?", "output": "Late.", "category": "Temporal"}}});
    let (manifest, _) = set.imported("long-audio-bench", &[&set.json("long.json", &rows)], &[]);
    assert_eq!(manifest["data"]["0"]["category"], "Temporal");

    let tags = " Output the answer with <SUMMARY>, <CAPTION>, <REASONING>, and <CONCLUSION> tags.";
    let rows = json!({"dataset_path": "Clotho-AQA/audio_files", "flamingo_task": "AF-Reasoning-Eval-AQA-MCQ", "total_num": 1,
        "data": {"0": {"name": "clip.wav", "prompt": format!("Where?\n(A) pool. (B) coin (dropping).{tags}"), "output": "(B) coin (dropping)"}}});
    let (manifest, items) = set.imported("af-reasoning-eval-mcq", &[&set.json("AQA_MCQ.json", &rows)], &[]);
    assert_eq!(
        (
            items[0].labels[1].as_str(),
            items[0].output.as_str(),
            items[0].chance
        ),
        ("(B) coin (dropping)", "(B) coin (dropping)", Some(0.5))
    );
    assert!(items[0].prompt.ends_with(tags) && manifest["data"]["0"]["question"] == "Where?");
}

#[test]
fn captions_keep_all_their_references() {
    let set = Set::new(&["rain, \"hard\".wav", "Yabcdefghij0_30.wav", "Yabcdefghij0_70.wav"]);
    let clotho = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n\"rain, \"\"hard\"\".wav\",\"It rains,\nhard.\",b,c,d,e\n";
    let file = set.file("clotho_captions_evaluation.csv", clotho);
    let (manifest, items) = set.imported("clotho-v2", &[&file], &[]);
    assert_eq!(
        (items[0].prompt.as_str(), items[0].output.as_str()),
        ("Caption the input audio.", "It rains,\nhard.")
    );
    assert_eq!(
        manifest["data"]["0"]["references"],
        json!(["It rains,\nhard.", "b", "c", "d", "e"])
    );
    assert_eq!(manifest["split"], "evaluation");
    let (_, items) = set.imported("clotho-retrieval", &[&file], &[]);
    assert_eq!(items[0].output, "It rains,\nhard.");

    let mut csv = "audiocap_id,youtube_id,start_time,caption\n".to_owned();
    for (n, start) in [(1, 30), (2, 70), (3, 30)] {
        csv += &format!("{n},abcdefghij0,{start},caption {n}\n");
    }
    let (manifest, items) = set.imported("audiocaps", &[&set.file("test.csv", csv)], &[]);
    assert_eq!(
        (items[0].name.as_str(), items[1].name.as_str()),
        ("Yabcdefghij0_30.wav", "Yabcdefghij0_70.wav")
    );
    assert_eq!(
        manifest["data"]["0"]["references"],
        json!(["caption 1", "caption 3"])
    );
    assert_eq!(manifest["data"]["0"]["audiocap_ids"], json!(["1", "3"]));
}

#[test]
fn clotho_aqa_is_divided_by_its_annotators() {
    let set = Set::new(&["a.wav"]);
    let mut csv = "file_name,QuestionText,answer,confidence\n".to_owned();
    for (question, answers) in [
        ("Rain?", ["yes", "Yes", "yes"]),
        ("Dog?", ["no", "yes", "no"]),
        ("What falls?", ["water", "rain", "rain"]),
        ("How many?", ["2", "two", "two"]),
    ] {
        for answer in answers {
            csv += &format!("a.wav,{question},{answer},yes\n");
        }
    }
    let file = set.file("clotho_aqa_test.csv", &csv);
    let (manifest, items) = set.imported("clotho-aqa-unanimous", &[&file], &[]);
    assert_eq!(
        (items.len(), items[0].output.as_str(), items[0].chance),
        (1, "yes", Some(0.5))
    );
    assert_eq!(
        manifest["benchmark"]["counts"]["left_out"],
        json!({"the annotators differ": 3})
    );
    let (manifest, items) = set.imported("clotho-aqa-non-binary", &[&file], &[]);
    assert_eq!(
        (items.len(), items[0].output.as_str(), items[0].labels.len()),
        (1, "rain", 0)
    );
    assert_eq!(
        manifest["data"]["0"]["references"],
        json!(["water", "rain", "rain"])
    );
    assert_eq!(
        manifest["benchmark"]["counts"]["left_out"],
        json!({"yes or no": 2, "a number": 1})
    );
    let set = Set::new(&["a.wav"]);
    let file = set.file("clotho_aqa_test.csv", csv + "a.wav,Alone?,yes,yes\n");
    let (code, err) = set.refused("clotho-aqa-unanimous", &[&file], &["--accept"]);
    assert_eq!(code, 6);
    has(&err, &["line 14", "3 rows a question", "Alone?"]);
}

#[test]
fn vocabularies_and_hypotheses() {
    let set = Set::new(&["00000272.mp4.wav", "00000272.wav", "r.wav"]);
    let row = |kind: &str, question: &str, values: &str, answer: &str| {
        json!({"video_id": "00000272", "question_id": question.len(), "type": kind,
        "question_content": question, "templ_values": values, "anser": answer})
    };
    let rows = json!([
        row(
            "[\"Audio\", \"Comparative\"]",
            "Is the <Object> louder than the <Object>?",
            "[\"cello\", \"piano\"]",
            "yes"
        ),
        row(
            "['Audio', 'Counting']",
            "How many instruments are sounding?",
            "[]",
            "two"
        ),
        row("[\"Visual\", \"Location\"]", "Where?", "[]", "left"),
    ]);
    let (manifest, items) = set.imported("music-avqa-audio", &[&set.json("avqa-test.json", &rows)], &[]);
    assert_eq!(
        (items[0].prompt.as_str(), &items[0].labels),
        (
            "Is the cello louder than the piano?",
            &vec!["left".to_owned(), "two".into(), "yes".into()]
        )
    );
    assert_eq!(
        (items[0].chance, &manifest["data"]["1"]["kind"]),
        (None, &json!("Counting"))
    );
    assert_eq!(
        manifest["benchmark"]["counts"]["left_out"],
        json!({"of the modality Visual": 1})
    );

    let csv = "Dataset,Audio file,Caption,Entailment,Neutral,Contradiction\nclotho,r.wav,\"['It rains.', \"\"It's wet.\"\"]\",e,n,c\n";
    let (manifest, items) = set.imported(
        "audio-entailment-clotho",
        &[&set.file("clotho_entailment_evaluation.csv", csv)],
        &[],
    );
    let outputs: Vec<&str> = items.iter().map(|i| i.output.as_str()).collect();
    assert_eq!(outputs, ["entailment", "neutral", "contradiction"]);
    assert_eq!(
        items[1].prompt,
        "Hypothesis: n\nIs the hypothesis entailment, neutral or contradiction of the audio?"
    );
    assert_eq!(
        manifest["data"]["2"]["captions"],
        json!(["It rains.", "It's wet."])
    );
    let thirds = &manifest["benchmark"]["constant"];
    assert!(near(&thirds["longest"], 1.0 / 3.0), "{thirds}");
}

#[test]
fn sounds_with_labels_whatever_their_columns_are_called() {
    let set = Set::new(&[
        "1-100032-A-0.wav",
        "Medley-solos-DB_test-0_u-1.wav",
        "bass_synthetic_068-049-025.wav",
        "fold1/7061-6-0-0.wav",
        "64760.wav",
        "abcdefghij0_000030.wav",
        "x_4_0.wav",
    ]);
    let csv = "filename,fold,target,category,esc10,src_file,take\n1-100032-A-0.wav,1,0,door_wood_knock,True,100032,A\n";
    let (manifest, items) = set.imported("esc-50", &[&set.file("esc50.csv", csv)], &[]);
    assert_eq!(
        (
            items[0].output.as_str(),
            items[0].labels.len(),
            items[0].prompt.as_str()
        ),
        ("door knock", 50, "classify this sound.")
    );
    assert_eq!(
        (&manifest["data"]["0"]["fold"], items[0].chance),
        (&json!("1"), Some(0.02))
    );
    let (_, items) = set.imported(
        "esc-50-zero-shot",
        &[&set.path("esc50.csv").display().to_string()],
        &[],
    );
    assert_eq!(
        (items[0].output.as_str(), items[0].labels.len()),
        ("This is a sound of door knock.", 0)
    );

    let csv = "slice_file_name,fsID,start,end,salience,fold,classID,class\n7061-6-0-0.wav,7061,0,1,1,1,6,gun_shot\n";
    let (_, items) = set.imported("urbansound8k", &[&set.file("UrbanSound8K.csv", csv)], &[]);
    assert_eq!(
        (items[0].output.as_str(), items[0].name.as_str()),
        ("gun shot", "fold1/7061-6-0-0.wav")
    );

    let csv =
        "Filename,File ID,Duration in ms,Class ID,Classname,Augment id,source\nx_4_0.wav,1,900,6,yawm,0,u\n";
    let (_, items) = set.imported("nonspeech7k", &[&set.file("metadata of test set.csv", csv)], &[]);
    assert_eq!(items[0].output, "yawn");

    let csv =
        "subset,instrument,instrument_id,song_id,uuid4\ntraining,flute,3,1,u-0\ntest,clarinet,0,1,u-1\n";
    let (manifest, items) = set.imported(
        "medley-solos-db",
        &[&set.file("Medley-solos-DB_metadata.csv", csv)],
        &[],
    );
    assert_eq!(
        (
            items.len(),
            items[0].output.as_str(),
            &manifest["benchmark"]["counts"]["left_out"]
        ),
        (1, "clarinet", &json!({"subset training": 1}))
    );

    let notes = json!({"bass_synthetic_068-049-025": {"note_str": "bass_synthetic_068-049-025", "instrument_family_str": "bass", "instrument_source_str": "synthetic", "pitch": 49}});
    let file = set.json("examples.json", &notes);
    assert_eq!(
        set.imported("nsynth-source", &[&file], &[]).1[0].output,
        "synthetic"
    );
    assert_eq!(
        set.imported("nsynth-instrument", &[&file], &[]).1[0].output,
        "bass"
    );
    assert_eq!(
        set.imported("nsynth-zero-shot", &[&file], &[]).1[0].output,
        "This is a sound of bass."
    );

    let csv = set.file(
        "eval.csv",
        "fname,labels,mids\n64760,\"Electric_guitar,Music\",\"/m/02sgy,/m/04rlf\"\n",
    );
    let vocabulary = set.file(
        "vocabulary.csv",
        "0,Electric_guitar,/m/02sgy\n1,Music,/m/04rlf\n2,Zipper,/m/01s0vc\n",
    );
    let (manifest, items) = set.imported("fsd50k", &[&csv, &vocabulary], &[]);
    assert_eq!(
        (items[0].output.as_str(), items[0].labels.len()),
        ("Electric guitar, Music", 0)
    );
    assert_eq!(manifest["data"]["0"]["tags"], json!(["Electric guitar", "Music"]));
    assert_eq!(manifest["data"]["0"]["official_labels"], "Electric_guitar,Music");
    assert_eq!(
        manifest["benchmark"]["labels"],
        json!(["Electric guitar", "Music", "Zipper"])
    );

    let csv = set.file(
        "vggsound.csv",
        "abcdefghij0,30,people marching,test\nabcdefghij0,30,people running,train\n",
    );
    let (manifest, items) = set.imported("vggsound-zero-shot", &[&csv], &[]);
    assert_eq!(
        (items.len(), items[0].output.as_str(), items[0].name.as_str()),
        (1, "This is a sound of people marching.", "abcdefghij0_000030.wav")
    );
    assert_eq!(
        manifest["benchmark"]["counts"]["left_out"],
        json!({"of the split train": 1})
    );
    let csv = set.file("eval_segments.csv", "# Segments csv\n# num_ytids=1\n# YTID, start_seconds, end_seconds, positive_labels\nabcdefghij0, 30.000, 40.000, \"/m/02sgy,/m/04rlf\"\n");
    let names = set.file(
        "class_labels_indices.csv",
        "index,mid,display_name\n0,/m/02sgy,\"Electric guitar\"\n1,/m/04rlf,Music\n",
    );
    let (manifest, _) = set.imported("audioset-zero-shot", &[&csv, &names], &[]);
    assert_eq!(manifest["data"]["0"]["tags"], json!(["Electric guitar", "Music"]));
}

#[test]
fn sets_without_a_file_are_read_off_their_folders() {
    let set = Set::new(&[
        "Actor_01/03-01-05-01-01-01-01.wav",
        "Actor_02/03-01-08-01-01-01-02.wav",
    ]);
    let folder = set.path("audio").display().to_string();
    let (manifest, items) = set.imported("ravdess", &[&folder], &[]);
    assert_eq!(
        (items[0].output.as_str(), items[1].output.as_str()),
        ("angry", "surprised")
    );
    assert_eq!(
        (&manifest["benchmark"]["files"], &manifest["split"]),
        (&json!([]), &json!("val"))
    );
    let set = Set::new(&["Test/CrowdedIndoor/x.wav", "Test/Nowhere/y.wav"]);
    let folder = set.path("audio").display().to_string();
    let (code, err) = set.refused("cochl-scene", &[&folder], &[]);
    assert_eq!(code, 6);
    has(&err, &["Test/Nowhere/y.wav", "--accept-faulty"]);
    let (manifest, items) = set.imported("cochl-scene", &[&folder], &["--accept-faulty"]);
    assert_eq!((items.len(), items[0].output.as_str()), (1, "crowdedindoor"));
    assert_eq!(
        manifest["benchmark"]["counts"]["left_out"],
        json!({"faulty: missing_field": 1})
    );
}

/// A card whose one file has this hash.
fn card(set: &Set, sha: &str) -> String {
    let text = format!(
        "name: mine\nversion: 1\ntitle: Mine\nabout: Questions.\ntask: mcq\nskills: [sound]\nheld_out: false\npaper: []
splits:\n  - name: test\n    items: {{value: 1, mark: computed, source: here}}\nscored: test\nofficial_format: mmau_json
files:\n  - {{name: f.json, from: here, mark: computed, {sha}}}\nobtain: Ask us.\nlicence: unknown
prompt:\n  template: \"{{prompt}} {{question}} {{options}}\"\n  pool: [\"Hear.\", \"Listen.\"]\n  chosen: 1\n  mark: checked\n  source: here
options: lettered_inline\ndecoding: {{temperature: 0.0, max_new_tokens: 256, num_beams: 1, mark: checked, source: here}}
rules: {{official: mmau, fair: choice, mark: checked, source: here}}\nmetric: accuracy\naggregation: micro
chance: {{value: 0.25, mark: computed}}\nconstant: {{first: 0.5, longest: null, shortest: null, why: made up}}\nunit: percent
numbers:\n  paper: {{model: M, value: null, why: none}}\n  previous: null\n  later: []\ncitation: {{key: mine, why: made up}}\nchecks: [nothing]\n"
    );
    set.file("cards/mine.yaml", text);
    set.path("cards").display().to_string()
}

#[test]
fn a_file_is_the_one_that_the_card_knows_or_is_accepted() {
    let set = Set::new(&["0.wav"]);
    let mut row = mmau(0);
    row["split"] = json!("test");
    let file = set.json("f.json", &json!([row]));
    let sha: String = Sha256::digest(fs::read(&file).unwrap())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let other = "0".repeat(64);
    for (known, said) in [
        (format!("sha256: \"{other}\""), Some(other.as_str())),
        (
            format!("sha256: null, sha256_begins: \"{}\", why: some", &other[..8]),
            Some("00000000…"),
        ),
        (
            "sha256: null, why: unknown".to_owned(),
            Some("no hash for this one"),
        ),
        (format!("sha256: \"{sha}\""), None),
        (
            format!("sha256: null, sha256_begins: \"{}\", why: some", &sha[..8]),
            None,
        ),
    ] {
        let cards = card(&set, &known);
        if let Some(said) = said {
            let (code, err) = set.refused("mine", &[&file], &["--cards", &cards]);
            assert_eq!(code, 6);
            has(&err, &[said, &sha, "--accept"]);
        }
        let accept: &[&str] = if said.is_some() { &["--accept"] } else { &[] };
        let (code, out, err) = set.import("mine", &[&file], &[accept, &["--cards", &cards]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{known}");
        has(&out, &["as the card counts", &sha]);
        let text = fs::read_to_string(set.path("out/mine/test.json")).unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            manifest["data"]["0"]["prompt"],
            "Listen. Question 0? (A) a dog. (B) Rain. (C) a longer answer."
        );
        let word = manifest["benchmark"]["files"][0]["known"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            word == "whole" || word == "beginning",
            said.is_none(),
            "{known}: {word}"
        );
        fs::remove_dir_all(set.path("out")).unwrap();
    }
    // A folder is looked through for the card's files.
    let cards = card(&set, "sha256: null, why: unknown");
    let folder = set.0.path().display().to_string();
    let (code, _, err) = set.import("mine", &[&folder], &["--accept", "--cards", &cards]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = set.import(
        "mine",
        &[&set.path("audio").display().to_string()],
        &["--accept", "--cards", &cards],
    );
    assert_eq!(code, 6);
    has(&err, &["f.json in this folder", "Ask us."]);
    let (code, _, err) = set.import("mine", &[&file], &["--split", "tset", "--cards", &cards]);
    assert_eq!(code, 2);
    has(&err, &["did you mean `test`?"]);
}

#[test]
fn missing_sounds_are_listed_and_counted_in_the_name() {
    let set = Set::new(&["0.wav"]);
    let rows: Vec<Value> = (0..30).map(mmau).collect();
    let file = set.json("m.json", &json!(rows));
    let (code, err) = set.refused("mmau-mini-v05.15.25", &[&file], &["--accept"]);
    assert_eq!(code, 3);
    has(
        &err,
        &[
            "29 sounds are missing",
            "./test-mini-audios/20.wav (item id-20)",
            "and 9 more",
            "--accept-missing",
        ],
    );
    assert!(!err.contains("21.wav"), "{err}");
    let (code, out, _) = set.import("mmau-mini-v05.15.25", &[&file], &["--accept", "--json"]);
    let whole: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (
            code,
            whole["missing"].as_array().unwrap().len(),
            &whole["manifest"]
        ),
        (3, 29, &Value::Null)
    );
    let (manifest, items) = set.imported("mmau-mini-v05.15.25", &[&file], &["--accept-missing"]);
    assert_eq!(
        (items.len(), &manifest["benchmark"]["counts"]["missing_sounds"]),
        (1, &json!(29))
    );
    assert_eq!(
        manifest["benchmark"]["name"],
        "mmau-mini-v05.15.25 (1 of 1000 items)"
    );
    let set = Set::new(&["other.wav"]);
    let file = set.json("m.json", &json!([mmau(0)]));
    let (code, err) = set.refused("mmau-mini-v05.15.25", &[&file], &["--accept"]);
    assert_eq!(code, 3);
    has(&err, &["none of the sounds is there", "other.wav"]);
    fs::remove_file(set.path("audio/other.wav")).unwrap();
    let (code, err) = set.refused("mmau-mini-v05.15.25", &[&file], &["--accept"]);
    assert_eq!(code, 6);
    has(&err, &["--audio", "found none"]);
}

#[test]
fn faulty_rows_are_told_all_at_once_or_accepted_and_counted() {
    let set = Set::new(&[
        "0.wav", "1.wav", "2.wav", "3.wav", "4.wav", "5.wav", "6.wav", "a/7.wav", "b/7.wav",
    ]);
    let mut rows: Vec<Value> = (0..8).map(mmau).collect();
    rows[0]["question"] = json!("  ");
    rows[1]["answer"] = json!("snow");
    rows[2]["id"] = json!("id-1");
    rows[3]["choices"] = json!("a dog");
    rows[4]["audio_id"] = json!("../../etc/passwd");
    rows[5]["question"] = json!({"text": "?"});
    rows[6]["split"] = json!("test");
    let file = set.json("m.json", &json!(rows));
    let (code, err) = set.refused("mmau-mini-v05.15.25", &[&file], &["--accept"]);
    assert_eq!(code, 6);
    has(
        &err,
        &[
            "item 1: question",
            "item 2: answer",
            "\"snow\"",
            "item 3: id: expected each id once",
            "item 4: choices",
            "item 5: sound",
            "leads out",
            "item 6: question",
            "item 7: split",
            "item 8: sound",
            "a/7.wav, b/7.wav",
            "--accept-faulty",
        ],
    );
    let (manifest, items) = set.imported("mmau-mini-v05.15.25", &[&file], &["--accept-faulty"]);
    // The one whose answer is none of its options can be asked, and not be right.
    assert_eq!(items.len(), 1);
    assert_eq!(
        (items[0].output.as_str(), items[0].labels.len(), items[0].chance),
        ("(D) snow", 4, Some(0.0))
    );
    assert!(!items[0].prompt.contains("snow"));
    let left = manifest["benchmark"]["counts"]["left_out"].as_object().unwrap();
    assert_eq!(
        left.values().map(|n| n.as_u64().unwrap()).sum::<u64>(),
        7,
        "{left:?}"
    );
    // A card that names a fault lets it pass.
    let mut row = mmau(0);
    row["choices"] = json!(["Rain", "Rain", "dog"]);
    row["answer"] = json!("Rain");
    let file = set.json("d.json", &json!([row]));
    let (manifest, items) = set.imported("mmau-mini-v05.15.25", &[&file], &[]);
    assert_eq!(manifest["benchmark"]["faults"]["duplicate_choices"]["count"], 1);
    assert!((items[0].chance.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    let many: Vec<Value> = (0..100).map(|_| json!({"id": 1})).collect();
    let (code, _, err) = set.import(
        "mmau-mini-v05.15.25",
        &[&set.json("n.json", &json!(many))],
        &["--accept"],
    );
    assert_eq!(code, 6);
    has(&err, &["more"]);
    assert!(err.lines().count() < 30, "{err}");
}

#[test]
fn hostile_files_are_errors_with_their_place() {
    let set = Set::new(&["a.wav"]);
    let open = "{\"a\": ".repeat(5000);
    let huge = format!("file_name,caption_1\na.wav,\"{}", "x".repeat(2 << 20));
    let cases: [(&str, &str, Vec<u8>, &[&str]); 14] = [
        ("mmar", "e.json", Vec::new(), &["empty file"]),
        ("mmar", "e.json", b"  \n".to_vec(), &["empty file"]),
        (
            "mmar",
            "h.json",
            b"<!DOCTYPE html><html>".to_vec(),
            &["a web page"],
        ),
        ("mmar", "s.json", b"\"text\"".to_vec(), &["file"]),
        ("mmar", "l.json", b"[1, 2]".to_vec(), &["item 1", "found 1"]),
        (
            "mmar",
            "t.json",
            b"{\"id\": 1, \"id\": 2}".to_vec(),
            &["\\\"id\\\" stands twice"],
        ),
        (
            "mmar",
            "n.jsonl",
            b"{\"id\": 1}\n{\"id\": nan}".to_vec(),
            &["line 2"],
        ),
        ("mmar", "d.json", open.into_bytes(), &["recursion"]),
        ("mmar", "z.json", b"\x1f\x8b\x08".to_vec(), &["gzip", "gunzip"]),
        ("mmsu", "p.parquet", b"PAR1rest".to_vec(), &["Parquet", "to_json"]),
        (
            "clotho-v2",
            "u.csv",
            b"file_name,caption_1\na.wav,caf\xe9\n".to_vec(),
            &["0xe9", "line 2"],
        ),
        (
            "clotho-v2",
            "w.csv",
            b"file_name,caption_1\na.wav,x,y\n".to_vec(),
            &["line 2", "2 fields", "found 3"],
        ),
        (
            "clotho-v2",
            "q.csv",
            huge.into_bytes(),
            &["line 2", "quotation mark"],
        ),
        (
            "clotho-v2",
            "0.csv",
            b"file_name,caption_1\na.wav,x\0y\n".to_vec(),
            &["zero"],
        ),
    ];
    for (card, name, bytes, words) in cases {
        let file = set.file(name, bytes);
        let (code, err) = set.refused(card, &[&file], &["--accept"]);
        assert!([3, 6].contains(&code), "{name}: {code} {err}");
        assert!(!err.contains("panicked"), "{err}");
        has(&err, words);
        has(&err, &[name]);
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    let (code, err) = set.refused("mmar", &[&set.file("l.json", pointer)], &["--accept"]);
    assert_eq!(code, 3);
    has(&err, &["git-lfs"]);
    let (code, err) = set.refused("mmar", &["gone.json"], &["--accept"]);
    assert_eq!(code, 3);
    has(&err, &["gone.json"]);
    for name in ["../../etc/passwd", "a/../../a.wav", "a\0.wav", "..\\a.wav"] {
        let row = json!({"id": "1", "audio_path": name, "question": "Q?", "choices": ["x", "y"], "answer": "y", "language": "en"});
        let (code, err) = set.refused(
            "mmar",
            &[&set.json("m.json", &json!([row]))],
            &["--accept", "--accept-missing"],
        );
        assert_eq!(code, 6, "{name}");
        has(&err, &["item 1: sound"]);
    }
    // A path of the owner's machine is never opened; what it ends in may lie below the folder.
    let row = |name: &str| json!([{"id": "1", "audio_path": name, "question": "Q?", "choices": ["x", "y"], "answer": "y", "language": "en"}]);
    let (code, err) = set.refused(
        "mmar",
        &[&set.json("m.json", &row("/etc/hostname"))],
        &["--accept"],
    );
    assert_eq!(code, 3, "{err}");
    assert_eq!(
        set.imported("mmar", &[&set.json("m.json", &row("/etc/a.wav"))], &[])
            .1[0]
            .name,
        "a.wav"
    );
    // What Python writes and JSON has not.
    let text = r#"[{"id": "1", "audio_path": "a.wav", "question": "Q \ud83d?", "choices": ["x", "y"], "answer": "y", "language": "en", "x": NaN}]"#;
    let (_, items) = set.imported("mmar", &[&set.file("m.json", text)], &[]);
    assert!(items[0].prompt.starts_with("Q \u{fffd}?"), "{}", items[0].prompt);
}

/// Given items, and what each constant answer gets of them, counted here in another way.
#[test]
fn constant_answers_are_scored() {
    let set = Set::new(&["0.wav"]);
    let choices = [
        ["bb", "a", "ccc"],
        ["ccc", "bb", "a"],
        ["a", "bb", "cc"],
        ["dddd", "e", "f"],
    ];
    let answers = ["bb", "ccc", "bb", "f"];
    let rows: Vec<Value> = (0..4)
        .map(|n| {
            let mut row = mmau(0);
            row["id"] = json!(n);
            row["choices"] = json!(choices[n]);
            row["answer"] = json!(answers[n]);
            row
        })
        .collect();
    let (manifest, _) = set.imported("mmau-mini-v05.15.25", &[&set.json("m.json", &json!(rows))], &[]);
    let share = |choose: &dyn Fn(&[&str]) -> usize| {
        let right = (0..4)
            .filter(|n| choices[*n][choose(&choices[*n])] == answers[*n])
            .count();
        right as f64 / 4.0
    };
    let first_of = |all: &[&str], length: usize| all.iter().position(|c| c.len() == length).unwrap();
    let longest = share(&|all| first_of(all, all.iter().map(|c| c.len()).max().unwrap()));
    let shortest = share(&|all| first_of(all, all.iter().map(|c| c.len()).min().unwrap()));
    // By hand: first bb, ccc; longest ccc (second item) and, of two equally long ones, bb; shortest none.
    assert_eq!((share(&|_| 0), longest, shortest), (0.5, 0.5, 0.0));
    assert_eq!(
        manifest["benchmark"]["constant"],
        json!({"first": 0.5, "longest": longest, "shortest": shortest})
    );
}

#[test]
fn a_hidden_test_is_asked_and_submitted() {
    let set = Set::new(&["0.wav", "1.wav"]);
    let mut rows = [mmau(0), mmau(1)];
    for row in &mut rows {
        row["split"] = json!("test");
        row.as_object_mut().unwrap().remove("answer");
    }
    let official = set.json("mmau-test.json", &json!(rows));
    let (manifest, items) = set.imported("mmau-v05.15.25", &[&official], &[]);
    assert_eq!(
        (
            items[0].output.as_str(),
            items[0].labels.len(),
            &manifest["benchmark"]["counts"]["hidden_answers"]
        ),
        ("", 0, &json!(2))
    );
    assert_eq!(manifest["benchmark"]["constant"], json!({}));
    let items = set.path("out/mmau-v05.15.25/test.json").display().to_string();
    let ours = |id: usize, path: &str, control: bool| {
        json!({"version": 1, "id": id.to_string(), "task": "mmau-v05.15.25", "path": path, "prompt": "p",
        "reference": "", "prediction": format!("(a) answer {id}"), "control": control})
        .to_string()
    };
    let submit = |predictions: &str, more: &[&str]| {
        let out = set.path("answers.json").display().to_string();
        let head = [
            "benchmark",
            "submit",
            "mmau-v05.15.25",
            "--out",
            &out,
            "--predictions",
            predictions,
        ];
        let done = af2(&[&head[..], more].concat());
        let written = fs::read_to_string(&out).ok();
        drop(fs::remove_file(&out));
        (done, written)
    };
    let lines = [
        ours(1, "1.wav", false),
        ours(0, "0.wav", true),
        ours(0, "0.wav", false),
    ]
    .join("\n");
    let predictions = set.file("predictions.jsonl", lines);
    let ((code, out, err), written) = submit(&predictions, &["--items", &items]);
    assert_eq!(code, 0, "{err}");
    has(&out, &["2 items", "model_output"]);
    let mut wanted = rows.clone();
    for (n, row) in wanted.iter_mut().enumerate() {
        row["model_output"] = json!(format!("(a) answer {n}"));
    }
    // The official items, byte for byte but for the answers, in their order.
    let written: Value = serde_json::from_str(&written.unwrap()).unwrap();
    assert_eq!(written, json!(wanted));
    // The official file itself, for predictions by its ids.
    let by_id = set.json(
        "by_id.json",
        &json!([{"id": "id-0", "model_output": "x"}, {"id": "id-1", "prediction": "y"}]),
    );
    let ((code, _, err), written) = submit(&by_id, &["--items", &official]);
    assert_eq!(code, 0, "{err}");
    let written: Value = serde_json::from_str(&written.unwrap()).unwrap();
    assert_eq!(
        (
            &written[0]["model_output"],
            &written[1]["model_output"],
            &written[1]["question"]
        ),
        (&json!("x"), &json!("y"), &json!("Question 1?"))
    );
    // Predictions that carry their items.
    let ((code, _, err), _) = submit(&set.json("carried.json", &json!(wanted)), &[]);
    assert_eq!(code, 0, "{err}");

    let wrong = json!([{"id": "id-0", "prediction": "x"}, {"id": "id-0", "prediction": "y"}, {"id": "id-9", "prediction": "z"}, {"id": "id-1", "prediction": null}, {"id": "id-1"}]);
    let ((code, _, err), written) = submit(&set.json("wrong.json", &wrong), &["--items", &official]);
    assert_eq!((code, written), (6, None));
    has(
        &err,
        &[
            "item 2: expected one prediction an item, found id-0 again",
            "id-9",
            "a prediction that is a text",
            "none for id-1",
            "item 5",
        ],
    );
    let ((code, _, err), _) = submit(&predictions, &["--items", &official]);
    assert_eq!(code, 6);
    has(&err, &["the manifest that was asked"]);
    let other = set.file(
        "other.jsonl",
        [ours(0, "1.wav", false), ours(1, "1.wav", false)].join("\n"),
    );
    let ((code, _, err), _) = submit(&other, &["--items", &items]);
    assert_eq!(code, 6);
    has(&err, &["the sound 0.wav"]);
    let ((code, _, err), _) = submit(&by_id, &[]);
    assert_eq!(code, 6);
    has(&err, &["--items"]);
    let (code, _, err) = af2(&[
        "benchmark",
        "submit",
        "esc-50",
        "--predictions",
        &by_id,
        "--out",
        &set.path("x").display().to_string(),
    ]);
    assert_eq!(code, 6);
    has(&err, &["an answer file of its own"]);
    let (code, _, err) = af2(&[
        "benchmark",
        "submit",
        "mmau",
        "--predictions",
        &by_id,
        "--items",
        &official,
        "--out",
        &official,
    ]);
    assert_eq!(code, 2);
    has(&err, &["is an input"]);
    assert!(Path::new(&official).is_file());
}

/// A line of `predictions.jsonl` as `af2 eval` writes it to an item of a manifest.
fn asked(task: &str, key: &str, item: &Value, prediction: &str) -> Value {
    json!({"version": 1, "id": key, "task": task, "path": item["name"], "prompt": item["prompt"], "reference": item["output"],
        "prediction": prediction, "tokens": [1], "labels": item.get("labels").unwrap_or(&json!([])), "chance": item["chance"],
        "control": false, "seconds": 0.5})
}

/// From the official file to the score: imported, answered as `af2 eval` does it, scored by the card on the manifest that was asked.
#[test]
fn predictions_of_af2_are_scored_on_the_manifest_that_was_asked() {
    let set = Set::new(&["0.wav", "1.wav", "2.wav"]);
    let mut rows = [mmau(0), mmau(1), mmau(2)];
    rows[1]["difficulty"] = json!("hard");
    let file = set.json("mmau-test-mini.json", &json!(rows));
    const CARD: &str = "mmau-mini-v05.15.25";
    let (manifest, _) = set.imported(CARD, &[&file], &[]);
    let items = set
        .path("out")
        .join(CARD)
        .join("test-mini.json")
        .display()
        .to_string();
    let item = |n: usize| manifest["data"][n.to_string()].clone();
    let said = ["Rain", "(B) Rain", "a dog"];
    let mut lines: Vec<Value> = (0..3)
        .map(|n| asked(CARD, &n.to_string(), &item(n), said[n]))
        .collect();
    lines.rotate_left(1);
    let written = |name: &str, lines: &[Value]| {
        let text: String = lines.iter().map(|line| line.to_string() + "\n").collect();
        set.file(name, text)
    };
    let score = |predictions: &str, items: &str, more: &[&str]| {
        let head = [
            "score",
            "--benchmark",
            CARD,
            "--predictions",
            predictions,
            "--items",
            items,
        ];
        af2(&[&head[..], more].concat())
    };
    let found = |done: Done| -> Value {
        assert_eq!(done.0, 0, "{}", done.2);
        serde_json::from_str(&done.1).unwrap()
    };
    let ours = written("ours.jsonl", &lines);
    let scored = found(score(&ours, &items, &["--json"]));
    // What the official file gives with the same answers: "(B) Rain" has the letter of no wrong choice.
    let mut official = rows.clone();
    for (row, said) in official.iter_mut().zip(said) {
        row["model_output"] = json!(said);
    }
    let official = set.json("official.json", &json!(official));
    let done = af2(&["score", "--benchmark", CARD, "--predictions", &official, "--json"]);
    let wanted = found(done);
    for key in [
        "items",
        "score",
        "n",
        "categories",
        "states",
        "other",
        "frame",
        "name",
    ] {
        assert_eq!(scored[key], wanted[key], "{key}");
    }
    assert_eq!(scored["items"][2]["id"], "id-2");
    assert_eq!(scored["categories"]["difficulty"]["hard"]["n"], 1);
    assert_eq!(scored["predictions"]["form"], "predictions of af2");
    let sha256 = Sha256::digest(fs::read(&items).unwrap());
    let sha256: String = sha256.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(scored["data"]["sha256"], json!(sha256));

    // Answers to silence and to another set of the same run stand in the file as well.
    let mut more = lines.clone();
    let mut silence = asked(CARD, "0", &item(0), "Rain");
    silence["control"] = json!(true);
    more.insert(0, silence);
    more.push(asked("another", "0", &item(0), "a dog"));
    let (code, out, err) = score(&written("more.jsonl", &more), &items, &["--json"]);
    has(&err, &["1 answers to silence", "1 answers to other manifests"]);
    assert_eq!(found((code, out, err))["items"], scored["items"]);

    // By the ids of the official file, on the manifest.
    let by_id = json!([{"id": "id-1", "prediction": "(B) Rain"}, {"id": "id-0", "prediction": "Rain"}]);
    let half = found(score(&set.json("by_id.json", &by_id), &items, &["--json"]));
    assert_eq!(
        (&half["n"], &half["name"]),
        (&json!(2), &json!(format!("{CARD} (2 of 1000 items)")))
    );
    assert_eq!(half["items"][1], scored["items"][1]);

    // What does not fit is said, and nothing is scored.
    let change = |at: usize, key: &str, value: Value| {
        let mut lines = lines.clone();
        lines[at][key] = value;
        written(&format!("{at}_{key}.jsonl"), &lines)
    };
    let twice = written("twice.jsonl", &[lines.clone(), lines[..1].to_vec()].concat());
    let mut other = manifest.clone();
    other["benchmark"]["card"] = json!("mmar");
    let other = set.json("other.json", &other);
    for (predictions, items, words) in [
        (change(0, "id", json!("7")), &items, vec!["such as 7"]),
        (
            change(1, "path", json!("9.wav")),
            &items,
            vec!["line 2", "path \"2.wav\"", "9.wav", "the manifest that was asked"],
        ),
        (
            change(1, "prompt", json!("?")),
            &items,
            vec!["line 2", "prompt", "item 2"],
        ),
        (
            change(2, "reference", json!("(A) a dog")),
            &items,
            vec!["line 3", "reference \"(B) Rain\""],
        ),
        (twice, &items, vec!["line 4", "each id once", "1 again"]),
        (
            written("elsewhere.jsonl", &[asked("another", "0", &item(0), "x")]),
            &items,
            vec!["task", CARD, "another"],
        ),
        (ours.clone(), &other, vec!["benchmark.card", "mmar"]),
        (
            ours.clone(),
            &official,
            vec!["such as 0", "the manifest that was asked"],
        ),
    ] {
        let (code, out, err) = score(&predictions, items, &[]);
        assert_eq!((code, out.as_str()), (6, ""), "{err}");
        has(&err, &words);
    }
}

/// Benchmarks whose own files of predictions carry no items, which the manifest has.
#[test]
fn other_formats_are_scored_on_their_manifest() {
    let set = Set::new(&["a.wav"]);
    let mut csv = "file_name,QuestionText,answer,confidence\n".to_owned();
    for (question, answer) in [("Rain?", "yes"), ("Dog?", "no")] {
        csv += &format!("a.wav,{question},{answer},yes\n").repeat(3);
    }
    let file = set.file("clotho_aqa_test.csv", csv);
    const CARD: &str = "clotho-aqa-unanimous";
    let (manifest, _) = set.imported(CARD, &[&file], &[]);
    let data = manifest["data"].as_object().unwrap();
    let items = set.path("out").join(CARD);
    let items = fs::read_dir(items).unwrap().next().unwrap().unwrap().path();
    let items = items.display().to_string();
    let line = |key: &str, said: &str| asked(CARD, key, &data[key], said).to_string();
    let ours = set.file("ours.jsonl", [line("0", "Yes."), line("1", "yes")].join("\n"));
    let head = ["score", "--benchmark", CARD, "--json", "--predictions", &ours];
    let (code, out, err) = af2(&[&head[..], &["--items", &items]].concat());
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let verdicts: Vec<&Value> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["correct"])
        .collect();
    assert_eq!(verdicts, [true, false]);
    assert_eq!(
        (&found["n"], &found["items"][0]["clip"]),
        (&json!(2), &json!("a.wav"))
    );
    // The official file alone says too little.
    let (code, _, err) = af2(&[&head[..], &["--items", &file]].concat());
    assert_ne!(code, 0);
    assert!(!err.contains("panicked"), "{err}");
}
