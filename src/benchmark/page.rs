//! A card as a page that is read from top to bottom. What is neither checked nor computed says so.

use super::card::{Card, Fact, Number};
use super::names::{Mark, Unit};

/// Columns of a page.
const WIDTH: usize = 100;
/// Columns before a value.
const MARGIN: usize = 18;

/// The whole card in words.
pub fn page(card: &Card) -> String {
    let mut page = Page(format!("{}\n", card.title));
    page.row(
        "name",
        &format!("{}, version {} of the card", card.name, card.version),
    );
    page.row("about", &card.about);
    page.some("overrides", card.overrides.as_deref());
    let skills: Vec<&str> = card.skills.iter().map(|s| s.name()).collect();
    page.row("task", &format!("{} ({})", card.task, skills.join(", ")));
    for row in &card.paper {
        page.row("paper", &format!("Table {}, {}", row.table, row.row));
    }
    if card.held_out {
        page.row("training", "AF2 left it out of every stage");
    }

    page.head("Items");
    for split in &card.splits {
        let scored = if split.name == card.scored { ", scored" } else { "" };
        let mut text = format!("{} items", fact(&split.items));
        if let Some(clips) = &split.clips {
            text += &format!(" on {} clips", fact(clips));
        }
        if let Some(references) = split.references {
            text += &format!(", {references} references each");
        }
        page.row(&split.name, &format!("{text}{scored}"));
        let only = split
            .filter
            .iter()
            .map(|(field, values)| format!("{field} {}", values.join(" or ")));
        let only: Vec<String> = only.chain(split.select.clone()).collect();
        if !only.is_empty() {
            page.row("", &format!("rows: {}", only.join("; ")));
        }
    }
    for way in &card.categories {
        let count = |n: &Option<u64>| n.map_or("?".to_owned(), |n| n.to_string());
        let list: Vec<String> = way
            .of
            .iter()
            .map(|(name, n)| format!("{name} {}", count(n)))
            .collect();
        let known = known(
            way.mark,
            way.source.as_deref(),
            way.note.as_deref(),
            way.why.as_deref(),
        );
        page.row(&format!("by {}", way.by), &format!("{}{known}", list.join(", ")));
    }
    if let Some(labels) = &card.labels {
        let list = match &labels.of {
            Some(of) => format!("{}: {}", labels.count, of.join("; ")),
            None => labels.count.to_string(),
        };
        let known = known(
            Some(labels.mark),
            Some(&labels.source),
            labels.why.as_deref(),
            None,
        );
        page.row("labels", &format!("{list}{known}"));
        for template in &labels.templates {
            page.row("", &format!("embedded as {template:?}"));
        }
    }

    page.head("Files");
    page.row("format", card.official_format.name());
    for note in &card.format_notes {
        page.row("", note);
    }
    for file in &card.files {
        let sha = match (&file.sha256, &file.sha256_begins, &file.why) {
            (Some(sha), ..) => sha.clone(),
            (None, Some(begins), why) => format!(
                "{begins}…, the rest unknown: {}",
                why.as_deref().unwrap_or_default()
            ),
            (None, None, why) => format!("unknown: {}", why.as_deref().unwrap_or_default()),
        };
        let sure = known(Some(file.mark), None, None, None);
        page.row(
            "file",
            &format!("{}, of {}{sure}; sha256 {sha}", file.name, file.from),
        );
    }
    page.row("to get it", &card.obtain);
    page.row("licence", &card.licence);

    page.head("Question and answer");
    let prompt = &card.prompt;
    let known_prompt = known(
        Some(prompt.mark),
        Some(&prompt.source),
        prompt.note.as_deref(),
        None,
    );
    page.row("prompt", &format!("{}{known_prompt}", quoted(&card.asked())));
    for (i, text) in prompt.pool.iter().enumerate() {
        let chosen = if i == prompt.chosen { " ← asked" } else { "" };
        page.row(&format!("pool {i}"), &format!("{}{chosen}", quoted(text)));
    }
    if let Some(size) = &prompt.pool_in_paper {
        page.row("the paper's pool", &fact(size));
    }
    page.row("options", card.options.name());
    if let Some(decoding) = &card.decoding {
        let how = match decoding.temperature == 0.0 {
            true => "greedy".to_owned(),
            false => format!("temperature {}", decoding.temperature),
        };
        let beams = match decoding.num_beams {
            1 => String::new(),
            n => format!(", {n} beams"),
        };
        let known = known(
            Some(decoding.mark),
            Some(&decoding.source),
            decoding.note.as_deref(),
            None,
        );
        page.row(
            "decoding",
            &format!("{how}{beams}, {} tokens at most{known}", decoding.max_new_tokens),
        );
    }
    if let Some(rules) = &card.rules {
        let known = known(Some(rules.mark), Some(&rules.source), rules.note.as_deref(), None);
        page.row("official rule", &format!("{}{known}", rules.official));
        page.row("fair rule", rules.fair.name());
    }
    let also: Vec<&str> = card.also.iter().map(|m| m.name()).collect();
    let also = match also.is_empty() {
        true => String::new(),
        false => format!("; also {}", also.join(", ")),
    };
    let at = match card.cutoffs.as_slice() {
        [] => String::new(),
        cutoffs => format!(" at {cutoffs:?}"),
    };
    page.row("metric", &format!("{}{at}{also}", card.metric));
    let over = card
        .over
        .as_ref()
        .map_or(String::new(), |over| format!(" over {over}"));
    page.row("mean", &format!("{}{over}", card.aggregation));
    page.row("chance", &fact(&card.chance));
    let share = |value: Option<f64>| value.map_or("?".to_owned(), |v| v.to_string());
    let constant = &card.constant;
    let why = constant
        .why
        .as_ref()
        .map_or(String::new(), |why| format!(" ({why})"));
    page.row(
        "constant answers",
        &format!(
            "first {}, longest {}, shortest {}{why}",
            share(constant.first),
            share(constant.longest),
            share(constant.shortest)
        ),
    );
    if let Some(judge) = &card.judge {
        let [low, high] = judge.scale;
        let model = judge.model.as_deref().unwrap_or("unknown");
        let known = known(Some(judge.mark), Some(&judge.source), judge.note.as_deref(), None);
        let heat = judge.temperature.map_or("unknown".to_owned(), |t| t.to_string());
        page.row(
            "judge",
            &format!(
                "{model}, temperature {heat}, marks {low} to {high}, {} run(s) an answer{known}",
                judge.runs
            ),
        );
        page.row("", &judge.protocol);
        if let Some(prompt) = &judge.prompt {
            page.row("", &format!("in our words: data-manifests/judges/{prompt}.yaml"));
        }
        page.row("", &judge.answer);
    }

    page.head(match card.unit {
        Unit::Percent => "Numbers, in percent",
        Unit::Plain => "Numbers",
    });
    page.row("paper", &number(&card.numbers.paper));
    if let Some(previous) = &card.numbers.previous {
        page.row("before it", &number(previous));
    }
    for later in &card.numbers.later {
        page.row("later, or again", &number(later));
    }

    page.head("What to know");
    let citation = &card.citation;
    let arxiv = citation.arxiv.as_ref().map(|id| format!("arXiv {id}"));
    let places: Vec<String> = arxiv
        .into_iter()
        .chain(citation.url.clone())
        .chain(citation.why.clone())
        .collect();
    page.row("cite", &format!("{}: {}", citation.key, places.join(", ")));
    for text in &card.checks {
        page.row("checked", text);
    }
    for defect in &card.defects {
        page.row(
            "defect",
            &format!(
                "{}, {} items: {}",
                defect.class,
                fact(&defect.count),
                defect.effect
            ),
        );
        if !defect.items.is_empty() {
            page.row("", &defect.items.join(", "));
        }
    }
    page.0
}

