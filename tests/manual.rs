//! The manual says what is so. Every command of `README.md`, `CONTRIBUTING.md` and `docs/` is run here, some with less to do
//! ([`SMALLER`]), or stands in [`NOT_RUN`] with the reason why not; its verb, its options and the files that it names are there
//! in either case. Links lead somewhere, exit codes are those of `src/error.rs`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{af2, golden, wav};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Commands that are not run here, by how they begin, and why.
const NOT_RUN: &[(&str, &str)] = &[
    // Published weights or corpora.
    ("af2 train recipes/af2-3b.yaml", "published weights and corpora"),
    (
        "af2 launch -n 8 -- train recipes/af2-3b.yaml",
        "8 GPUs; tests/ranks.rs launches",
    ),
    (
        "af2 checkpoint verify checkpoints/audio-flamingo-2 --model af2-3b",
        "published weights",
    ),
    (
        "af2 data check recipes/af2-3b.yaml",
        "corpora; tests/data_doctor.rs takes a recipe",
    ),
    (
        "af2 data blend recipes/af2-3b.yaml",
        "corpora; tests/golden_blending.rs",
    ),
    (
        "af2 recipe import pretrain.yaml",
        "the reference's file; tests/recipes.rs imports one",
    ),
    // Many minutes; the front page's ablation makes the same steps, smaller, and `tests/demo.rs` the demo's.
    ("af2 demo", "a quarter of an hour"),
    ("af2 synth recipes/demo.yaml", "minutes"),
    ("af2 lm recipes/demo.yaml", "minutes"),
    ("af2 clap recipes/demo.yaml", "minutes"),
    ("af2 train recipes/demo.yaml", "minutes"),
    ("af2 eval recipes/demo.yaml", "needs the trained demo"),
    (
        "af2 launch -n 2 -- eval recipes/demo.yaml",
        "needs the trained demo; tests/evaluate.rs launches",
    ),
    (
        "af2 data read recipes/demo.yaml",
        "needs the demo's corpus; tests/data_loader.rs",
    ),
    (
        "af2 eval --checkpoint checkpoints/audio-flamingo-2 --benchmarks",
        "published weights and official files; tests/benchmark_run.rs has its own",
    ),
    (
        "af2 eval --watch experiments/af2-3b",
        "a run of published weights, and official files; tests/benchmark_run.rs trains one",
    ),
    (
        "af2 eval --endpoint http://127.0.0.1:8000/v1 --model tiny",
        "a server and official files; tests/benchmark_run.rs has its own",
    ),
    (
        "af2 launch -n 8 -- eval --checkpoint checkpoints/audio-flamingo-2 --benchmarks all",
        "8 GPUs; tests/benchmark_run.rs launches",
    ),
    (
        "af2 eval --checkpoint experiments/demo/checkpoints/stage3",
        "needs the trained demo; tests/demo.rs asks the smallest one",
    ),
    (
        "af2 benchmark import",
        "official files; tests/benchmark_import.rs writes some",
    ),
    (
        "af2 benchmark submit",
        "a manifest of official files; tests/benchmark_import.rs",
    ),
    (
        "af2 score --benchmark esc-50",
        "AF-CLAP with its tokenizer; tests/clap_label.rs makes one",
    ),
    (
        "af2 score captions --predictions captions.jsonl --audio-root",
        "AF-CLAP with its tokenizer, and clips; tests/clap_label.rs",
    ),
    // The machine's own verdict.
    ("af2 doctor", "what it says is the machine's; tests/doctor.rs"),
    ("make gpu-check", "a GPU; tests/gpu_check.rs runs it on the CPU"),
    ("LD_LIBRARY_PATH=$(python3", "a GPU"),
    ("af2 judge run", "a server; tests/judge.rs has one"),
    ("af2 judge check", "a judge's marks; tests/judge.rs"),
    ("export AF2_API_KEY", "a key"),
    // Until a signal.
    ("af2 serve", "runs until it is told to end; tests/serve.rs"),
    (
        "curl",
        "a server; tests/serve.rs, and tests/interop.rs with real clients",
    ),
    // Other programs.
    ("hf download", "network"),
    ("torchrun", "machines; tests/training.rs under make test-interop"),
    ("sbatch", "Slurm; tests/slurm.rs has stand-ins"),
    // Build, install and measure.
    ("make demo", "a quarter of an hour; tests/demo.rs"),
    ("make build", "this test is built already"),
    ("make setup", "tests/setup.sh"),
    ("make install", "tests/install.rs"),
    ("make uninstall", "tests/install.rs"),
];

