//! Reads a [`Grammar`] from the notation of `words.txt` and `plots.txt`, which both open with its description.
//!
//! The files are part of the program, so an error here is a mistake of who edits them; a test reads them.

use std::num::NonZero;

use super::grammar::{Alternative, Grammar, List, Piece};
use super::world::Name;

/// What is read, or what is wrong with it.
pub type Result<T> = std::result::Result<T, String>;

/// Reads the words and the rules. The error names the offending line or name.
pub fn read(words: &str, plots: &str) -> Result<Grammar> {
    let mut grammar = Grammar::default();
    read_words(words, &mut grammar)?;
    let rules = read_rules(plots)?;
    for (number, (name, _)) in rules.iter().enumerate() {
        if grammar.names.insert((*name).to_owned(), Name::Rule(number)).is_some() {
            return Err(format!("`{name}` is defined twice"));
        }
    }
    for (number, (_, alternatives)) in rules.iter().enumerate() {
        let read = alternatives.iter().map(|text| read_alternative(text, number, &grammar));
        let read = read.collect::<Result<_>>()?;
        grammar.rules.push(read);
    }
    Ok(grammar)
}

/// Lines that say something.
pub fn lines(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

fn read_words(source: &str, grammar: &mut Grammar) -> Result<()> {
    for line in lines(source) {
        if line.starts_with(' ') {
            let list = grammar.lists.last_mut().ok_or("the first words belong to no list")?;
            let (words, shared) = line.split_once('|').unwrap_or((line, ""));
            for word in words.split(';') {
                list.words.push(word_forms(word.trim(), shared.trim(), list.forms.len())?);
            }
            continue;
        }
        let (slots, forms) = line.split_once('(').unwrap_or((line, ""));
        for slot in slots.split_whitespace() {
            grammar.names.insert(slot.to_owned(), Name::Slot(grammar.slots.len()));
            grammar.slots.push(grammar.lists.len());
        }
        let forms = ["", "a"].into_iter().chain(forms.trim_end_matches(')').split_whitespace());
        let forms: Vec<String> = forms.map(str::to_owned).collect();
        let capital = forms.iter().map(|form| capitalised(form)).skip(1).collect::<Vec<_>>();
        grammar.lists.push(List { forms: [forms, capital].concat(), words: Vec::new() });
    }
    Ok(())
}

/// All forms of a word: plain, `a`, those written behind it, those it shares, and all but the first with a capital.
fn word_forms(word: &str, shared: &str, count: usize) -> Result<Vec<String>> {
    let mut written = word.split('/').chain(shared.split('/')).filter(|form| !form.is_empty());
    let plain = written.next().unwrap_or_default();
    let article = if plain.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    let mut forms = vec![plain.to_owned(), format!("{article} {plain}")];
    forms.extend(written.map(str::to_owned));
    forms.extend(forms[1..].iter().map(|form| capitalised(form)).collect::<Vec<_>>());
    if forms.len() != count {
        return Err(format!("`{word}` has {} forms, its list {count}", forms.len()));
    }
    Ok(forms)
}

/// The word with a capital.
pub fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Each rule's name and alternatives, as they are written, on one line each.
fn read_rules(source: &str) -> Result<Vec<(&str, Vec<String>)>> {
    let mut rules: Vec<(&str, Vec<String>)> = Vec::new();
    for line in lines(source) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            rules.push((name, Vec::new()));
            continue;
        }
        let (_, alternatives) = rules.last_mut().ok_or_else(|| format!("belongs to no rule: {line}"))?;
        if !line.starts_with(' ') {
            alternatives.push(line.to_owned());
        } else if let Some(text) = alternatives.last_mut() {
            text.push(' ');
            text.push_str(line.trim());
        } else {
            return Err(format!("continues nothing: {line}"));
        }
    }
    Ok(rules)
}

