//! `af2 judge`: answers marked by a server that answers from a script, by every protocol that is built in; what could not be read
//! is unscored; a budget, a kill and an offline replay pay nothing twice; a judge beside people; a tiny model at hand as the judge.
#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "common/scripted.rs"]
mod scripted;

use af2::benchmark::{Protocol, Registry};
use scripted::{completion, fails, says, Reply, Seen, Server};
use serde_json::{json, Value};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

const KEY: &str = "sk-proj-Sesame/0123456789+abcdef";

/// The program in a folder with a key in its environment, and nothing else of ours: exit code and what it says.
fn af2(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args(arguments)
        .current_dir(folder)
        .env("AF2_API_KEY", KEY)
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("all_proxy")
        .env_remove("ALL_PROXY")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

fn lines(path: &Path, all: &[Value]) {
    let text: Vec<String> = all.iter().map(|v| format!("{v}\n")).collect();
    fs::write(path, text.concat()).unwrap();
}

fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn results(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("results.json")).unwrap()).unwrap()
}

/// Twelve answers in the six categories, two of each, about six clips. The last word of an answer is a number.
fn long_audio(folder: &Path) -> PathBuf {
    let categories = ["Captioning", "Plot", "Complex", "Subscene", "Temporal", "General"];
    let all: Vec<Value> = (0..12)
        .map(|i| {
            json!({"id": format!("q{i}"), "audio_path": format!("c{}.wav", i % 6), "question": format!("what is it, {i}?"),
                "answer": "a bell", "category": categories[i % 6], "prediction": format!("a bell of kind {i}")})
        })
        .collect();
    let path = folder.join("predictions.jsonl");
    lines(&path, &all);
    path
}

/// Which of the answers a prompt is about.
fn kind(seen: &Seen) -> usize {
    let first = seen.json()["messages"][1]["content"].as_str().unwrap().to_owned();
    let (_, behind) = first.split_once("a bell of kind ").unwrap();
    behind.split_whitespace().next().unwrap().parse().unwrap()
}

const LONG: [&str; 6] = [
    "judge",
    "run",
    "--benchmark",
    "long-audio-bench",
    "--predictions",
    "predictions.jsonl",
];

fn long(server: &Server, more: &[&str]) -> Vec<String> {
    let url = server.url();
    let own = ["--endpoint", &url, "--wait", "0.005", "--out", "run"];
    LONG.iter()
        .chain(&own)
        .chain(more)
        .map(|s| (*s).to_string())
        .collect()
}

fn run(folder: &Path, arguments: &[String]) -> (i32, String, String) {
    af2(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Marks from 1 to 10; categories' means are 4, 5, 6, 7, 8, 9 over two items each, so that the score is 65%.
fn marks(seen: &Seen) -> usize {
    let kind = kind(seen);
    let mean = 4 + kind % 6;
    if kind < 6 {
        mean - 1
    } else {
        mean + 1
    }
}

#[test]
fn a_file_becomes_a_score_with_everything_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    long_audio(folder.path());
    let server = Server::new(|seen| says(&format!("{{\"score\": {}}}", marks(seen))));
    let (code, out, err) = run(folder.path(), &long(&server, &["--of", "some-model"]));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("65.00") && out.contains("gpt-4o-2024-05-13 (answered by judge-2026-01-01)"),
        "{out}"
    );
    assert!(
        err.contains(
            "12 requests sent (0 again), 0 answers were there: 1200 tokens of questions, 120 of replies"
        ),
        "{err}"
    );
    let scored = results(&folder.path().join("run"));
    assert!((scored["score"].as_f64().unwrap() - 0.65).abs() < 1e-12);
    let (low, high) = (
        scored["interval"]["low"].as_f64().unwrap(),
        scored["interval"]["high"].as_f64().unwrap(),
    );
    assert!(low < 0.65 && 0.65 < high, "{low} {high}");
    assert_eq!(
        (&scored["n"], &scored["model"], &scored["metric"]),
        (&json!(12), &json!("some-model"), &json!("judge_mean"))
    );
    assert_eq!(scored["parts"]["Plot"], 0.5);
    assert_eq!(scored["categories"]["category"]["General"]["n"], 2);
    let judge = &scored["judge"];
    assert_eq!(
        (&judge["protocol"], &judge["unscored"], &judge["asked_again"]),
        (&json!("long-audio-bench"), &json!(0), &json!(0))
    );
    // What was asked: the protocol's snapshot, its settings, a schema that holds the judge to the scale.
    let body = server.seen()[0].json();
    assert_eq!(
        (&body["model"], &body["temperature"], &body["seed"]),
        (&json!("gpt-4o-2024-05-13"), &json!(0.0), &json!(42))
    );
    let schema = &body["response_format"]["json_schema"];
    assert_eq!(
        (&schema["strict"], &schema["schema"]["required"]),
        (&json!(true), &json!(["score"]))
    );
    assert_eq!(
        schema["schema"]["properties"]["score"]["enum"]
            .as_array()
            .unwrap()
            .len(),
        10
    );
    let prompt = body["messages"][1]["content"].as_str().unwrap();
    for piece in [
        "<truth>\na bell\n</truth>",
        "what is it, ",
        "\"score\": a whole number from 1 to 10",
    ] {
        assert!(prompt.contains(piece), "{prompt}");
    }
    let judgements = read(&folder.path().join("run/judgements.jsonl"));
    assert_eq!(judgements.len(), 12);
    assert_eq!(
        (
            &judgements[3]["id"],
            &judgements[3]["mark"],
            &judgements[3]["words"]
        ),
        (&json!("q3"), &json!(6.0), &json!(5))
    );
    // The unweighted mean of the categories, not of the items: with an item less it stays where a category's mean stays.
    let fewer: Vec<Value> = read(&folder.path().join("predictions.jsonl"))
        .into_iter()
        .take(7)
        .collect();
    lines(&folder.path().join("predictions.jsonl"), &fewer);
    let (code, _, err) = run(folder.path(), &long(&server, &[]));
    assert_eq!(code, 0, "{err}");
    // 4, and 4, 5, 6, 7, 8 less one.
    let expected = (4.0 + 4.0 + 5.0 + 6.0 + 7.0 + 8.0) / 60.0;
    assert!((results(&folder.path().join("run"))["score"].as_f64().unwrap() - expected).abs() < 1e-12);
    assert_eq!(server.calls(), 12);
}

