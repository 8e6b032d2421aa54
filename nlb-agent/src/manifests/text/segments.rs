//! Where the documents of a text begin and end, by its `---` and `...` lines alone: a bad document ends where they say.

use std::ops::Range;

/// The bytes of one document, or of several in JSON or without marks between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Segment {
    /// From the line of its `---` (and the directives above that) to the next mark.
    pub(in super::super) range: Range<usize>,
    /// Where the document itself begins, if the line of the `---` says nothing else.
    pub(in super::super) content: usize,
    /// True if a whole line, `---` or `...`, says that it ends here.
    pub(in super::super) ended: bool,
}

/// Everything in the text that is a document, in order. What stands before the first `---` and after a `...` is one only if
/// it says something.
pub(in super::super) fn segments(text: &str) -> Vec<Segment> {
    let mut all = Vec::new();
    let mut open = Open::default();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        match Mark::of(line) {
            Some(Mark::Begin { bare }) => {
                // Directives belong to the document that they stand above.
                if open.is_document() {
                    all.push(open.close(at, true));
                    open = Open { from: at, ..Open::default() };
                }
                open.marked = true;
                open.content = if bare { end } else { open.from };
                open.says |= !bare;
            }
            Some(Mark::End) if line.ends_with('\n') || end == text.len() => {
                if open.is_document() {
                    all.push(open.close(at, line.ends_with('\n')));
                }
                open = Open { from: end, content: end, ..Open::default() };
            }
            Some(Mark::End) | None => open.says |= says(line),
        }
        at = end;
    }
    if open.is_document() {
        all.push(open.close(text.len(), false));
    }
    all
}

/// The document that is being read.
#[derive(Default)]
struct Open {
    from: usize,
    content: usize,
    marked: bool,
    says: bool,
}

impl Open {
    fn is_document(&self) -> bool {
        self.marked || self.says
    }

    fn close(&self, end: usize, ended: bool) -> Segment {
        Segment { range: self.from..end, content: self.content, ended }
    }
}

/// A line that separates documents.
enum Mark {
    /// `---`; bare if nothing but a comment follows on the line.
    Begin { bare: bool },
    /// `...`
    End,
}

impl Mark {
    fn of(line: &str) -> Option<Self> {
        let rest = |mark: &str| {
            let rest = line.strip_prefix(mark)?;
            (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim_start())
        };
        if let Some(rest) = rest("---") {
            return Some(Self::Begin { bare: rest.is_empty() || rest.starts_with('#') });
        }
        rest("...").map(|_| Self::End)
    }
}

/// Whether a line is more than space, a comment or a directive.
fn says(line: &str) -> bool {
    let words = line.trim();
    !words.is_empty() && !words.starts_with('#') && !line.starts_with('%')
}

/// Whether the text holds no document at all: nothing, or only space, comments and marks.
pub(in super::super) fn is_void(text: &str) -> bool {
    text.lines().all(|line| match Mark::of(line) {
        Some(Mark::Begin { bare }) => bare,
        Some(Mark::End) => true,
        None => !says(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<(&str, bool)> {
        segments(text).into_iter().map(|it| (&text[it.range], it.ended)).collect()
    }

    #[test]
    fn marks_end_documents() {
        assert_eq!(pieces("a: 1\n---\nb: 2\n"), [("a: 1\n", true), ("---\nb: 2\n", false)]);
        assert_eq!(pieces("# x\n---\na: 1\n...\n"), [("# x\n---\na: 1\n", true)]);
        assert_eq!(pieces("a: 1\n...\n# x\n"), [("a: 1\n", true)]);
        assert_eq!(pieces("a: 1\n...\nb: 1"), [("a: 1\n", true), ("b: 1", false)]);
        assert_eq!(pieces("---\r\na: 1\r\n---\r\n"), [("---\r\na: 1\r\n", true), ("---\r\n", false)]);
        assert_eq!(pieces("%TAG ! x\n---\na\n"), [("%TAG ! x\n---\na\n", false)]);
        assert_eq!(pieces("--- {a: 1}\n--- |\n x\n"), [("--- {a: 1}\n", true), ("--- |\n x\n", false)]);
        assert_eq!(pieces("a: 1\n---x: 2\n ---\n"), [("a: 1\n---x: 2\n ---\n", false)]);
        assert_eq!(pieces("# nothing\n\n"), []);
    }

    #[test]
    fn a_mark_without_the_end_of_its_line_may_go_on() {
        assert_eq!(pieces("a: 1\n..."), [("a: 1\n", false)]);
    }

    #[test]
    fn void_is_what_says_nothing() {
        for text in ["", " \n\t\n", "# all gone\n", "---\n", "--- # x\n...\n---\n", "\r\n"] {
            assert!(is_void(text), "{text:?}");
        }
        for text in ["{}", "a: 1", "--- {a: 1}\n", "null", "\n  x\n"] {
            assert!(!is_void(text), "{text:?}");
        }
    }
}
