//! Ways to ask an item that show what hearing adds: the same question without its sound, with another one, or otherwise worded.

use crate::error::{Error, Result};
use std::fmt;

/// Most seconds of a fragment, and most rotations of an item's options.
const MOST: u32 = 1_000_000;
const MOST_ROTATIONS: u32 = 25;

/// In which way an item is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Control {
    /// As it is: with its clip, in its own words.
    None,
    /// With as many windows of silence.
    Silence,
    /// With white noise as long and as loud as the clip.
    Noise,
    /// With the clip of another item of the same benchmark, whose sound is another.
    OtherClip,
    /// With the clip's first seconds alone, so many.
    Fragment(u32),
    /// With the item's options rotated by so many places, from 1.
    Permute(u32),
    /// With the next paraphrase of the card's pool.
    Rephrase,
    /// Without the audio branch: every cross-attention block is passed over, and the LM answers alone.
    TextOnly,
    /// As it is, but the likeliest of its options is the answer, in the place of the model's own words.
    Likelihood,
}

impl Control {
    /// Whether the sound that is asked about is not the item's whole own one.
    pub fn deprives(self) -> bool {
        !matches!(
            self,
            Control::None | Control::Permute(_) | Control::Rephrase | Control::Likelihood
        )
    }

    /// Those that `text` names, as on the command line: names with commas between them; `permute:K` is K rotations. The plain way
    /// comes first, whether it is named or not.
    ///
    /// # Errors
    /// A name that is none of them, with those that there are.
    pub fn list(text: &str) -> Result<Vec<Self>> {
        let mut all = vec![Control::None];
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let one = |control: Control| Ok(vec![control]);
            let (name, number) = word.split_once(':').map_or((word, None), |(n, k)| (n, Some(k)));
            let count = |most: u32| {
                let n = number.and_then(|k| k.parse().ok());
                n.filter(|n| (1..=most).contains(n)).ok_or_else(|| {
                    Error::usage(format!(
                        "--control {name}: expected {name}:K with a whole number from 1 to {most}, found `{word}`"
                    ))
                })
            };
            let more = match (name, number) {
                ("none", None) => one(Control::None),
                ("silence", None) => one(Control::Silence),
                ("noise", None) => one(Control::Noise),
                ("other_clip", None) => one(Control::OtherClip),
                ("rephrase", None) => one(Control::Rephrase),
                ("text_only", None) => one(Control::TextOnly),
                ("likelihood", None) => one(Control::Likelihood),
                ("fragment", _) => one(Control::Fragment(count(MOST)?)),
                ("permute", _) => Ok((1..=count(MOST_ROTATIONS)?).map(Control::Permute).collect()),
                _ => Err(Error::usage(format!(
                    "--control: expected none, silence, noise, other_clip, fragment:SECONDS, permute:ROTATIONS, rephrase, \
                     text_only or likelihood, found `{word}`"
                ))),
            };
            for control in more? {
                if !all.contains(&control) {
                    all.push(control);
                }
            }
        }
        Ok(all)
    }

    /// As it stands in predictions and results: [`fmt::Display`] the other way round.
    pub fn named(name: &str) -> Option<Self> {
        let number = |k: &str| k.parse().ok().filter(|n| *n > 0);
        match name.split_once(':') {
            Some(("fragment", k)) => number(k).map(Control::Fragment),
            Some(("permute", k)) => number(k).map(Control::Permute),
            Some(_) => None,
            None => Control::list(name)
                .ok()?
                .last()
                .copied()
                .filter(|c| c.to_string() == name),
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Control::None => f.write_str("none"),
            Control::Silence => f.write_str("silence"),
            Control::Noise => f.write_str("noise"),
            Control::OtherClip => f.write_str("other_clip"),
            Control::Fragment(seconds) => write!(f, "fragment:{seconds}"),
            Control::Permute(places) => write!(f, "permute:{places}"),
            Control::Rephrase => f.write_str("rephrase"),
            Control::TextOnly => f.write_str("text_only"),
            Control::Likelihood => f.write_str("likelihood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let all = Control::list(
            "silence, permute:2,fragment:5,none,text_only,noise,other_clip,rephrase,likelihood,silence",
        )
        .unwrap();
        use Control::*;
        let expected = [
            None,
            Silence,
            Permute(1),
            Permute(2),
            Fragment(5),
            TextOnly,
            Noise,
            OtherClip,
            Rephrase,
            Likelihood,
        ];
        assert_eq!(all, expected);
        for control in all {
            assert_eq!(Control::named(&control.to_string()), Some(control));
        }
        assert_eq!(Control::list("").unwrap(), [None]);
        for name in ["", "permute:0", "permute", "quiet", "silence:3", "none,silence"] {
            assert_eq!(Control::named(name), Option::None, "{name}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_what_there_is() {
        let e = Control::list("silent").unwrap_err().to_string();
        assert!(e.contains("found `silent`") && e.contains("other_clip"), "{e}");
        for word in [
            "permute",
            "permute:0",
            "permute:26",
            "permute:x",
            "fragment:-1",
            "silence:2",
        ] {
            let e = Control::list(word).unwrap_err();
            assert_eq!(e.exit_code(), 2, "{e}");
            assert!(e.to_string().contains(&format!("`{word}`")), "{e}");
        }
    }
}
