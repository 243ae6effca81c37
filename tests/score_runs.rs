//! `af2 score`: captions and open answers by card, numbers for labels, results made again, corrections by hand, constant answers,
//! comparisons of runs, calibration.
#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "common/scores.rs"]
mod scores;

use scores::{af2, fine, golden, read, refused, scored};
use serde_json::{json, Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn lines(all: impl IntoIterator<Item = Value>) -> String {
    all.into_iter().map(|v| v.to_string() + "\n").collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * b.abs().max(1.0)
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

// ---------------------------------------------------------------------------------------------------------------- captions

/// The same captions in every form in which people have them give the official numbers.
#[test]
fn captions_of_any_form_get_the_official_scores() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = read(&golden("captioning/realistic_5refs.json"));
    let cases = list(&corpus["items"]);
    let name = |case: &Value| format!("{}.wav", case["id"].as_str().unwrap());
    let whole = lines(
        cases
            .iter()
            .map(|c| json!({"id": c["id"], "prediction": c["candidate"], "references": c["references"]})),
    );
    let coco: Vec<Value> = cases
        .iter()
        .map(|c| json!({"image_id": c["id"], "caption": c["candidate"]}))
        .collect();
    let dictionary: Map<String, Value> = cases.iter().map(|c| (name(c), json!([c["candidate"]]))).collect();
    let cell = |text: &Value| format!("\"{}\"", text.as_str().unwrap().replace('"', "\"\""));
    let row = |c: &Value| format!("{},{}\r\n", name(c), cell(&c["candidate"]));
    let dcase = format!(
        "\u{feff}file_name,caption_predicted\r\n{}",
        cases.iter().map(row).collect::<String>()
    );
    // Each caption an item of its own, as a model is asked and as COCO annotates.
    let mut data = Map::new();
    let (mut ours, mut annotations) = (Vec::new(), Vec::new());
    for case in cases {
        for reference in list(&case["references"]) {
            let key = data.len().to_string();
            ours.push(json!({"version": 1, "id": key, "task": "Clotho-v2-AudioCaptioning", "path": format!("evaluation/{}", name(case)),
                "prompt": "describe the sound.", "reference": reference, "prediction": case["candidate"]}));
            data.insert(
                key,
                json!({"name": name(case), "prompt": "describe the sound.", "output": reference}),
            );
            annotations.push(json!({"image_id": case["id"], "caption": reference}));
        }
    }
    let manifest = json!({"split": "test", "split_path": "evaluation", "flamingo_task": "x", "total_num": data.len(), "data": data});
    let header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\r\n".to_owned();
    let clotho = cases.iter().fold(header, |text, c| {
        let cells: Vec<String> = list(&c["references"]).iter().map(cell).collect();
        text + &format!("{},{}\r\n", name(c), cells.join(","))
    });
    let annotated = json!({"images": [], "annotations": annotations}).to_string();
    let items = [
        write(
            folder.path(),
            "manifest.json",
            &serde_json::to_string_pretty(&manifest).unwrap(),
        ),
        write(folder.path(), "clotho.csv", &clotho),
        write(folder.path(), "coco.json", &annotated),
    ];
    let mut runs = vec![
        ("whole.jsonl", whole, None),
        ("ours.jsonl", lines(ours.clone()), None),
        ("ours_and_items.jsonl", lines(ours), Some(&items[0])),
    ];
    for (i, of) in items.iter().enumerate() {
        runs.push((
            ["coco_m.json", "coco_c.json", "coco_a.json"][i],
            Value::from(coco.clone()).to_string(),
            Some(of),
        ));
        runs.push((
            ["dcase_m.csv", "dcase_c.csv", "dcase_a.csv"][i],
            dcase.clone(),
            Some(of),
        ));
        runs.push((
            ["dict_m.json", "dict_c.json", "dict_a.json"][i],
            Value::from(dictionary.clone()).to_string(),
            Some(of),
        ));
    }
    for (file, text, of) in runs {
        let path = write(folder.path(), file, &text);
        let of = of.map(|of| of.display().to_string());
        let more: Vec<&str> = of.iter().flat_map(|of| ["--items", of]).collect();
        let found = scored("clotho-v2", &path, &more);
        assert_eq!(found["n"], 80, "{file}");
        for (own, official) in [
            ("bleu_1", "BLEU_1"),
            ("bleu_2", "BLEU_2"),
            ("bleu_3", "BLEU_3"),
            ("bleu_4", "BLEU_4"),
            ("rouge_l", "ROUGE_L"),
            ("cider", "CIDEr"),
        ] {
            let value = number(&found["parts"][own]);
            assert!(near(value, number(&corpus["corpus"][official])), "{file} {own}");
            let interval = &found["intervals"][own];
            assert!(
                number(&interval["low"]) < value && value < number(&interval["high"]),
                "{file} {own}"
            );
            for (item, case) in list(&found["items"]).iter().zip(cases) {
                assert!(
                    near(number(&item["scores"][own]), number(&case["scores"][official])),
                    "{file} {own}"
                );
            }
        }
        assert_eq!(
            (&found["metric"], &found["score"]),
            (&json!("cider"), &found["parts"]["cider"])
        );
        assert!(
            found["name"].as_str().unwrap().contains("(80 of 1045 items)"),
            "{file}"
        );
        let missing: Vec<&String> = found["not_scored"].as_object().unwrap().keys().collect();
        assert_eq!(missing, ["meteor", "spice", "spider"], "{file}");
        assert!(found["not_scored"]["meteor"]
            .as_str()
            .unwrap()
            .contains("AF2_METEOR_JAR"));
    }
    // For people: what is there, and what is not.
    let path = folder.path().join("whole.jsonl").display().to_string();
    let shown = fine(&["score", "--benchmark", "clotho-v2", "--predictions", &path]);
    for piece in [
        "cider",
        "0.9519",
        "not scored: spice",
        "answered 80",
        "95% interval over clips",
    ] {
        assert!(shown.contains(piece), "{piece}: {shown}");
    }
}

/// Clips that are all alike leave nothing to draw.
#[test]
fn an_interval_of_like_clips_has_no_width() {
    let folder = tempfile::tempdir().unwrap();
    let line = |i: usize| json!({"id": i, "prediction": "a dog barks at the cat", "references": ["the dog barks at a cat"]});
    let path = write(folder.path(), "like.jsonl", &lines((0..7).map(line)));
    let found = scored("audiocaps", &path, &[]);
    for name in ["bleu_1", "bleu_4", "rouge_l", "cider"] {
        let (interval, value) = (&found["intervals"][name], number(&found["parts"][name]));
        assert!(
            near(number(&interval["low"]), value) && near(number(&interval["high"]), value),
            "{name}"
        );
    }
}

#[test]
fn captions_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let items = json!([{"file_name": "a.wav", "captions": ["a dog"]}, {"file_name": "b.wav", "captions": ["rain", "it rains"]}]);
    let items = write(folder.path(), "items.json", &items.to_string())
        .display()
        .to_string();
    for (text, with_items, words) in [
        (r#"{"id": "a", "prediction": "x"}"#, false, vec!["line 1", "references", "--items"]),
        (r#"{"id": "a", "prediction": "x", "references": []}"#, false, vec!["line 1", "references", "found 0"]),
        (r#"{"id": "a", "prediction": "x", "references": "y"}"#, false, vec!["a list of texts"]),
        (r#"{"id": "a", "prediction": "x", "references": [1]}"#, false, vec!["references.0", "a text"]),
        (r#"{"id": "a", "prediction": null, "references": ["y"]}"#, false, vec!["prediction", "a text", "null"]),
        (r#"{"id": "a", "prediction": ["x", "y"], "references": ["y"]}"#, false, vec!["one text", "a list of 2"]),
        (r#"{"id": "a", "references": ["y"]}"#, false, vec!["a prediction: one of", "the keys id, references"]),
        ("{\"id\": \"a\", \"prediction\": \"x\", \"references\": [\"y\"]}\n{\"id\": \"a\", \"prediction\": \"x\", \"references\": [\"y\"]}", false, vec!["each once", "again"]),
        (r#"{"id": "c.wav", "prediction": "x"}"#, true, vec!["line 1", "an item of", "c.wav"]),
        ("{\"id\": \"a.wav\", \"prediction\": \"x\"}\n{\"id\": \"x/a.wav\", \"prediction\": \"y\"}", true, vec!["line 2", "line 1"]),
        (r#"{"prediction": "x"}"#, true, vec!["line 1", "an id or a clip"]),
    ] {
        let path = write(folder.path(), "odd.jsonl", text).display().to_string();
        let mut line = vec!["score", "--benchmark", "clotho-v2", "--predictions", &path];
        if with_items {
            line.extend(["--items", &items]);
        }
        let err = refused(&line, 6);
        assert!(words.iter().all(|w| err.contains(w)) && err.contains("odd.jsonl"), "{text}: {err}");
    }
    // What has no prediction is left out by name, never scored as something else.
    let path = write(folder.path(), "one.jsonl", r#"{"id": "b", "prediction": "rain"}"#);
    let found = scored("clotho-v2", &path, &["--items", &items]);
    assert_eq!((&found["n"], &found["left_out"]), (&json!(1), &json!(1)));
    assert_eq!(found["items"][0]["counted"], false);
    assert!(found["name"].as_str().unwrap().contains("(1 of 1045"));
    // There is no right or wrong to correct.
    let by_hand = write(
        folder.path(),
        "o.jsonl",
        r#"{"item": "b", "verdict": "right", "author": "x", "reason": "y"}"#,
    );
    let (path, by_hand) = (path.display().to_string(), by_hand.display().to_string());
    let err = refused(
        &[
            "score",
            "--benchmark",
            "clotho-v2",
            "--predictions",
            &path,
            "--items",
            &items,
            "--overrides",
            &by_hand,
        ],
        6,
    );
    assert!(err.contains("right or wrong") && err.contains("cider"), "{err}");
}

// ------------------------------------------------------------------------------------------------------- MusicQA, MMAU-Pro

#[test]
fn musicqa_is_scored_from_the_files_of_its_script() {
    let folder = tempfile::tempdir().unwrap();
    let (predictions, items) = (
        golden("rules/musicqa_predictions.json"),
        golden("rules/musicqa_EvalMusicQA.json"),
    );
    let items = items.display().to_string();
    let wanted = read(&golden("rules/musicqa_expected.json"));
    let found = scored("music-qa", &predictions, &["--items", &items]);
    assert_eq!((&found["n"], &found["left_out"]), (&wanted["n"], &json!(1)));
    let left: Vec<&Value> = list(&found["items"])
        .iter()
        .filter(|i| i["counted"] == false)
        .collect();
    assert_eq!(left[0]["clip"], wanted["not_predicted"][0]);
    for (own, official) in [
        ("bleu", "bleu"),
        ("bleu_4", "bleu4_only"),
        ("rouge_l", "rougeL_recall"),
    ] {
        assert!(
            near(number(&found["parts"][own]), number(&wanted["mean"][official])),
            "{own}"
        );
    }
    let counted: Vec<&Value> = list(&found["items"])
        .iter()
        .filter(|i| i["counted"] == true)
        .collect();
    for (item, official) in counted.iter().zip(list(&wanted["per_item"])) {
        for (own, name) in [
            ("bleu", "bleu"),
            ("rouge_l", "rougeL_recall"),
            ("meteor_without_wordnet", "meteor_without_wordnet"),
        ] {
            assert!(
                near(number(&item["scores"][own]), number(&official[name])),
                "{own} {official}"
            );
        }
    }
    // The benchmark's own metric is not here, and nothing stands in its place.
    assert_eq!(
        (&found["metric"], &found["score"]),
        (&json!("bert_score"), &Value::Null)
    );
    let missing = found["not_scored"].as_object().unwrap();
    assert!(missing["meteor"].as_str().unwrap().contains("WordNet"));
    assert!(missing["bert_score"].as_str().unwrap().contains("--bertscore"));
    // A list with answers in it, and lines by clip and question, are the same.
    let all = read(&predictions);
    let questions = all.as_object().unwrap().iter().flat_map(|(clip, answers)| {
        let of = answers.as_object().unwrap().iter();
        of.map(
            move |(question, said)| json!({"audio_name": clip, "question": question, "model_output": said}),
        )
    });
    let path = write(folder.path(), "lines.jsonl", &lines(questions));
    let again = scored("music-qa", &path, &["--items", &items]);
    assert_eq!(again["parts"], found["parts"]);
    let odd = write(
        folder.path(),
        "odd.json",
        r#"{"track_0.mp3": {"Another question?": "x"}}"#,
    );
    let odd = odd.display().to_string();
    let err = refused(
        &[
            "score",
            "--benchmark",
            "music-qa",
            "--predictions",
            &odd,
            "--items",
            &items,
        ],
        6,
    );
    assert!(
        err.contains("Another question?") && err.contains("EvalMusicQA.json"),
        "{err}"
    );
}

#[test]
fn of_mmau_pro_what_text_decides_is_scored_and_the_rest_named() {
    let folder = tempfile::tempdir().unwrap();
    let rows = read(&golden("rules/mmau_pro.json"));
    let rows = list(&rows["instruction_following"]);
    let mut all: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| {
            json!({"id": format!("i{i}"), "category": "instruction following", "task_identifier": row["task_identifier"], "kwargs": row["kwargs"],
                   "question": row["question"], "choices": null, "answer": "", "model_output": row["response"]})
        })
        .collect();
    for i in 0..4 {
        all.push(json!({"id": format!("c{i}"), "category": "music", "question": "?", "choices": ["a piano", "a drum"], "answer": "a drum",
            "audio_path": "x.wav", "model_output": if i == 0 { "a piano" } else { "It is a drum." }}));
    }
    for i in 0..3 {
        all.push(json!({"id": format!("o{i}"), "category": "open", "question": "?", "choices": null, "answer": "A waltz.", "model_output": "A waltz."}));
    }
    let path = write(folder.path(), "mmau_pro.jsonl", &lines(all));
    let found = scored("mmau-pro", &path, &[]);
    let right = rows.iter().filter(|row| row["success"] == true).count();
    assert_eq!(found["n"], rows.len());
    assert!(near(number(&found["score"]), right as f64 / rows.len() as f64));
    assert_eq!(found["left_out"], 7);
    let missing = found["not_scored"].as_object().unwrap();
    assert_eq!(
        missing.keys().collect::<Vec<_>>(),
        ["total", "music", "open", "judge_mean"]
    );
    assert!(
        missing["music"].as_str().unwrap().starts_with("4 items")
            && missing["music"].as_str().unwrap().contains("NV-Embed")
    );
    assert!(
        missing["open"].as_str().unwrap().starts_with("3 items")
            && missing["open"].as_str().unwrap().contains("judge")
    );
    assert_eq!(found["categories"]["category"].as_object().unwrap().len(), 1);
    // The fair rule reads the options, and no instruction.
    let fair = scored("mmau-pro", &path, &["--rule", "fair"]);
    assert_eq!((&fair["n"], number(&fair["score"])), (&json!(4), 0.75));
    assert!(fair["not_scored"]["instruction following"]
        .as_str()
        .unwrap()
        .contains("official"));
}

// ------------------------------------------------------------------------------------------- what other kinds of files want

#[test]
fn numbers_for_labels_are_ranked_and_texts_refused() {
    let folder = tempfile::tempdir().unwrap();
    // dog: there in the first and third of three by its scores, (1/1 + 2/3)/2; rain: third of three, 1/3.
    let rows = [
        (0.9, 0.2, vec!["dog", "rain"]),
        (0.8, 0.7, vec![]),
        (0.1, 0.6, vec!["dog"]),
    ];
    let line = |(i, (dog, rain, truth)): (usize, &(f64, f64, Vec<&str>))| json!({"id": i, "scores": {"dog": dog, "rain": rain}, "truth": truth});
    let path = write(
        folder.path(),
        "tags.jsonl",
        &lines(rows.iter().enumerate().map(line)),
    );
    let found = scored("fsd50k", &path, &[]);
    let map = ((1.0 + 2.0 / 3.0) / 2.0 + 1.0 / 3.0) / 2.0;
    assert!(near(number(&found["score"]), map), "{}", found["score"]);
    // 2 of 3 for dog at 0.5 (one right of two found, one of two there): 1/2; rain: none right.
    assert!(near(number(&found["parts"]["macro_f1_at_0.5"]), 0.25));
    let text = json!({"id": 1, "prediction": "a dog barks"}).to_string();
    for (name, text, words) in [
        ("text.jsonl", text.as_str(), vec!["scores", "a generated text", "--clap CHECKPOINT"]),
        ("odd.jsonl", r#"{"id": 1, "scores": {"dog": 1}, "truth": ["dgo"]}"#, vec!["truth", "dgo", "did you mean \"dog\""]),
        ("null.jsonl", r#"{"id": 1, "scores": {"dog": null}, "truth": []}"#, vec!["scores.dog", "a number", "null"]),
        (
            "less.jsonl",
            "{\"id\": 1, \"scores\": {\"dog\": 1, \"rain\": 0}, \"truth\": []}\n{\"id\": 2, \"scores\": {\"dog\": 1}, \"truth\": []}",
            vec!["line 2", "none for rain"],
        ),
        (
            "twice.jsonl",
            "{\"id\": 1, \"scores\": {\"dog\": 1}, \"truth\": []}\n{\"id\": 1, \"scores\": {\"dog\": 1}, \"truth\": []}",
            vec!["line 2", "line 1 has"],
        ),
    ] {
        let path = write(folder.path(), name, text).display().to_string();
        let err = refused(&["score", "--benchmark", "fsd50k", "--predictions", &path], 6);
        assert!(words.iter().all(|w| err.contains(w)), "{name}: {err}");
    }
    let array = golden("classification/tags_scores.npy").display().to_string();
    let err = refused(&["score", "--benchmark", "fsd50k", "--predictions", &array], 6);
    assert!(err.contains("af2 score tagging"), "{err}");
    // One label of the card's 50, by the largest number.
    let mut scores = vec![0.0; 50];
    scores[0] = 0.5;
    let line = |i: usize| json!({"id": i, "scores": scores, "truth": if i < 3 { "dog" } else { "cat" }});
    let path = write(folder.path(), "zero.jsonl", &lines((0..4).map(line)));
    let found = scored("esc-50-zero-shot", &path, &[]);
    assert!(near(number(&found["score"]), 0.75));
    assert_eq!(
        (&found["items"][3]["answer"], &found["items"][3]["correct"]),
        (&json!("dog"), &json!(false))
    );
    // Embeddings have a verb of their own.
    let path = path.display().to_string();
    let err = refused(
        &["score", "--benchmark", "clotho-retrieval", "--predictions", &path],
        6,
    );
    assert!(err.contains("af2 score retrieval --audio"), "{err}");
}

// --------------------------------------------------------------------------------------------------- made again, corrections

/// A run in a folder, with its predictions inside.
fn a_run(folder: &Path, more: &[&str]) -> PathBuf {
    let run = folder.join("run");
    fs::create_dir_all(&run).unwrap();
    let path = run.join("predictions.json");
    fs::copy(golden("rules/mmau_input.json"), &path).unwrap();
    let out = run.display().to_string();
    scored(
        "mmau",
        &path,
        &[&["--out", &out, "--model", "tiny"], more].concat(),
    );
    run
}

#[test]
fn results_are_made_again_byte_for_byte_wherever_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let before = a_run(folder.path(), &[]);
    let run = folder.path().join("moved");
    fs::rename(&before, &run).unwrap();
    let (there, file) = (run.display().to_string(), run.join("results.json"));
    let bytes = fs::read(&file).unwrap();
    let out = fine(&["score", &there, "--check"]);
    assert!(out.contains("the same byte for byte"), "{out}");
    let shown = fine(&["score", &there]);
    assert!(shown.contains("chance") && shown.contains("official"), "{shown}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    // By the file itself, and for programs.
    let again: Value =
        serde_json::from_str(&fine(&["score", &file.display().to_string(), "--json"])).unwrap();
    assert_eq!(
        (&again["model"], &again["predictions"]["path"]),
        (&json!("tiny"), &json!("predictions.json"))
    );

    // A number that somebody has changed.
    let text = String::from_utf8(bytes.clone()).unwrap();
    let changed = text.replacen("\"correct\":true", "\"correct\":false", 2);
    assert_ne!(changed, text);
    fs::write(&file, &changed).unwrap();
    let err = refused(&["score", &there, "--check"], 9);
    assert!(
        err.contains("2 values differ") && err.contains(".correct: the file has false, made again true"),
        "{err}"
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        changed,
        "--check writes nothing"
    );
    fine(&["score", &there]);
    assert_eq!(fs::read(&file).unwrap(), bytes);

    // Of an older af2: what both have is the same.
    let mut old: Value = serde_json::from_str(&text).unwrap();
    let object = old.as_object_mut().unwrap();
    object.shift_remove("af2");
    object.shift_remove("frame");
    list(&object["items"].clone());
    for item in object["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().shift_remove("clip");
    }
    fs::write(&file, old.to_string()).unwrap();
    let out = fine(&["score", &there, "--check"]);
    assert!(
        out.contains("all values that both have") && out.contains("before versions"),
        "{out}"
    );
    fine(&["score", &there]);
    assert_eq!(fs::read(&file).unwrap(), bytes);

    // Other predictions, another card.
    let predictions = run.join("predictions.json");
    let text = fs::read_to_string(&predictions).unwrap();
    fs::write(&predictions, text.clone() + "\n").unwrap();
    let other = String::from_utf8(bytes.clone()).unwrap();
    let sha = serde_json::from_str::<Value>(&other).unwrap()["card"]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::write(&file, other.replace(&sha, &"0".repeat(64))).unwrap();
    for more in [&["--check"][..], &[]] {
        let err = refused(&[&["score", &there][..], more].concat(), 6);
        assert!(
            err.contains("predictions.json: sha256")
                && err.contains("sha256 of the card")
                && err.contains("--accept"),
            "{err}"
        );
    }
    let (code, out, err) = af2(&["score", &there, "--accept"]);
    assert!(
        code == 0 && err.contains("note: ") && err.contains("2 values differ"),
        "{out} {err}"
    );
    fine(&["score", &there, "--check"]);

    fs::remove_file(&predictions).unwrap();
    let err = refused(&["score", &there], 3);
    assert!(err.contains("predictions.json"), "{err}");
    // What has no files in it, and what is no benchmark's.
    let text = String::from_utf8(bytes).unwrap();
    let mut none: Value = serde_json::from_str(&text).unwrap();
    none.as_object_mut().unwrap().shift_remove("predictions");
    fs::write(&file, none.to_string()).unwrap();
    assert!(refused(&["score", &there], 6).contains("once more with --out"));
    fs::write(&file, r#"{"version": 1, "bootstrap": {}, "tasks": []}"#).unwrap();
    assert!(refused(&["score", &there], 6).contains("--score-only"));
    assert!(
        refused(&["score", &there, "--benchmark", "mmau", "--predictions", "x"], 2)
            .contains("cannot be used with")
    );
}

#[test]
fn results_of_items_elsewhere_and_of_texts_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    fs::create_dir_all(&run).unwrap();
    for file in ["musicqa_predictions.json", "musicqa_EvalMusicQA.json"] {
        fs::copy(golden("rules").join(file), run.join(file)).unwrap();
    }
    let (items, there) = (run.join("musicqa_EvalMusicQA.json"), run.display().to_string());
    let shown = items.display().to_string();
    scored(
        "music-qa",
        &run.join("musicqa_predictions.json"),
        &["--items", &shown, "--out", &there],
    );
    let results = read(&run.join("results.json"));
    assert_eq!(results["data"]["of"], "musicqa_EvalMusicQA.json");
    assert!(fine(&["score", &there, "--check"]).contains("byte for byte"));
    let text = fs::read_to_string(&items).unwrap();
    fs::write(&items, text + " ").unwrap();
    let err = refused(&["score", &there, "--check"], 6);
    assert!(err.contains("musicqa_EvalMusicQA.json: sha256"), "{err}");
    // Numbers for labels.
    let tags = folder.path().join("tags");
    fs::create_dir_all(&tags).unwrap();
    let line = |i: usize| json!({"id": i, "scores": {"dog": i % 3, "rain": i % 2}, "truth": if i % 3 == 2 { ["dog"] } else { ["rain"] }});
    let path = write(&tags, "tags.jsonl", &lines((0..9).map(line)));
    let there = tags.display().to_string();
    scored("fsd50k", &path, &["--out", &there]);
    assert!(fine(&["score", &there, "--check"]).contains("byte for byte"));
}

#[test]
fn corrections_by_hand_stand_beside_the_score() {
    let folder = tempfile::tempdir().unwrap();
    let run = a_run(folder.path(), &[]);
    let there = run.display().to_string();
    let before = read(&run.join("results.json"));
    let counted: Vec<&Value> = list(&before["items"])
        .iter()
        .filter(|i| i["counted"] == true)
        .collect();
    let of = |correct: bool, n: usize| -> Vec<String> {
        let all = counted.iter().filter(|i| i["correct"] == correct);
        all.take(n)
            .map(|i| i["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (wrong, right) = (of(false, 3), of(true, 2));
    let line = |item: &str, verdict: Value, author: &str| json!({"item": item, "verdict": verdict, "author": author, "reason": "heard it"});
    let good = [
        line(&wrong[0], json!("right"), "anna"),
        line(&wrong[1], json!(true), "anna"),
        line(&wrong[2], json!("wrong"), "ben"),
        line(&right[0], json!("wrong"), "ben"),
    ];
    write(&run, "overrides.jsonl", &lines(good.clone()));
    // The file where the results lie is taken by itself.
    assert!(refused(&["score", &there, "--check"], 9).contains("corrected"));
    let shown = fine(&["score", &there]);
    for piece in [
        "corrected",
        "3 verdicts changed",
        "anna: 2 (2 to right, 0 to wrong, 0 as ruled)",
        "ben: 2 (0 to right, 1 to wrong, 1 as ruled)",
    ] {
        assert!(shown.contains(piece), "{piece}: {shown}");
    }
    let after = read(&run.join("results.json"));
    let (n, corrected) = (number(&after["n"]), &after["corrected"]);
    assert_eq!(after["score"], before["score"]);
    assert!(near(
        number(&corrected["score"]),
        number(&before["score"]) + 1.0 / n
    ));
    assert!((number(&corrected["difference"]) - 1.0 / n).abs() < 1e-12);
    assert_eq!(
        (&corrected["changed"], list(&corrected["overrides"]).len()),
        (&json!(3), 4)
    );
    assert_eq!(
        corrected["overrides"][0],
        json!({"item": wrong[0], "verdict": true, "author": "anna", "reason": "heard it"})
    );
    assert_eq!(after["items"], before["items"], "the rule's verdicts stay");
    assert!(fine(&["score", &there, "--check"]).contains("byte for byte"));

    let unknown = format!("{}x", wrong[0]);
    let left: Vec<&Value> = list(&before["items"])
        .iter()
        .filter(|i| i["counted"] == false)
        .collect();
    let left = left[0]["id"].as_str().unwrap();
    for (more, words) in [
        (
            line(&unknown, json!("right"), "anna").to_string(),
            vec!["line 5: item", "an item of the predictions", "did you mean"],
        ),
        (
            line(&wrong[0], json!("right"), "anna").to_string(),
            vec!["line 5: item", "each item once", "line 1 has"],
        ),
        (
            line(left, json!("right"), "anna").to_string(),
            vec!["line 5: item", "left out"],
        ),
        (
            line("a", json!("maybe"), "anna").to_string(),
            vec!["line 5: verdict", "right or wrong", "maybe"],
        ),
        (
            line("a", json!("right"), "  ").to_string(),
            vec!["line 5: author", "not blank"],
        ),
        (
            json!({"item": "a", "verdict": "right", "author": "anna"}).to_string(),
            vec!["line 5: reason", "found nothing"],
        ),
        (
            json!({"item": "a", "verdict": "right", "author": "a", "reason": "b", "score": 1}).to_string(),
            vec!["line 5", "score"],
        ),
        ("[1]".to_owned(), vec!["line 5", "an object"]),
        ("{".to_owned(), vec!["line 5", "an object"]),
    ] {
        write(&run, "overrides.jsonl", &(lines(good.clone()) + &more + "\r\n"));
        let err = refused(&["score", &there], 6);
        assert!(
            words.iter().all(|w| err.contains(w)) && err.contains("overrides.jsonl"),
            "{more}: {err}"
        );
    }
    write(&run, "overrides.jsonl", "\n");
    assert!(refused(&["score", &there], 6).contains("at least one correction"));
}

// --------------------------------------------------------------------------------------------------------- constant answers

/// MMAU's rule once more, by its description: all tokens of the answer, and none that only a wrong choice has.
fn token_rule(choices: &[String], answer: &str, said: &str) -> bool {
    let tokens = |text: &str| -> BTreeSet<String> {
        let text = text.to_lowercase();
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let (said, right) = (tokens(said), tokens(answer));
    let wrong: BTreeSet<String> = choices
        .iter()
        .map(|c| tokens(c))
        .filter(|c| *c != right)
        .flatten()
        .filter(|t| !right.contains(t))
        .collect();
    !said.is_empty() && right.is_subset(&said) && said.is_disjoint(&wrong)
}

#[test]
fn constant_answers_are_scored_by_the_same_rule() {
    let found = scored("mmau", &golden("rules/mmau_input.json"), &[]);
    let items = read(&golden("rules/mmau_input.json"));
    let mut sums = [0.0; 4];
    let mut n = 0.0;
    for item in list(&items).iter().filter(|i| i.get("model_output").is_some()) {
        let choices: Vec<String> = match &item["choices"] {
            Value::Array(all) => all.iter().map(|c| c.as_str().unwrap().to_owned()).collect(),
            other => panic!("{other}"),
        };
        let answer = item["answer"].as_str().unwrap();
        let right = |said: &String| f64::from(u8::from(token_rule(&choices, answer, said)));
        let length = |c: &&String| c.chars().count();
        // `max_by_key` takes the last of equals.
        let longest = choices.iter().rev().max_by_key(length).unwrap();
        let shortest = choices.iter().min_by_key(length).unwrap();
        let chance = choices.iter().map(right).sum::<f64>() / choices.len() as f64;
        for (sum, value) in sums
            .iter_mut()
            .zip([chance, right(&choices[0]), right(longest), right(shortest)])
        {
            *sum += value;
        }
        n += 1.0;
    }
    assert_eq!(found["n"], n as u64);
    for (key, sum) in ["chance", "first", "longest", "shortest"].iter().zip(sums) {
        let value = number(&found["frame"][key]);
        assert!((value - sum / n).abs() < 1e-12, "{key}: {value} and {}", sum / n);
        assert!(value > 0.0 && value < 1.0, "{key}");
    }
    assert_eq!(found["frame"]["answered_by"], "text");
    let none = scored("mmau", &golden("rules/mmau_input.json"), &["--no-frame"]);
    assert!(none.get("frame").is_none() && none["score"] == found["score"]);

    // Letters where the rule reads letters: the first character, whatever the options say.
    let air = scored("air-bench", &golden("rules/airbench_foundation_input.jsonl"), &[]);
    let text = fs::read_to_string(golden("rules/airbench_foundation_input.jsonl")).unwrap();
    let counted: HashMap<String, bool> = list(&air["items"])
        .iter()
        .map(|i| (i["id"].as_str().unwrap().to_owned(), i["counted"] == true))
        .collect();
    let (mut first, mut n) = (0, 0);
    for (i, line) in text.lines().enumerate() {
        let item: Value = serde_json::from_str(line).unwrap();
        let id = item.get("uniq_id").map_or(i.to_string(), |v| match v {
            Value::String(s) => s.clone(),
            v => v.to_string(),
        });
        if counted[&id] {
            n += 1;
            first += usize::from(item["choice_a"] == item["answer_gt"]);
        }
    }
    assert!(
        near(number(&air["frame"]["first"]), first as f64 / f64::from(n)),
        "{first} of {n}"
    );
    assert_eq!(air["frame"]["answered_by"], "letter");

    // Yes and no, of questions without options: PA is 1 and HR 0 where yes is always said, and the other way round.
    let folder = tempfile::tempdir().unwrap();
    let line = |i: usize| json!({"id": i, "question": "?", "answer": if i.is_multiple_of(3) { "yes" } else { "no" }, "pred": "yes", "sub_category": "audio-language"});
    let cmm = scored(
        "cmm",
        &write(folder.path(), "cmm.jsonl", &lines((0..9).map(line))),
        &[],
    );
    for key in ["chance", "first", "longest", "shortest"] {
        assert_eq!(number(&cmm["frame"][key]), 0.5, "{key}");
    }
}

/// Beside its metric a card reports others.
#[test]
fn what_a_card_also_reports_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let line = |(i, (right, said)): (usize, &(&str, &str))| {
        json!({"id": i.to_string(), "task": "ESC50", "path": format!("{i}.wav"), "prompt": "what is it?", "reference": right, "prediction": said,
               "labels": ["dog", "rain", "crow"]})
    };
    let all = [
        ("dog", "dog"),
        ("rain", "a dog"),
        ("rain", "rain."),
        ("crow", "I do not know"),
    ];
    let path = write(
        folder.path(),
        "predictions.jsonl",
        &lines(all.iter().enumerate().map(line)),
    );
    let found = scored("esc-50", &path, &["--rule", "fair"]);
    assert_eq!(number(&found["score"]), 0.5);
    // dog: precision 1/2, recall 1; rain: 1 and 1/2; the others of the card's 50 labels 0.
    assert!(
        near(number(&found["parts"]["macro_f1"]), 2.0 * (2.0 / 3.0) / 50.0),
        "{}",
        found["parts"]
    );
    assert_eq!(number(&found["frame"]["shortest"]), 0.25);
    let path = path.display().to_string();
    let err = refused(&["score", "--benchmark", "esc-50", "--predictions", &path], 6);
    assert!(err.contains("--clap CHECKPOINT"), "{err}");
}

/// The control of `af2 eval` is no answer to a benchmark.
#[test]
fn answers_to_silence_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let line = |i: usize, said: &str, control: bool| {
        json!({"id": i.to_string(), "task": "mmau", "path": "x.wav", "prompt": "What?", "reference": "A dog", "prediction": said,
               "labels": ["A dog", "A cat"], "control": control})
    };
    let all = [
        line(0, "A dog", false),
        line(1, "A cat", false),
        line(0, "A cat", true),
        line(1, "A dog", true),
    ];
    let path = write(folder.path(), "predictions.jsonl", &lines(all));
    let found = scored("mmau", &path, &[]);
    assert_eq!((&found["n"], number(&found["score"])), (&json!(2), 0.5));
    let path = path.display().to_string();
    let (code, _, err) = af2(&["score", "--benchmark", "mmau", "--predictions", &path]);
    assert!(code == 0 && err.contains("2 answers to silence"), "{err}");
    let (code, _, err) = af2(&["score", "--benchmark", "clotho-v2", "--predictions", &path]);
    assert!(code == 6 && err.contains("one prediction a clip"), "{err}");
}

// ------------------------------------------------------------------------------------------------------------- two runs

/// Results of MMAU with some answers changed; predictions without the items in `without`.
fn another(folder: &Path, name: &str, change: &dyn Fn(usize, &mut Map<String, Value>)) -> String {
    let mut items = read(&golden("rules/mmau_input.json"));
    for (i, item) in items.as_array_mut().unwrap().iter_mut().enumerate() {
        change(i, item.as_object_mut().unwrap());
    }
    let run = folder.join(name);
    fs::create_dir_all(&run).unwrap();
    let path = write(&run, "predictions.json", &items.to_string());
    let out = run.display().to_string();
    scored("mmau", &path, &["--out", &out]);
    out
}

#[test]
fn two_runs_are_compared_item_by_item() {
    let folder = tempfile::tempdir().unwrap();
    let same = |_: usize, _: &mut Map<String, Value>| {};
    let say = |every: usize| {
        move |i: usize, item: &mut Map<String, Value>| {
            if i.is_multiple_of(every) && item.contains_key("model_output") {
                item["model_output"] = item["answer"].clone();
            }
        }
    };
    let (a, b) = (
        another(folder.path(), "a", &same),
        another(folder.path(), "b", &say(9)),
    );
    let found: Value = serde_json::from_str(&fine(&["score", "compare", &a, &b, "--json"])).unwrap();
    // Independently, from the two files.
    let verdicts = |run: &str| -> Vec<(bool, String)> {
        let results = read(&Path::new(run).join("results.json"));
        let counted = list(&results["items"])
            .iter()
            .filter(|i| i["counted"] == true)
            .cloned();
        counted
            .map(|i| {
                (
                    i["correct"] == true,
                    i["clip"].as_str().unwrap_or_default().to_owned(),
                )
            })
            .collect()
    };
    let (of_a, of_b) = (verdicts(&a), verdicts(&b));
    let count = |x: bool, y: bool| {
        of_a.iter()
            .zip(&of_b)
            .filter(|(a, b)| a.0 == x && b.0 == y)
            .count()
    };
    let (only_a, only_b, n) = (count(true, false), count(false, true), of_a.len());
    assert!(only_b > 10, "{only_b}");
    assert_eq!(
        found["agreement"],
        json!({"both_right": count(true, true), "only_first_right": only_a, "only_second_right": only_b, "both_wrong": count(false, false)})
    );
    assert_eq!(found["n"], n);
    assert!(near(
        number(&found["difference"]),
        (only_a as f64 - only_b as f64) / n as f64
    ));
    // Twice the binomial tail.
    let (k, m) = (only_a.min(only_b), only_a + only_b);
    let (mut term, mut tail) = (0.5f64.powi(m as i32), 0.0);
    for i in 0..=k {
        tail += term;
        term *= (m - i) as f64 / (i + 1) as f64;
    }
    let p = number(&found["mcnemar_exact_p"]);
    assert!((p - (2.0 * tail).min(1.0)).abs() < 1e-9, "{p} {tail}");
    let drawn = number(&found["randomisation_p"]);
    assert!(drawn > 0.0 && drawn < 0.01, "{drawn}");
    // δ √n = z_α √ψ + z_β √(ψ − δ²)
    let (psi, delta) = (m as f64 / n as f64, number(&found["smallest_difference"]));
    let wanted = 1.959964 * psi.sqrt() + 0.841621 * (psi - delta * delta).sqrt();
    assert!((delta * (n as f64).sqrt() - wanted).abs() < 1e-4, "{delta}");
    let (low, high) = (
        number(&found["interval"]["low"]),
        number(&found["interval"]["high"]),
    );
    let difference = number(&found["difference"]);
    assert!(
        low < difference && difference < high && high < 0.0,
        "{low} {high}"
    );

    let shown = fine(&["score", "compare", &a, &b]);
    for piece in ["A right", "A − B", "McNemar's exact test", "80% power", "points"] {
        assert!(shown.contains(piece), "{piece}: {shown}");
    }
    // With itself: nothing to tell apart.
    let own: Value = serde_json::from_str(&fine(&["score", "compare", &a, &a, "--json"])).unwrap();
    assert_eq!(
        (number(&own["mcnemar_exact_p"]), number(&own["difference"])),
        (1.0, 0.0)
    );

    // Other items are an error; by ids only when that is wanted, and what one alone has is named.
    let less = |i: usize, item: &mut Map<String, Value>| {
        if i == 3 {
            item["id"] = json!("another");
        }
    };
    let c = another(folder.path(), "c", &less);
    let err = refused(&["score", "compare", &a, &c], 6);
    assert!(
        err.contains("sha256 of the data") && err.contains("--accept"),
        "{err}"
    );
    let found: Value =
        serde_json::from_str(&fine(&["score", "compare", &a, &c, "--accept", "--json"])).unwrap();
    assert_eq!((&found["n"], &found["same_data"]), (&json!(n - 1), &json!(false)));
    assert_eq!(found["only_second"], json!(["another"]));
    let shown = fine(&["score", "compare", &a, &c, "--accept"]);
    assert!(
        shown.contains("NOT the same items") && shown.contains("not compared: another"),
        "{shown}"
    );
    // Another card, rule, benchmark.
    let file = Path::new(&b).join("results.json");
    let text = fs::read_to_string(&file).unwrap();
    let sha = read(&file)["card"]["sha256"].as_str().unwrap().to_owned();
    let d = folder.path().join("d.json");
    for (from, to, word) in [
        (sha.as_str(), "00", "card.sha256"),
        ("\"rule\":\"mmau\"", "\"rule\":\"choice\"", "rule"),
        ("\"benchmark\":\"mmau", "\"benchmark\":\"xmmau", "benchmark"),
    ] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text);
        fs::write(&d, other).unwrap();
        let err = refused(&["score", "compare", &a, &d.display().to_string()], 6);
        assert!(err.contains(&format!("d.json: {word}: ")), "{err}");
    }
}

#[test]
fn captions_are_compared_by_their_items_values_and_seeds_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = read(&golden("captioning/realistic_5refs.json"));
    let cases = list(&corpus["items"]);
    let run = |name: &str, say: &dyn Fn(usize, &Value) -> Value| {
        let line = |(i, c): (usize, &Value)| json!({"id": c["id"], "prediction": say(i, c), "references": c["references"]});
        let out = folder.path().join(name);
        fs::create_dir_all(&out).unwrap();
        let path = write(&out, "captions.jsonl", &lines(cases.iter().enumerate().map(line)));
        let out = out.display().to_string();
        let found = scored("clotho-v2", &path, &["--out", &out]);
        (out, found)
    };
    let (a, of_a) = run("a", &|_, c| c["candidate"].clone());
    let (b, of_b) = run("b", &|i, c| match i % 4 {
        0 => c["references"][0].clone(),
        _ => c["candidate"].clone(),
    });
    let (c, of_c) = run("c", &|i, c| match i % 5 {
        0 => json!("a sound"),
        _ => c["candidate"].clone(),
    });
    let found: Value = serde_json::from_str(&fine(&["score", "compare", &a, &b, "--json"])).unwrap();
    assert_eq!(
        (&found["value"], &found["agreement"]),
        (&json!("cider"), &Value::Null)
    );
    assert!((number(&found["difference"]) - (number(&of_a["score"]) - number(&of_b["score"]))).abs() < 1e-12);
    assert!(number(&found["randomisation_p"]) < 0.05);
    let differences: Vec<f64> = list(&of_a["items"])
        .iter()
        .zip(list(&of_b["items"]))
        .map(|(a, b)| number(&a["scores"]["cider"]) - number(&b["scores"]["cider"]))
        .collect();
    let mean = differences.iter().sum::<f64>() / 80.0;
    let spread = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 79.0 / 80.0).sqrt();
    assert!((number(&found["smallest_difference"]) - 2.801585 * spread).abs() < 1e-5);
    let rouge: Value = serde_json::from_str(&fine(&[
        "score", "compare", &a, &b, "--value", "rouge_l", "--json",
    ]))
    .unwrap();
    assert_eq!(rouge["value"], "rouge_l");
    assert!(refused(&["score", "compare", &a, &b, "--value", "spice"], 6).contains("bleu_1"));

    let found: Value = serde_json::from_str(&fine(&["score", "seeds", &a, &b, &c, "--json"])).unwrap();
    let each = [&of_a, &of_b, &of_c].map(|r| number(&r["score"]));
    let mean = each.iter().sum::<f64>() / 3.0;
    let deviation = (each.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    assert!((number(&found["mean"]) - mean).abs() < 1e-12);
    assert!((number(&found["between_seeds_deviation"]) - deviation).abs() < 1e-12);
    for (own, wanted) in list(&found["runs"]).iter().zip(each) {
        assert!((number(own) - wanted).abs() < 1e-12);
    }
    let interval = &found["sampling_interval"];
    assert!(number(&interval["low"]) < mean && mean < number(&interval["high"]));
    let shown = fine(&["score", "seeds", &a, &b, &c]);
    assert!(
        shown.contains("between-seed deviation") && shown.contains("sampling interval"),
        "{shown}"
    );
    let one = fine(&["score", "seeds", &a]);
    assert!(one.contains("of one run unknown"), "{one}");
    let shorter = folder.path().join("captions.jsonl");
    let text = fs::read_to_string(Path::new(&a).join("captions.jsonl")).unwrap();
    fs::write(
        &shorter,
        text.lines().skip(1).map(|l| format!("{l}\n")).collect::<String>(),
    )
    .unwrap();
    let out = folder.path().join("short").display().to_string();
    scored("clotho-v2", &shorter, &["--out", &out]);
    assert!(refused(&["score", "seeds", &a, &out, "--accept"], 6).contains("in one of them alone"));
}

#[test]
fn shares_of_choices_are_held_against_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    // Four of five questions right at 80%, twice: calibrated. Half right at 80%: off by 0.3.
    let line = |i: usize, right: bool| {
        let (a, b) = (0.8f64.ln(), 0.2f64.ln());
        let choices = json!([{"choice": "yes", "logprob": a, "per_token": a / 3.0}, {"choice": "no", "logprob": b, "per_token": b}]);
        (
            json!({"path": format!("x/{i}.wav"), "prompt": "is it?", "text": "yes", "choices": choices, "seconds": 0.1}),
            json!({"path": format!("{i}.wav"), "prompt": "is it?", "answer": if right { "yes" } else { "no" }}),
        )
    };
    let of = |share: usize, n: usize| -> (String, String) {
        let all: Vec<(Value, Value)> = (0..n).map(|i| line(i, i % 10 < share)).collect();
        (
            lines(all.iter().map(|l| l.0.clone())),
            lines(all.iter().map(|l| l.1.clone())),
        )
    };
    for (share, error) in [(8, 0.0), (5, 0.3)] {
        let (said, items) = of(share, 20);
        let (said, items) = (
            write(folder.path(), "said.jsonl", &said),
            write(folder.path(), "items.jsonl", &items),
        );
        let (said, items) = (said.display().to_string(), items.display().to_string());
        let command = ["score", "calibration", "--predictions", &said, "--items", &items];
        let found: Value = serde_json::from_str(&fine(&[&command[..], &["--json"]].concat())).unwrap();
        let accuracy = share as f64 / 10.0;
        assert!(near(number(&found["accuracy"]), accuracy));
        assert!((number(&found["expected_calibration_error"]) - error).abs() < 1e-9);
        // (0.2² + 0.2²) where it is right, (0.8² + 0.8²) where not.
        let brier = accuracy * 0.08 + (1.0 - accuracy) * 1.28;
        assert!((number(&found["brier"]) - brier).abs() < 1e-9);
        assert_eq!(number(&found["brier_of_even_shares"]), 0.5);
        let full: Vec<&Value> = list(&found["bins"]).iter().filter(|b| b["n"] != 0).collect();
        assert_eq!(
            (full.len(), &full[0]["n"], list(&found["bins"]).len()),
            (1, &json!(20), 15)
        );
        let shown = fine(&command);
        assert!(
            shown.contains("Brier score") && shown.contains("73.3 to 80.0"),
            "{shown}"
        );
        let err = refused(&["score", "calibration", "--predictions", &said], 6);
        assert!(
            err.contains("line 1") && err.contains("the right choice"),
            "{err}"
        );
    }
}

// ----------------------------------------------------------------------------------------------------------- hostile files

/// Nothing that a model may write, in any form of file, ends the scoring or takes it more than linear time.
#[test]
fn hostile_texts_are_scored_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = [
        String::new(),
        "dog ".repeat(10_000),
        "x".repeat(1 << 20),
        "狗 и кот 🐕\u{200d}🦺 \u{202e}dog".to_owned(),
        "\u{0}\u{1}\u{7f}\u{2028}\u{85}\r\n\u{b}dog".to_owned(),
        "<script>alert('a dog')</script>".to_owned(),
        "((((\"\"\"\",,,,".repeat(20_000),
        "\u{301}".repeat(10_000),
        "=cmd|' /C calc'!A0".to_owned(),
    ];
    let captions = lines(hostile.iter().enumerate().map(|(i, text)| {
        json!({"id": i, "prediction": text, "references": ["a dog barks", "the dog\u{0} 🐕", text.chars().take(50).collect::<String>()]})
    }));
    let found = scored(
        "clotho-v2",
        &write(folder.path(), "captions.jsonl", &captions),
        &[],
    );
    assert_eq!(
        (&found["n"], &found["states"]["empty"]),
        (&json!(hostile.len()), &json!(1))
    );
    assert!(found["parts"]
        .as_object()
        .unwrap()
        .values()
        .all(|v| number(v).is_finite()));
    let half = captions.replace("狗", "\\ud83d");
    let path = write(folder.path(), "half.jsonl", &half).display().to_string();
    let (code, out, err) = af2(&["score", "--benchmark", "clotho-v2", "--predictions", &path]);
    assert!(code == 0 && err.contains("surrogate"), "{err}");
    assert!(!out.contains('\u{0}'));

    let open = lines(hostile.iter().enumerate().map(|(i, text)| {
        json!({"audio_name": format!("{i}.mp3"), "question": text.chars().take(50).collect::<String>(), "prediction": text, "answer": "a dog barks"})
    }));
    let found = scored("music-qa", &write(folder.path(), "open.jsonl", &open), &[]);
    assert_eq!(found["n"], hostile.len());
    // One object over the file, answers by question, with half of a pair in it.
    let dictionary: Map<String, Value> = hostile
        .iter()
        .enumerate()
        .map(|(i, text)| (format!("{i}.mp3"), json!({"q?": text})))
        .collect();
    let items: Vec<Value> = (0..hostile.len())
        .map(|i| json!({"audio_name": format!("{i}.mp3"), "conversation": [{"value": "q?"}, {"value": "a dog"}]}))
        .collect();
    let items = write(folder.path(), "items.json", &Value::from(items).to_string())
        .display()
        .to_string();
    let text = Value::from(dictionary).to_string().replace("狗", "\\udc00");
    let found = scored(
        "music-qa",
        &write(folder.path(), "dictionary.json", &text),
        &["--items", &items],
    );
    assert_eq!(found["n"], hostile.len());
    // A table, with quotation marks and line ends within.
    let cell = |text: &String| format!("\"{}\"", text.replace('"', "\"\""));
    let rows = hostile
        .iter()
        .enumerate()
        .map(|(i, text)| format!("{i}.mp3,{}\r\n", cell(text)));
    let table = format!("file_name,caption_predicted\r\n{}", rows.collect::<String>());
    let found = scored(
        "clotho-v2",
        &write(folder.path(), "table.csv", &table),
        &["--items", &items],
    );
    assert_eq!(found["n"], hostile.len());

    // By every official rule, with what constant answers get; ids that are hostile too.
    for (benchmark, item) in [
        (
            "mmau",
            json!({"choices": ["A dog", "A cat"], "answer": "A dog", "task": "sound", "difficulty": "easy", "sub-category": "s"}),
        ),
        (
            "mmar",
            json!({"choices": ["A dog", "A cat"], "answer": "A dog", "modality": "sound", "category": "c", "sub-category": "s"}),
        ),
        (
            "muchomusic",
            json!({"answers": ["A dog", "A cat"], "answer_orders": [0, 1], "prompt": "?"}),
        ),
        (
            "cmm",
            json!({"question": "?", "answer": "yes", "sub_category": "audio-language"}),
        ),
        (
            "air-bench",
            json!({"question": "?", "choice_a": "dog", "choice_b": "cat", "answer_gt": "dog", "task_name": "t", "dataset_name": "d"}),
        ),
        (
            "mmau-pro",
            json!({"category": "instruction following", "task_identifier": "Number Sentences (at least)", "kwargs": {"N": 1}, "question": "?", "answer": ""}),
        ),
    ] {
        let all: Vec<Value> = hostile
            .iter()
            .map(|text| {
                let mut item = item.clone();
                let id: String = text.chars().take(300).collect();
                for key in [
                    "id",
                    "uniq_id",
                    "model_output",
                    "answer_prediction",
                    "pred",
                    "response",
                ] {
                    item[key] = json!(if key.ends_with("id") { &id } else { text });
                }
                item
            })
            .collect();
        let text = match benchmark {
            "cmm" | "air-bench" | "mmar" => lines(all),
            _ => Value::from(all).to_string(),
        };
        let path = write(folder.path(), "rules.json", &text);
        let kinds: &[&str] = if benchmark == "mmau-pro" {
            &["official"]
        } else {
            &["official", "fair"]
        };
        for kind in kinds {
            let found = scored(benchmark, &path, &["--rule", kind]);
            assert_eq!(list(&found["items"]).len(), hostile.len(), "{benchmark}");
        }
    }
}

#[test]
fn files_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for bad in [
        "",
        "[]",
        "{}",
        "[1]",
        "hello",
        "a,b\n\"1",
        "{\"id\": NaN}",
        "\u{feff}",
        &deep,
        &objects,
        "{\"a\": 5}",
        "PK\u{3}\u{4}",
    ] {
        let path = write(folder.path(), "bad.json", bad).display().to_string();
        for line in [
            vec!["score", "--benchmark", "clotho-v2", "--predictions", &path],
            vec![
                "score",
                "--benchmark",
                "music-qa",
                "--predictions",
                &path,
                "--items",
                &path,
            ],
            vec!["score", "--benchmark", "fsd50k", "--predictions", &path],
            vec!["score", "calibration", "--predictions", &path],
            vec!["score", "compare", &path, &path],
            vec!["score", "seeds", &path],
            vec!["score", &path],
        ] {
            let err = refused(&line, 6);
            let shown: String = bad.chars().take(20).collect();
            assert!(
                err.contains("bad.json") && err.len() < 2_000,
                "{shown} {line:?}: {err}"
            );
        }
    }
}
