//! METEOR and SPICE by their official Java programs, where they are: what they do is theirs, and nobody else's.
//!
//! METEOR 1.5 is `meteor-1.5.jar`, with `data/paraphrase-en.gz` beside it; SPICE 1.0 is `spice-1.0.jar` with `lib/` beside it, where it
//! also wants the models of CoreNLP 3.6.0. `pycocoevalcap` brings both, but for those models.

use crate::error::{Error, Result};
use crate::metrics::captions::Scored;
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An official program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// METEOR 1.5.
    Meteor,
    /// SPICE 1.0.
    Spice,
}

/// A program that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The Java that runs it.
    pub java: PathBuf,
    /// The program.
    pub jar: PathBuf,
    variable: &'static str,
}

impl Tool {
    /// What names the program's file.
    pub fn variable(self) -> &'static str {
        match self {
            Tool::Meteor => "AF2_METEOR_JAR",
            Tool::Spice => "AF2_SPICE_JAR",
        }
    }

    /// The program, or why it cannot be run: what was looked for.
    pub fn find(self) -> Result<Found, String> {
        let variable = self.variable();
        let jar = std::env::var_os(variable).filter(|v| !v.is_empty());
        let jar = jar.ok_or_else(|| format!("{variable} is not set: the path of the program's jar"))?;
        let jar = std::path::absolute(&jar).map_err(|e| format!("{variable}: {e}"))?;
        if !jar.is_file() {
            return Err(format!("{variable} names {}, which is no file", jar.display()));
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let java = std::env::split_paths(&folders).map(|folder| folder.join("java"));
        let java = java.into_iter().find(|java| java.is_file());
        let java = java.ok_or("no `java` in the folders of PATH")?;
        Ok(Found { java, jar, variable })
    }
}

impl Found {
    /// The program with so much memory, in its own folder, where it looks for its data.
    fn command(&self, memory: &str) -> Command {
        let mut command = Command::new(&self.java);
        command.args([memory, "-Dfile.encoding=UTF-8", "-jar"]);
        command.arg(&self.jar).stderr(Stdio::inherit());
        if let Some(folder) = self.jar.parent() {
            command.current_dir(folder);
        }
        command
    }

    fn fault(&self, expected: &str, found: impl Into<String>) -> Error {
        let (java, jar) = (self.java.display(), self.jar.display());
        let Found { variable, .. } = self;
        let hint = format!(
            "`{java} -jar {jar}` was run, and wrote its own messages; without {variable} it is not asked"
        );
        Error::data(&self.jar, "output", expected, found).hint(hint)
    }
}

/// A program that runs, ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// METEOR of each clip and of all, with the tokens of the other metrics: exact words, stems, synonyms and paraphrases of English.
///
/// # Errors
/// A program that does not start, ends early, or answers with something else than numbers.
pub fn meteor(found: &Found, items: &[Scored]) -> Result<(Vec<f64>, f64)> {
    let mut command = found.command("-Xmx2G");
    command.args(["-", "-", "-stdio", "-l", "en", "-norm"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running(command.spawn().map_err(|e| Error::io(&found.java, e))?);
    let (Some(mut ask), Some(answers)) = (running.0.stdin.take(), running.0.stdout.take()) else {
        return Err(found.fault("a program to talk to", "none"));
    };
    let mut answers = BufReader::new(answers);
    let gone = |e: std::io::Error| found.fault("METEOR's answers", e.to_string());
    let mut answer = |expected: &str| {
        let mut line = String::new();
        match answers.read_line(&mut line).map_err(gone)? {
            0 => Err(found.fault(expected, "its end")),
            _ => Ok(line.trim().to_owned()),
        }
    };
    let mut eval = String::from("EVAL");
    for item in items {
        // A caption's tokens hold a line's end only within a tag.
        let line = |tokens: &[String]| tokens.join(" ").replace(['\r', '\n'], " ");
        let references: Vec<String> = item.references.iter().map(|r| line(r)).collect();
        let prediction = line(&item.tokens).replace("|||", "").replace("  ", " ");
        let score = format!("SCORE ||| {} ||| {prediction}\n", references.join(" ||| "));
        ask.write_all(score.as_bytes())
            .and_then(|()| ask.flush())
            .map_err(gone)?;
        eval.push_str(" ||| ");
        eval.push_str(&answer("the statistics of a caption")?);
    }
    eval.push('\n');
    ask.write_all(eval.as_bytes())
        .and_then(|()| ask.flush())
        .map_err(gone)?;
    let mut number = || {
        let line = answer("a score for each caption and one for all")?;
        let value = line.parse().ok().filter(|value: &f64| value.is_finite());
        value.ok_or_else(|| {
            found.fault(
                "a score",
                format!("{:?}", line.chars().take(80).collect::<String>()),
            )
        })
    };
    let scores = items.iter().map(|_| number()).collect::<Result<Vec<f64>>>()?;
    let all = number()?;
    Ok((scores, all))
}

/// SPICE of each clip, where it is defined, and the mean of all.
///
/// # Errors
/// A program that does not start, fails, or writes something else than a score for each clip.
pub fn spice(found: &Found, items: &[Scored]) -> Result<(Vec<Option<f64>>, Option<f64>)> {
    let folder = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
    let (asked, answered) = (
        folder.path().join("captions.json"),
        folder.path().join("scores.json"),
    );
    let question = |(n, item): (usize, &Scored)| {
        let references: Vec<String> = item.references.iter().map(|r| r.join(" ")).collect();
        json!({"image_id": n, "test": item.tokens.join(" "), "refs": references})
    };
    let questions: Vec<Value> = items.iter().enumerate().map(question).collect();
    std::fs::write(&asked, Value::from(questions).to_string()).map_err(|e| Error::io(&asked, e))?;
    let mut command = found.command("-Xmx8G");
    command
        .arg(&asked)
        .arg("-out")
        .arg(&answered)
        .args(["-subset", "-silent"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(|e| Error::io(&found.java, e))?;
    if !status.success() {
        return Err(found.fault("a program that ends with 0", status.to_string()));
    }
    scores(found, &answered, items.len())
}

fn scores(found: &Found, file: &Path, clips: usize) -> Result<(Vec<Option<f64>>, Option<f64>)> {
    let text = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    let answers: Value =
        serde_json::from_slice(&text).map_err(|e| found.fault("scores as JSON", e.to_string()))?;
    let mut scores = vec![None; clips];
    let mut told = vec![false; clips];
    for answer in answers.as_array().into_iter().flatten() {
        let clip = answer["image_id"]
            .as_u64()
            .map(|n| n as usize)
            .filter(|n| *n < clips);
        let clip =
            clip.ok_or_else(|| found.fault("a clip of the captions", answer["image_id"].to_string()))?;
        // Without anything said in the prediction and the references it is not a number.
        scores[clip] = answer["scores"]["All"]["f"].as_f64();
        told[clip] = true;
    }
    if let Some(clip) = told.iter().position(|told| !told) {
        return Err(found.fault("a score for each clip", format!("none for clip {}", clip + 1)));
    }
    let sum: Option<f64> = scores.iter().copied().sum();
    Ok((scores, sum.map(|sum| sum / clips as f64)))
}
