//! `af2 score retrieval`

use super::arrays::{ends, in_file, measure, number, percent, print};
use crate::cli::parts;
use crate::error::Result;
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::retrieval::{AudioToText, Intervals, Ranks, Scores};
use crate::npy;
use crate::report::table::Table;
use clap::Args;
use serde_json::{json, Map, Value};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct RetrievalArgs {
    /// Embeddings of N clips, (N, D). Lengths do not count: both files are normalised.
    #[arg(long, value_name = "FILE.npy")]
    audio: PathBuf,
    /// Embeddings of their captions, (N·K, D): those of a clip together, in the order of the clips.
    #[arg(long, value_name = "FILE.npy")]
    text: PathBuf,
    /// How many captions each clip has.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    captions_per_clip: u32,
    /// One object with every number, and the ranks of each clip.
    #[arg(long)]
    json: bool,
}

/// What goes one way, with its name in JSON and its scores.
struct Way {
    name: &'static str,
    scores: Scores,
    intervals: Intervals,
}

pub(crate) fn run(args: &RetrievalArgs) -> Result<()> {
    let (audio, text) = (npy::matrix(&args.audio)?, npy::matrix(&args.text)?);
    let files = [("audio", args.audio.as_path()), ("text", args.text.as_path())];
    let ranks = Ranks::of(&audio, &text, args.captions_per_clip as usize).map_err(|e| in_file(e, &files))?;
    let bootstrap = Bootstrap::default();
    let ways = [
        Way {
            name: "text_to_audio",
            scores: ranks.text_to_audio_scores(),
            intervals: ranks.text_to_audio_intervals(&bootstrap)?,
        },
        Way {
            name: "audio_to_text",
            scores: ranks.audio_to_text_scores(AudioToText::Sorted),
            intervals: ranks.audio_to_text_intervals(AudioToText::Sorted, &bootstrap)?,
        },
    ];
    let laion = (
        ranks.audio_to_text_scores(AudioToText::LaionClap).map_10,
        ranks
            .audio_to_text_intervals(AudioToText::LaionClap, &bootstrap)?
            .map_10,
    );
    let tied = ranks.tied();
    if tied != [0, 0] {
        crate::say!(
            "note: {} ranks text to audio and {} audio to text depend on which of equally near ones stands first in its file",
            tied[0],
            tied[1]
        );
    }
    if !args.json {
        return parts::out(&table(&ranks, &ways, laion, &bootstrap));
    }
    let (mut corpus, mut intervals) = (Map::new(), Map::new());
    for way in &ways {
        let mut put = |measure: &str, value: f64, interval| {
            let key = format!("{}_{measure}", way.name);
            corpus.insert(key.clone(), json!(value));
            intervals.insert(key, ends(interval));
        };
        for ((k, share), (_, interval)) in way.scores.recall.iter().zip(way.intervals.recall) {
            put(&format!("R@{k}"), *share, interval);
        }
        put("mAP@10", way.scores.map_10, way.intervals.map_10);
        put("median_rank", way.scores.median_rank, way.intervals.median_rank);
        put("mean_rank", way.scores.mean_rank, way.intervals.mean_rank);
    }
    corpus.insert("audio_to_text_mAP@10_laion_clap".into(), json!(laion.0));
    intervals.insert("audio_to_text_mAP@10_laion_clap".into(), ends(laion.1));
    let of_text = ranks.text_to_audio().chunks(ranks.captions_per_clip());
    let items: Vec<Value> = of_text
        .zip(ranks.audio_to_text())
        .map(|(text, audio)| json!({ "text_to_audio_ranks": text, "audio_to_text_ranks": audio }))
        .collect();
    print(&json!({
        "n": ranks.clips(),
        "captions_per_clip": ranks.captions_per_clip(),
        "corpus": corpus,
        "intervals": intervals,
        "bootstrap": bootstrap,
        "tied": { "text_to_audio": tied[0], "audio_to_text": tied[1] },
        "items": items,
    }))
}

fn table(ranks: &Ranks, ways: &[Way; 2], laion: (f64, Interval), bootstrap: &Bootstrap) -> String {
    let mut table = Table::new([
        measure(bootstrap),
        "text to audio".to_owned(),
        "audio to text".to_owned(),
    ]);
    let captions = ranks.text_to_audio().len();
    table.row(["n".to_owned(), captions.to_string(), ranks.clips().to_string()]);
    for i in 0..ways[0].scores.recall.len() {
        let cell = |w: &Way| percent(w.scores.recall[i].1, Some(w.intervals.recall[i].1));
        let name = format!("R@{}, %", ways[0].scores.recall[i].0);
        table.row([name, cell(&ways[0]), cell(&ways[1])]);
    }
    let both = |cell: &dyn Fn(&Way) -> String| ways.each_ref().map(cell);
    let map = both(&|w| percent(w.scores.map_10, Some(w.intervals.map_10)));
    let median = both(&|w| number(w.scores.median_rank, Some(w.intervals.median_rank)));
    let mean = both(&|w| number(w.scores.mean_rank, Some(w.intervals.mean_rank)));
    for (name, [text, audio]) in [("mAP@10, %", map), ("median rank", median), ("mean rank", mean)] {
        table.row([name.to_owned(), text, audio]);
    }
    table.row([
        "mAP@10 as LAION-CLAP's script, %".to_owned(),
        String::new(),
        percent(laion.0, Some(laion.1)),
    ]);
    table.terminal() + "\n"
}
