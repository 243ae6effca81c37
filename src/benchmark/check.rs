//! What must be so beyond the type of each value: every fault with its line, its key and what was perhaps meant.

use super::card::{Card, Categories, Fact, Number};
use super::embedded::PROTOCOLS;
use super::names::{Aggregation, Mark, Metric, Rule, Task, Unit};
use crate::error::{nearest, Error};
use crate::yaml::{Node, Place, Step};
use std::collections::HashSet;

/// The names that a template may have in braces.
const IN_TEMPLATES: &[&str] = &["prompt", "question", "options", "caption", "hypothesis", "label"];
/// So many faults of a card are told at once.
const MOST_FAULTS: usize = 30;
/// And so much of what is said about each.
const MOST_CHARACTERS: usize = 800;
/// The numbers of the paper's tables.
const TABLES: std::ops::RangeInclusive<u32> = 1..=27;

/// All that is wrong.
pub(super) fn faults(card: &Card, root: &Node) -> Vec<Error> {
    let mut check = Check {
        root,
        faults: Vec::new(),
    };
    check.names(card);
    check.splits(card);
    check.categories(card);
    check.files(card);
    check.prompt(card);
    check.labels(card);
    check.scoring(card);
    check.judge(card);
    check.numbers(card);
    check.rest(card);
    check.faults
}

struct Check<'a> {
    root: &'a Node,
    faults: Vec<Error>,
}

