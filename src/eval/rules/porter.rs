//! Porter's stemmer as NLTK has it (`PorterStemmer()`, its extensions on), which rouge_score and NLTK's METEOR use.

/// Words that are not stemmed by rule.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// (suffix, what takes its place)
type Rule = (&'static str, &'static str);

const STEP2: [Rule; 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];
const STEP3: [Rule; 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];
const STEP4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word in lower case.
pub(super) fn stem(word: &str) -> String {
    let word = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(own, _)| *own == word) {
        return (*stem).to_owned();
    }
    if word.chars().count() <= 2 {
        return word;
    }
    let mut w: Vec<char> = word.chars().collect();
    step1a(&mut w);
    step1b(&mut w);
    step1c(&mut w);
    step2(&mut w);
    replace_first(&mut w, &STEP3, |stem| measure(stem) > 0);
    step4(&mut w);
    step5(&mut w);
    w.into_iter().collect()
}

fn ends(word: &[char], suffix: &str) -> bool {
    let n = suffix.len();
    word.len() >= n && word[word.len() - n..].iter().copied().eq(suffix.chars())
}

fn without<'a>(word: &'a [char], suffix: &str) -> &'a [char] {
    &word[..word.len() - suffix.len()]
}

fn swap(word: &mut Vec<char>, suffix: &str, by: &str) {
    word.truncate(word.len() - suffix.len());
    word.extend(by.chars());
}

/// Takes the first rule whose suffix fits; where its condition does not hold, no other is tried.
fn replace_first(word: &mut Vec<char>, rules: &[Rule], holds: impl Fn(&[char]) -> bool) -> bool {
    let Some((suffix, by)) = rules.iter().find(|(suffix, _)| ends(word, suffix)) else {
        return false;
    };
    if holds(without(word, suffix)) {
        swap(word, suffix, by);
    }
    true
}

/// Which letters are consonants: all but a, e, i, o, u, and y behind one.
fn consonants(word: &[char]) -> impl Iterator<Item = bool> + '_ {
    let mut before = None;
    word.iter().map(move |c| {
        let consonant = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => before != Some(true),
            _ => true,
        };
        before = Some(consonant);
        consonant
    })
}

/// How many times a vowel is followed by a consonant.
fn measure(stem: &[char]) -> usize {
    let mut vowel = false;
    let mut m = 0;
    for consonant in consonants(stem) {
        m += usize::from(vowel && consonant);
        vowel = !consonant;
    }
    m
}

fn has_vowel(stem: &[char]) -> bool {
    consonants(stem).any(|c| !c)
}

fn is_consonant_at_end(word: &[char]) -> bool {
    consonants(word).last() == Some(true)
}

fn ends_double_consonant(word: &[char]) -> bool {
    word.len() >= 2 && word[word.len() - 1] == word[word.len() - 2] && is_consonant_at_end(word)
}

/// Ends consonant, vowel, consonant other than w, x, y; or is vowel, consonant.
fn ends_cvc(word: &[char]) -> bool {
    let kinds: Vec<bool> = consonants(word).collect();
    match kinds[..] {
        [.., true, false, true] => !matches!(word[word.len() - 1], 'w' | 'x' | 'y'),
        [false, true] => true,
        _ => false,
    }
}

fn step1a(word: &mut Vec<char>) {
    if ends(word, "ies") && word.len() == 4 {
        return swap(word, "ies", "ie");
    }
    let rules = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];
    replace_first(word, &rules, |_| true);
}

fn step1b(word: &mut Vec<char>) {
    if ends(word, "ied") {
        let by = if word.len() == 4 { "ie" } else { "i" };
        return swap(word, "ied", by);
    }
    if ends(word, "eed") {
        if measure(without(word, "eed")) > 0 {
            swap(word, "eed", "ee");
        }
        return;
    }
    let cut = ["ed", "ing"]
        .into_iter()
        .find(|s| ends(word, s) && has_vowel(without(word, s)));
    let Some(suffix) = cut else { return };
    swap(word, suffix, "");
    if replace_first(word, &[("at", "ate"), ("bl", "ble"), ("iz", "ize")], |_| true) {
        return;
    }
    if ends_double_consonant(word) {
        if !matches!(word[word.len() - 1], 'l' | 's' | 'z') {
            word.pop();
        }
    } else if measure(word) == 1 && ends_cvc(word) {
        word.push('e');
    }
}

fn step1c(word: &mut Vec<char>) {
    if ends(word, "y") {
        let stem = without(word, "y");
        if stem.len() > 1 && is_consonant_at_end(stem) {
            swap(word, "y", "i");
        }
    }
}

fn step2(word: &mut Vec<char>) {
    while ends(word, "alli") && measure(without(word, "alli")) > 0 {
        swap(word, "alli", "al");
    }
    if !replace_first(word, &STEP2, |stem| measure(stem) > 0)
        && ends(word, "logi")
        && measure(&word[..word.len() - 3]) > 0
    {
        swap(word, "logi", "log");
    }
}

fn step4(word: &mut Vec<char>) {
    let Some(suffix) = STEP4.iter().find(|s| ends(word, s)) else {
        return;
    };
    let stem = without(word, suffix);
    let fits = *suffix != "ion" || matches!(stem.last(), Some('s' | 't'));
    if measure(stem) > 1 && fits {
        swap(word, suffix, "");
    }
}

fn step5(word: &mut Vec<char>) {
    if ends(word, "e") {
        let stem = without(word, "e");
        let m = measure(stem);
        if m > 1 || (m == 1 && !ends_cvc(stem)) {
            swap(word, "e", "");
        }
    }
    if ends(word, "ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
}