#[test]
fn what_cannot_be_read_is_asked_again_and_then_unscored() {
    let folder = tempfile::tempdir().unwrap();
    long_audio(folder.path());
    let server = Server::new(|seen| {
        let tries = seen.json()["messages"].as_array().unwrap().len() / 2;
        match (kind(seen), tries) {
            // Better the second time; the third.
            (0, 1) => says("I would say eight."),
            (1, 1) => says("{\"score\": 11}"),
            (1, 2) => says("{\"score\": \"high\"}"),
            // Never: not JSON, off the scale, a refusal, cut off, a question that the server does not take.
            (2, _) => says("{\"score\": "),
            (3, _) => says("{\"score\": 0}"),
            (4, _) => {
                let mut body = completion("");
                body["choices"][0]["message"] =
                    json!({"role": "assistant", "content": null, "refusal": "I cannot."});
                Reply::Says(200, vec![], body.to_string())
            }
            (5, _) => {
                let mut body = completion("{\"score\": 7}");
                body["choices"][0]["finish_reason"] = json!("length");
                Reply::Says(200, vec![], body.to_string())
            }
            (6, _) => fails(400, "flagged by the content policy"),
            (kind, _) => says(&format!("```json\n{{\"score\": {}}}\n```", 1 + kind % 6)),
        }
    });
    let (code, out, err) = run(folder.path(), &long(&server, &[]));
    assert_eq!(code, 0, "{err}");
    let scored = results(&folder.path().join("run"));
    assert_eq!(
        (&scored["n"], &scored["judge"]["unscored"]),
        (&json!(7), &json!(5))
    );
    assert_eq!(scored["states"], json!({"answered": 7, "unparsed": 5}));
    assert_eq!(scored["judge"]["asked_again"], 1 + 2 + 4 * 2);
    assert!(
        out.contains("5 items are unscored, and in no score: with the lowest marks"),
        "{out}"
    );
    let bounds = &scored["judge"]["bounds"];
    let (low, high) = (bounds["low"].as_f64().unwrap(), bounds["high"].as_f64().unwrap());
    assert!(low < scored["score"].as_f64().unwrap() && scored["score"].as_f64().unwrap() < high);
    let judgements = read(&folder.path().join("run/judgements.jsonl"));
    for (i, says) in [
        (2, "no JSON object"),
        (3, "\"score\" is 0, expected a whole number from 1 to 10"),
        (4, "you refuse: I cannot."),
        (5, "cut off"),
        (6, "400: flagged by the content policy"),
    ] {
        assert!(
            judgements[i]["mark"].is_null() && judgements[i]["marks"] == json!({}),
            "{}",
            judgements[i]
        );
        assert!(
            judgements[i]["why"].as_str().unwrap().contains(says),
            "{}",
            judgements[i]
        );
    }
    assert_eq!(
        (&judgements[0]["mark"], &judgements[0]["asked"]),
        (&json!(1.0), &json!(2))
    );
    assert_eq!(
        (&judgements[1]["mark"], &judgements[1]["asked"]),
        (&json!(2.0), &json!(3))
    );
    // The judge was told what was wrong.
    let again = server
        .seen()
        .into_iter()
        .find(|s| kind(s) == 1 && s.json()["messages"].as_array().unwrap().len() == 4)
        .unwrap();
    assert_eq!(
        again.json()["messages"][2],
        json!({"role": "assistant", "content": "{\"score\": 11}"})
    );
    assert!(
        again.last().contains("\"score\" is 11") && again.last().contains("Reply with one JSON object"),
        "{}",
        again.last()
    );
    // Nothing at all is no score.
    let server = Server::new(|_| says("no"));
    let (code, _, err) = run(
        folder.path(),
        &long(&server, &["--again", "0", "--answers", "other"]),
    );
    assert!(code == 6 && err.contains("judgements.jsonl says why"), "{err}");
}