/// Commands that are run with less to do than they say, and what is changed in their recipe.
const SMALLER: (&[&str], &str) = (
    &[
        "af2 synth ablations/every-2.yaml",
        "af2 lm ablations/every-2.yaml",
        "af2 clap ablations/every-2.yaml",
        "af2 train ablations/every-2.yaml",
        "af2 eval ablations/every-2.yaml",
    ],
    "corpus.singles_per_class=5 corpus.counting=20 corpus.scenes=20 corpus.attributes=10 corpus.long=6 lm.optim.steps=10 \
     clap.optim.steps=3 clap.optim.batch_size=8 stages.0.optim.steps=3 stages.1.optim.steps=2 stages.2.optim.steps=2 \
     stages.0.optim.batch_size=4 stages.1.optim.batch_size=2 stages.2.optim.batch_size=2 eval.limit=4 \
     eval.max_new_tokens=8",
);

/// Commands that end here with another exit code than a user's, and why.
const ELSEWHERE: &[(&str, i32, &str)] = &[(
    "af2 recipe check --files recipes/af2-3b.yaml",
    3,
    "its weights and corpora are not here",
)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the manual, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let mut all: Vec<PathBuf> = docs.map(|f| f.unwrap().path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "md"));
    all.extend(["README.md", "CONTRIBUTING.md"].map(|p| root().join(p)));
    all.sort();
    assert!(all.len() > 11, "{all:?}");
    let read = |p: PathBuf| (p.clone(), fs::read_to_string(p).unwrap());
    all.into_iter().map(read).collect()
}

/// And the pages that lie beside what they are about.
fn all_pages() -> Vec<(PathBuf, String)> {
    let beside = [
        "ablations",
        "checkpoints",
        "data-manifests",
        "experiments",
        "notebooks",
        "recipes",
        "tests",
        "tests/golden",
        "tests/golden/formats",
        "tests/golden/formats_more",
    ];
    let mut all = pages();
    for folder in beside {
        let page = root().join(folder).join("README.md");
        let text = fs::read_to_string(&page).unwrap();
        all.push((page, text));
    }
    all
}

fn shown(page: &Path) -> String {
    page.strip_prefix(root()).unwrap().display().to_string()
}

/// What stands between fences.
struct Block {
    /// `README.md:12`
    place: String,
    kind: String,
    body: String,
}

