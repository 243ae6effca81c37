//! A stage's texts before its first step: items from which nothing can be learned are told, and a digest of all shows later
//! whether they are still the same.

use crate::curriculum;
use crate::data::feed::{texts, Example};
use crate::error::{Error, Result};
use crate::recipe::{Recipe, StageRecipe};
use crate::text::tokenizer::Tokenizer;
use indexmap::IndexMap;
use rayon::prelude::*;

/// Items of a stage that are looked at: a larger stage is sampled evenly.
const MOST: usize = 10_000;
/// Items that a message names.
const SHOWN: usize = 5;

/// What was found.
pub(crate) struct Texts {
    /// Set → a digest of the prompts and answers that were looked at.
    pub digests: IndexMap<String, String>,
    stage: String,
    max_tokens: usize,
    items: usize,
    looked_at: usize,
    /// Items without a counted token, and how many tokens the shortest of them would need.
    cut: Vec<String>,
    needs: usize,
    /// Items whose answer is empty.
    empty: Vec<String>,
}

/// One item's.
struct Look {
    text: [u8; 32],
    name: String,
    /// Tokens that it has, where none of those that are kept counts.
    cut: Option<usize>,
    empty: bool,
}

impl Texts {
    /// Reads the texts of a stage.
    ///
    /// # Errors
    /// A manifest that cannot be opened. Items that cannot be read are found again when their batch comes.
    pub(crate) fn of(recipe: &Recipe, stage: &StageRecipe, tokenizer: &Tokenizer) -> Result<Self> {
        let (blend, root, most) = (
            curriculum::blend(recipe, stage, None)?,
            recipe.data_root(),
            recipe.data.max_tokens,
        );
        let items = blend.len();
        let mut all = Texts {
            digests: IndexMap::new(),
            stage: stage.name.clone(),
            max_tokens: most,
            items,
            looked_at: 0,
            cut: Vec::new(),
            needs: usize::MAX,
            empty: Vec::new(),
        };
        for (name, set) in stage.sets.keys().zip(&blend.sets) {
            let own = set.manifest.len();
            let wanted = match items <= MOST {
                true => own,
                false => (MOST * own / items).clamp(own.min(1), own),
            };
            let look = |i: usize| {
                let index = (i as u128 * own as u128 / wanted as u128) as usize;
                let example = Example::read(&set.manifest, index, &root, stage.windows).ok()?;
                look_at(example, tokenizer, most).ok()
            };
            let seen: Vec<Look> = (0..wanted).into_par_iter().filter_map(look).collect();
            let mut digest = blake3::Hasher::new();
            digest.update(&(own as u64).to_le_bytes());
            for item in seen {
                digest.update(&item.text);
                all.looked_at += 1;
                if let Some(tokens) = item.cut {
                    all.needs = all.needs.min(tokens);
                    all.cut.push(item.name);
                } else if item.empty {
                    all.empty.push(item.name);
                }
            }
            let digest = digest.finalize().to_hex()[..16].to_owned();
            all.digests.insert(name.clone(), digest);
        }
        Ok(all)
    }

    /// Says which items teach nothing.
    ///
    /// # Errors
    /// All of them are such.
    pub(crate) fn tell(&self) -> Result<()> {
        let of = match self.looked_at < self.items {
            true => format!(
                "{} of the {} items that were looked at",
                self.cut.len(),
                self.looked_at
            ),
            false => format!("{} of {} items", self.cut.len(), self.items),
        };
        let (stage, most) = (&self.stage, self.max_tokens);
        if !self.cut.is_empty() {
            let what = format!(
                "stages.{stage}: {of} have no counted token: data.max_tokens ({most}) cuts off their answers{}",
                named(&self.cut)
            );
            let hint = format!(
                "data.max_tokens={} would keep the shortest of them whole",
                self.needs
            );
            if self.cut.len() == self.items {
                return Err(Error::Training {
                    message: what,
                    hint: Some(hint),
                });
            }
            crate::say!("note: {what}\n  they teach nothing; {hint}");
        }
        if !self.empty.is_empty() {
            let n = self.empty.len();
            crate::say!(
                "note: stages.{stage}: {n} of {} items have an empty answer, from which the model learns to say nothing{}",
                self.looked_at,
                named(&self.empty)
            );
        }
        Ok(())
    }
}

fn look_at(example: Example, tokenizer: &Tokenizer, most: usize) -> Result<Look> {
    let item = &example.item;
    let text = blake3::hash(format!("{}\0{}\0{}", item.key, item.prompt, item.output).as_bytes());
    let name = format!(
        "{} (item {}: {:.60})",
        example.clip.path().display(),
        item.key,
        item.prompt
    );
    let empty = crate::text::prompt::clean(&item.output).is_empty();
    let one = [example];
    // The first token of a text is predicted by none.
    let counts = |most| -> Result<(usize, bool)> {
        let made = texts(&one, tokenizer, most)?;
        Ok((made.labels.len(), made.labels.iter().skip(1).any(|l| *l >= 0)))
    };
    let cut = match counts(most)? {
        (_, true) => None,
        (_, false) => Some(counts(usize::MAX)?.0),
    };
    Ok(Look {
        text: text.into(),
        name,
        cut,
        empty,
    })
}

fn named(items: &[String]) -> String {
    let shown: Vec<String> = items.iter().take(SHOWN).map(|i| format!("\n  {i}")).collect();
    let more = match items.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!("\n  and {n} more"),
    };
    format!(":{}{more}", shown.concat())
}
