//! Questions about clips, with answers that are true by construction.

use super::scenes::{Clip, Content, MOST_COUNT};
use super::sounds::{Class, Pitch, CLASSES};
use rand::seq::SliceRandom;
use rand::Rng;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};

/// The data sets, in the reference's naming `Name-Task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    Classification,
    Counting,
    Order,
    /// Which sound stands where in a row: the step from naming sounds to comparing their times.
    Sequence,
    Attribute,
    Captioning,
    Long,
}

impl Task {
    pub(crate) const ALL: [Task; 7] = [
        Task::Classification,
        Task::Counting,
        Task::Order,
        Task::Sequence,
        Task::Attribute,
        Task::Captioning,
        Task::Long,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Task::Classification => "demo-EventClassification",
            Task::Counting => "demo-Counting",
            Task::Order => "demo-Order",
            Task::Sequence => "demo-Sequence",
            Task::Attribute => "demo-Attribute",
            Task::Captioning => "demo-AudioCaptioning",
            Task::Long => "demo-LongAudio",
        }
    }
}

/// Words for the counts 1 to 4.
const NUMBERS: [&str; MOST_COUNT] = ["one", "two", "three", "four"];
/// Pairs of present and absent classes that are asked for in a long clip.
const PRESENCE_PAIRS: usize = 2;

/// A question with its answer and, where it is closed, all answers among which a guess would choose.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub task: Task,
    pub prompt: String,
    pub output: String,
    pub labels: Vec<&'static str>,
}

fn closed(task: Task, prompt: String, output: &str, labels: &[&'static str]) -> Question {
    Question {
        task,
        prompt,
        output: output.to_owned(),
        labels: labels.to_vec(),
    }
}

/// Everything that is asked about a clip. Which wording is used never depends on the answer.
pub(crate) fn about(clip: &Clip, seed: u64) -> Vec<Question> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<&str> = CLASSES.iter().map(|c| c.label).collect();
    let caption = |text: String| Question {
        task: Task::Captioning,
        prompt: "describe the audio.".into(),
        output: text,
        labels: Vec::new(),
    };
    match &clip.content {
        Content::Single(class) => {
            let wording = ["what is the sound?", "which sound is this?"];
            let prompt = wording[rng.gen_range(0..wording.len())].to_owned();
            vec![
                closed(Task::Classification, prompt, class.label, &labels),
                caption(format!("{}.", named(class))),
            ]
        }
        Content::Counting(class, n) => vec![
            closed(
                Task::Counting,
                format!("how many times is the {} heard?", class.label),
                NUMBERS[n - 1],
                &NUMBERS,
            ),
            caption(match n {
                1 => format!("{} once.", named(class)),
                n => format!("{} {} times.", named(class), NUMBERS[n - 1]),
            }),
        ],
        Content::Attribute(class, pitch) => {
            let word = if *pitch == Pitch::High { "high" } else { "low" };
            vec![
                closed(
                    Task::Attribute,
                    format!("is the {} high or low?", class.label),
                    word,
                    &["high", "low"],
                ),
                caption(format!("a {word} {}.", class.label)),
            ]
        }
        Content::Scene(classes) => {
            let mut all = order(Task::Order, classes);
            all.extend(ends(Task::Sequence, classes, &labels));
            for pair in classes.windows(2) {
                let prompt = format!("which sound comes after the {}?", pair[0].label);
                all.push(closed(Task::Sequence, prompt, pair[1].label, &labels));
            }
            let names: Vec<String> = classes.iter().map(named).collect();
            all.push(caption(format!("{}.", names.join(", then "))));
            all
        }
        Content::Long(classes) => long(&mut rng, classes, &labels),
    }
}

fn named(class: &Class) -> String {
    match class.article {
        "the" => class.label.to_owned(),
        article => format!("{article} {}", class.label),
    }
}

/// Each pair both ways round: as many yes as no, whatever the pair.
fn order(task: Task, classes: &[Class]) -> Vec<Question> {
    let mut all = Vec::new();
    for (i, first) in classes.iter().enumerate() {
        for second in &classes[i + 1..] {
            for (a, b, answer) in [(first, second, "yes"), (second, first, "no")] {
                let prompt = format!("did the {} come before the {}?", a.label, b.label);
                all.push(closed(task, prompt, answer, &["yes", "no"]));
            }
        }
    }
    all
}

fn long(rng: &mut ChaCha8Rng, classes: &[Class], labels: &[&'static str]) -> Vec<Question> {
    let mut all = Vec::new();
    let absent: Vec<&Class> = CLASSES.iter().filter(|c| !classes.contains(c)).collect();
    for (pool, answer) in [(classes.iter().collect::<Vec<_>>(), "yes"), (absent, "no")] {
        for class in pool.choose_multiple(rng, PRESENCE_PAIRS) {
            let prompt = format!("is the {} heard?", class.label);
            all.push(closed(Task::Long, prompt, answer, &["yes", "no"]));
        }
    }
    // One pair of neighbours and one of the ends, each both ways round.
    let i = rng.gen_range(0..classes.len() - 1);
    all.extend(order(Task::Long, &[classes[i], classes[i + 1]]));
    all.extend(ends(Task::Long, classes, labels));
    all
}

/// What comes first, and what comes last.
fn ends(task: Task, classes: &[Class], labels: &[&'static str]) -> Vec<Question> {
    let ends = [
        ("which sound comes first?", classes.first()),
        ("which sound comes last?", classes.last()),
    ];
    ends.into_iter()
        .filter_map(|(prompt, class)| Some(closed(task, prompt.into(), class?.label, labels)))
        .collect()
}
