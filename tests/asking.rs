//! Asking at the command line: which sounds, which piece of them, how answers are shown, and the prompt of `af2 chat`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{af2, af2_in, golden};
use serde_json::{json, Value};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SPEECH: &str = "speech_16k_mono_3p7s.wav";
const EMOTION: &str = "What is the emotion of the speaker?";
const ANGRY: &str = "the speaker is angry.";

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn wav(name: &str) -> String {
    text(&golden("wavs").join(name))
}

/// A verb on the tests' model.
fn on_model(verb: &str, more: &[&str]) -> Vec<String> {
    let (dir, config) = (text(&golden("F_tiny")), text(&golden("F_tiny/config.yaml")));
    let begin = [verb, "--checkpoint", &dir, "--config", &config];
    begin.iter().chain(more).map(|a| (*a).to_owned()).collect()
}

fn run(verb: &str, more: &[&str]) -> (i32, String, String) {
    let arguments = on_model(verb, more);
    af2(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn generate(more: &[&str]) -> (i32, String, String) {
    run("generate", more)
}

fn fails(more: &[&str], code: i32, pieces: &[&str]) {
    let (found, out, err) = generate(more);
    assert_eq!((found, out.as_str()), (code, ""), "{more:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
    for piece in pieces {
        assert!(err.contains(piece), "`{piece}` is not in: {err}");
    }
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// With these bytes on standard input.
fn fed(arguments: &[String], bytes: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that ends early closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let out = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        out.status.code().unwrap_or(-1),
        text(out.stdout),
        text(out.stderr),
    )
}

#[test]
fn several_files_a_folder_and_a_pattern_are_asked_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for (name, of) in [("b.wav", SPEECH), ("a.flac", "flac_16k_mono_12p5s.flac")] {
        fs::copy(golden("wavs").join(of), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("c.wav"), "no sound").unwrap();
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    let asked = |audio: &[&str], more: &[&str]| {
        let named: Vec<&str> = audio.iter().flat_map(|a| ["--audio", a]).collect();
        let arguments = on_model("generate", &[&named[..], &["--prompt", EMOTION], more].concat());
        af2_in(
            folder.path(),
            &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    let named = |out: &str| {
        let name = |l: &str| l.split('\t').next().unwrap().to_owned();
        out.lines().map(name).collect::<Vec<_>>().join(" ")
    };
    let (code, out, err) = asked(&["b.wav", "a.flac"], &[]);
    assert_eq!((code, named(&out).as_str()), (0, "b.wav a.flac"), "{err}");
    assert!(out.starts_with(&format!("b.wav\t{EMOTION}\t{ANGRY}\n")), "{out}");
    // In a folder one that is no sound: the others are answered.
    let (code, out, err) = asked(&["."], &[]);
    assert_eq!((code, named(&out).as_str()), (5, "./a.flac ./b.wav"), "{err}");
    assert!(
        err.contains("note: .: 3 files") && err.contains("1 of 3 questions"),
        "{err}"
    );
    let (code, out, err) = asked(&["[ab].*"], &["--json", "--slots", "1"]);
    assert_eq!(code, 0, "{err}");
    let found: Vec<Value> = lines(&out).into_iter().map(|mut l| l["path"].take()).collect();
    assert_eq!(found, [json!("a.flac"), json!("b.wav")]);
    // A pattern that fits one is still a pattern.
    assert_eq!(named(&asked(&["b.*"], &[]).1), "b.wav");
    for (audio, pieces) in [
        ("*.mp3", &["*.mp3: no file fits this pattern"][..]),
        ("gone.wav", &["gone.wav", "No such file"]),
    ] {
        let (code, _, err) = asked(&[audio], &[]);
        assert_eq!(code, 3, "{err}");
        pieces.iter().for_each(|p| assert!(err.contains(p), "{err}"));
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    let (code, _, err) = asked(&["empty"], &[]);
    assert!(code == 3 && err.contains("empty: expected sound files"), "{err}");
}

/// The order of the lines, not that of the clips; whatever the slots, and one by one without caches.
#[test]
fn answers_are_printed_in_the_order_of_the_questions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("q.jsonl");
    let names = [
        SPEECH,
        "tones_16k_mono_10s.wav",
        "gone.wav",
        "flac_16k_mono_12p5s.flac",
    ];
    let question =
        |i: usize| json!({"path": names[i % 4], "prompt": format!("what is it? {}", i % 3)}).to_string();
    fs::write(&file, (0..16).map(|i| question(i) + "\n").collect::<String>()).unwrap();
    let (file, root) = (text(&file), text(&golden("wavs")));
    let asked = |more: &[&str]| {
        let base = [
            "--input",
            &file,
            "--data-root",
            &root,
            "--max-new-tokens",
            "6",
            "--json",
        ];
        let (code, out, err) = generate(&[&base[..], more].concat());
        assert_eq!(code, 3, "{err}");
        assert!(err.contains("4 of 16 questions could not be answered"), "{err}");
        let mut all = lines(&out);
        all.iter_mut()
            .for_each(|l| drop(l.as_object_mut().unwrap().remove("seconds")));
        all
    };
    let expected: Vec<String> = (0..16)
        .filter(|i| i % 4 != 2)
        .map(|i| format!("what is it? {}", i % 3))
        .collect();
    let first = asked(&[]);
    let prompts: Vec<&str> = first.iter().map(|l| l["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, expected);
    let same = |other: Vec<Value>, how: &str| {
        assert_eq!(first.len(), other.len());
        for (a, b) in first.iter().zip(&other) {
            assert_eq!((&a["tokens"], &a["text"]), (&b["tokens"], &b["text"]), "{how}");
            let apart = a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap();
            assert!(apart.abs() < 1e-4, "{how}: {apart}");
        }
    };
    same(asked(&["--slots", "1"]), "one slot");
    same(asked(&["--slots", "3", "--memory", "64MiB"]), "three slots");
    same(asked(&["--no-cache"]), "without caches");
}

#[test]
fn a_sound_may_come_on_standard_input() {
    let ask = |more: &[&str]| {
        on_model(
            "generate",
            &[&["--audio", "-", "--prompt", EMOTION][..], more].concat(),
        )
    };
    let sound = fs::read(golden("wavs").join(SPEECH)).unwrap();
    let (code, out, err) = fed(&ask(&[]), &sound);
    assert_eq!((code, out.as_str()), (0, "the speaker is angry.\n"), "{err}");
    let (code, out, err) = fed(&ask(&["--no-cache", "--json"]), &sound);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        (&lines(&out)[0]["text"], &lines(&out)[0]["path"]),
        (&json!(ANGRY), &json!("-"))
    );
    for (bytes, pieces) in [
        (
            &b""[..],
            &["standard input: expected a sound file, found 0 bytes"][..],
        ),
        (b"what is it?", &["standard input: expected"]),
        (&sound[..2000], &["standard input: expected", "found"]),
    ] {
        let (code, _, err) = fed(&ask(&[]), bytes);
        assert_eq!(code, 5, "{err}");
        pieces.iter().for_each(|p| assert!(err.contains(p), "{err}"));
    }
    let (code, _, err) = fed(&ask(&["--start", "1:00"]), &sound);
    assert!(code == 5 && err.contains("3.7 s long"), "{err}");
    let (code, _, err) = fed(&ask(&["--audio", "-"]), &sound);
    assert!(code == 2 && err.contains("named twice"), "{err}");
}

/// What is heard of a piece is what is heard of a file that holds it alone.
#[test]
fn a_piece_of_a_sound_is_a_sound() {
    let long = wav("long_16k_mono.wav");
    let mut reader = hound::WavReader::open(&long).unwrap();
    let spec = reader.spec();
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    let folder = tempfile::tempdir().unwrap();
    let cut = text(&folder.path().join("cut.wav"));
    let rate = spec.sample_rate as usize;
    let seconds = samples.len() / rate;
    assert!(seconds > 20, "{seconds}");
    let prompt = ["--prompt", "what is it?", "--max-new-tokens", "8", "--json"];
    let scores = |audio: &str, more: &[&str]| {
        let (code, out, err) = generate(&[&["--audio", audio][..], &prompt, more].concat());
        assert_eq!(code, 0, "{err}");
        lines(&out)[0].clone()
    };
    let same = |a: &Value, b: &Value| {
        a["tokens"] == b["tokens"]
            && (a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap()).abs() < 1e-5
    };
    for most in [13, 8] {
        let mut writer = hound::WavWriter::create(&cut, spec).unwrap();
        for s in &samples[..most * rate] {
            writer.write_sample(*s).unwrap();
        }
        writer.finalize().unwrap();
        let length = most.to_string();
        let piece = scores(&long, &["--seconds", &length]);
        assert!(same(&piece, &scores(&cut, &[])), "{most}: {piece}");
        assert_eq!(piece["duration"].as_f64(), Some(most as f64));
        assert!(!same(&piece, &scores(&long, &[])), "{most}");
        let later = scores(&long, &["--start", "0:07", "--seconds", &length]);
        assert!(
            !same(&piece, &later) && later["start"].as_f64() == Some(7.0),
            "{later}"
        );
    }
    let whole = scores(&long, &["--windows", "1"]);
    assert!(same(&whole, &scores(&long, &["--seconds", "10"])) && whole.get("duration").is_none());

    let speech = wav(SPEECH);
    let base = ["--audio", &speech, "--prompt", "what is it?"];
    let wrong = |more: &[&str], code: i32, pieces: &[&str]| fails(&[&base[..], more].concat(), code, pieces);
    wrong(
        &["--start", "1:20"],
        5,
        &[SPEECH, "from 80 s on", "the sound is 3.7 s long"],
    );
    wrong(&["--start", "1:75"], 2, &["--start", "1:20 or 1:02:03.5"]);
    wrong(&["--start=-3"], 2, &["--start"]);
    wrong(&["--seconds", "0"], 2, &["--seconds", "above 0 s"]);
    wrong(
        &["--seconds", "31", "--windows", "3"],
        2,
        &[
            "--seconds: expected at most 30 s, 3 windows of 10 s, found 31",
            "--windows hears more",
        ],
    );
    wrong(&["--slots", "0"], 2, &["--slots"]);
    wrong(&["--memory", "much"], 2, &["--memory", "40GiB"]);
    wrong(&["--no-cache", "--slots", "2"], 2, &["--no-cache", "--slots"]);

    // A line of its own says it in its own words.
    let file = folder.path().join("q.jsonl");
    let with = |more: &str| {
        fs::write(
            &file,
            format!("{{\"path\": \"{long}\", \"prompt\": \"what is it?\"{more}}}\n"),
        )
        .unwrap();
        generate(&[
            "--input",
            &text(&file),
            "--max-new-tokens",
            "8",
            "--json",
            "--seconds",
            "10",
        ])
    };
    let (code, out, err) = with(r#", "start": "0:07", "seconds": 8"#);
    assert_eq!(code, 0, "{err}");
    assert!(same(
        &lines(&out)[0],
        &scores(&long, &["--start", "7", "--seconds", "8"])
    ));
    assert!(same(&lines(&with("").1)[0], &scores(&long, &["--seconds", "10"])));
    for (more, piece) in [
        (r#", "start": "1:75""#, "line 1"),
        (r#", "seconds": -1"#, "found -1"),
        (r#", "start": [1]"#, "found [1]"),
        (r#", "seconds": 1000"#, "line 1: seconds: expected at most"),
    ] {
        let (code, _, err) = with(more);
        assert!(code == 6 && err.contains(piece), "{err}");
    }
}

#[test]
fn an_answer_is_the_same_as_it_comes_and_at_its_end() {
    let speech = wav(SPEECH);
    let asked = |more: &[&str]| {
        let base = ["--audio", &speech, "--prompt", EMOTION];
        let (code, out, err) = generate(&[&base[..], more].concat());
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(asked(&[]), "the speaker is angry.\n");
    for more in [
        &[][..],
        &["--stop", "angry"],
        &["--temperature", "3", "--max-new-tokens", "40"],
        &["--min-new-tokens", "60", "--max-new-tokens", "60"],
        &["--thinking", "keep"],
    ] {
        assert_eq!(asked(more), asked(&[more, &["--no-stream"]].concat()), "{more:?}");
    }
    // A reader who leaves is no error, streamed or not.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(on_model("generate", &["--audio", &speech, "--prompt", EMOTION]))
        .stdout(writer)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn weights_in_bf16_are_named_where_they_lose_something() {
    let speech = wav(SPEECH);
    let asked = |more: &[&str]| generate(&[&["--audio", &speech, "--prompt", EMOTION][..], more].concat());
    for dtype in ["bf16", "amp_bf16"] {
        let (code, out, err) = asked(&["--dtype", dtype]);
        assert_eq!((code, out.as_str()), (0, "the speaker is angry.\n"), "{err}");
        for piece in [
            "rounded, as autocast rounds them",
            "of cross_attention",
            "of clap",
            "embeddings",
            "stay fp32",
        ] {
            assert!(err.contains(piece), "{piece}: {err}");
        }
    }
    let (_, _, err) = asked(&["--dtype", "fp32"]);
    assert!(!err.contains("bf16"), "{err}");
    let (code, _, err) = asked(&["--dtype", "fp16"]);
    assert!(code == 2 && err.contains("fp32, bf16"), "{err}");
}

fn chat(more: &[&str], said: &str) -> (i32, String, String) {
    fed(&on_model("chat", more), said.as_bytes())
}

#[test]
fn a_script_may_chat() {
    let speech = wav(SPEECH);
    let (code, out, err) = chat(
        &["--audio", &speech],
        &format!("{EMOTION}\n\n/thinking strip\n{EMOTION}\n/quit\nnever asked\n"),
    );
    assert_eq!((code, out), (0, format!("{ANGRY}\n{ANGRY}\n")), "{err}");
    assert!(err.contains(&format!("{SPEECH}: 1 window of 10 s")), "{err}");

    // Nothing that is wrong ends it, and what was heard stays.
    let lines = format!(
        "{EMOTION}\n/audio gone.wav\n/audio {}\n{EMOTION}\n/start 1:20\n/start 1:75\n/seconds 1000\n/foo\n/thinking loudly\n{EMOTION}\n\
         /set temperatur 1\n/set temperature hot\n/set top_p 7\n/set stop_token_ids [100000]\n{EMOTION}",
        text(&golden("F_tiny/config.yaml")),
    );
    let (code, out, err) = chat(
        &["--no-stream"],
        &format!("{EMOTION}\n/audio {speech}\n{lines}\n"),
    );
    assert_eq!((code, out), (0, format!("{ANGRY}\n").repeat(4)), "{err}");
    for piece in [
        "error: no sound is heard",
        "/audio FILE",
        "gone.wav",
        "config.yaml: expected",
        "the sound is 3.7 s long",
        "1:20 or 1:02:03.5, found 1:75",
        "/seconds: expected at most",
        "/foo: no such command",
        "/thinking: expected keep or strip, found loudly",
        "did you mean temperature?",
        "invalid type: string \"hot\"",
        "/set top_p: expected a number above 0, at most 1, found 7",
        "/set stop_token_ids: expected ids below",
    ] {
        assert!(err.contains(piece), "`{piece}` is not in: {err}");
    }
    assert!(
        !err.contains("command line") && !err.contains("panicked"),
        "{err}"
    );
}

#[test]
fn what_is_set_is_what_is_asked_with() {
    let speech = wav(SPEECH);
    let (code, out, err) = chat(
        &["--audio", &speech, "--max-new-tokens", "4"],
        &format!(
            "{EMOTION}\n/set max-new-tokens 256\n{EMOTION}\n/set stop_strings [\"angry\"]\n{EMOTION}\n/set temperature 2\n/set\n\
             /set temperature 0\n/set do_sample\n/set num_beams 2\n/set num_return_sequences 2\n/set stop_strings []\n{EMOTION}\n\
             /audio\n/seconds 2\n/help\n"
        ),
    );
    assert_eq!(code, 0, "{err}");
    let out: Vec<&str> = out.lines().collect();
    assert_eq!((out[1], out[2]), (ANGRY, "the speaker is "));
    assert!(ANGRY.starts_with(out[0]) && out[0].len() < ANGRY.len(), "{out:?}");
    assert_eq!((out.len(), out[3]), (5, ANGRY), "two beams: {out:?}");
    for piece in [
        "do_sample true",
        "temperature 2",
        "do_sample false",
        ", at most 2 s: 1 window",
        "Each stands alone",
    ] {
        assert!(err.contains(piece), "`{piece}` is not in: {err}");
    }
    let (code, _, err) = chat(&["--audio", "gone.wav"], "");
    assert!(code == 3 && err.contains("gone.wav"), "{err}");
    assert_eq!(chat(&["--num-beams", "0"], "").0, 2);
}

/// A terminal of its own: `script` of util-linux. What is written to it is typed.
struct Terminal {
    child: Child,
    log: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Terminal {
    fn open(arguments: &[String], state: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("screen");
        let quoted: Vec<String> = arguments.iter().map(|a| format!("'{a}'")).collect();
        let program = assert_cmd::cargo::cargo_bin("af2");
        let child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command"])
            // `exec`: a plain shell between the two would end of the Ctrl-C itself, and its code be taken for ours.
            .arg(format!("exec '{}' {}", program.display(), quoted.join(" ")))
            .arg("/dev/null")
            .env("SHELL", "/bin/sh")
            .env("XDG_STATE_HOME", state)
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Terminal {
            child,
            log,
            _folder: folder,
        }
    }

    fn shows(&self) -> String {
        let mut bytes = Vec::new();
        File::open(&self.log).unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the screen shows this so many times.
    fn wait(&self, text: &str, times: usize) {
        let since = Instant::now();
        while self.shows().matches(text).count() < times {
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "{text}: {}",
                self.shows()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn types(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// When this is the prompt's so manieth line: what is typed before is not read.
    fn types_at_prompt(&mut self, n: usize, text: &str) {
        self.wait("\u{1b}[K> ", n);
        self.types(text);
    }

    fn ends(&mut self) -> i32 {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(since.elapsed() < Duration::from_secs(60), "{}", self.shows());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_stops_an_answer_and_ctrl_d_the_chat() {
    use std::os::unix::fs::PermissionsExt;
    let (speech, state) = (wav(SPEECH), tempfile::tempdir().unwrap());
    let mut terminal = Terminal::open(&on_model("chat", &["--audio", &speech]), state.path());
    terminal.types_at_prompt(1, &format!("{EMOTION}\r"));
    terminal.wait(ANGRY, 1);
    // At the prompt it drops the line.
    terminal.types_at_prompt(2, "half a line\u{3}");
    terminal.types_at_prompt(3, "/set max_new_tokens 2000\r");
    terminal.types_at_prompt(4, "/set min_new_tokens 2000\r");
    terminal.types_at_prompt(5, "how long?\r");
    terminal.wait("how long?", 1);
    std::thread::sleep(Duration::from_millis(300));
    terminal.types("\u{3}");
    terminal.wait("stopped", 1);
    terminal.types_at_prompt(6, "/set min_new_tokens 0\r");
    terminal.types_at_prompt(7, &format!("{EMOTION}\r"));
    terminal.wait(ANGRY, 2);
    terminal.types_at_prompt(8, "\u{4}");
    assert_eq!(terminal.ends(), 0, "{}", terminal.shows());
    let history = state.path().join("af2/chat-history");
    let kept = fs::read_to_string(&history).unwrap();
    assert!(kept.contains(EMOTION) && !kept.contains("half a line"), "{kept}");
    assert_eq!(
        fs::metadata(&history).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let bare = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open(&on_model("chat", &["--no-history"]), bare.path());
    terminal.types_at_prompt(1, "/audio\r");
    terminal.wait("no sound is heard", 1);
    terminal.types_at_prompt(2, "/quit\r");
    assert_eq!(terminal.ends(), 0);
    assert!(!bare.path().join("af2").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_what_is_generated() {
    let (speech, state) = (wav(SPEECH), tempfile::tempdir().unwrap());
    let endless = ["--min-new-tokens", "60000", "--max-new-tokens", "60000"];
    let more = [
        &["--audio", &speech, "--prompt", EMOTION, "--dtype", "bf16"][..],
        &endless,
    ]
    .concat();
    let mut terminal = Terminal::open(&on_model("generate", &more), state.path());
    // What bf16 loses is noted when the model is open.
    terminal.wait("note: bf16", 1);
    std::thread::sleep(Duration::from_millis(500));
    terminal.types("\u{3}");
    assert_eq!(terminal.ends(), 130, "{}", terminal.shows());
    assert!(terminal.shows().ends_with("\r\n"), "{:?}", terminal.shows());
}
