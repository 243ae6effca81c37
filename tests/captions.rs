//! Caption metrics beside what `pycocoevalcap` gave, and `af2 score captions`.
#![allow(clippy::panic, clippy::unwrap_used)]

use af2::metrics::captions::ptb::{tokenize_corpus, tokenize_raw};
use af2::metrics::captions::{score, Item, Scores};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn golden(file: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/M_metrics/captioning");
    folder.join(file)
}

fn json(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(file)).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap()).collect()
}

fn item(case: &Value) -> Item<'_> {
    Item {
        prediction: case["candidate"].as_str().unwrap(),
        references: texts(&case["references"]),
    }
}

const CORPORA: [&str; 7] = [
    "realistic_5refs.json",
    "hostile_5refs.json",
    "one_ref.json",
    "varying_refs.json",
    "two_clips.json",
    "single_clip.json",
    "identical_clips.json",
];

#[test]
fn lines_give_the_tokens_of_the_official_tokenizer() {
    let text = std::fs::read_to_string(golden("tokenizer_lines.jsonl")).unwrap();
    let cases: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(cases.len(), 1596);
    // As the official numbers were made: with a line behind each.
    let corpus: Vec<&str> = cases
        .iter()
        .flat_map(|c| [c["text"].as_str().unwrap(), "x"])
        .collect();
    let (raw, tokens) = (tokenize_raw(&corpus), tokenize_corpus(&corpus));
    for (n, case) in cases.iter().enumerate() {
        assert_eq!(raw[2 * n], case["ptb"].as_str().unwrap(), "{case}");
        assert_eq!(
            tokens[2 * n].join(" "),
            case["tokens"].as_str().unwrap(),
            "{case}"
        );
    }
}

#[test]
fn drawn_lines_give_the_tokens_of_the_official_tokenizer() {
    let cases = json("tokenizer_fuzz.json");
    let cases: Vec<Vec<&str>> = cases.as_array().unwrap().iter().map(texts).collect();
    assert_eq!(cases.len(), 4000);
    let corpus: Vec<&str> = cases.iter().map(|c| c[0]).collect();
    for (case, found) in cases.iter().zip(tokenize_raw(&corpus)) {
        assert_eq!(found, case[1], "{:?}", case[0]);
    }
}

/// The next caption's first word, characters that Java takes for a line's end, empty captions.
#[test]
fn neighbours_count_as_they_do_officially() {
    let cases = json("tokenizer_context.json");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 37);
    for case in cases {
        let lines = texts(&case["lines"]);
        let tokens: Vec<String> = tokenize_corpus(&lines).iter().map(|t| t.join(" ")).collect();
        assert_eq!(tokens, texts(&case["pycocoevalcap_result"]), "{lines:?}");
        let raw = texts(&case["java_stdout_lines"]);
        assert_eq!(tokenize_raw(&lines), raw[..lines.len()], "{lines:?}");
    }
}

#[test]
fn corpora_give_the_official_tokens_and_scores() {
    let near = |found: f64, expected: &Value, what: &str| {
        let expected = expected.as_f64().unwrap();
        assert!(
            (found - expected).abs() <= 1e-12,
            "{what}: {found} is not {expected}"
        );
    };
    let all_near = |found: &Scores, expected: &Value, what: &str| {
        for (n, bleu) in found.bleu.iter().enumerate() {
            let name = format!("BLEU_{}", n + 1);
            near(*bleu, &expected[&name], &format!("{what}: {name}"));
        }
        near(found.rouge_l, &expected["ROUGE_L"], &format!("{what}: ROUGE_L"));
        near(found.cider, &expected["CIDEr"], &format!("{what}: CIDEr"));
    };
    for file in CORPORA {
        let corpus = json(file);
        let cases = corpus["items"].as_array().unwrap();
        let items: Vec<Item> = cases.iter().map(item).collect();
        let scored = score(&items).unwrap();
        all_near(&scored.corpus, &corpus["corpus"], file);
        let predictions: Vec<&str> = items.iter().map(|i| i.prediction).collect();
        let references: Vec<&str> = items.iter().flat_map(|i| i.references.clone()).collect();
        let mut raw_references = tokenize_raw(&references).into_iter();
        for ((case, found), raw) in cases.iter().zip(&scored.items).zip(tokenize_raw(&predictions)) {
            let what = format!("{file} {}", case["id"]);
            assert_eq!(raw, case["candidate_ptb_raw"].as_str().unwrap(), "{what}");
            assert_eq!(
                found.tokens.join(" "),
                case["candidate_tok"].as_str().unwrap(),
                "{what}"
            );
            let joined: Vec<String> = found.references.iter().map(|r| r.join(" ")).collect();
            assert_eq!(joined, texts(&case["references_tok"]), "{what}");
            let expected = texts(&case["references_ptb_raw"]);
            let raw: Vec<String> = raw_references.by_ref().take(expected.len()).collect();
            assert_eq!(raw, expected, "{what}");
            all_near(&found.scores, &case["scores"], &what);
        }
    }
}