#[test]
fn a_budget_stops_a_retry_goes_on_and_a_replay_has_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    long_audio(folder.path());
    let tried = Mutex::new(HashMap::new());
    let server = Server::new(move |seen| {
        let n = {
            *tried
                .lock()
                .unwrap()
                .entry(kind(seen))
                .and_modify(|n| *n += 1)
                .or_insert(1)
        };
        match (kind(seen), n) {
            (7, 1) => Reply::Says(429, vec![("retry-after", "0".into())], "{}".into()),
            (8, 1) => fails(500, "oops"),
            (9, 1) => Reply::Drops,
            (10, 1) => Reply::Later(Duration::from_millis(900), Box::new(fails(500, "late"))),
            (11, 1) => Reply::Says(200, vec![], "<html>".into()),
            _ => says(&format!("{{\"score\": {}}}", marks(seen))),
        }
    });
    let with = |more: &[&str]| {
        run(
            folder.path(),
            &long(&server, &[&["--timeout", "0.6", "--at-once", "3"], more].concat()),
        )
    };
    let (code, out, err) = af2(
        folder.path(),
        &[
            &LONG[..],
            &[
                "--out",
                "run",
                "--estimate",
                "--price-in",
                "1",
                "--price-out",
                "2",
            ],
        ]
        .concat(),
    );
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("12 requests to ask, 0 answered already: at most about ")
            && out.contains("768 of replies, 0.00"),
        "{out}"
    );
    let (code, out, err) = with(&["--budget-calls", "5"]);
    assert_eq!((code, out.as_str()), (16, ""), "{err}");
    assert!(
        err.contains("the budget of 5 calls is spent: 5 of 12 requests are answered and kept in run/answers"),
        "{err}"
    );
    assert!(server.calls() == 5 && !folder.path().join("run/results.json").exists());
    let (code, _, err) = with(&["--budget-usd", "0.003", "--price-in", "10", "--price-out", "100"]);
    assert!(
        code == 16 && err.contains("the budget of 0.003 of money is spent"),
        "{err}"
    );
    let (code, _, err) = with(&[]);
    assert_eq!(code, 0, "{err}");
    assert!((results(&folder.path().join("run"))["score"].as_f64().unwrap() - 0.65).abs() < 1e-12);
    // Each was answered once: what was asked again is what had failed.
    assert_eq!(server.calls(), 12 + 5);
    let written =
        || ["results.json", "judgements.jsonl"].map(|f| fs::read(folder.path().join("run").join(f)).unwrap());
    let before = written();
    drop(server);
    fs::remove_file(folder.path().join("run/results.json")).unwrap();
    fs::remove_file(folder.path().join("run/judgements.jsonl")).unwrap();
    let (code, _, err) = af2(
        folder.path(),
        &[&LONG[..], &["--out", "run", "--offline"]].concat(),
    );
    assert_eq!(code, 0, "{err}");
    assert!(before == written());
    let (code, _, err) = af2(
        folder.path(),
        &[&LONG[..], &["--out", "run", "--offline", "--model", "another"]].concat(),
    );
    assert!(
        code == 6 && err.contains("none to 12 of 12 requests") && err.contains("\"item q0\""),
        "{err}"
    );
    let (code, _, err) = af2(folder.path(), &[&LONG[..], &["--out", "run"]].concat());
    assert!(code == 2 && err.contains("--offline"), "{err}");
}

/// All that lies below a folder.
fn files(folder: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, all),
            false => all.push((path.clone(), fs::read(path).unwrap())),
        }
    }
}

#[test]
fn the_key_is_sent_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    long_audio(folder.path());
    let elsewhere = Server::new(|_| says("{\"score\": 5}"));
    let other = elsewhere.url();
    for (name, code) in [
        ("said", 0),
        ("refused", 15),
        ("oops", 15),
        ("led", 15),
        ("flagged", 0),
        ("unread", 6),
    ] {
        let to = other.clone();
        let server = Server::new(move |seen| {
            let key = seen.headers["authorization"].clone();
            match name {
                "said" => says(&format!("{{\"score\": 5, \"why\": \"{key}\"}}")),
                "refused" => fails(401, &format!("wrong key {key}")),
                "oops" => fails(500, &format!("of {key}")),
                "led" => Reply::Says(307, vec![("location", format!("{to}?{key}"))], String::new()),
                "flagged" if kind(seen) == 0 => fails(400, &format!("{key} may not ask this")),
                "flagged" => says("{\"score\": 5}"),
                _ => says(&format!("your key is {key}")),
            }
        });
        let out = format!("out-{name}");
        let mut arguments = long(&server, &["--tries", "2"]);
        let at = arguments.iter().position(|a| a == "--out").unwrap();
        arguments[at + 1] = out;
        let (found, out, err) = run(folder.path(), &arguments);
        assert_eq!(found, code, "{name}: {err}");
        assert!(
            !out.contains("Sesame") && !err.contains("Sesame"),
            "{name}: {out}{err}"
        );
        assert!(server
            .seen()
            .iter()
            .all(|s| s.headers["authorization"] == format!("Bearer {KEY}")));
    }
    assert_eq!(elsewhere.calls(), 0);
    let mut all = Vec::new();
    files(folder.path(), &mut all);
    assert!(all.len() > 8, "{}", all.len());
    for (path, bytes) in &all {
        assert!(
            !String::from_utf8_lossy(bytes).contains("Sesame"),
            "{}",
            path.display()
        );
    }
    let kept = all
        .iter()
        .filter(|(_, bytes)| String::from_utf8_lossy(bytes).contains("[key]"));
    assert!(kept.count() >= 3);
    // A file of one's own, not of all.
    let server = Server::new(|seen| says(&format!("{{\"score\": {}}}", marks(seen))));
    fs::write(folder.path().join("key"), "another-key-of-a-file\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |m| fs::set_permissions(folder.path().join("key"), fs::Permissions::from_mode(m)).unwrap();
        mode(0o644);
        let (code, _, err) = run(folder.path(), &long(&server, &["--key-file", "key"]));
        assert!(
            code == 6 && err.contains("key: mode: ") && !err.contains("another"),
            "{err}"
        );
        mode(0o600);
    }
    let (code, _, err) = run(folder.path(), &long(&server, &["--key-file", "key"]));
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        server.seen()[0].headers["authorization"],
        "Bearer another-key-of-a-file"
    );
}

