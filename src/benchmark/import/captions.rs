//! Captions: Clotho's table with a column for each, AudioCaps' with a line for each, and that of retrieval papers.

use super::draft::{need_words, Context, Draft, Drafts};
use super::report::Report;
use super::row::Row;
use super::sounds::Wanted;
use indexmap::IndexMap;
use serde_json::Value;

/// Columns `caption_1`, `caption_2` and so on.
fn columns(row: &Row) -> Vec<String> {
    let mut names: Vec<(u32, &String)> = Vec::new();
    for name in row.fields.keys() {
        if let Some(n) = name.strip_prefix("caption_").and_then(|n| n.parse().ok()) {
            names.push((n, name));
        }
    }
    names.sort();
    names.into_iter().map(|(_, name)| name.clone()).collect()
}

/// A row a clip, or a row a caption.
pub(super) fn read(rows: &[Row], context: &Context, report: &mut Report) -> Drafts {
    let wide = rows.first().is_some_and(|row| !columns(row).is_empty());
    let all = match wide {
        true => wide_rows(rows, report),
        false => long_rows(rows, report),
    };
    if let Some(wanted) = context.split.references {
        let other = all
            .iter()
            .filter(|d| d.references.len() != wanted as usize)
            .count();
        if other > 0 {
            report.notes.push(format!(
                "{other} clips have another number of references than {wanted}"
            ));
        }
    }
    all.into()
}

fn wide_rows(rows: &[Row], report: &mut Report) -> Vec<Draft> {
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(file) = need_words(row, &["file_name", "filename"], "missing_field", report) else {
            continue;
        };
        let captions: Vec<String> = columns(row).iter().filter_map(|c| row.text(&[c])).collect();
        all.extend(clip(
            row,
            file.clone().into(),
            Wanted::named(file),
            captions,
            report,
        ));
    }
    all
}

fn long_rows(rows: &[Row], report: &mut Report) -> Vec<Draft> {
    // By sound and beginning: the first row, the captions, their ids.
    type Clip<'r> = (&'r Row, Vec<String>, Vec<Value>);
    let mut clips: IndexMap<(String, Option<u64>), Clip> = IndexMap::new();
    for row in rows {
        let names = ["youtube_id", "file_name", "filename", "audio", "ytid"];
        let sound = need_words(row, &names, "missing_field", report);
        let caption = need_words(row, &["caption"], "empty_caption", report);
        let (Some(sound), Some(caption)) = (sound, caption) else {
            continue;
        };
        let begins = row
            .text(&["start_time", "start_s"])
            .and_then(|s| s.trim().parse::<f64>().ok());
        let begins = begins.filter(|s| (0.0..1e9).contains(s)).map(|s| s as u64);
        let of = clips
            .entry((sound, begins))
            .or_insert_with(|| (row, Vec::new(), Vec::new()));
        of.1.push(caption);
        of.2.extend(row.fields.get("audiocap_id").cloned());
    }
    let mut all = Vec::with_capacity(clips.len());
    for ((sound, begins), (row, captions, ids)) in clips {
        let id = match begins {
            Some(s) => format!("{sound}_{s}"),
            None => sound.clone(),
        };
        let wanted = Wanted {
            names: vec![sound],
            begins,
        };
        all.extend(clip(row, id.into(), wanted, captions, report).map(|mut draft| {
            draft.official.shift_remove("caption");
            if !ids.is_empty() {
                draft.official.shift_remove("audiocap_id");
                draft.more.insert("audiocap_ids".into(), Value::Array(ids));
            }
            draft
        }));
    }
    all
}

fn clip(row: &Row, id: Value, sound: Wanted, captions: Vec<String>, report: &mut Report) -> Option<Draft> {
    let captions: Vec<String> = captions.iter().map(|c| c.trim().to_owned()).collect();
    if captions.is_empty() || captions.iter().any(String::is_empty) {
        report.broken(
            &row.place,
            "empty_caption",
            "captions",
            "captions that say something",
            format!("{captions:?}"),
        );
        return None;
    }
    let mut draft = Draft::of(row, id, sound).answered(captions[0].clone());
    draft.texts.push(("caption", captions[0].clone()));
    draft.references = captions;
    Some(draft)
}