#[test]
fn what_the_metrics_make_of_nothing() {
    let item = |prediction, references: &[&'static str]| Item {
        prediction,
        references: references.to_vec(),
    };
    assert!(score(&[]).unwrap_err().to_string().contains("at least one"));
    let e = score(&[item("a", &["b"]), item("a", &[])]).unwrap_err();
    assert!(e.to_string().contains("item 2"), "{e}");
    // On which the official CIDEr fails.
    let scored = score(&[item("", &["", " "]), item(".", &["!"])]).unwrap();
    assert_eq!((scored.corpus.cider, scored.corpus.rouge_l), (0.0, 1.0));
    assert_eq!(scored.items[1].tokens, [""; 0]);
}

/// A rule that reads on and on, to apply nowhere, would take minutes to hours for each of these.
#[test]
fn hostile_captions_end() {
    let pieces = [
        "a",
        "<",
        "\"",
        ".",
        "-",
        "'",
        " ",
        "@",
        "&",
        "(",
        "1",
        "é",
        "😀",
        "\u{0}",
        "\u{1b}",
        "a\r",
        "_",
        "/",
        "\\",
        "a,",
        "1,a.",
        "<a b=\"",
        "<a b=\" x=",
        "<a b='\"' c=\"'\"",
        "<!a",
        "http://.",
        "www./",
        "www.a/",
        "a@",
        "aa@.",
        "+1-",
        "1 ",
        "(1",
        "n't",
        "o'",
        "U.S. ",
        "A. The ",
        "etc. <a b=\"",
        "a.b",
        "1a.",
        "a-",
        ",-",
        "{.com",
        "+.com/!",
        "A+",
        "&amp;",
        "d'a-",
        "1/1/",
        ". ",
        "\u{ad}",
        "\u{301}",
        "狗",
        "<script>",
        "it's ok. ",
        "\\*",
        "^_^",
        ":-)",
        "$",
        "¼",
        "&eacute;",
    ];
    for piece in pieces {
        let long = piece.repeat(1_000_000 / piece.len());
        assert_eq!(tokenize_corpus(&[&long, "b"]).len(), 2);
    }
}

#[test]
fn long_captions_are_scored() {
    let words: String = (0..2000).map(|n| format!("w{} ", n % 700)).collect();
    let same = "ha ".repeat(10_000);
    let million = "ha ".repeat(350_000);
    let item = |prediction, reference| Item {
        prediction,
        references: vec![reference, "a dog barks"],
    };
    let items = [
        item(&words, &words),
        item(&same, &words),
        item(&million, &same),
        item("😀", "<script>alert(1)</script>"),
    ];
    let scored = score(&items).unwrap();
    let rouge = |n: usize| scored.items[n].scores.rouge_l;
    assert_eq!((rouge(0), rouge(1)), (1.0, 0.0));
    // 10,000 of 350,000 words, and all of 10,000.
    let (precision, recall, beta) = (1.0 / 35.0, 1.0, 1.44);
    assert!((rouge(2) - (1.0 + beta) * precision * recall / (recall + beta * precision)).abs() < 1e-12);
    assert!(scored
        .items
        .iter()
        .all(|i| i.scores.cider.is_finite() && i.scores.bleu.iter().all(|b| b.is_finite())));
}

/// Any text: as many lists as captions, and no token of what is dropped.
#[test]
fn drawn_captions_never_fail() {
    let mut state = 7_u64;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let parts = [
        "<",
        ">",
        "<a b=\"",
        "\"",
        "'",
        "’",
        "s",
        "n't",
        "U.S.",
        ".",
        "..",
        " ",
        "\n",
        "\r",
        "\u{2028}",
        "@",
        "a",
        "Z",
        "http://",
        "www.",
        ".com",
        "/",
        "&",
        "&amp;",
        "&apos;",
        ";",
        "1",
        "½",
        "-",
        "\u{ad}",
        "é",
        "狗",
        "😀",
        "(",
        ")",
        ":",
        "\u{0}",
        "\u{10ffff}",
        "Σ",
        "etc.",
        "The",
        "\u{85}",
        "\u{a0}",
        "$",
        "#",
        "_",
        "\\",
        "*",
        "^",
    ];
    for _ in 0..3000 {
        let captions: Vec<String> = (0..draw(4) + 1)
            .map(|_| (0..draw(20)).map(|_| parts[draw(parts.len())]).collect())
            .collect();
        let tokens = tokenize_corpus(&captions);
        assert_eq!(tokens.len(), captions.len());
        let wrong = |t: &String| {
            t.is_empty() || t.contains([' ', '\n']) || [".", ",", "''", "--"].contains(&t.as_str())
        };
        assert!(!tokens.iter().flatten().any(wrong), "{captions:?}: {tokens:?}");
    }
}