/// A line of a text in one line.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.trim_end().replace('\n', "\\n"))
}

fn fact<T: std::fmt::Display>(fact: &Fact<T>) -> String {
    let value = fact.value.as_ref().map_or("?".to_owned(), T::to_string);
    let known = known(
        fact.mark,
        fact.source.as_deref(),
        fact.note.as_deref(),
        fact.why.as_deref(),
    );
    format!("{value}{known}")
}

fn number(number: &Number) -> String {
    let mut text = format!(
        "{} {}",
        number.value.map_or("?".to_owned(), |v| v.to_string()),
        number.model
    );
    if let Some(date) = &number.date {
        text += &format!(", {date}");
    }
    if !number.parts.is_empty() {
        let parts: Vec<String> = number
            .parts
            .iter()
            .map(|(part, v)| format!("{part} {v}"))
            .collect();
        text += &format!("; {}", parts.join(", "));
    }
    let known = known(
        number.mark,
        number.source.as_deref(),
        number.note.as_deref(),
        number.why.as_deref(),
    );
    text + &known
}

/// In brackets: how well something is known where that is not well, where it stands, what to know, why it is not there.
fn known(mark: Option<Mark>, source: Option<&str>, note: Option<&str>, why: Option<&str>) -> String {
    let unsure = mark.filter(|m| !m.is_sure()).map(|m| match m {
        Mark::ThirdParty => "NOT CHECKED: a third party's",
        Mark::Inferred => "NOT CHECKED: inferred",
        _ => "NOT CHECKED",
    });
    let parts: Vec<&str> = [unsure, source, note, why].into_iter().flatten().collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(" ({})", parts.join("; ")),
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, text: &str) {
        self.0 += &format!("\n{text}\n");
    }

    fn some(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.row(key, text);
        }
    }

    /// A key, and its text in as many lines as it needs.
    fn row(&mut self, key: &str, text: &str) {
        let mut line = format!("  {key:<MARGIN$}");
        let mut begun = false;
        for word in text.split_whitespace() {
            if begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.0 += &line;
                self.0.push('\n');
                line = " ".repeat(MARGIN + 2);
                begun = false;
            }
            if begun || line.trim_start().len() > MARGIN {
                line.push(' ');
            }
            line += word;
            begun = true;
        }
        self.0 += line.trim_end();
        self.0.push('\n');
    }
}