fn blocks(page: &Path, text: &str) -> Vec<Block> {
    let mut all = Vec::new();
    let mut open: Option<Block> = None;
    for (i, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => {
                open = Some(Block {
                    place: format!("{}:{}", shown(page), i + 1),
                    kind: kind.to_owned(),
                    body: String::new(),
                });
            }
            (Some(_), Some(_)) => all.extend(open.take()),
            (None, Some(block)) => {
                block.body += line;
                block.body += "\n";
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a fence is not closed", shown(page));
    all
}

/// A command line and the comment behind it.
struct Line {
    place: String,
    command: String,
    comment: String,
}

/// The command lines of a block, continued ones whole.
fn lines(block: &Block) -> Vec<Line> {
    let mut all = Vec::new();
    let mut before = String::new();
    for line in block.body.lines() {
        let (command, comment) = line.split_once(" #").unwrap_or((line, ""));
        before += command.trim();
        if let Some(cut) = before.strip_suffix('\\') {
            before = cut.trim().to_owned() + " ";
            continue;
        }
        all.push(Line {
            place: block.place.clone(),
            command: std::mem::take(&mut before),
            comment: comment.trim().to_owned(),
        });
    }
    assert!(before.is_empty(), "{}: a line is continued by none", block.place);
    all.retain(|l| !l.command.is_empty());
    all
}

fn commands() -> Vec<Line> {
    let mut all = Vec::new();
    for (page, text) in pages() {
        for block in blocks(&page, &text) {
            // Every fence says what it holds, so that no command hides in one that says nothing.
            let kinds = ["sh", "text", "yaml", "json", "rust", "toml", "python", "js"];
            assert!(
                kinds.contains(&block.kind.as_str()),
                "{}: `{}` is none of {kinds:?}",
                block.place,
                block.kind
            );
            if block.kind == "sh" {
                all.extend(lines(&block));
            }
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

/// Code within a line of prose, such as `af2 plan`.
fn inline(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose += line;
            prose += "\n";
        }
    }
    let spans = prose.split('`').skip(1).step_by(2);
    spans.map(|s| s.replace('\n', " ")).collect()
}

/// What a verb says of itself.
fn help(verbs: &[String]) -> String {
    static KNOWN: OnceLock<std::sync::Mutex<HashMap<Vec<String>, String>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Default::default).lock().unwrap();
    let text = known.entry(verbs.to_vec()).or_insert_with(|| {
        let mut words: Vec<&str> = verbs.iter().map(String::as_str).collect();
        words.push("--help");
        let (code, out, err) = af2(&words);
        assert_eq!(code, 0, "af2 {}: {err}", words.join(" "));
        out
    });
    text.clone()
}

/// Holds that the verb and every option of `af2 …` are there.
fn exists(place: &str, words: &[String]) {
    let mut verbs: Vec<String> = Vec::new();
    let mut rest = words.iter();
    for word in rest.by_ref() {
        match word.as_str() {
            "-q" | "--quiet" => continue,
            "--help" | "--version" => return,
            // Any verb.
            w if w.chars().all(char::is_uppercase) => return,
            w => verbs.push(w.to_owned()),
        }
        break;
    }
    let Some(verb) = verbs.first() else { return };
    let named = help(&[])
        .lines()
        .any(|l| l.split_whitespace().next() == Some(verb));
    assert!(named, "{place}: af2 has no verb `{verb}`");
    let mut rest: Vec<&String> = rest.collect();
    // A file, or what stands for one, is no verb.
    let a_file = |word: &String| word.contains('/') || word.chars().all(char::is_uppercase);
    let of_its_own = rest
        .first()
        .is_some_and(|word| !word.starts_with('-') && !a_file(word));
    if ["recipe", "checkpoint", "data", "benchmark", "score", "judge"].contains(&verb.as_str()) && of_its_own
    {
        let group = help(&verbs);
        // `af2 recipe ls | show` names several.
        let sub = rest.remove(0);
        assert!(
            group.lines().any(|l| l.split_whitespace().next() == Some(sub)),
            "{place}: af2 {verb} has no `{sub}`"
        );
        verbs.push(sub.clone());
    }
    let text = help(&verbs);
    for (i, word) in rest.iter().enumerate() {
        if *word == "--" {
            let behind: Vec<String> = rest[i + 1..].iter().map(|w| (*w).clone()).collect();
            return exists(place, &behind);
        }
        let option = word.split('=').next().unwrap();
        if !option.starts_with('-')
            || option.len() < 2
            || option[1..].starts_with(|c: char| c.is_ascii_digit())
        {
            continue;
        }
        let there = text
            .split(|c: char| c.is_whitespace() || ",[]<>=|".contains(c))
            .any(|w| w == option);
        assert!(there, "{place}: af2 {} has no `{option}`", verbs.join(" "));
    }
}

/// The words of a command line, quotation marks taken off.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => (quote, any) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, c) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        all.push(word);
    }
    all
}

