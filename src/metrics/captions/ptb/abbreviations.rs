//! Words that keep the period behind them.

/// When a period is part of the word before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Always; at the end of a sentence another period is put behind it.
    Final,
    /// Always, and never at a sentence's end.
    Title,
    /// Before a number.
    Number,
}

/// Any capitals.
const FINAL: &[&str] = &[
    "al", "ala", "apr", "ariz", "assn", "aug", "bancorp", "bhd", "bldg", "blvd", "bros", "calif", "co", "colo", "conn", "corp", "cos",
    "ct", "dak", "dec", "dept", "esq", "est", "etc", "ext", "feb", "fla", "fri", "ga", "inc", "ind", "intl", "jan", "jr", "jul", "jun",
    "kan", "kans", "ky", "ltd", "mar", "md", "mich", "minn", "mo", "mon", "mont", "neb", "nev", "nov", "oct", "okla", "penn", "plc", "rd",
    "rt", "sep", "sept", "seq", "sq", "sr", "sys", "tel", "tenn", "thu", "thurs", "tue", "tues", "univ", "va", "vt", "wed", "wis", "wisc",
    "wyo",
];

/// With a capital first letter.
const FINAL_CAPITAL: &[&str] = &["ark", "az", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash"];

const TITLE: &[&str] = &[
    "adj", "adm", "adv", "alex", "assoc", "asst", "atty", "attys", "ave", "brig", "capt", "cf", "cie", "cmdr", "col", "comdr", "cpl",
    "det", "dr", "drs", "elec", "ens", "ft", "gen", "gov", "govs", "hon", "insp", "invt", "jos", "lieut", "lt", "maj", "messrs", "mlle",
    "mme", "mr", "mrs", "ms", "msgr", "mt", "natl", "pfc", "ph", "pres", "prof", "profs", "pvt", "rep", "reps", "rev", "sen", "sens",
    "sfc", "sgt", "spc", "st", "ste", "supt", "supts", "treas", "vs", "wm",
];

const NUMBER: &[&str] = &["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"];

/// Of a word of ASCII letters, as it is written.
pub(super) fn keeps(word: &[char]) -> Option<Keeps> {
    let mut lower = [0; 8];
    let lower = lower.get_mut(..word.len())?;
    for (to, from) in lower.iter_mut().zip(word) {
        *to = from.to_ascii_lowercase() as u8;
    }
    let lower = std::str::from_utf8(lower).ok()?;
    let among = |list: &[&str]| list.binary_search(&lower).is_ok();
    let capital = word.first().is_some_and(char::is_ascii_uppercase);
    let rest_lower = |from: usize| word.iter().skip(from).all(char::is_ascii_lowercase);
    // Of two kinds of company and of two words more, all letters behind the first are small.
    let company = |w: &str| matches!(w, "pte" | "pty" | "ptes" | "ptys" | "ppte" | "ppty" | "pptes" | "pptys");
    if among(FINAL) || (capital && among(FINAL_CAPITAL)) || (company(lower) && small_vowel(word)) {
        Some(Keeps::Final)
    } else if among(TITLE) || (matches!(lower, "mfg" | "mtg") && rest_lower(1) ) {
        Some(Keeps::Title)
    } else if among(NUMBER) {
        Some(Keeps::Number)
    } else {
        None
    }
}

/// Whether what stands for the vowel of `Pty` and `Pte` is a small letter.
fn small_vowel(word: &[char]) -> bool {
    word.iter().any(|c| matches!(c, 'y' | 'e'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_order() {
        for list in [FINAL, FINAL_CAPITAL, TITLE, NUMBER] {
            assert!(list.is_sorted());
        }
    }
}