#[test]
fn a_batch_goes_through_a_providers_files() {
    let folder = tempfile::tempdir().unwrap();
    long_audio(folder.path());
    let with = |more: &[&str]| af2(folder.path(), &[&LONG[..], &["--out", "run"], more].concat());
    let answer = |line: &Value, text: &str| json!({"id": "b", "custom_id": line["custom_id"], "response": {"status_code": 200, "body": completion(text)}, "error": null});
    let (code, out, err) = with(&["--batch-out", "first.jsonl"]);
    assert!(
        code == 0 && out.starts_with("first.jsonl: 12 requests"),
        "{out}{err}"
    );
    let asked = read(&folder.path().join("first.jsonl"));
    let back = asked
        .iter()
        .enumerate()
        .map(|(i, l)| answer(l, if i < 2 { "hm" } else { "{\"score\": 6}" }));
    lines(&folder.path().join("back.jsonl"), &back.collect::<Vec<_>>());
    // Two could not be read: these are asked again, by another batch.
    let (code, out, err) = with(&["--batch-in", "back.jsonl", "--batch-out", "second.jsonl"]);
    assert!(
        code == 0 && out.starts_with("second.jsonl: 2 requests"),
        "{out}{err}"
    );
    assert!(err.contains("back.jsonl: 12 answers taken"), "{err}");
    let (code, _, err) = with(&["--offline"]);
    assert!(code == 6 && err.contains("none to 2 of 2 requests"), "{err}");
    let asked = read(&folder.path().join("second.jsonl"));
    assert_eq!(asked[0]["body"]["messages"].as_array().unwrap().len(), 4);
    lines(
        &folder.path().join("back.jsonl"),
        &asked
            .iter()
            .map(|l| answer(l, "{\"score\": 6}"))
            .collect::<Vec<_>>(),
    );
    let (code, _, err) = with(&["--batch-in", "back.jsonl"]);
    assert_eq!(code, 0, "{err}");
    let scored = results(&folder.path().join("run"));
    assert!((scored["score"].as_f64().unwrap() - 0.6).abs() < 1e-12);
    assert_eq!(scored["judge"]["asked_again"], 2);
}