fn read_alternative(line: &str, rule: usize, grammar: &Grammar) -> Result<Alternative> {
    let (weight, text) = line.split_once(' ').ok_or_else(|| format!("not a weight and a text: {line}"))?;
    let weight: NonZero<u32> = weight.parse().map_err(|_| format!("`{weight}` is not a weight: {line}"))?;
    let pieces = read_pieces(text, grammar)?;
    if pieces.iter().any(|piece| matches!(piece, Piece::Rule(called) if *called <= rule)) {
        return Err(format!("a rule must stand below the one that calls it: {line}"));
    }
    Ok(Alternative { weight: weight.get(), pieces })
}

/// Reads a text in which `{...}` names slots and rules.
pub fn read_pieces(line: &str, grammar: &Grammar) -> Result<Vec<Piece>> {
    let mut text = line;
    let mut pieces = Vec::new();
    while let Some((before, rest)) = text.split_once('{') {
        let (name, after) = rest.split_once('}').ok_or_else(|| format!("a brace is not closed: {line}"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(read_name(name, grammar)?);
        text = after;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(pieces)
}

/// Finds what stands between braces.
fn read_name(text: &str, grammar: &Grammar) -> Result<Piece> {
    let (name, form) = text.split_once('.').unwrap_or((text, ""));
    match grammar.names.get(name) {
        Some(&Name::Slot(slot)) => {
            let forms = &grammar.lists[grammar.slots[slot]].forms;
            let form = forms.iter().position(|known| known == form).ok_or_else(|| format!("no form `{text}`"))?;
            Ok(Piece::Slot { slot, form })
        }
        Some(&Name::Rule(called)) if form.is_empty() => Ok(Piece::Rule(called)),
        _ => Err(format!("`{text}` is neither a slot nor a rule")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "# pets\npet other (many)\n  owl/owls; cat/cats\nname (he)\n  Ann | she\n";

    fn slot(slot: usize, form: usize) -> Piece {
        Piece::Slot { slot, form }
    }

    #[test]
    fn words_have_their_forms() {
        let grammar = read(WORDS, "[tale]\n1 x\n").unwrap();
        assert_eq!(grammar.slots, [0, 0, 1]);
        assert_eq!(grammar.lists[0].forms, ["", "a", "many", "A", "Many"]);
        assert_eq!(grammar.lists[0].words[0], ["owl", "an owl", "owls", "An owl", "Owls"]);
        assert_eq!(grammar.lists[1].words, [["Ann", "a Ann", "she", "A Ann", "She"]]);
    }

    #[test]
    fn alternatives_fall_into_pieces() {
        let grammar = read(WORDS, "[tale]\n2 Is {other.A}\n  {end}\n1 {name.He} is\n[end]\n1 ill.\n").unwrap();
        let [first, second] = &grammar.rules[0][..] else { panic!("two alternatives") };
        let expected = [Piece::Text("Is ".into()), slot(1, 3), Piece::Text(" ".into()), Piece::Rule(1)];
        assert_eq!((first.weight, &first.pieces[..]), (2, &expected[..]));
        assert_eq!(second.pieces, [slot(2, 4), Piece::Text(" is".into())]);
    }

    #[test]
    fn mistakes_are_named() {
        for (words, plots, message) in [
            (WORDS, "[tale]\n1 {dog}", "`dog` is neither"),
            (WORDS, "[tale]\n1 {pet.him}", "no form `pet.him`"),
            (WORDS, "[tale]\n1 {tale}", "must stand below the one that calls it: 1 {tale}"),
            (WORDS, "[tale]\n1 {pet", "not closed"),
            (WORDS, "[tale]\nx {pet}", "`x` is not a weight"),
            (WORDS, "[tale]\n0 {pet}", "`0` is not a weight"),
            (WORDS, "[pet]\n1 x", "`pet` is defined twice"),
            (WORDS, "1 x", "no rule"),
            ("pet\n  cat/cats", "[tale]\n1 x", "`cat/cats` has 5 forms, its list 3"),
        ] {
            let error = read(words, plots).err().unwrap();
            assert!(error.contains(message), "{error}");
        }
    }
}
