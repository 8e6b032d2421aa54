//! Which line of a text a byte stands in.

/// Where the lines of a text begin.
#[derive(Clone, Debug)]
pub(in super::super) struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    /// Looks through the text once.
    pub(in super::super) fn of(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(starts).collect() }
    }

    /// The line, counted from 1, of the byte `at`.
    pub(in super::super) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let lines = Lines::of("a\nbc\n\nd");
        let found: Vec<usize> = (0..8).map(|at| lines.line(at)).collect();
        assert_eq!(found, [1, 1, 2, 2, 2, 3, 4, 4]);
        assert_eq!(Lines::of("").line(0), 1);
    }
}