// The command.

const TWO: &str = r#"{"id": "a", "prediction": "A dog barks, twice.", "references": ["A dog is barking.", "The dog's bark"], "model": 1}

{"references": ["Rain (heavy) falls"], "id": "b", "prediction": "rain falls"}
"#;

/// `af2 score captions` on a file of these lines, with `java` and the jars that are named.
fn command(lines: &[u8], more: &[&str], path: &Path, jars: &[(&str, &Path)]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("captions.jsonl"), lines).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
    command
        .args(["score", "captions", "--predictions", "captions.jsonl"])
        .args(more);
    command
        .env_remove("AF2_METEOR_JAR")
        .env_remove("AF2_SPICE_JAR")
        .env("PATH", path);
    let out = command
        .envs(jars.iter().copied())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

fn alone(lines: &[u8], more: &[&str]) -> (i32, String, String) {
    command(lines, more, Path::new("/nowhere"), &[])
}

#[test]
fn the_command_prints_every_score_and_what_is_not_computed() {
    let (code, out, err) = alone(TWO.as_bytes(), &["--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let found: Value = serde_json::from_str(&out).unwrap();
    let scored = score(&[
        Item {
            prediction: "A dog barks, twice.",
            references: vec!["A dog is barking.", "The dog's bark"],
        },
        Item {
            prediction: "rain falls",
            references: vec!["Rain (heavy) falls"],
        },
    ]);
    let scored = scored.unwrap();
    assert_eq!(found["n"], 2);
    let near = |found: &Value, expected: f64| (found.as_f64().unwrap() - expected).abs() < 1e-15;
    assert!(near(&found["corpus"]["CIDEr"], scored.corpus.cider));
    assert!(near(&found["corpus"]["BLEU_4"], scored.corpus.bleu[3]));
    let items = found["items"].as_array().unwrap();
    assert_eq!(
        (items[0]["id"].as_str(), items[1]["id"].as_str()),
        (Some("a"), Some("b"))
    );
    for (item, expected) in items.iter().zip(&scored.items) {
        assert!(near(&item["ROUGE_L"], expected.scores.rouge_l));
        assert!(near(&item["BLEU_1"], expected.scores.bleu[0]));
        assert!(near(&item["CIDEr"], expected.scores.cider));
    }
    assert_eq!(items[0]["tokens"], "a dog barks twice");
    assert!(found["corpus"].get("METEOR").is_none() && items[0].get("SPICE").is_none());
    let why = |tool: &str| found["official_tools"][tool]["why"].as_str().unwrap().to_owned();
    assert!(why("METEOR").contains("AF2_METEOR_JAR") && why("SPIDEr").contains("SPICE"));

    let (code, out, err) = alone(TWO.as_bytes(), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.starts_with("captions.jsonl: 2 clips, 3 references\nBLEU_1"),
        "{out}"
    );
    for what in [
        "ROUGE_L",
        "CIDEr",
        "METEOR   not computed: AF2_METEOR_JAR is not set",
        "SPICE    not computed",
    ] {
        assert!(out.contains(what), "{out}");
    }
}

#[test]
fn wrong_lines_are_named() {
    let good = r#"{"id": "a", "prediction": "b", "references": ["c"]}"#;
    let after_good = |line: &str| format!("{good}\n{line}\n").into_bytes();
    let cases: [(Vec<u8>, &str); 15] = [
        (b"".to_vec(), "lines: expected at least one, found none"),
        (b"\n \n".to_vec(), "lines: expected at least one, found none"),
        (after_good("{"), "line 2: expected an object as JSON"),
        (after_good("[1]"), "line 2: expected an object as JSON"),
        (
            after_good(good),
            "line 2: id: expected an id of its own, found \"a\", which line 1 has",
        ),
        (
            after_good(r#"{"id": 3, "prediction": "b", "references": ["c"]}"#),
            "line 2: id: expected a string, found a number",
        ),
        (
            after_good(r#"{"id": "x", "references": ["c"]}"#),
            "line 2: prediction: expected a string, found nothing",
        ),
        (
            after_good(r#"{"id": "x", "prediction": null, "references": ["c"]}"#),
            "line 2: prediction: expected a string, found nothing",
        ),
        (
            after_good(r#"{"id": "x", "prediction": "b"}"#),
            "line 2: references: expected a list of strings, found nothing",
        ),
        (
            after_good(r#"{"id": "x", "prediction": "b", "references": "c"}"#),
            "references: expected a list of strings, found a string",
        ),
        (
            after_good(r#"{"id": "x", "prediction": "b", "references": []}"#),
            "references: expected at least one, found an empty list",
        ),
        (
            after_good(r#"{"id": "x", "prediction": "b", "references": ["c", {}]}"#),
            "references.1: expected a string, found an object",
        ),
        (
            after_good(r#"{"id": "x", "id": "y", "prediction": "b", "references": ["c"]}"#),
            "duplicate field `id`",
        ),
        (
            after_good(r#"{"id": "x", "prediction": "\ud83d", "references": ["c"]}"#),
            "line 2: expected an object as JSON, found",
        ),
        (
            b"{\"id\": \"\xff\"}\n".to_vec(),
            "line 1: expected an object as JSON",
        ),
    ];
    for (lines, expected) in cases {
        let shown = String::from_utf8_lossy(&lines).into_owned();
        let (code, out, err) = alone(&lines, &["--json"]);
        assert_eq!((code, out.as_str()), (6, ""), "{shown}: {err}");
        assert!(
            err.contains("captions.jsonl") && err.contains(expected),
            "{shown}: {err}"
        );
        assert!(err.contains("hint: "), "{shown}: {err}");
    }
    let long = format!(
        r#"{{"id": "a", "prediction": "{}", "references": ["c"]}}"#,
        "b".repeat(17 << 20)
    );
    let (code, _, err) = alone(long.as_bytes(), &[]);
    assert!(
        code == 6 && err.contains("line 1: expected at most 16777216 bytes"),
        "{err}"
    );
    // What may stand in JSON.
    let (code, out, _) = alone(
        "\u{feff}{\"id\": \"\", \"prediction\": \"\\ud83d\\ude00\", \"references\": [\"\\u0000\"]}"
            .as_bytes(),
        &["--json"],
    );
    assert!(code == 0 && out.contains(r#""tokens":"""#), "{out}");
}

/// A folder with a stand-in for Java that writes down what it is told, and two jars.
fn stand_in(script: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let java = folder.path().join("java");
    std::fs::write(&java, format!("#!/bin/sh\n{script}")).unwrap();
    std::fs::set_permissions(&java, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (meteor, spice) = (folder.path().join("meteor.jar"), folder.path().join("spice.jar"));
    for jar in [&meteor, &spice] {
        std::fs::write(jar, "").unwrap();
    }
    (folder, meteor, spice)
}

#[test]
fn official_programs_are_asked_in_their_form() {
    let (folder, meteor, spice) = stand_in(
        r#"echo "$*" >> asked
case "$*" in
*-stdio*)
    n=0
    while IFS= read -r line; do
        echo "$line" >> asked
        case "$line" in
        SCORE*) n=$((n + 1)); echo "$n.0 2.0" ;;
        EVAL*) echo 0.25; echo 0.75; echo 0.5 ;;
        esac
    done ;;
*)
    echo '[{"image_id": 1, "scores": {"All": {"f": 0.5}}}, {"image_id": 0, "scores": {"All": {"f": 0.25}}}]' > "$7" ;;
esac
"#,
    );
    let jars = [
        ("AF2_METEOR_JAR", meteor.as_path()),
        ("AF2_SPICE_JAR", spice.as_path()),
    ];
    let (code, out, err) = command(TWO.as_bytes(), &["--json"], folder.path(), &jars);
    assert_eq!((code, err.as_str()), (0, ""));
    let found: Value = serde_json::from_str(&out).unwrap();
    let (corpus, items) = (&found["corpus"], &found["items"]);
    assert_eq!(
        (&corpus["METEOR"], &items[0]["METEOR"], &items[1]["METEOR"]),
        (&0.5.into(), &0.25.into(), &0.75.into())
    );
    assert_eq!(
        (&corpus["SPICE"], &items[0]["SPICE"], &items[1]["SPICE"]),
        (&0.375.into(), &0.25.into(), &0.5.into())
    );
    let cider = |of: &Value| of["CIDEr"].as_f64().unwrap();
    let spider = |of: &Value| of["SPIDEr"].as_f64().unwrap();
    assert!((spider(corpus) - (cider(corpus) + 0.375) / 2.0).abs() < 1e-15);
    assert!((spider(&items[1]) - (cider(&items[1]) + 0.5) / 2.0).abs() < 1e-15);
    let jar = found["official_tools"]["METEOR"]["jar"].as_str().unwrap();
    assert_eq!(Path::new(jar), meteor);
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    let asked: Vec<&str> = asked.lines().collect();
    assert!(
        asked[0].ends_with("meteor.jar - - -stdio -l en -norm"),
        "{asked:?}"
    );
    assert_eq!(
        asked[1],
        "SCORE ||| a dog is barking ||| the dog 's bark ||| a dog barks twice"
    );
    assert_eq!(asked[2], "SCORE ||| rain -lrb- heavy -rrb- falls ||| rain falls");
    assert_eq!(asked[3], "EVAL ||| 1.0 2.0 ||| 2.0 2.0");
    assert!(
        asked[4].contains("spice.jar") && asked[4].ends_with("-subset -silent"),
        "{asked:?}"
    );
}

#[test]
fn official_programs_that_fail_are_no_silence() {
    let cases = [
        ("exit 1", "its end"),
        ("while read -r line; do echo none; done", "\"none\""),
        ("read -r line; echo 1.0", "its end"),
    ];
    for (script, expected) in cases {
        let (folder, meteor, _) = stand_in(script);
        let (code, out, err) = command(TWO.as_bytes(), &[], folder.path(), &[("AF2_METEOR_JAR", &meteor)]);
        assert!(code == 6 && out.is_empty(), "{script}: {out}{err}");
        let broken = err.contains(expected) || err.contains("Broken pipe");
        assert!(
            broken && err.contains("meteor.jar") && err.contains("AF2_METEOR_JAR"),
            "{script}: {err}"
        );
    }
    for (script, expected) in [
        ("exit 3", "exit status: 3"),
        ("echo '[]' > $7", "none for clip 1"),
        ("echo oops > $7", "scores as JSON"),
    ] {
        let (folder, _, spice) = stand_in(script);
        let (code, _, err) = command(TWO.as_bytes(), &[], folder.path(), &[("AF2_SPICE_JAR", &spice)]);
        assert!(
            code == 6 && err.contains(expected) && err.contains("AF2_SPICE_JAR"),
            "{script}: {err}"
        );
    }
    let (folder, meteor, _) = stand_in("");
    let gone = folder.path().join("gone.jar");
    let (code, out, _) = command(TWO.as_bytes(), &[], folder.path(), &[("AF2_METEOR_JAR", &gone)]);
    assert!(code == 0 && out.contains("gone.jar, which is no file"), "{out}");
    let (code, out, _) = command(
        TWO.as_bytes(),
        &[],
        Path::new("/nowhere"),
        &[("AF2_METEOR_JAR", &meteor)],
    );
    assert!(
        code == 0 && out.contains("no `java` in the folders of PATH"),
        "{out}"
    );
}

/// With `AF2_METEOR_JAR` and a Java; the golden numbers are this program's.
#[test]
#[ignore = "METEOR's jar and Java"]
fn the_real_meteor_gives_the_official_scores() {
    let jar = PathBuf::from(std::env::var_os("AF2_METEOR_JAR").unwrap());
    let path = PathBuf::from(std::env::var_os("PATH").unwrap());
    for file in CORPORA {
        let corpus = json(file);
        let cases = corpus["items"].as_array().unwrap();
        let line = |c: &Value| serde_json::json!({"id": c["id"], "prediction": c["candidate"], "references": c["references"]});
        let lines: String = cases.iter().map(|c| format!("{}\n", line(c))).collect();
        let (code, out, err) = command(lines.as_bytes(), &["--json"], &path, &[("AF2_METEOR_JAR", &jar)]);
        assert_eq!(code, 0, "{err}");
        let found: Value = serde_json::from_str(&out).unwrap();
        let pairs = cases
            .iter()
            .map(|c| &c["scores"])
            .zip(found["items"].as_array().unwrap());
        for (expected, found) in pairs.chain([(&corpus["corpus"], &found["corpus"])]) {
            let (expected, found) = (
                expected["METEOR"].as_f64().unwrap(),
                found["METEOR"].as_f64().unwrap(),
            );
            assert!(
                (expected - found).abs() <= 1e-12,
                "{file}: {found} is not {expected}"
            );
        }
    }
}
