//! The words that a card may use: one list of each kind, which the card's reader, the rules and the metrics share.

/// An enum whose variants have names in files, in this order; an unknown one is told with those that are known.
macro_rules! names {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$what])* #[doc = concat!("`", $word, "`")] $variant,)+
        }

        impl $name {
            /// All of them, in the order of the list.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// Their names, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($word),+];

            /// As it stands in a card.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            /// What a name means.
            pub fn of(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|known| known.name() == name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let word = String::deserialize(from)?;
                $name::of(&word).ok_or_else(|| serde::de::Error::unknown_variant(&crate::error::short(&word), Self::NAMES))
            }
        }
    };
}

names! {
    /// What a model is asked to do.
    pub enum Task {
        /// One of an item's own options.
        Mcq = "mcq",
        /// One of a set of labels that all items share.
        ClosedLabel = "closed_label",
        /// Any number of such labels.
        MultiLabel = "multi_label",
        YesNo = "yes_no",
        /// A word or a few, from no list.
        ShortAnswer = "short_answer",
        Caption = "caption",
        /// Free text that is compared with a reference text.
        OpenText = "open_text",
        /// Free text that a judge marks.
        OpenJudge = "open_judge",
        /// A text for a sound and a sound for a text.
        Retrieval = "retrieval",
        /// A label by its text's embedding, without training on the set.
        ZeroShot = "zero_shot",
    }
}

names! {
    /// How an answer is read.
    pub enum Rule {
        Exact = "exact",
        Normalised = "normalised",
        Label = "label",
        ClapLabel = "clap_label",
        Mmau = "mmau",
        Mmar = "mmar",
        Muchomusic = "muchomusic",
        Cmm = "cmm",
        AirBenchFoundation = "air_bench_foundation",
        ClothoAqa = "clotho_aqa",
        YesNo = "yes_no",
        OptionLetter = "option_letter",
        Number = "number",
        Choice = "choice",
        MusicQa = "musicqa",
        MmauProInstructions = "mmau_pro_instructions",
        Judge = "judge",
    }
}

names! {
    /// What is made of the answers.
    pub enum Metric {
        Accuracy = "accuracy",
        BalancedAccuracy = "balanced_accuracy",
        MacroF1 = "macro_f1",
        MicroF1 = "micro_f1",
        WeightedF1 = "weighted_f1",
        MeanAveragePrecision = "map",
        Cider = "cider",
        Bleu1 = "bleu_1",
        Bleu2 = "bleu_2",
        Bleu3 = "bleu_3",
        Bleu4 = "bleu_4",
        RougeL = "rouge_l",
        Meteor = "meteor",
        Spice = "spice",
        Spider = "spider",
        BertScore = "bert_score",
        ClapScore = "clap_score",
        RecallAtK = "recall_at_k",
        MapAt10 = "map_at_10",
        JudgeMean = "judge_mean",
        PaHrMean = "pa_hr_mean",
    }
}

names! {
    /// How the items' values become one.
    pub enum Aggregation {
        /// Over all items alike.
        Micro = "micro",
        /// Over the means of the categories.
        Macro = "macro",
    }
}

names! {
    /// The form of the official files, by which an importer is chosen.
    pub enum Format {
        Af2Manifest = "af2_manifest",
        AirBench = "air_bench",
        AudioCapsCsv = "audiocaps_csv",
        AudioEntailmentCsv = "audio_entailment_csv",
        ClothoAqaCsv = "clotho_aqa_csv",
        ClothoCsv = "clotho_csv",
        CmmJsonl = "cmm_jsonl",
        CompaRJson = "compa_r_json",
        LabelCsv = "label_csv",
        LongAudioBench = "long_audio_bench",
        MedleySolosCsv = "medley_solos_csv",
        MmarJsonl = "mmar_jsonl",
        MmauJson = "mmau_json",
        MmauProParquet = "mmau_pro_parquet",
        MmsuParquet = "mmsu_parquet",
        MuchomusicCsv = "muchomusic_csv",
        MuchomusicJson = "muchomusic_json",
        MusicAvqaJson = "music_avqa_json",
        MusicInstructJson = "music_instruct_json",
        MusicQaJson = "musicqa_json",
        NsynthJson = "nsynth_json",
        OpenAqaJson = "openaqa_json",
    }
}

names! {
    /// How options stand in a prompt.
    pub enum Options {
        NoOptions = "none",
        /// `Question? (A) x. (B) y.`
        LetteredInline = "lettered_inline",
        /// `(A) x` and `(B) y`, a line each.
        LetteredLines = "lettered_lines",
        /// ` - x.`, a line each.
        DashedLines = "dashed_lines",
    }
}

names! {
    /// How well a fact is known.
    pub enum Mark {
        /// Read in the owner's own paper, code, data or page.
        Checked = "checked",
        /// Counted or calculated from the owner's files.
        Computed = "computed",
        /// Said by somebody else.
        ThirdParty = "third_party",
        /// Concluded from what is known.
        Inferred = "inferred",
        /// Said somewhere, looked up by nobody.
        Unverified = "unverified",
    }
}

names! {
    /// In what a benchmark's numbers are written.
    pub enum Unit {
        /// The metric, or a judge's mark over the highest one, times 100.
        Percent = "percent",
        /// The metric as it is.
        Plain = "plain",
    }
}

impl Mark {
    /// Whether the owner's own material stands behind it.
    pub fn is_sure(self) -> bool {
        matches!(self, Mark::Checked | Mark::Computed)
    }
}

impl Task {
    /// Whether embeddings are compared: no answer is written and none is read.
    pub(super) fn embeds(self) -> bool {
        matches!(self, Task::Retrieval | Task::ZeroShot)
    }
}

impl Metric {
    /// Whether it needs the ranks of a retrieval.
    pub(super) fn ranks(self) -> bool {
        matches!(self, Metric::RecallAtK | Metric::MapAt10)
    }
}