impl Check<'_> {
    /// The place of a key, or of the nearest that is above it.
    fn place(&self, path: &[&str]) -> &Place {
        let (mut place, mut node) = (&self.root.place, self.root);
        for part in path {
            match node.child(part) {
                Some((at, below)) => (place, node) = (at, below),
                None => break,
            }
        }
        place
    }

    fn fault(&mut self, path: &[&str], message: impl std::fmt::Display) {
        self.told(path, message, None);
    }

    fn hinted(&mut self, path: &[&str], message: impl std::fmt::Display, hint: impl Into<String>) {
        self.told(path, message, Some(hint.into()));
    }

    fn told(&mut self, path: &[&str], message: impl std::fmt::Display, hint: Option<String>) {
        if self.faults.len() >= MOST_FAULTS {
            return;
        }
        // A name may be a megabyte.
        let message = format!("{}: {message}", self.key(path));
        let message: String = message.chars().take(MOST_CHARACTERS).collect();
        let error = self.place(path).error(message);
        self.faults.push(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }

    /// The key as the reader's own faults are told apart by: elements of a list by their names.
    fn key(&self, path: &[&str]) -> String {
        let step = |part: &&str| match part.parse() {
            Ok(index) => Step::Index(index),
            Err(_) => Step::Key((*part).to_owned()),
        };
        let steps: Vec<Step> = path.iter().map(step).collect();
        self.root.dotted(&steps)
    }

    /// A name that should be one of others.
    fn one_of(&mut self, path: &[&str], word: &str, known: &[&str], what: &str) {
        if known.contains(&word) {
            return;
        }
        let list = match known.is_empty() {
            true => format!("there are no {what}"),
            false => format!("the {what} are {}", known.join(", ")),
        };
        let message = format!("`{word}` is unknown; {list}");
        match nearest(word, known.iter().copied()) {
            Some(near) => self.hinted(path, message, format!("did you mean `{near}`?")),
            None => self.fault(path, message),
        }
    }

    fn once<'n>(&mut self, list: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = HashSet::new();
        for (i, name) in names.enumerate() {
            if !seen.insert(name) {
                self.fault(&[list, &i.to_string()], format!("`{name}` stands there twice"));
            }
        }
    }

    /// A value has a mark, no value has a reason; neither both.
    fn known(&mut self, path: &[&str], value: bool, mark: Option<Mark>, why: Option<&str>) {
        match (value, mark, why) {
            (true, None, _) => self.hinted(
                path,
                "a value without `mark`",
                format!("one of {}", Mark::NAMES.join(", ")),
            ),
            (true, Some(_), Some(_)) => {
                self.fault(path, "`why` says why a value is not known, and one is given");
            }
            (false, Some(_), _) => {
                self.fault(path, "`mark` says how well a value is known, and there is none");
            }
            (false, None, None) => self.hinted(
                path,
                "nothing is known, and nothing says why",
                "`why:` gives the reason",
            ),
            _ => {}
        }
        if why.is_some_and(|w| w.trim().is_empty()) {
            self.fault(path, "`why` is empty");
        }
    }

    fn fact<T>(&mut self, path: &[&str], fact: &Fact<T>) {
        self.known(path, fact.value.is_some(), fact.mark, fact.why.as_deref());
    }

    fn number(&mut self, path: &[&str], number: &Number, unit: Unit) {
        self.known(path, number.value.is_some(), number.mark, number.why.as_deref());
        if number.value.is_some() && number.source.is_none() {
            self.hinted(path, "a number without `source`", "where was it published?");
        }
        let most = match unit {
            Unit::Percent => 100.0,
            Unit::Plain => 10.0,
        };
        for value in number.value.iter().chain(number.parts.values()) {
            if !(0.0..=most).contains(value) {
                self.fault(
                    path,
                    format!("{value} is not from 0 to {most}, in the unit {unit}"),
                );
            }
        }
    }

    fn names(&mut self, card: &Card) {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let name = &card.name;
        if name.is_empty()
            || name.len() > 60
            || !name.chars().all(fine)
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            let message = format!("`{name}` is no name: small letters, digits, `-` and `.`, 60 at most");
            self.fault(&["name"], message);
        }
        if card.version == 0 {
            self.fault(&["version"], "versions count from 1");
        }
        for (key, text) in [
            ("title", &card.title),
            ("about", &card.about),
            ("obtain", &card.obtain),
            ("licence", &card.licence),
        ] {
            if text.trim().is_empty() {
                self.fault(&[key], "is empty");
            }
        }
        if card.skills.is_empty() {
            self.fault(&["skills"], "names none of sound, music, speech");
        }
        for (i, row) in card.paper.iter().enumerate() {
            if !TABLES.contains(&row.table) {
                let message = format!("{} is no table of the paper", row.table);
                self.fault(&["paper", &i.to_string(), "table"], message);
            }
        }
        if card.checks.is_empty() {
            self.hinted(
                &["checks"],
                "is empty",
                "say what was checked against what, or that nothing was",
            );
        }
    }

    fn splits(&mut self, card: &Card) {
        self.once("splits", card.splits.iter().map(|s| s.name.as_str()));
        for (i, split) in card.splits.iter().enumerate() {
            let i = i.to_string();
            self.fact(&["splits", &i, "items"], &split.items);
            if let Some(clips) = &split.clips {
                self.fact(&["splits", &i, "clips"], clips);
                if let (Some(clips), Some(items)) = (clips.value, split.items.value) {
                    if clips > items {
                        let message = format!("{clips} clips for {items} items");
                        self.fault(&["splits", &i, "clips"], message);
                    }
                }
            }
            for (key, count) in [
                ("items", split.items.value),
                ("references", split.references.map(u64::from)),
            ] {
                if count == Some(0) {
                    self.fault(&["splits", &i, key], "0 of them are none");
                }
            }
        }
        let names: Vec<&str> = card.splits.iter().map(|s| s.name.as_str()).collect();
        self.one_of(&["scored"], &card.scored, &names, "splits");
    }

    fn categories(&mut self, card: &Card) {
        self.once("categories", card.categories.iter().map(|c| c.by.as_str()));
        for (i, way) in card.categories.iter().enumerate() {
            let i = i.to_string();
            let path = ["categories", i.as_str()];
            let Categories { of, mark, why, .. } = way;
            if of.is_empty() {
                self.fault(&path, "`of` has no category");
            }
            let (some, all) = (of.values().any(Option::is_some), of.values().all(Option::is_some));
            match (some, all) {
                (true, false) if why.is_none() => {
                    self.hinted(
                        &path,
                        "some categories were not counted",
                        "`why:` gives the reason",
                    );
                }
                (true, false) => self.known(&path, true, *mark, None),
                _ => self.known(&path, all && some, *mark, why.as_deref()),
            }
            let Some(items) = card.items() else { continue };
            let sum: u64 = of.values().flatten().sum();
            if all && sum != items || sum > items {
                let message = format!(
                    "the categories by {} add up to {sum}, the split {} has {items} items",
                    way.by, card.scored
                );
                self.fault(&["categories", &i, "of"], message);
            }
        }
        let known: Vec<&str> = card.categories.iter().map(|c| c.by.as_str()).collect();
        match (card.aggregation, &card.over) {
            (Aggregation::Macro, Some(over)) => self.one_of(&["over"], over, &known, "categories"),
            (Aggregation::Macro, None) => self.hinted(
                &["aggregation"],
                "`macro` is a mean over categories",
                "`over:` names the `by` of one of `categories`",
            ),
            (Aggregation::Micro, Some(_)) => {
                self.fault(&["over"], "`micro` is over no categories");
            }
            (Aggregation::Micro, None) => {}
        }
    }

    fn files(&mut self, card: &Card) {
        self.once("files", card.files.iter().map(|f| f.name.as_str()));
        let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        for (i, file) in card.files.iter().enumerate() {
            let i = i.to_string();
            match (&file.sha256, &file.why) {
                (Some(sha), _) if sha.len() != 64 || !hexadecimal(sha) => {
                    let message = format!(
                        "expected 64 small hexadecimal digits, found {} characters",
                        sha.chars().count()
                    );
                    self.hinted(
                        &["files", &i, "sha256"],
                        message,
                        "of a part that is known: `sha256: null` and `sha256_begins:`",
                    );
                }
                (Some(_), Some(_)) => {
                    self.fault(
                        &["files", &i],
                        "`why` says why no sha256 is known, and one is given",
                    );
                }
                (None, None) => self.hinted(
                    &["files", &i, "sha256"],
                    "no sha256, and nothing says why",
                    "`why:` gives the reason",
                ),
                _ => {}
            }
            if let Some(begins) = &file.sha256_begins {
                let whole = file.sha256.as_deref().unwrap_or(begins);
                if begins.len() < 8
                    || begins.len() > 63
                    || !hexadecimal(begins)
                    || !whole.starts_with(begins.as_str())
                {
                    let message = "expected 8 to 63 small hexadecimal digits, the first of `sha256`";
                    self.fault(&["files", &i, "sha256_begins"], message);
                }
            }
        }
    }

    fn prompt(&mut self, card: &Card) {
        let prompt = &card.prompt;
        let size = prompt.pool.len();
        if prompt.chosen >= size.max(1) {
            let message = format!("{} of a pool of {size}: they count from 0", prompt.chosen);
            self.fault(&["prompt", "chosen"], message);
        }
        if let Some(fact) = &prompt.pool_in_paper {
            self.fact(&["prompt", "pool_in_paper"], fact);
        }
        let mut named = Vec::new();
        let mut rest = prompt.template.as_str();
        while let Some((_, behind)) = rest.split_once('{') {
            let Some((word, behind)) = behind.split_once('}') else {
                self.fault(&["prompt", "template"], "a brace is not closed");
                break;
            };
            self.one_of(&["prompt", "template"], word, IN_TEMPLATES, "names in braces");
            named.push(word);
            rest = behind;
        }
        if named.contains(&"prompt") == prompt.pool.is_empty() {
            let message = match prompt.pool.is_empty() {
                true => "`{prompt}` stands for one of an empty pool",
                false => "`{prompt}` stands nowhere, and there is a pool",
            };
            self.fault(&["prompt", "template"], message);
        }
        let own = named.contains(&"options");
        if own != (card.options.name() != "none") {
            let message = match own {
                true => "`{options}` in the template, and the form `none`",
                false => "a form for options, and no `{options}` in the template",
            };
            self.fault(&["options"], message);
        }
        for (key, there) in [
            ("decoding", card.decoding.is_some()),
            ("rules", card.rules.is_some()),
        ] {
            match (card.task.embeds(), there) {
                (true, true) => {
                    let message = format!("the task {} compares embeddings: no answer is written", card.task);
                    self.fault(&[key], message);
                }
                (false, false) => {
                    let message = format!("missing field `{key}`: the task {} has answers", card.task);
                    self.fault(&["task"], message);
                }
                _ => {}
            }
        }
        let Some(decoding) = &card.decoding else { return };
        if decoding.temperature < 0.0 || !decoding.temperature.is_finite() {
            self.fault(&["decoding", "temperature"], "is below 0 or no number");
        }
        for (key, number) in [
            ("max_new_tokens", decoding.max_new_tokens),
            ("num_beams", decoding.num_beams),
        ] {
            if number == 0 {
                self.fault(&["decoding", key], "is 0");
            }
        }
    }

    fn labels(&mut self, card: &Card) {
        let needed = matches!(
            card.task,
            Task::ClosedLabel | Task::MultiLabel | Task::ZeroShot | Task::YesNo
        );
        let Some(labels) = &card.labels else {
            if needed {
                let message = format!("missing field `labels`: the task {} has a set of them", card.task);
                self.fault(&["task"], message);
            }
            return;
        };
        for (i, template) in labels.templates.iter().enumerate() {
            if !template.contains("{label}") {
                let message =
                    format!("`{template}` has no {{label}}: it would be the same text for every label");
                self.fault(&["labels", "templates", &i.to_string()], message);
            }
        }
        match (&labels.of, &labels.why) {
            (None, None) => self.hinted(
                &["labels", "of"],
                "no labels, and nothing says why",
                "`why:` gives the reason",
            ),
            (Some(_), Some(_)) => {
                self.fault(&["labels", "why"], "says why there are no labels, and there are");
            }
            (None, Some(_)) => {}
            (Some(of), None) => {
                if of.len() as u64 != labels.count {
                    let message = format!("{}, and `of` has {}", labels.count, of.len());
                    self.fault(&["labels", "count"], message);
                }
                let mut seen = HashSet::new();
                for (i, label) in of.iter().enumerate() {
                    let small = label.trim().to_lowercase();
                    if small.is_empty() || !seen.insert(small) {
                        let message = format!("`{label}` is empty or stands there twice");
                        self.fault(&["labels", "of", &i.to_string()], message);
                    }
                }
            }
        }
        // One label of n: a guess is right once in n.
        let one = matches!(card.task, Task::ClosedLabel | Task::YesNo | Task::ZeroShot);
        if let (true, Metric::Accuracy, Some(chance)) = (one, card.metric, card.chance.value) {
            let share = 1.0 / labels.count.max(1) as f64;
            if (chance - share).abs() > 5e-4 {
                let message = format!("{chance}, and one of {} labels is {share:.4}", labels.count);
                self.fault(&["chance"], message);
            }
        }
    }

    fn scoring(&mut self, card: &Card) {
        let mut seen = HashSet::from([card.metric]);
        for (i, metric) in card.also.iter().enumerate() {
            if !seen.insert(*metric) {
                self.fault(
                    &["also", &i.to_string()],
                    format!("`{metric}` stands there twice"),
                );
            }
        }
        if (card.task == Task::Retrieval) != card.metric.ranks() {
            let message = format!("`{}` of the task {}", card.metric, card.task);
            self.hinted(
                &["metric"],
                message,
                "recall_at_k and map_at_10 are of retrieval, and of nothing else",
            );
        }
        let recall = seen.contains(&Metric::RecallAtK);
        if recall == card.cutoffs.is_empty() || card.cutoffs.contains(&0) {
            let key = if card.cutoffs.is_empty() {
                "metric"
            } else {
                "cutoffs"
            };
            let message = "`recall_at_k` has `cutoffs`, such as [1, 5, 10], and nothing else has";
            self.fault(&[key], message);
        }
        self.fact(&["chance"], &card.chance);
        let constant = &card.constant;
        let three = [
            ("first", constant.first),
            ("longest", constant.longest),
            ("shortest", constant.shortest),
        ];
        let missing = three.iter().any(|(_, value)| value.is_none());
        if missing != constant.why.is_some() {
            let message = match missing {
                true => "not all three are known, and nothing says why",
                false => "`why` says why one is not known, and all three are",
            };
            self.fault(&["constant"], message);
        }
        for (path, share) in three
            .into_iter()
            .map(|(key, value)| (["constant", key], value))
            .chain([(["chance", "value"], card.chance.value)])
        {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                self.fault(&path, "is not from 0 to 1");
            }
        }
    }

    fn judge(&mut self, card: &Card) {
        let rule = card.rules.as_ref().map(|rules| rules.official);
        let judged = rule == Some(Rule::Judge) || card.metric == Metric::JudgeMean;
        if judged && card.judge.is_none() {
            self.hinted(
                &["rules"],
                "missing field `judge`: a judge marks these answers",
                "`judge:` says who, on which scale, by which protocol",
            );
        }
        if card.task == Task::OpenJudge && !judged {
            self.fault(
                &["task"],
                "`open_judge`, and neither rule nor metric is a judge's",
            );
        }
        if let Some(judge) = &card.judge {
            let [low, high] = judge.scale;
            if low.is_nan() || high.is_nan() || low >= high {
                self.fault(&["judge", "scale"], "expected the lowest mark, then the highest");
            }
            if judge.runs == 0 {
                self.fault(&["judge", "runs"], "is 0");
            }
            if let Some(prompt) = &judge.prompt {
                let known: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
                self.one_of(&["judge", "prompt"], prompt, &known, "protocols of judges");
            }
        }
    }

    fn numbers(&mut self, card: &Card) {
        self.number(&["numbers", "paper"], &card.numbers.paper, card.unit);
        if let Some(previous) = &card.numbers.previous {
            self.number(&["numbers", "previous"], previous, card.unit);
        }
        for (i, later) in card.numbers.later.iter().enumerate() {
            self.number(&["numbers", "later", &i.to_string()], later, card.unit);
        }
    }

    fn rest(&mut self, card: &Card) {
        let citation = &card.citation;
        if let Some(id) = &citation.arxiv {
            let fine = id.split_once('.').is_some_and(|(month, number)| {
                let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
                month.len() == 4 && matches!(number.len(), 4 | 5) && digits(month) && digits(number)
            });
            if !fine {
                let message = format!("`{id}` is no identifier of arXiv");
                self.hinted(
                    &["citation", "arxiv"],
                    message,
                    "in quotation marks: \"2503.03983\"",
                );
            }
        }
        if citation.arxiv.is_none() && citation.url.is_none() && citation.why.is_none() {
            self.fault(&["citation"], "neither `arxiv` nor `url`, and nothing says why");
        }
        self.once("defects", card.defects.iter().map(|d| d.class.as_str()));
        for (i, defect) in card.defects.iter().enumerate() {
            let i = i.to_string();
            self.fact(&["defects", &i, "count"], &defect.count);
            if let Some(count) = defect.count.value {
                let more = card.items().is_some_and(|items| count > items);
                let listed = !defect.items.is_empty() && defect.items.len() as u64 != count;
                if more || listed {
                    let message =
                        format!("{count} items: not that many are there, or another number is listed");
                    self.fault(&["defects", &i, "count"], message);
                }
            }
        }
    }
}