/// The folder in which commands run: recipes, golden data and a run that lie where the pages say, and stand-ins for a
/// user's own files.
fn scratch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path();
    for name in ["recipes", "ablations"] {
        fs::create_dir(to.join(name)).unwrap();
        for file in fs::read_dir(root().join(name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(name).join(file.file_name())).unwrap();
        }
    }
    for name in ["tests", "experiments", "checkpoints"] {
        fs::create_dir(to.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(root().join("tests/golden"), to.join("tests/golden")).unwrap();
    std::os::unix::fs::symlink(golden("F_tiny"), to.join("checkpoints/audio-flamingo-2")).unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(golden("J_run"))
        .arg(to.join("experiments/demo"))
        .status();
    assert!(copied.unwrap().success());
    wav(&to.join("dog.wav"), 20_000);
    let question = "{\"path\": \"dog.wav\", \"prompt\": \"what is the sound?\"}\n";
    fs::write(to.join("questions.jsonl"), question).unwrap();
    let caption =
        "{\"id\": \"1\", \"prediction\": \"A dog barks.\", \"references\": [\"A dog is barking.\"]}\n";
    fs::write(to.join("captions.jsonl"), caption).unwrap();
    // The recipes that the pages show, where they say.
    for (page, text) in pages() {
        for block in blocks(&page, &text).iter().filter(|b| b.kind == "yaml") {
            let first = block.body.lines().next().unwrap_or_default();
            if let Some(path) = first.strip_prefix("# ").filter(|p| p.ends_with(".yaml")) {
                assert!(
                    !to.join(path).exists(),
                    "{}: {path} is there already",
                    block.place
                );
                fs::write(to.join(path), &block.body).unwrap();
            }
        }
    }
    folder
}

fn run(folder: &Path, command: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_af2")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    Command::new("bash")
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", program.display()))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Holds that all that a command line names is there: verb, options, files of the repository.
fn names_what_is_there(line: &Line, own: &[String], folder: &Path) {
    let Line { place, .. } = line;
    let program = |w: &String| w == "af2" || w.ends_with("/af2");
    if let Some(at) = own.iter().position(program) {
        exists(place, &own[at + 1..]);
    }
    let folders = ["recipes/", "ablations/", "tests/", "scripts/"];
    for word in own.iter().filter(|w| folders.iter().any(|f| w.starts_with(f))) {
        let there = folder.join(word).exists() || root().join(word).exists();
        assert!(there || word.contains('*'), "{place}: {word} is not there");
    }
}

/// Of a command that is not run: its recipe, with the changes behind it, can be read all the same.
fn its_recipe_reads(line: &Line, own: &[String], folder: &Path) {
    let recipe = |w: &String| w.ends_with(".yaml") && folder.join(w).is_file();
    let Some(at) = own.iter().position(recipe).filter(|_| own[0] == "af2") else {
        return;
    };
    let mut changes = own[at + 1..].to_vec();
    changes.retain(|w| !w.starts_with('-') && w.contains('='));
    let fault = af2::recipe_file::load(&folder.join(&own[at]), &changes).err();
    assert_eq!(fault.map(|e| e.to_string()), None, "{}", line.place);
}

/// What was met: the entries of [`NOT_RUN`], and what the commands that were run have printed.
#[derive(Default)]
struct Met {
    not_run: BTreeSet<&'static str>,
    ran: BTreeMap<String, Output>,
}

fn obey(lines: &[&Line]) -> Met {
    let scratch = scratch();
    let folder = scratch.path();
    let mut met = Met::default();
    for line in lines {
        let Line {
            place,
            command,
            comment,
        } = line;
        let own = words(command);
        names_what_is_there(line, &own, folder);
        if let Some((begins, _)) = NOT_RUN.iter().find(|(begins, _)| command.starts_with(begins)) {
            met.not_run.insert(*begins);
            its_recipe_reads(line, &own, folder);
            continue;
        }
        assert_eq!(own[0], "af2", "{place}: {command}: neither run nor named");
        // The same line on two pages is one.
        if met.ran.contains_key(command) {
            continue;
        }
        let code = comment
            .strip_prefix("exit code ")
            .and_then(|c| c.split(':').next()?.parse().ok());
        let elsewhere = ELSEWHERE.iter().find(|(line, ..)| command == line);
        let expected = elsewhere.map_or(code.unwrap_or(0), |(_, code, _)| *code);
        let smaller = SMALLER.0.iter().any(|begins| command.starts_with(begins));
        let whole = match smaller {
            true => format!("{command} {}", SMALLER.1),
            false => command.clone(),
        };
        let done = run(folder, &whole);
        let found = done.status.code().unwrap_or(-1);
        let said = text(&done.stdout) + &text(&done.stderr);
        assert_eq!(found, expected, "{place}: {command}\n{said}");
        met.ran.insert(command.clone(), done);
    }
    met
}

#[test]
fn every_command_is_run_or_says_why_not() {
    let all = commands();
    let (front, others): (Vec<&Line>, Vec<&Line>) =
        all.iter().partition(|l| l.place.starts_with("README.md"));
    let Met { mut not_run, ran } = std::thread::scope(|scope| {
        let front = scope.spawn(|| obey(&front));
        let mut met = obey(&others);
        let front = front.join().unwrap();
        met.not_run.extend(front.not_run);
        met.ran.extend(front.ran);
        met
    });
    for (begins, reason) in NOT_RUN {
        assert!(not_run.remove(begins), "`{begins}` ({reason}) stands on no page");
    }
    assert!(ran.len() > 20, "only {:#?}", ran.keys());

    // What a page says a command prints.
    let mut compared = 0;
    for (page, text_of) in pages() {
        let all = blocks(&page, &text_of);
        for pair in all.windows(2) {
            if pair[0].kind != "sh" || pair[1].kind != "text" {
                continue;
            }
            let printed: Vec<&Output> = lines(&pair[0])
                .iter()
                .filter_map(|l| ran.get(&l.command))
                .collect();
            if printed.len() != lines(&pair[0]).len() {
                continue;
            }
            let printed: String = printed
                .iter()
                .map(|o| match o.status.success() {
                    true => text(&o.stdout),
                    false => text(&o.stderr),
                })
                .collect();
            assert_eq!(printed, pair[1].body, "{}", pair[1].place);
            compared += 1;
        }
    }
    assert!(compared > 1, "{compared}");
}

#[test]
fn verbs_options_and_targets_in_prose_are_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let target = |place: &str, name: &str| {
        let there = makefile.lines().any(|l| l.starts_with(&format!("{name}:")));
        assert!(there, "{place}: make has no target `{name}`");
    };
    let mut seen = 0;
    for (page, text) in all_pages() {
        for code in inline(&text) {
            let own = words(&code);
            match own.first().map(String::as_str) {
                Some("af2") => exists(&shown(&page), &own[1..]),
                Some("make") => {
                    let mut names = own[1..]
                        .iter()
                        .filter(|w| !w.starts_with('-') && !w.contains('='));
                    if let Some(name) = names.next() {
                        target(&shown(&page), name);
                    }
                }
                _ => continue,
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
    for line in commands() {
        for part in line.command.split("&&") {
            if let Some(name) = part.trim().strip_prefix("make ") {
                target(&line.place, name.split_whitespace().next().unwrap());
            }
        }
    }
}

#[test]
fn files_that_the_prose_names_are_there() {
    let folders = [
        "src/",
        "tests/",
        "recipes/",
        "ablations/",
        "scripts/",
        "docs/",
        "benches/",
        "fuzz/",
        "data-manifests/",
    ];
    let mut seen = 0;
    for (page, text) in all_pages() {
        for code in inline(&text) {
            for word in code.split_whitespace() {
                let word = word.trim_end_matches([',', '.', ';', ':']);
                let pattern =
                    word.contains(['*', '{', '…']) || ["FAMILY", "NAME"].iter().any(|n| word.contains(n));
                if pattern || !folders.iter().any(|f| word.starts_with(f)) {
                    continue;
                }
                let path = word.split("::").next().unwrap();
                assert!(
                    root().join(path).exists(),
                    "{}: `{word}` is not there",
                    shown(&page)
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect::<String>().to_lowercase()
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for (page, text) in all_pages() {
        let mut rest = text.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let target = &rest[..rest.find(')').unwrap()];
            if target.starts_with("http") || target.contains(char::is_whitespace) {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let place = shown(&page);
            let to = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            assert!(to.exists(), "{place}: {target} leads nowhere");
            if !heading.is_empty() {
                let text = fs::read_to_string(&to).unwrap();
                let headings = text.lines().filter_map(|l| l.strip_prefix('#'));
                let there = headings
                    .map(|h| anchor(h.trim_start_matches('#')))
                    .any(|a| a == heading);
                assert!(there, "{place}: {target}: no such heading");
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
    // And every page of the manual is in its contents.
    let contents = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for (page, _) in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            contents.contains(&format!("{name})")),
            "{name} is not in docs/README.md"
        );
    }
}

#[test]
fn the_front_page_is_one() {
    let front = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(front.lines().count() <= 200, "{}", front.lines().count());
}

#[test]
fn yaml_and_json_on_a_page_can_be_read() {
    let (mut recipes, mut settings) = (0, 0);
    let folder = scratch();
    for (page, whole) in pages() {
        for block in blocks(&page, &whole) {
            match block.kind.as_str() {
                "json" => {
                    serde_json::from_str::<serde_json::Value>(&block.body).unwrap();
                }
                "yaml" if block.body.starts_with("# ") => {
                    let path = block
                        .body
                        .lines()
                        .next()
                        .unwrap()
                        .trim_start_matches("# ")
                        .to_owned();
                    let done = run(folder.path(), &format!("af2 recipe check {path}"));
                    assert!(done.status.success(), "{}: {}", block.place, text(&done.stderr));
                    recipes += 1;
                }
                // What `--config` takes.
                "yaml" if page.ends_with("docs/checkpoints.md") => {
                    let file = folder.path().join("config.yaml");
                    fs::write(&file, &block.body).unwrap();
                    let read = af2::settings::Settings::read(&file)
                        .unwrap_or_else(|e| panic!("{}: {e}", block.place));
                    assert!(
                        read.n_head == Some(8) && read.max_windows() == 12,
                        "{}",
                        block.place
                    );
                    settings += 1;
                }
                "yaml" => {
                    serde_yaml::from_str::<serde_yaml::Value>(&block.body).unwrap();
                }
                _ => {}
            }
        }
    }
    assert!(recipes > 0 && settings == 2, "{recipes} {settings}");
}

/// The numbers of rows `| 3 | …`.
fn rows(page: &str) -> BTreeSet<i32> {
    let first = |l: &str| l.strip_prefix('|')?.split('|').next()?.trim().parse().ok();
    page.lines().filter_map(first).collect()
}

#[test]
fn exit_codes_are_those_of_the_program() {
    let source = fs::read_to_string(root().join("src/error.rs")).unwrap();
    let body = source.split("fn exit_code").nth(1).unwrap();
    let body = body.split("\n    }\n").next().unwrap();
    let arm = |l: &str| l.split_once("=> ")?.1.trim_end_matches(',').parse().ok();
    let mut codes: BTreeSet<i32> = body.lines().filter_map(arm).collect();
    assert!(codes.len() >= 13, "{codes:?}");
    // Done, the doctor's own, and a second interrupt.
    codes.extend([0, 14, 130]);
    let table = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    assert_eq!(rows(&table), codes, "docs/errors.md");
    let (_, help, _) = af2(&["--help"]);
    let said = help.split("Exit codes:").nth(1).unwrap().replace('\n', " ");
    let said: BTreeSet<i32> = said
        .split(',')
        .filter_map(|part| part.split_whitespace().next()?.parse().ok())
        .collect();
    assert_eq!(said, codes, "af2 --help");
}