/// A card's own prompt, file and scale say one thing.
#[test]
fn protocols_are_sound_and_as_their_cards_say() {
    let mut files: Vec<String> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("data-manifests/judges"))
            .unwrap()
            .map(|f| {
                f.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
    files.sort();
    let mut names: Vec<&str> = Protocol::names();
    names.sort_unstable();
    assert_eq!(files, names);
    let mut named = 0;
    for card in Registry::built_in().cards().unwrap() {
        let Some(judge) = &card.judge else { continue };
        let name = judge
            .prompt
            .as_deref()
            .unwrap_or_else(|| panic!("{}: no prompt", card.name));
        let (protocol, _) = Protocol::built_in(name).unwrap();
        assert_eq!(
            (protocol.name.as_str(), protocol.runs),
            (name, judge.runs),
            "{name}"
        );
        assert_eq!([protocol.scale.low, protocol.scale.high], judge.scale, "{name}");
        assert!(
            judge.temperature.is_none_or(|t| protocol.temperature == Some(t)),
            "{name}"
        );
        named += 1;
    }
    assert_eq!(named, 6);
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data-manifests/judges/openaqa.yaml"))
            .unwrap();
    for (was, is, says) in [
        ("runs: 1", "runs: 0", "runs: is 0"),
        ("aggregate: mean", "aggregate: trimmed", "fewer than 3 runs"),
        ("high: 5.0", "high: 0.5", "scale: expected"),
        ("{reference}", "{referense}", "did you mean {reference}?"),
        ("{form}", "", "expected {form} in it"),
        ("item: mean", "item: overall", "no criterion is called so"),
        (
            "name: correctness",
            "name: clarity",
            "`clarity`: expected each name once",
        ),
        ("seed: 42", "sead: 42", "sead"),
        (
            "temperature: 0.0",
            "temperature: 9.0",
            "temperature: is not from 0 to 2",
        ),
    ] {
        let broken = text.replace(was, is);
        assert_ne!(broken, text, "{was}");
        let e = Protocol::parse(&broken, "mine.yaml").unwrap_err();
        assert!(
            e.to_string().contains("mine.yaml:") && e.to_string().contains(says),
            "{e}"
        );
        assert_eq!(e.exit_code(), 6);
    }
}

/// Marks of all criteria that a request names, by a function of the criterion.
fn all_marks(seen: &Seen, mark: impl Fn(&str) -> Value) -> Reply {
    let body = seen.json();
    let names = body["response_format"]["json_schema"]["schema"]["required"]
        .as_array()
        .unwrap()
        .clone();
    let marks: serde_json::Map<String, Value> = names
        .iter()
        .map(|n| (n.as_str().unwrap().to_owned(), mark(n.as_str().unwrap())))
        .collect();
    says(&Value::Object(marks).to_string())
}

#[test]
fn open_questions_get_the_mean_of_their_marks_and_mmau_pro_its_overall_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.jsonl");
    let go = |server: &Server, benchmark: &str, more: &[&str]| {
        let url = server.url();
        let own = [
            "judge",
            "run",
            "--benchmark",
            benchmark,
            "--predictions",
            "p.jsonl",
            "--endpoint",
            &url,
            "--out",
            benchmark,
        ];
        af2(folder.path(), &[&own[..], more].concat())
    };
    let server = Server::new(|seen| {
        all_marks(seen, |name| {
            json!(match name {
                "clarity" => 5,
                "correctness" => 3,
                "engagement" => 4,
                "overall" => 2,
                _ => 5,
            })
        })
    });
    // CompA-R shows the judge the events and the scene.
    let mut item =
        json!({"id": "a", "audio_id": "x.wav", "instruction": "why?", "output": "so", "prediction": "a dog"});
    lines(&file, &[item.clone()]);
    let (code, _, err) = go(&server, "compa-r-test", &[]);
    assert!(
        code == 6
            && err.contains("item a: caption: expected what the judge is shown")
            && err.contains("--items"),
        "{err}"
    );
    assert_eq!(server.calls(), 0);
    item["caption"] = json!("a yard");
    item["timestamp_events"] = json!(["(dog barks, 0-2)", "(rain, 1-9)"]);
    lines(&file, &[item.clone()]);
    let (code, _, err) = go(&server, "compa-r-test", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        (results(&folder.path().join("compa-r-test"))["score"]
            .as_f64()
            .unwrap()
            - 0.8)
            .abs()
            < 1e-12
    );
    let prompt = server.seen()[0].last();
    assert!(
        prompt.contains("<scene>\na yard\n</scene>") && prompt.contains("(dog barks, 0-2)\n(rain, 1-9)"),
        "{prompt}"
    );
    assert!(
        !prompt.contains("<truth>") && prompt.contains("- clarity: "),
        "{prompt}"
    );
    // Text in braces of an item is no field.
    item["prediction"] = json!("{reference} and {form}");
    lines(&file, &[item.clone()]);
    let (code, _, err) = go(&server, "openaqa", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(server.seen()[1]
        .last()
        .contains("<answer>\n{reference} and {form}\n</answer>"));
    assert_eq!(go(&server, "music-instruct-long", &[]).0, 0);
    assert!(server.seen()[2].json().get("temperature").is_none());
    // Only MMAU-Pro's open questions are judged, and the overall mark counts.
    let of = |id: &str, category: &str, choices: Value| json!({"id": id, "audio_path": "x.wav", "question": "why?", "choices": choices, "answer": "so", "category": category, "model_output": "a"});
    lines(
        &file,
        &[
            of("a", "open", json!([])),
            of("b", "sound", json!(["x", "y"])),
            of("c", "instruction following", json!([])),
        ],
    );
    let (code, _, err) = go(&server, "mmau-pro", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("2 items are not for this judge"), "{err}");
    let scored = results(&folder.path().join("mmau-pro"));
    assert_eq!(
        (&scored["n"], &scored["score"], &scored["left_out"]),
        (&json!(1), &json!(0.4), &json!(2))
    );
}

#[test]
fn rubrics_are_marked_five_times_where_the_answer_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let rubric: Vec<Value> = (0..5)
        .map(|i| json!({"name": format!("step {i}"), "scoring_point": "hears it", "note": "", "choices": if i == 0 { json!([0, 1, 2]) } else { json!([0, 1]) }}))
        .collect();
    let of = |id: &str, said: &str| {
        json!({"id": id, "audio_path": "x.wav", "question": "which?", "choices": ["a dog", "a cat"], "answer": "a dog", "modality": "sound",
            "category": "Semantic Layer", "answer_prediction": said, "thinking_prediction": format!("I hear {id}"), "rubric": rubric})
    };
    lines(
        &folder.path().join("p.jsonl"),
        &[of("right", "a dog"), of("wrong", "a cat")],
    );
    let counts = Mutex::new(0);
    let server = Server::new(move |seen| {
        let n = {
            let mut n = counts.lock().unwrap();
            *n += 1;
            *n
        };
        // Of the five runs one has nothing and one has all; the others have the two of the first rubric's: a third of 6.
        all_marks(seen, |name| match (n, name) {
            (1, _) => json!(0),
            (2, "rubric_1") => json!(2),
            (2, _) => json!(1),
            (_, "rubric_1") => json!(2),
            _ => json!(0),
        })
    });
    let url = server.url();
    let own = [
        "judge",
        "run",
        "--benchmark",
        "mmar-rubrics",
        "--predictions",
        "p.jsonl",
        "--endpoint",
        &url,
        "--out",
        "run",
    ];
    let (code, out, err) = af2(folder.path(), &[&own[..], &["--at-once", "1"]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(server.calls(), 5);
    let body = server.seen()[0].json();
    assert_eq!(
        body["response_format"]["json_schema"]["schema"]["properties"]["rubric_1"]["enum"],
        json!([0, 1, 2])
    );
    let prompt = server.seen()[0].last();
    assert!(
        prompt.contains("I hear right") && prompt.contains("- rubric_5: step 4: hears it (one of 0, 1)"),
        "{prompt}"
    );
    let scored = results(&folder.path().join("run"));
    let third = 1.0 / 3.0;
    assert!(
        (scored["items"][0]["scores"]["judge_mean"].as_f64().unwrap() - third).abs() < 1e-12,
        "{}",
        scored["items"]
    );
    assert_eq!(
        (
            &scored["items"][1]["scores"]["judge_mean"],
            &scored["items"][1]["by"]
        ),
        (&json!(0.0), &json!("gate"))
    );
    assert!(
        (scored["score"].as_f64().unwrap() - third / 2.0).abs() < 1e-12 && out.contains("16.67"),
        "{out}"
    );
    let judgements = read(&folder.path().join("run/judgements.jsonl"));
    assert_eq!(
        (judgements.len(), &judgements[5]["why"], &judgements[5]["asked"]),
        (6, &json!("wrong by the rule mmar"), &json!(0))
    );
    // An item on which MMAR's script would end is neither right nor wrong.
    let mut odd = of("odd", "a dog");
    odd["category"] = json!("Unheard");
    lines(&folder.path().join("p.jsonl"), &[odd]);
    let (code, _, err) = af2(folder.path(), &own);
    assert!(
        code == 6 && err.contains("p.jsonl: item odd: expected an item that the rule mmar can read"),
        "{err}"
    );
    // Without rubrics nothing is guessed.
    let mut bare = of("right", "a dog");
    bare.as_object_mut().unwrap().shift_remove("rubric");
    lines(&folder.path().join("p.jsonl"), &[bare]);
    let (code, _, err) = af2(folder.path(), &own);
    assert!(
        code == 6 && err.contains("item right: rubric: expected a list of rubrics, found none"),
        "{err}"
    );
}

#[test]
fn pairs_are_compared_in_both_orders() {
    let folder = tempfile::tempdir().unwrap();
    let of = |id: &str| json!({"id": id, "audio_id": format!("{id}.wav"), "question": "why?", "answer": "the truth", "prediction": format!("said {id}")});
    lines(&folder.path().join("p.jsonl"), &[of("a"), of("b")]);
    // Of a the better one is seen; of b the first one is always better.
    let server = Server::new(|seen| {
        let prompt = seen.last();
        let (first, _) = prompt.split_once("<second>").unwrap();
        match (prompt.contains("said a"), first.contains("said")) {
            (true, true) => says("{\"first\": 9, \"second\": 5}"),
            (true, false) => says("{\"first\": 5, \"second\": 7}"),
            (false, _) => says("{\"first\": 8, \"second\": 4}"),
        }
    });
    let url = server.url();
    let own = [
        "judge",
        "run",
        "--benchmark",
        "openaqa",
        "--judge",
        "pairs",
        "--predictions",
        "p.jsonl",
        "--endpoint",
        &url,
        "--out",
        "run",
    ];
    let (code, out, err) = af2(folder.path(), &own);
    assert_eq!(code, 0, "{err}");
    assert_eq!(server.calls(), 4);
    let scored = results(&folder.path().join("run"));
    assert!((scored["score"].as_f64().unwrap() - (8.0 + 6.0) / 20.0).abs() < 1e-12);
    assert_eq!(scored["judge"]["same_winner"], 0.5);
    assert!(
        out.contains("of pairs 50.00% have the same winner in both orders"),
        "{out}"
    );
}

#[test]
fn a_judge_is_held_against_people_and_another_judge() {
    let folder = tempfile::tempdir().unwrap();
    let of = |i: usize, mark: Option<f64>| json!({"version": 1, "id": format!("q{i}"), "clip": format!("c{}", i / 2), "run": 0, "marks": {}, "mark": mark, "asked": 1, "reply": "", "words": 10 * i + 1});
    let path = |name: &str| folder.path().join(name);
    let own: Vec<Value> = (0..40)
        .map(|i| of(i, (i != 39).then(|| (1 + i % 8) as f64 + 1.0)))
        .collect();
    lines(&path("j.jsonl"), &own);
    lines(
        &path("k.jsonl"),
        &(0..40)
            .map(|i| of(i, Some(9.0 - (i % 8) as f64)))
            .collect::<Vec<_>>(),
    );
    // People give one mark less, two of them the same item.
    let mut table = "id,human\n".to_owned();
    (0..20).for_each(|i| table += &format!("q{i},{}\n", 1 + i % 8));
    table += "q0,1\nzz,5\n";
    fs::write(path("l.csv"), table).unwrap();
    let own = ["judge", "check", "--labels", "l.csv", "--judgements", "j.jsonl"];
    let (code, out, err) = af2(
        folder.path(),
        &[&own[..], &["--second", "k.jsonl", "--json"]].concat(),
    );
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let near = |v: &Value, expected: f64| {
        assert!(
            (v.as_f64().unwrap() - expected).abs() < 1e-9,
            "{v} for {expected}: {out}"
        )
    };
    near(&found["people"]["spearman"], 1.0);
    near(&found["people"]["bias"], 1.0);
    near(&found["people"]["absolute"], 1.0);
    assert_eq!(
        (&found["people"]["n"], &found["unmatched"]),
        (&json!(20), &json!(1))
    );
    let kappa = found["people"]["kappa"].as_f64().unwrap();
    assert!(kappa > 0.8 && kappa < 1.0, "{kappa}");
    let mean = (0..39).map(|i| (2 + i % 8) as f64).sum::<f64>() / 39.0;
    near(&found["all"]["mean"], mean);
    near(&found["all"]["without_bias"], mean - 1.0);
    assert_eq!(
        (&found["all"]["n"], &found["all"]["unscored"]),
        (&json!(39), &json!(1))
    );
    let (low, high) = (
        &found["all"]["interval"]["low"],
        &found["all"]["interval"]["high"],
    );
    assert!(low.as_f64().unwrap() < mean - 1.0 && mean - 1.0 < high.as_f64().unwrap());
    near(&found["second"]["spearman"], -1.0);
    assert_eq!(found["second"]["n"], 39);
    let (code, out, err) = af2(folder.path(), &own);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("it moves by -1.000") && out.contains("1 items are unscored"),
        "{out}"
    );
    for (labels, says) in [
        ("id,human\nq0,good\n", "line 2: expected a number"),
        ("id,human\nx,1\n", "at least one item"),
        ("id,other\nq0,1\n", "human, label"),
    ] {
        fs::write(path("l.csv"), labels).unwrap();
        let (code, _, err) = af2(folder.path(), &own);
        assert!(code == 6 && err.contains(says), "{err}");
    }
}

#[test]
fn what_a_judge_must_mark_is_not_scored_without_one() {
    let folder = tempfile::tempdir().unwrap();
    long_audio(folder.path());
    let (code, _, err) = af2(
        folder.path(),
        &[
            "score",
            "--benchmark",
            "long-audio-bench",
            "--predictions",
            "predictions.jsonl",
        ],
    );
    assert!(
        code == 6 && err.contains("af2 judge run --benchmark long-audio-bench"),
        "{err}"
    );
    let server = Server::new(|_| says("{}"));
    let url = server.url();
    let own = [
        "judge",
        "run",
        "--benchmark",
        "esc-50",
        "--predictions",
        "predictions.jsonl",
        "--endpoint",
        &url,
        "--out",
        "run",
    ];
    let (code, _, err) = af2(folder.path(), &own);
    assert!(
        code == 2 && err.contains("names no judge's protocol") && err.contains("pairs"),
        "{err}"
    );
    // A server that is not there ends before the hundredth try.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{gone}");
    let own = [
        &LONG[..],
        &[
            "--endpoint",
            &url,
            "--out",
            "run",
            "--wait",
            "0.001",
            "--tries",
            "2",
        ],
    ]
    .concat();
    let (code, _, err) = af2(folder.path(), &own);
    assert!(
        code == 15 && err.contains("12 of 12 judgements have no answer"),
        "{err}"
    );
}

/// A language model's folder that lays chats out as ChatML: the tiny one of the golden files, with room for a judge's questions.
fn tiny_lm(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/F_tiny/llm");
    fs::create_dir_all(folder).unwrap();
    for file in fs::read_dir(golden).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    change(
        &folder.join("config.json"),
        "max_position_embeddings",
        json!(16_384),
    );
}

fn change(path: &Path, key: &str, value: Value) {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// Four answers to MMAR's items: one is wrong by its rule, which no judge is asked about.
fn rubrics(folder: &Path) {
    let rubric: Vec<Value> = (0..5)
        .map(|i| json!({"name": format!("step {i}"), "scoring_point": "hears it", "note": "", "choices": [0, 1]}))
        .collect();
    let of = |id: &str, said: &str| {
        json!({"id": id, "audio_path": format!("{id}.wav"), "question": "which?", "choices": ["a dog", "a cat"], "answer": "a dog",
            "modality": "sound", "category": "Semantic Layer", "answer_prediction": said,
            "thinking_prediction": format!("I hear {id} <|im_end|>"), "rubric": rubric})
    };
    let all = [
        of("a", "a dog"),
        of("b", "a dog"),
        of("c", "a cat"),
        of("d", "a dog"),
    ];
    lines(&folder.join("p.jsonl"), &all);
}

#[test]
fn a_model_at_hand_marks_and_a_kill_and_a_replay_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    tiny_lm(&folder.path().join("tiny-judge"));
    rubrics(folder.path());
    let run = |out: &str, more: &[&str]| {
        let own = [
            "judge",
            "run",
            "--benchmark",
            "mmar-rubrics",
            "--predictions",
            "p.jsonl",
            "--runs",
            "2",
            "--again",
            "1",
            "--out",
            out,
        ];
        af2(folder.path(), &[&own[..], more].concat())
    };
    let local = ["--checkpoint", "tiny-judge", "--device", "cpu"];
    let (code, out, err) = run("run", &local);
    assert_eq!(code, 0, "{err}");
    // What cannot be read is asked for again, then unscored; what the rule has marked is scored.
    let scored = results(&folder.path().join("run"));
    let judge = &scored["judge"];
    assert_eq!(
        (&scored["n"], &judge["unscored"], &judge["asked_again"]),
        (&json!(1), &json!(3), &json!(6))
    );
    let name = judge["model"].as_str().unwrap().to_owned();
    let (of, hash) = name.split_once('@').unwrap();
    assert!(
        of == "tiny-judge" && hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "{name}"
    );
    assert_eq!(judge["answered_by"], json!([name]));
    assert!(
        out.contains(&name) && out.contains("3 items are unscored"),
        "{out}"
    );
    assert!(
        err.contains("a model at hand takes no JSON schema")
            && err.contains("12 requests sent (0 again), 0 answers were there"),
        "{err}"
    );
    let judgements = read(&folder.path().join("run/judgements.jsonl"));
    assert_eq!(judgements.len(), 7);
    assert!(judgements.iter().all(|j| j["mark"].is_null() == (j["id"] != "c")));
    // The answers are kept as a server's, with their cost.
    let file = folder.path().join("run/answers/answers-0000.jsonl");
    let kept = read(&file);
    assert_eq!(kept.len(), 12);
    for line in &kept {
        let (asked, said) = (
            line["usage"][0].as_u64().unwrap(),
            line["usage"][1].as_u64().unwrap(),
        );
        assert!(asked > 200 && (1..=256).contains(&said), "{line}");
        assert_eq!(
            (&line["host"], &line["request"]["model"]),
            (&json!("at hand"), &json!(name))
        );
        let cut = line["answer"]["choices"][0]["finish_reason"] == "length";
        assert!(!cut || said == 256, "{line}");
    }
    let written = |out: &str| {
        ["results.json", "judgements.jsonl"].map(|f| fs::read(folder.path().join(out).join(f)).unwrap())
    };
    let before = written("run");
    // Killed in the middle of an answer: it goes on with what is left, and asks no more than that.
    let all = fs::read(&file).unwrap();
    let half = all
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .nth(6)
        .unwrap()
        .0;
    fs::write(&file, &all[..half + 40]).unwrap();
    let (code, _, err) = run("run", &local);
    assert!(
        code == 0 && err.contains("5 requests sent (0 again), 7 answers were there"),
        "{err}"
    );
    assert!(before == written("run"));
    // One by one it says the same.
    let (code, _, err) = run("single", &[&local[..], &["--at-once", "1"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(before == written("single"));
    // A replay asks nobody, by the folder or by its name alone.
    for more in [
        &[&local[..], &["--offline"]].concat()[..],
        &["--offline", "--model", &name],
    ] {
        fs::remove_file(folder.path().join("run/results.json")).unwrap();
        fs::remove_file(folder.path().join("run/judgements.jsonl")).unwrap();
        let (code, _, err) = run("run", more);
        assert!(code == 0 && err.contains("0 requests sent"), "{err}");
        assert!(before == written("run"), "{more:?}");
    }
    // A model that computes something else is another judge, whatever its folder is called.
    change(
        &folder.path().join("tiny-judge/config.json"),
        "rms_norm_eps",
        json!(1e-5),
    );
    let (code, _, err) = run("run", &[&local[..], &["--offline"]].concat());
    assert!(code == 6 && err.contains("none to 6 of 6 requests"), "{err}");
    let (code, out, err) = run("run", &[&local[..], &["--estimate"]].concat());
    assert!(
        code == 0 && out.starts_with("6 requests to ask, 0 answered already"),
        "{out}{err}"
    );
}

#[test]
fn a_folder_that_cannot_judge_is_named() {
    let folder = tempfile::tempdir().unwrap();
    rubrics(folder.path());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/F_tiny");
    let run = |checkpoint: &str, more: &[&str]| {
        let own = [
            "judge",
            "run",
            "--benchmark",
            "mmar-rubrics",
            "--predictions",
            "p.jsonl",
            "--device",
            "cpu",
            "--out",
            "run",
            "--checkpoint",
            checkpoint,
        ];
        af2(folder.path(), &[&own[..], more].concat())
    };
    let refused = |checkpoint: &str, code: i32, says: &[&str]| {
        let (found, _, err) = run(checkpoint, &[]);
        assert_eq!(found, code, "{err}");
        for piece in says {
            assert!(err.contains(piece), "{piece}: {err}");
        }
    };
    refused("nowhere", 3, &["nowhere: ", "Qwen2.5-7B-Instruct"]);
    let audio = golden.display().to_string();
    refused(
        &audio,
        7,
        &["found a checkpoint of Audio Flamingo 2", "Qwen2.5-7B-Instruct"],
    );
    fs::create_dir(folder.path().join("empty")).unwrap();
    refused(
        "empty",
        7,
        &["empty: folder: expected", "found a folder without config.json"],
    );
    refused("p.jsonl", 7, &["found a file"]);
    let (tiny, other) = (folder.path().join("tiny"), folder.path().join("other"));
    tiny_lm(&tiny);
    tiny_lm(&other);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let text = fs::read_to_string(other.join(file)).unwrap();
        fs::write(other.join(file), text.replace("<|im_", "<|of_")).unwrap();
    }
    refused(
        "other",
        7,
        &[
            "tokenizer.json: added_tokens: expected the tokens <|im_start|> and <|im_end|>",
            "--endpoint URL",
        ],
    );
    change(&other.join("config.json"), "model_type", json!("mamba"));
    refused("other", 7, &["config.json", "mamba", "qwen2 (Qwen2ForCausalLM)"]);
    // Options of a server.
    for more in [
        &["--endpoint", "http://127.0.0.1:9/v1"][..],
        &["--model", "x"],
        &["--batch-out", "b.jsonl"],
    ] {
        let (code, _, err) = run("tiny", more);
        assert!(code == 2 && err.contains("cannot be used with"), "{err}");
    }
    let (code, _, err) = run("tiny", &["--budget-calls", "3"]);
    assert!(
        code == 2 && err.contains("--budget-calls bounds what a server is sent"),
        "{err}"
    );
    // A question that is longer than the model reads is told, and unscored.
    change(&tiny.join("config.json"), "max_position_embeddings", json!(300));
    let (code, _, err) = run("tiny", &[]);
    assert_eq!(code, 0, "{err}");
    let judgements = read(&folder.path().join("run/judgements.jsonl"));
    let why = judgements[0]["why"].as_str().unwrap();
    assert!(why.contains("expected at most 300 tokens, found"), "{why}");
}
